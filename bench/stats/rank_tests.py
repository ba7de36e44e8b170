"""Tests that rank: Wilcoxon's signed-rank test, Friedman's test, Holm's correction, cliques of average ranks.

Written out because scipy is no dependency of a run; the tests hold each against scipy's. Scores are taken to
`DECIMALS` before they are compared, since equal counts averaged in another order differ in the last bits.

Wilcoxon 1945; Friedman 1937; Holm 1979; Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR
2006; for Wilcoxon's test with Holm's correction in the place of Nemenyi's: Benavoli, Corani and Mangili, "Should we
really use post-hoc tests based on mean-ranks?", JMLR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

DECIMALS = 9
LEVEL = 0.05


@dataclass(frozen=True)
class SignedRank:
    """count: differences that are not zero; plus, minus: sums of the ranks of the positive and of the negative ones;
    p: two-sided."""

    count: int
    plus: float
    minus: float
    p: float


def signed_rank(differences: Sequence[float]) -> SignedRank:
    """Wilcoxon's signed-rank test that differences are symmetric about 0, two-sided.

    Zeros are left out and ties share their average rank, as in scipy. The distribution is exact over the signs of the
    ranks found, with ties too (scipy's PermutationMethod): never below `least_p`. Nothing but zeros has p = 1, no
    differences at all p = NaN.
    """
    found = np.round(np.asarray(differences, dtype=float), DECIMALS)
    if found.size == 0 or np.isnan(found).any():
        return SignedRank(0, math.nan, math.nan, math.nan)
    found = found[found != 0]
    doubled = (2 * pd.Series(np.abs(found)).rank().to_numpy()).astype(int)  # an average rank is a multiple of 1/2
    plus = int(doubled[found > 0].sum())
    chances = np.zeros(int(doubled.sum()) + 1)  # of each sum of the ranks that get a plus
    chances[0] = 1.0
    for rank in doubled:
        chances[rank:] = (chances[rank:] + chances[: len(chances) - rank]) / 2
        chances[:rank] /= 2
    p = min(1.0, 2 * min(chances[: plus + 1].sum(), chances[plus:].sum()))
    return SignedRank(len(found), plus / 2, (int(doubled.sum()) - plus) / 2, float(p))


def least_p(count: int) -> float:
    """The smallest two-sided p that so many differences allow: all of one sign. 0.0625 for 5, 0.03125 for 6."""
    return min(1.0, 2.0 ** (1 - count))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction for as many tests as ``ps`` has that are not NaN; at most 1, in the order given."""
    adjusted, reached = [math.nan] * len(ps), 0.0
    known = sorted((place for place, p in enumerate(ps) if not math.isnan(p)), key=lambda place: ps[place])
    for done, place in enumerate(known):
        reached = max(reached, (len(known) - done) * ps[place])
        adjusted[place] = min(1.0, reached)
    return adjusted


def ranks(scores: np.ndarray) -> np.ndarray:
    """(datasets, methods), higher is better -> ranks from 1, the best, in each row; ties share their average."""
    return pd.DataFrame(np.round(scores, DECIMALS)).rank(axis=1, ascending=False).to_numpy()


def friedman(scores: np.ndarray) -> tuple[float, float]:
    """Chi-square and p of Friedman's test over (datasets, methods), corrected for ties.

    (NaN, NaN) under three methods or two datasets, and where every row is tied throughout. The chi-square distribution
    is that of many datasets: with few, p is rough.
    """
    sets, methods = scores.shape
    if methods < 3 or sets < 2:
        return math.nan, math.nan
    found = ranks(scores)
    sizes = np.concatenate([np.unique(row, return_counts=True)[1] for row in found])
    kept = 1 - (sizes**3 - sizes).sum() / (sets * methods * (methods**2 - 1))
    if kept <= 0:
        return math.nan, math.nan
    spread = 12 / (sets * methods * (methods + 1)) * (found.sum(0) ** 2).sum() - 3 * sets * (methods + 1)
    chi = max(0.0, float(spread / kept))
    return chi, chi_square_tail(chi, methods - 1)


def chi_square_tail(x: float, df: int) -> float:
    """P(X >= x) of the chi-square distribution with ``df`` degrees of freedom, a whole number from 1, x >= 0: the
    finite sums of Abramowitz & Stegun, Handbook of Mathematical Functions, 26.4.4 and 26.4.5."""
    half, odd = x / 2, df % 2
    if not half:
        return 1.0
    # the i-th term is half^a e^-half / gamma(a + 1), a = i for even df and i + 1/2 for odd
    steps = [i + odd / 2 for i in range((df - odd) // 2)]
    terms = sum(math.exp(a * math.log(half) - half - math.lgamma(a + 1)) for a in steps)
    return min(1.0, terms + (math.erfc(math.sqrt(half)) if odd else 0.0))


def cliques(count: int, alike: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """The longest runs (first, last) of neighbours among ``count`` places, two or more, all of whose pairs are
    ``alike``: the bars of a critical-difference figure."""
    found: list[tuple[int, int]] = []
    for first in range(count):
        last = first
        while last + 1 < count and all(alike(place, last + 1) for place in range(first, last + 1)):
            last += 1
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return found
