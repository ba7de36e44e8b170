"""Steps that are recorded and replayed as CUDA graphs, on the stand-in: the numbers of those that are not."""

import logging
from dataclasses import replace

import pytest
import torch
from device_lives import CLASSES, between, marked, on, sent, syncs, towers
from tiny_fits import make, make_support, short

from carryover.bench.training import resident
from carryover.bench.training.trainer import fit_together
from carryover.methods import discover
from carryover.methods.base import METHODS
from carryover.methods.catalogue import trained_here
from carryover.methods.coop import CoOp

EPOCHS = 4
discover()
ON_FEATURES = [id for id in METHODS if METHODS[id].needs == "features" and trained_here(id)]
TRAINED = [id for id in ON_FEATURES if short(id).epochs and id != "linear-probe"]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Fits as short as these are recorded, and what was told once is told again."""
    monkeypatch.setattr(resident, "WORTH", 4)
    monkeypatch.setattr(resident, "_told", set())
    monkeypatch.setattr(resident, "_allowed", True)


def fitted(name, graphs=True, runs=2, kind=None, **changes):
    """What is learned by runs side by side, their curves, the waits in each epoch, and how many steps were replayed."""
    with on("cuda") as ledger:
        resident.allow_graphs(graphs)
        base, kind = towers("cuda")[0], kind or METHODS[name]
        methods = [make(name, seed=seed, **{"epochs": EPOCHS, **changes}).to("cuda") for seed in range(runs)]
        for method in methods:
            method.__class__ = kind
        if kind.alike(methods[0].config) is None:
            methods = methods[:1]
        supports = [sent(make_support(), "cuda")] * len(methods)
        for method in methods:
            method.bind(base, CLASSES)
        with marked(kind, "end_epoch", ledger) as marks:
            begun = syncs(ledger)
            curves = fit_together(
                methods, supports, [torch.Generator().manual_seed(seed) for seed in (0, 1)][: len(methods)]
            )
        assert torch.cuda.current_stream() is torch.cuda.default_stream()
        waits = between([begun, *marks], len(curves[0]))
        return [method.learned() for method in methods], curves, waits, ledger.count("replay")


@pytest.mark.parametrize("name", TRAINED)
def test_replayed_steps_learn_what_steps_that_are_not_do(name):
    found, curves, waits, replays = fitted(name)
    expected, own, _, none = fitted(name, graphs=False)
    assert replays >= 4 and none == 0
    assert curves == own
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert all(wait <= 1 for wait in waits[1:])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_each_optimizer_steps_as_on_a_cpu(optimizer):
    found, curves, *_ = fitted("coop", optimizer=optimizer, lr=0.01)
    resident.allow_graphs(False)
    with on("cpu"):
        base = towers("cpu")[0]
        methods = [make("coop", seed=seed, epochs=EPOCHS, optimizer=optimizer, lr=0.01) for seed in (0, 1)]
        for method in methods:
            method.bind(base, CLASSES)
        own = fit_together(methods, [make_support()] * 2, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    for one, method in zip(found, methods, strict=True):
        torch.testing.assert_close(one, method.learned(), rtol=1e-4, atol=1e-5)
    assert [[row["lr"] for row in curve] for curve in curves] == [[row["lr"] for row in curve] for curve in own]


def test_an_epochs_smaller_last_batch_is_recorded_by_itself():
    changes = {"batch": 16, "drop_last": False}  # 24 images: 16 and 8
    found, curves, _, replays = fitted("taskres", **changes, epochs=8)
    expected, own, *_ = fitted("taskres", graphs=False, **changes, epochs=8)
    assert replays == 2 * (8 - resident.WARM) and curves == own
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_few_steps_are_not_recorded(monkeypatch):
    monkeypatch.setattr(resident, "WORTH", 1000)
    assert fitted("coop")[3] == 0


class Counting(CoOp):
    """Its step depends on a number that it counts itself."""

    def objective(self, features, x, y):
        self.asked = getattr(self, "asked", 0) + 1
        return super().objective(features, x, y) * self.asked


class Waiting(CoOp):
    """Its step asks the device for a number."""

    def objective(self, features, x, y):
        loss = super().objective(features, x, y)
        return loss * 2 if float(loss.detach()) > 1.0 else loss


class Random(CoOp):
    """Its step draws random numbers on the host."""

    def objective(self, features, x, y):
        return super().objective(features, x, y) * (1 + float(torch.rand(())))


class Kept(CoOp):
    """The end of its third epoch, when steps are replayed, changes what they read."""

    ended = 0  # of the class, not seen in the method

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.weight, Kept.ended = 1.0, 0

    def objective(self, features, x, y):
        return super().objective(features, x, y) * self.weight

    def end_epoch(self, support):
        Kept.ended += 1
        self.weight = 1.0 if Kept.ended < 6 else 0.5  # of two runs


class Unwilling(CoOp):
    capturable = False


@pytest.mark.parametrize(
    "kind, reason",
    [
        (Counting, resident.CHANGES),
        (Random, resident.CHANGES),
        (Waiting, "operation not permitted when stream is capturing"),
        (Kept, resident.CHANGES),
        (Unwilling, None),
    ],
)
def test_a_step_that_cannot_be_replayed_goes_on_by_itself_and_one_line_says_why(kind, reason, caplog):
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(7)
        found, curves, _, replays = fitted("coop", kind=kind, epochs=8)
        torch.manual_seed(7)
        expected, own, _, none = fitted("coop", kind=kind, graphs=False, epochs=8)
    assert none == 0 and curves == own and (replays > 0) == (kind is Kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    told = [record.message for record in caplog.records]
    assert len(told) == (reason is not None) and all(reason in line and line.startswith("CoOp") for line in told)


def test_a_run_that_fails_beside_others_leaves_them_their_numbers():
    def first_fails(epochs):
        with on("cuda"):
            base = towers("cuda")[0]
            methods = [make("coop", seed=seed, epochs=epochs).to("cuda") for seed in (0, 1)]
            for method in methods:
                method.bind(base, CLASSES)
            with torch.no_grad():
                methods[0].context.fill_(float("nan"))
            outcomes = fit_together(
                methods,
                [sent(replace(make_support()), "cuda")] * 2,
                [torch.Generator().manual_seed(seed) for seed in (0, 1)],
            )
            return outcomes, methods[1].learned()

    outcomes, learned = first_fails(EPOCHS)
    assert "loss is nan in epoch 1" in str(outcomes[0])
    torch.testing.assert_close(learned, fitted("coop")[0][1], rtol=0, atol=0)
