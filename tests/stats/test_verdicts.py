"""What an interval of a pair is worth, over simulated worlds of known truth; what one seed and few seeds may say."""

import math

import answered
import numpy as np
import pytest
import simulated
from scipy import stats as scipy_stats
from simulated import World, coverage

from carryover.bench.analyses import statistics
from carryover.bench.analyses.parts import comparison
from carryover.bench.stats import pairs, verdicts
from carryover.bench.stats.measures import Measure
from carryover.bench.stats.verdicts import needed

FOUR = {name: {"base": chance, "new": chance - 0.1} for name, chance in zip("wxyz", (0.9, 0.7, 0.5, 0.3), strict=True)}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(pairs, "DRAWS", 1000)


# ---- coverage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "world, before",
    [
        (World(99.0, 0.5, 50, 3), 0.6),
        (World(98.0, 1.8, 200, 1), 0.93),
        (World(99.5, 0.3, 200, 3, shared=0.9, own=0.1), 0.75),
        (World(80.0, 3.0, 200, 3, 3.0, own=0.2), 1.0),
    ],
)
def test_intervals_hold_the_truth_near_the_ceiling_where_redraws_alone_do_not(world, before):
    redraws, _, now, _ = coverage(world, 150, np.random.default_rng(1))
    assert now >= 0.91 and redraws <= before, "93 % less what 150 worlds are off by chance"


@pytest.mark.long
def test_intervals_hold_the_truth_over_the_whole_grid():
    rng, found = np.random.default_rng(2), []
    for world in simulated.grid():
        found.append((world, *coverage(world, 200, rng)))
    now, widths = np.array([row[3] for row in found]), np.array([[row[2], row[4]] for row in found])
    worst = found[int(now.argmin())]
    assert now.min() >= 0.88, worst  # three standard errors of 200 worlds below 93 %
    assert now.mean() >= 0.95 and np.mean(now < 0.92) < 0.05
    ordinary = [w.accuracy <= 90 and w.images >= 200 for w, *_ in found]
    assert np.mean(widths[ordinary, 1] / widths[ordinary, 0]) < 1.05, "where many images differ it is as wide as before"


def test_where_no_image_differs_the_interval_is_bonett_and_prices():
    answers = {column: np.full(1000, 98.0) for column in (("x", "base", 0), ("y", "base", 0))}
    sample = pairs.Sample("d", 200, 0.5, {column: 98.0 for column in answers}, answers)
    *_, difference, low, high, p, _, _ = pairs.difference(sample, Measure("base", "Base", ("base",)), "x", "y")
    half = 100 * scipy_stats.norm.ppf(0.975) * math.sqrt(2) / 200  # of 2 images among 200, one for each
    assert difference == 0 and (low, high) == pytest.approx((-half, half), rel=1e-2) and math.isnan(p)


def test_the_slope_of_h_is_that_of_small_steps():
    h = Measure("h", "H", ("base", "new"))
    for base, new in ((90.0, 70.0), (99.0, 98.0), (50.0, 2.0)):
        step = (h.of(base + 1e-4, new + 1e-4) - h.of(base, new)) / 1e-4
        assert h.slope(base, new) == pytest.approx(step, rel=1e-4)
    assert h.slope(0.0, 0.0) == 1 and Measure("base", "Base", ("base",)).slope(42.0) == 1


# ---- one seed --------------------------------------------------------------------------------------------------------


