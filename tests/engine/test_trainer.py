"""The training loop against closed forms, torch's own schedulers and hand-written steps."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_fits import make_support
from tiny_towers import DIM
from torch import nn

from carryover.bench.errors import UserError
from carryover.bench.training.trainer import FitError, fit
from carryover.methods.base import Method, Shape, Support, TrainConfig
from carryover.methods.parts.schedule import Schedule

LR, WARM = 2e-3, 1e-5


class Toy(Method):
    """A linear map that notes what the trainer hands it."""

    def __init__(self, config, dim=DIM, count=4):
        super().__init__(config, Shape(8, dim, tuple("abcdefgh"[:count]), 0))
        self.weight = nn.Parameter(torch.zeros(count, dim))
        self.seen, self.calls = [], []

    def logits(self, x):
        return x @ self.weight.T

    def start(self, support):
        self.calls.append("start")

    def end_epoch(self, support):
        self.calls.append("epoch")

    def finish(self, support):
        self.calls.append("finish")

    def loss(self, x, y):
        self.seen.append((x.clone(), y.clone()))
        return super().loss(x, y)


def coded(count=10, views=3):
    """Features that say which view of which picture they are: row (view, picture, label)."""
    labels = torch.arange(count) % 4
    rows = torch.stack(
        [
            torch.stack([torch.full((count,), float(v)), torch.arange(count).float(), labels.float()], dim=1)
            for v in range(views)
        ]
    )
    return Support(rows[0], labels, rows, rows[0], labels)


def run(config, support, seed=0, dim=DIM):
    toy = Toy(config, dim)
    curve = fit(toy, support, torch.Generator().manual_seed(seed))
    return toy, curve


@pytest.mark.parametrize("epochs", [2, 50, 200])
def test_epoch_rates_follow_dassls_closed_form(epochs):
    _, curve = run(TrainConfig(epochs=epochs, lr=LR, batch=8), make_support())
    expected = [WARM] + [LR * 0.5 * (1 + math.cos(math.pi * (k - 2) / epochs)) for k in range(2, epochs + 1)]
    assert [row["lr"] for row in curve] == pytest.approx(expected, rel=1e-9)


def test_epoch_rates_follow_torchs_cosine_stepped_after_the_warm_up():
    epochs = 30
    solver = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(solver, T_max=epochs)
    expected = [WARM]
    for _ in range(epochs - 1):
        expected.append(solver.param_groups[0]["lr"])
        solver.step()
        cosine.step()
    schedule = Schedule(TrainConfig(epochs=epochs, lr=LR), 4)
    for step in range(4):  # stepped once an epoch, not within it
        assert [schedule.rate(k, step) for k in range(1, epochs + 1)] == pytest.approx(expected, rel=1e-9)


def test_iteration_rates_follow_torchs_cosine_stepped_each_batch():
    epochs, steps = 20, 7
    solver = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(solver, T_max=epochs * steps)
    schedule = Schedule(TrainConfig(epochs=epochs, lr=1e-3, schedule="iteration"), steps)
    for epoch in range(1, epochs + 1):
        for step in range(steps):
            assert schedule.rate(epoch, step) == pytest.approx(solver.param_groups[0]["lr"], rel=1e-6, abs=1e-12)
            solver.step()
            cosine.step()


def test_steps_ask_for_as_many_epochs_as_hold_them():
    assert Schedule(TrainConfig(steps=100, epochs=3), 7).epochs == 15
    assert Schedule(TrainConfig(steps=0, epochs=3), 7).epochs == 3


@pytest.mark.parametrize("drop_last, sizes", [(True, [4, 4]), (False, [4, 4, 2])])
def test_incomplete_last_batch_is_dropped_only_on_request(drop_last, sizes):
    toy, _ = run(TrainConfig(epochs=2, batch=4, drop_last=drop_last), coded(), dim=3)
    assert [len(y) for _, y in toy.seen] == sizes * 2


def test_a_set_smaller_than_a_batch_is_one_batch():
    toy, _ = run(TrainConfig(epochs=1, batch=32), coded(), dim=3)
    assert [len(y) for _, y in toy.seen] == [10]


def test_each_epoch_takes_each_picture_once_in_a_random_view_with_its_own_label():
    toy, _ = run(TrainConfig(epochs=40, batch=4, drop_last=False), coded(views=3), dim=3)
    rows = torch.cat([x for x, _ in toy.seen]).reshape(40, 10, 3)
    assert torch.equal(torch.cat([y for _, y in toy.seen]), rows[..., 2].flatten().long())
    assert torch.equal(rows[..., 1].sort(dim=1).values, torch.arange(10.0).expand(40, 10))
    assert len({tuple(epoch.tolist()) for epoch in rows[..., 1]}) > 30, "the order is drawn anew each epoch"
    for picture in range(10):
        drawn = rows[..., 0][rows[..., 1] == picture]
        share = torch.bincount(drawn.long(), minlength=3) / 40
        assert (share > 0.05).all(), "each view of each picture is used"


def test_with_fresh_views_epoch_e_takes_view_e_less_1_of_every_picture_in_the_same_batches():
    config = TrainConfig(epochs=5, batch=4, drop_last=False)
    fresh, _ = run(config, replace(coded(views=5), fresh=True), dim=3)
    drawn, _ = run(config, coded(views=5), dim=3)
    rows, kept = (torch.cat([x for x, _ in toy.seen]).reshape(5, 10, 3) for toy in (fresh, drawn))
    assert torch.equal(rows[..., 0], torch.arange(5.0)[:, None].expand(5, 10))
    assert torch.equal(rows[..., 1:], kept[..., 1:]), "only the views differ"


def test_start_epochs_and_finish_are_called_in_order_and_the_method_ends_in_eval_mode():
    toy, _ = run(TrainConfig(epochs=3), make_support())
    assert toy.calls == ["start", "epoch", "epoch", "epoch", "finish"]
    assert not toy.training


def test_no_epochs_means_start_and_finish_alone():
    toy, curve = run(TrainConfig(epochs=0), make_support())
    assert toy.calls == ["start", "finish"] and curve == [] and not toy.seen


def test_a_loss_that_is_nan_ends_training_with_the_curve_until_then():
    class Breaks(Toy):
        def loss(self, x, y):
            return super().loss(x, y) * (float("nan") if self.calls.count("epoch") == 2 else 1)

    toy = Breaks(TrainConfig(epochs=5))
    with pytest.raises(FitError, match="epoch 3") as caught:
        fit(toy, make_support(), torch.Generator())
    assert [row["epoch"] for row in caught.value.curve] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in caught.value.curve)


def softmax_gradient(weight, x, y):
    shares = (x @ weight.T).softmax(1)
    shares[torch.arange(len(y)), y] -= 1
    return shares.T @ x / len(y)


def test_sgd_is_momentum_with_decay_in_the_gradient():
    config = TrainConfig(epochs=6, batch=64, lr=0.002, momentum=0.9, weight_decay=0.01)
    support = make_support(views=1)
    toy, curve = run(config, support)
    x, y = support.views[0].double(), support.labels
    weight, speed = torch.zeros(4, DIM, dtype=torch.double), torch.zeros(4, DIM, dtype=torch.double)
    for row in curve:
        loss = nn.functional.cross_entropy(x @ weight.T, y)
        assert row["loss"] == pytest.approx(float(loss), rel=1e-4)
        speed = 0.9 * speed + softmax_gradient(weight, x, y) + 0.01 * weight
        weight = weight - row["lr"] * speed
    torch.testing.assert_close(toy.weight.detach().double(), weight, rtol=1e-4, atol=1e-6)


def test_adamw_decays_weights_apart_from_the_gradient():
    config = TrainConfig(
        optimizer="adamw", epochs=4, batch=64, lr=0.01, weight_decay=0.1, eps=1e-4, schedule="iteration"
    )
    support = make_support(views=1)
    toy, curve = run(config, support)
    x, y = support.views[0].double(), support.labels
    weight, first, second = (torch.zeros(4, DIM, dtype=torch.double) for _ in range(3))
    for t, row in enumerate(curve, 1):
        gradient = softmax_gradient(weight, x, y)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-4)
        weight = weight * (1 - row["lr"] * 0.1) - row["lr"] * step
    torch.testing.assert_close(toy.weight.detach().double(), weight, rtol=1e-4, atol=1e-6)


def test_the_generator_alone_decides_batches_and_views():
    config = TrainConfig(epochs=3, batch=4)
    one, two, other = (run(config, coded(), seed, dim=3)[0] for seed in (5, 5, 6))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one.seen, two.seen, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(one.seen, other.seen, strict=True))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match="lion"):
        TrainConfig(optimizer="lion")
