"""A plug-in file without a training run."""

from __future__ import annotations

import torch
from tiny_fits import make

from carryover.bench.engine.plugin_header import header_of
from carryover.bench.engine.run_store import RunStore
from carryover.bench.plan.runs import Run


def plugin_file(folder, backbone, classes, name="linear-probe"):
    """A plug-in as a run writes it, with numbers of no meaning in place of learned ones."""
    method = make(name, classes.names, width=backbone.width, dim=backbone.dim)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for value in method.parameters():
            value.add_(0.3 * torch.randn_like(value))
    run = Run("tiny", classes.dataset, name, 1, 4, "published", "fp32", 2, None, method.config)
    store = RunStore(folder, "tiny")
    if len(method.candidates()) > 1:
        method.choose(method.candidates()[0])
    store.write_plugin("k" * 16, method.learned(), header_of(run, method, [backbone]))
    return store.path("plugins", "k" * 16)