def test_one_seed_has_intervals_and_no_p_no_place_and_no_verdict():
    one = answered.selection_of(*answered.world(FOUR, seeds=(1,), datasets=tuple("abcdefgh"), images=60))
    pairs_, tests, ranks = comparison.pairs_table(one), comparison.wilcoxon_table(one), comparison.ranks_table(one)
    assert pairs_[["difference", "low", "high"]].notna().all().all() and ranks["rank"].notna().all()
    for table, columns in (
        (pairs_, ["p", "p_holm", "seeds_needed", "images_needed"]),
        (tests, ["p", "p_holm"]),
        (ranks, ["place", "last", "friedman", "friedman_p"]),
    ):
        assert table[columns].isna().all().all()
    said = statistics.findings(one)
    assert not [line for line in said if "significant" in line or "p = " in line or "p < " in line]
    assert all("images alone; one seed allows no verdict" in line for line in said if "interval" in line)
    assert not any(one.cliques for one in comparison.rankings(one))
    two = answered.selection_of(*answered.world(FOUR, seeds=(1, 2), datasets=tuple("abcdefgh"), images=60))
    assert comparison.pairs_table(two)["p"].notna().all() and comparison.ranks_table(two)["place"].notna().all()


def test_a_method_with_one_seed_on_a_dataset_is_in_no_test_and_the_others_are():
    fails = {("a", "x", 2), ("a", "x", 3)}
    found = answered.selection_of(*answered.world(FOUR, datasets=tuple("abcdef"), images=60, fails=fails))
    tests = comparison.wilcoxon_table(found)
    lone = (tests["method"] == "x") | (tests["other"] == "x")
    assert tests[lone]["p"].isna().all() and tests[~lone]["p"].notna().all()


# ---- what would decide -----------------------------------------------------------------------------------------------


def test_what_is_needed_is_the_first_number_whose_half_width_is_small_enough():
    def half(image_error, deviation, seeds):
        return math.hypot(1.959964 * image_error, scipy_stats.t.ppf(0.975, seeds - 1) * deviation / math.sqrt(seeds))

    for image_error, deviation, difference in ((0.3, 2.0, 1.5), (0.1, 1.0, 0.5), (0.5, 3.0, 2.0)):
        seeds, _ = needed(difference, image_error, deviation, 3, 500)
        assert half(image_error, deviation, int(seeds)) < difference <= half(image_error, deviation, int(seeds) - 1)
    _, images = needed(2.0, 1.5, 0.3, 3, 500)
    assert half(1.5 * math.sqrt(500 / images), 0.3, 3) < 2.0 < half(1.5 * math.sqrt(500 / (0.85 * images)), 0.3, 3)


def test_what_more_of_one_kind_alone_cannot_decide_is_not_asked_for():
    seeds, images = needed(1.0, 2.0, 0.2, 3, 500)  # images decide
    assert math.isnan(seeds) and images > 500
    seeds, images = needed(1.0, 0.1, 3.0, 3, 500)  # seeds decide
    assert seeds > 3 and math.isnan(images)
    assert all(map(math.isnan, needed(0.0, 1.0, 1.0, 3, 500)))
    assert all(map(math.isnan, needed(0.01, 0.1, 3.0, 3, 500))), "more than 100 seeds, or 100 times the images"
    assert "neither" in verdicts.would_decide(math.nan, math.nan)
    assert verdicts.would_decide(7, 1200) == "about 7 seeds or about 1,200 test images would decide"


@pytest.mark.parametrize("more", ["seeds", "images"])
def test_with_so_many_it_is_decided_in_about_half_the_cases_or_more(more):
    """Worlds of the difference that an undecided experiment found, with what it asked for."""
    rng, decided = np.random.default_rng(4), []
    deviation = {"seeds": 1.5, "images": 0.3}[more]
    first = World(80.0, 3.0, 400, 3, deviation, shared=0.7, own=0.1)
    while len(decided) < 40:
        row = first.difference(first.sample(rng))
        asked = {"seeds": row[8], "images": row[9]}[more]
        if row[4] <= 0.5 or not asked <= {"seeds": 30, "images": 10_000}[more]:
            continue
        again = World(
            80.0, row[4], **{"images": 400, "seeds": 3, more: int(asked)}, deviation=deviation, shared=0.7, own=0.1
        )
        _, low, _ = again.difference(again.sample(rng))[4:7]
        decided.append(low > 0)
    assert np.mean(decided) >= 0.35, "a half, less what 40 cases are off by chance"
