"""The paired bootstrap against closed forms and against drawing image by image."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from bench.resample import accuracies, interval, ratio_interval


def answers(options=2, seeds=3, count=400, seed=0):
    """Correlated answers: hard images are hard for all, and some seeds are better."""
    random = np.random.default_rng(seed)
    hard = random.normal(size=count)
    shift = 0.4 * random.normal(size=(options, seeds, 1)) + np.linspace(0, 0.6, options)[:, None, None]
    return hard + shift + random.normal(size=(options, seeds, count)) > 0


def variance(x):
    """Of the mean of x (S, N) when rows and columns are drawn anew independently: the exact sum over all pairs of
    cells, E[a_s a_t] E[b_i b_j] - 1 with multinomial counts a, b (E[a_s a_t] = 1 + [s = t] - 1 / S)."""
    seeds, count = x.shape
    rows = 1 + np.eye(seeds) - 1 / seeds
    columns = 1 + np.eye(count) - 1 / count
    total = sum(rows[s, t] * (x[s] @ columns @ x[t]) for s, t in itertools.product(range(seeds), repeat=2))
    return total / (seeds * count) ** 2 - x.mean() ** 2


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_mean_and_variance_of_a_drawn_difference_are_the_closed_form(seeds):
    right = answers(seeds=seeds)
    drawn = accuracies(right, "test", draws=40000)
    difference = drawn[:, 1] - drawn[:, 0]
    x = 100 * (right[1].astype(float) - right[0])
    assert abs(difference.mean() - x.mean()) < 4 * difference.std() / math.sqrt(40000)
    # the relative error of a variance from n draws is about sqrt(2 / n) = 0.7 %
    assert difference.var() == pytest.approx(variance(x), rel=0.04)


def test_with_one_seed_the_interval_is_the_binomial_one():
    """The number right of N images drawn anew is binomial, whose quantiles scipy knows exactly."""
    right = np.zeros((1, 1, 500), bool)
    right[0, 0, :345] = True
    low, high = interval(accuracies(right, "test", draws=60000)[:, 0])
    exact = reference.binom(500, 0.69).ppf([0.025, 0.975]) / 5
    assert abs(low - exact[0]) <= 0.2 and abs(high - exact[1]) <= 0.2, "one image is 0.2 points"


def test_counting_alike_images_has_the_distribution_of_drawing_image_by_image():
    right, random = answers(count=60), np.random.default_rng(5)
    plain = []
    for _ in range(6000):
        seeds, images = random.integers(0, 3, 3), random.integers(0, 60, 60)
        plain.append(100 * right[:, seeds][:, :, images].mean((1, 2)))
    plain, drawn = np.array(plain), accuracies(right, "test", draws=6000)
    for weights in ((1, 0), (0, 1), (-1, 1)):
        assert reference.ks_2samp(plain @ weights, drawn @ weights).pvalue > 1e-3


def test_pairing_makes_equal_answers_differ_by_nothing():
    right = answers(options=1)
    drawn = accuracies(np.concatenate([right, right]), "test")
    assert (drawn[:, 0] == drawn[:, 1]).all() and drawn[:, 0].std() > 0


def test_the_same_axes_draw_the_same_and_others_do_not():
    right = answers()
    assert (accuracies(right, "a", 1) == accuracies(right, "a", 1)).all()
    assert (accuracies(right, "a", 1) != accuracies(right, "a", 2)).any()


def test_a_ratio_of_normals_has_fiellers_interval():
    """Fieller (1954): the ratios r for which (above - r below) is within z of its deviation."""
    random, n = np.random.default_rng(1), 200000
    above, below = 6 + 1.0 * random.normal(size=n), 10 + 1.5 * random.normal(size=n)
    z = reference.norm.ppf(0.975)
    a, b, c = 10**2 - z**2 * 1.5**2, -2 * 60, 6**2 - z**2
    roots = np.sort(np.roots([a, b, c]))
    assert ratio_interval(above, below) == pytest.approx(tuple(roots), abs=0.01)


def test_a_denominator_that_may_be_nothing_gives_no_interval():
    below = np.linspace(-1, 9, 101)  # a tenth of the draws is negative
    assert all(math.isnan(end) for end in ratio_interval(np.ones(101), below))
    rarely = np.linspace(-0.1, 9.9, 101)  # one in a hundred is
    low, high = ratio_interval(np.ones(101), rarely)
    assert math.isfinite(low) and math.isfinite(high) and low <= high


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="0 seeds"):
        accuracies(np.zeros((2, 0, 4), bool), "test")
