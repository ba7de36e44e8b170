"""Wilcoxon, Friedman, Holm and cliques, held against scipy, counting by hand and enumeration of all signs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from carryover.bench.stats import rank_tests

WHOLE = st.integers(-6, 6)  # few values: ties and zeros in nearly every example


def every_sign(differences):
    """The two-sided p by going through all 2^n signs of the ranks."""
    kept = [d for d in differences if d]
    found = scipy_stats.rankdata(np.abs(kept))
    plus = sum(rank for rank, d in zip(found, kept, strict=True) if d > 0)
    sums = np.array([np.dot(found, signs) for signs in itertools.product((0, 1), repeat=len(kept))])
    return min(1.0, 2 * min((sums <= plus + 1e-9).mean(), (sums >= plus - 1e-9).mean()))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 11, 20, 50])
@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0])
def test_signed_rank_is_scipys_exact_test_without_ties(count, shift):
    differences = np.random.default_rng(count).normal(shift, 1, count)
    ours, theirs = rank_tests.signed_rank(differences), scipy_stats.wilcoxon(differences, method="exact")
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert min(ours.plus, ours.minus) == theirs.statistic and ours.count == count


@pytest.mark.parametrize("seed", range(8))
def test_signed_rank_is_scipys_with_ties_and_zeros(seed):
    differences = np.random.default_rng(seed).integers(-4, 6, 11).astype(float)
    assert len(np.unique(np.abs(differences))) < 11
    ours, theirs = rank_tests.signed_rank(differences), scipy_stats.wilcoxon(differences)  # permutes at up to 13
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert min(ours.plus, ours.minus) == theirs.statistic and ours.count == np.count_nonzero(differences)


@given(st.lists(WHOLE, min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_signed_rank_is_the_enumeration_of_all_signs_symmetric_and_never_below_what_the_count_allows(differences):
    ours, turned = rank_tests.signed_rank(differences), rank_tests.signed_rank([-d for d in differences])
    assert (ours.plus, ours.minus, ours.p) == (turned.minus, turned.plus, turned.p)
    assert ours.plus + ours.minus == ours.count * (ours.count + 1) / 2
    assert rank_tests.least_p(ours.count) - 1e-12 <= ours.p <= 1
    if any(differences):
        assert ours.p == pytest.approx(every_sign(differences), abs=1e-12)


def test_five_datasets_cannot_reach_five_percent_and_six_can():
    assert rank_tests.signed_rank([1, 2, 3, 4, 5]).p == rank_tests.least_p(5) == 0.0625
    assert rank_tests.signed_rank([1, 2, 3, 4, 5, 6]).p == rank_tests.least_p(6) == 0.03125
    assert rank_tests.least_p(0) == rank_tests.least_p(1) == 1.0


def test_zeros_alone_are_no_evidence_and_nothing_at_all_is_unknown():
    assert rank_tests.signed_rank([0.0, 0.0]) == rank_tests.SignedRank(0, 0, 0, 1.0)
    assert math.isnan(rank_tests.signed_rank([]).p) and math.isnan(rank_tests.signed_rank([1.0, math.nan]).p)


def test_a_difference_in_the_last_bits_is_none():
    assert rank_tests.signed_rank([0.1 + 0.2 - 0.3, 1.0]).count == 1
    assert rank_tests.ranks(np.array([[0.1 + 0.2, 0.3, 0.2]])).tolist() == [[1.5, 1.5, 3.0]]


def test_holm_by_hand():
    # Holm 1979 on four: 0.005 x 4, 0.01 x 3, then 0.03 x 2 = 0.06, and 0.04 x 1 is raised to it
    assert rank_tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert rank_tests.holm([0.6, 0.7]) == [1.0, 1.0] and rank_tests.holm([]) == []
    first, none, last = rank_tests.holm([0.02, math.nan, 0.5])
    assert (first, last) == (0.04, 0.5) and math.isnan(none)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects_at_any_level(ps):
    adjusted = rank_tests.holm(ps)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
            if ps[place] * (len(ps) - step) > level:
                break
            rejected.add(place)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


@pytest.mark.parametrize("shape", [(2, 3), (6, 3), (11, 8), (5, 17)])
@pytest.mark.parametrize("coarse", [False, True])
def test_friedman_is_scipys_with_and_without_ties(shape, coarse):
    scores = np.random.default_rng(shape[0]).normal(size=shape) + np.arange(shape[1]) / 3
    scores = np.round(scores) if coarse else scores
    theirs = scipy_stats.friedmanchisquare(*scores.T)
    assert rank_tests.friedman(scores) == pytest.approx((theirs.statistic, theirs.pvalue), abs=1e-9)


def test_friedman_is_undefined_under_three_methods_two_datasets_or_any_difference():
    for scores in (np.ones((4, 2)), np.array([[1.0, 2.0, 3.0]]), np.ones((4, 3))):
        assert all(map(math.isnan, rank_tests.friedman(scores)))


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("x", [0.0, 1e-9, 0.3, 4.0, 30.0, 900.0])
def test_the_chi_square_tail_is_scipys(x, df):
    assert rank_tests.chi_square_tail(x, df) == pytest.approx(scipy_stats.chi2.sf(x, df), rel=1e-10, abs=1e-300)


@given(st.lists(st.lists(WHOLE, min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_ranks_are_scipys_from_the_best(rows):
    assert np.array_equal(rank_tests.ranks(np.array(rows, float)), scipy_stats.rankdata(-np.array(rows), axis=1))


def test_cliques_are_the_longest_runs_whose_pairs_are_all_alike():
    # 0-1-2 alike, 2-3 alike, but 1 and 3 told apart; 4 apart from all
    pairs = {(0, 1), (0, 2), (1, 2), (2, 3)}
    assert rank_tests.cliques(5, lambda a, b: (a, b) in pairs) == [(0, 2), (2, 3)]
    assert rank_tests.cliques(3, lambda a, b: True) == [(0, 2)]
    assert rank_tests.cliques(3, lambda a, b: False) == rank_tests.cliques(0, lambda a, b: True) == []


@given(st.integers(0, 6), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))))
@settings(max_examples=100, deadline=None)
def test_no_clique_lies_in_another_and_every_alike_pair_of_neighbours_is_in_one(count, pairs):
    def alike(a, b):
        return (a, b) in pairs or (b, a) in pairs

    found = rank_tests.cliques(count, alike)
    for first, last in found:
        assert all(alike(a, b) for a, b in itertools.combinations(range(first, last + 1), 2))
        assert not any((a, b) != (first, last) and a <= first and last <= b for a, b in found)
    for place in range(count - 1):
        assert alike(place, place + 1) == any(a <= place and place + 1 <= b for a, b in found)
