"""Plug-ins put back together from what was saved of them, and asked about test images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from carryover.bench.engine.evaluator import Sample, depends_on_company, predict
from carryover.bench.engine.session import Session
from carryover.bench.errors import Unfit, UserError
from carryover.bench.plan.runs import Run
from carryover.bench.seeds import derive
from carryover.datasets.withheld import no_labels
from carryover.methods.base import METHODS, Classes, Method, Shape


def make(session: Session, run: Run, shape: Shape, learned: dict[str, Tensor] | None = None) -> Method:
    """A method with its initial values, which depend on (dataset, method, seed) alone, or with saved tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("init", run.dataset, run.method, run.seed))
        with no_labels():
            made = METHODS[run.method](run.training, shape).to(session.backbone("base").device)
            if learned is not None:
                made.load_learned(learned)
            return made


def loaded(session: Session, run: Run, shape: Shape, plugin: str) -> Method:
    """A fresh method with what the plug-in of that key holds: only what was saved may travel."""
    tensors, header = session.store.read_plugin(plugin)
    method = make(session, run, shape, tensors)
    method.choose(header.get("chosen", {}))
    return method


def plugin_of(session: Session, run: Run) -> str:
    """The key of a run whose plug-in another one needs. Raises UserError where it left none."""
    plugin = session.keys.of(run)
    if not session.store.path("plugins", plugin).is_file():
        raise UserError(f"its training run ({run}, {plugin}) left no plug-in: it failed or is not done yet")
    return plugin


def tested_classes(session: Session, run: Run) -> Classes:
    tested = session.tested(run)
    return Classes(tested.id, tested.classnames, tested.templates)


def predicted(
    session: Session, run: Run, fresh: Callable[[], Method], inputs: dict[str, Any], spent: dict[str, float]
) -> tuple[dict[str, dict[str, Tensor]], list[str], dict[str, str]]:
    """By role what ``predict`` gives of the plug-in on that backbone, with its test images ``inputs`` as ``read_tests``
    left them; the marks of answers that depend on other images; and, of targets without a place for it, why. ``fresh``
    gives the plug-in as it was saved; ``spent`` is told the seconds of the predictions."""
    carried = fresh()
    classes = tested_classes(session, run)
    outcomes: dict[str, dict[str, Tensor]] = {}
    samples: dict[str, Sample] = {}
    refused: dict[str, str] = {}
    for role, given in inputs.items():
        start = time.perf_counter()
        try:
            outcomes[role], samples[role] = predict(carried, session.backbone(role), classes, given)
        except Unfit as error:
            if role in run.path:
                raise
            refused[role] = f"{session.backbone(role).label}: {error}"
            continue
        spent[role] = time.perf_counter() - start
    asked = {} if carried.transductive else samples
    marks = [depends_on_company(fresh, session.backbone(role), classes, one) for role, one in asked.items()]
    return outcomes, [mark for mark in dict.fromkeys(marks) if mark], refused
