"""A method's life on a device: trained, saved, loaded, asked on two backbones; what it is on the CPU beside it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from unittest import mock

import open_clip
import torch
from stand_in_cuda import Ledger, plain_kernels, stand_in_cuda
from tiny_fits import make, make_support, pixels_of, short, support_for, views_of
from tiny_towers import DIM, NAMES, TEMPLATES, WIDTH, tiny_pair

from carryover.bench.backbones import archs, loading
from carryover.bench.backbones.text_pass import Pass
from carryover.bench.engine import evaluator
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.training.trainer import fit_together
from carryover.methods.base import METHODS, Classes

CLASSES = Classes("toy", NAMES, TEMPLATES)
EPOCHS, ROWS = 3, 8  # of three steps each; test images at a time, of 24
REACHED = {"coarse": (1.0, 1e-2), "max_iter": 1000}  # of a solver that has an optimum to reach, on each device its way
BOUNDS = {"fp32": 1e-4, "bf16": 2e-2}


@contextlib.contextmanager
def on(device, precision="fp32"):
    """The ledger of a stand-in for "cuda"; for "cpu" None, and the attention that is compared with, in bf16 with the
    layout that a device has: there attention sums in another order than on a CPU."""
    laid_out = mock.patch.object(Pass, "binned", property(lambda self: True))
    with laid_out if device == "cpu" and precision == "bf16" else contextlib.nullcontext():
        with stand_in_cuda() if device == "cuda" else plain_kernels() as ledger:
            yield ledger


def towers(device, precision="fp32"):
    """Wrapped tiny towers, the base and its update."""
    tokenizer, wrapped = open_clip.get_tokenizer("ViT-B-32"), []
    for model, name, activation in zip(tiny_pair(), ("tiny-base", "tiny-new"), ("quick_gelu", "gelu"), strict=True):
        tower = archs.Tower(name, "", activation, WIDTH, DIM)
        wrapped.append(loading.Backbone(model.to(device), tower, tokenizer, precision=precision))
    return wrapped


def sent(support, device):
    """A support set on the device, with what a published protocol may select on."""
    names = ("features", "labels", "views", "val_features", "val_labels")
    there = replace(support, **{name: getattr(support, name).to(device) for name in names})
    chosen = there.val_features, there.val_labels
    return replace(there, leak={"test": chosen, "selection": chosen})


def test_inputs(method, device):
    """What ``predict`` is given of 24 images."""
    if method.needs == "pixels":
        return pixels_of(make_support().labels, seed=1).to(device)
    if method.needs == "views":
        return views_of(make_support(), method.test_views(method.config)[0]).to(device)
    return make_support(seed=1).features.to(device)


test_inputs.__test__ = False


@dataclass
class Life:
    """learned    of each of the runs that were trained side by side
    answers    by backbone: predicted and confidence
    epochs     waits of the host in each epoch
    batches    waits from one batch of predictions to the next, by backbone
    others     of the fit, those that belong to no epoch
    """

    learned: list[dict[str, torch.Tensor]] = field(default_factory=list)
    answers: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    batches: dict[str, list[int]] = field(default_factory=dict)
    others: int = 0


def lived(name, device, precision, folder, monkeypatch, ledger: Ledger | None = None) -> Life:
    kind, life = METHODS[name], Life()
    base, new = towers(device, precision)
    changes = {"epochs": min(EPOCHS, short(name).epochs), **REACHED}
    methods = [make(name, seed=seed, **changes).to(device) for seed in (0, 1)]
    if kind.alike(methods[0].config) is None:
        methods = methods[:1]
    supports = [sent(support_for(kind.needs), device)] * len(methods)
    draws = [torch.Generator().manual_seed(seed) for seed in range(len(methods))]
    monkeypatch.setattr(evaluator, "ROWS", ROWS)
    for method in methods:
        method.bind(base, CLASSES)
        method.train()
    with methods[0].attach(base), marked(kind, "end_epoch", ledger) as marks:
        begun = syncs(ledger)
        curves = fit_together(methods, supports, draws)
        spent = syncs(ledger) - begun
    life.epochs = between([begun, *marks], len(curves[0]))
    life.others = spent - sum(life.epochs)
    for number, method in enumerate(methods):
        write_tensors(folder / f"{number}.safetensors", method.learned(), {"method": name})
        life.learned.append(read_tensors(folder / f"{number}.safetensors")[0])
    carried = make(name, seed=5, **changes).to(device)
    carried.load_learned(life.learned[0])
    carried.home = methods[0].home
    x = test_inputs(carried, device)
    for backbone in (base, new):
        with marked(kind, "predict", ledger) as marks:
            life.answers[backbone.label] = evaluator.predict(carried, backbone, CLASSES, x)[0]
        life.batches[backbone.label] = between([*marks, syncs(ledger)], len(marks))
    return life


def syncs(ledger: Ledger | None) -> int:
    return ledger.syncs if ledger else 0


@contextlib.contextmanager
def marked(kind, name, ledger):
    """Within, a list of how many waits there were at each call of that function of a method's."""
    marks, own = [], getattr(kind, name)

    def calls(self, given):
        marks.append(syncs(ledger))
        return own(self, given)

    with_own = name in vars(kind)
    setattr(kind, name, calls)
    try:
        yield marks
    finally:
        if with_own:
            setattr(kind, name, own)
        else:
            delattr(kind, name)


def between(marks: list[int], parts: int) -> list[int]:
    """Differences from part to part; where several calls end a part, of the last."""
    each = (len(marks) - 1) // max(1, parts)
    ends = marks[:: max(1, each)]
    return [after - before for before, after in zip(ends, ends[1:], strict=False)] if parts else []
