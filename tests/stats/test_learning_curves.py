"""Whether a loss was still falling at the end, on curves whose end is known in closed form."""

import math

import numpy as np
import pytest

from carryover.bench.stats.learning_curves import MARK, end_share, marks, still_falling


def rates(epochs, lr=0.002, warm=1):
    """Dassl's: a warm-up epoch at 1e-5, then a cosine over all epochs."""
    cosine = [lr * (1 + math.cos(math.pi * k / epochs)) / 2 for k in range(epochs - warm)]
    return [1e-5] * warm + cosine


def curve_of(loss, epochs=200, scatter=0.0, seed=0, **schedule):
    """``loss`` of the share of the summed rate that is spent, at the middle of each epoch; with noise."""
    rate = np.array(rates(epochs, **schedule))
    spent = (np.cumsum(rate) - rate / 2) / rate.sum()
    noise = scatter * np.random.default_rng(seed).standard_normal(epochs)
    return [
        {"epoch": i + 1, "loss": float(value), "lr": float(lr)}
        for i, (value, lr) in enumerate(zip(loss(spent) + noise, rate, strict=True))
    ]


def decay(k, start=1.66, floor=0.18):
    return lambda spent: floor + (start - floor) * np.exp(-k * spent)


@pytest.mark.parametrize("epochs", [10, 50, 200])
@pytest.mark.parametrize("k", [0.01, 0.7, 2.0, 4.0, 8.0])
def test_the_share_of_an_exponential_is_its_closed_form(k, epochs):
    share, _ = end_share(curve_of(decay(k), epochs))
    assert share == pytest.approx((math.exp(-2 * k / 3) - math.exp(-k)) / (1 - math.exp(-k)), abs=0.02)


@pytest.mark.parametrize("epochs", [10, 50, 200])
@pytest.mark.parametrize(
    "loss, marked",
    [
        (decay(0.709), True),  # 1.66 to 0.91 of a loss that another rate brings to 0.18: Flowers at CoOp's rate
        (decay(0.01), True),  # hardly begun, so a straight line
        (decay(1.5), True),
        (decay(5.0), False),  # 0.7 % still to come
        (decay(20.0), False),
        (lambda s: 1.5 / (1 + 20 * s), False),  # the tail of a fit that separates its classes: 1/s
        (lambda s: 1.5 / (1 + s), True),
        (lambda s: np.full_like(s, 1.2), False),  # flat
        (lambda s: 1.2 + 0.3 * s, False),  # rises
        (lambda s: 1.2 - np.minimum(s, 0.3) + np.maximum(s - 0.6, 0), False),  # falls, then rises
        (lambda s: 7.0 + decay(20.0)(s), False),  # a penalty that does not fall hides nothing
        (lambda s: 7.0 + decay(0.709)(s), True),
        (lambda s: 0.004 * (1 - s), False),  # nothing left to learn
    ],
)
def test_a_loss_that_still_falls_is_marked_and_one_that_is_done_flat_or_rising_is_not(loss, marked, epochs):
    assert still_falling(curve_of(loss, epochs)) == marked


@pytest.mark.parametrize("lr", [2e-4, 0.02, 10.0])
def test_neither_the_size_of_the_rate_nor_that_of_the_loss_matters(lr):
    for scale in (0.1, 100.0):
        small, large = (curve_of(decay(k, 1.6 * scale, 0.2 * scale), lr=lr, warm=0) for k in (0.7, 6.0))
        assert still_falling(small) and not still_falling(large)


def test_a_cosine_alone_does_not_hide_a_steep_loss():
    """By epochs the last third of the curve is nearly flat; by the summed rate it is as steep as the rest."""
    losses = [row["loss"] for row in curve_of(decay(0.709))]
    assert losses[132] - losses[-1] < 0.1 * (losses[0] - losses[-1])
    assert still_falling(curve_of(decay(0.709)))


def test_noise_of_the_views_marks_at_most_one_curve_in_twenty():
    for loss in (decay(6.0), lambda s: np.full_like(s, 1.0)):
        for epochs in (8, 30, 200):
            found = [still_falling(curve_of(loss, epochs, scatter=0.05, seed=seed)) for seed in range(300)]
            assert np.mean(found) <= 0.05, (epochs, np.mean(found))


def test_a_steep_loss_is_seen_through_the_noise():
    found = [still_falling(curve_of(decay(0.709), 100, scatter=0.05, seed=seed)) for seed in range(300)]
    assert np.mean(found) > 0.95


@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_of_few_epochs_or_none_nothing_is_said(epochs):
    curve = curve_of(decay(0.5), 200)[:epochs]
    assert all(map(math.isnan, end_share(curve))) and marks(curve) == []


def test_a_curve_that_ended_in_no_number_is_not_judged():
    assert marks([*curve_of(decay(0.5), 20), {"epoch": 21, "loss": math.nan, "lr": 0.1}]) == []
    assert marks(curve_of(decay(0.5), 20)) == [MARK]
