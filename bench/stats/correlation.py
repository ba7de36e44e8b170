"""Spearman's rank correlation, of cases as they are and of redraws of them (bootstrap)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

COVERAGE = 0.95
# Groups (datasets, whose seeds share their pictures) are what is independent. All n of them lie on one side of the true
# median with probability 2^(1 - n): under 6, not even their range covers 95 %.
FEWEST_GROUPS = 6
FEWEST_VALUES = 6  # fewer give too few different redraws for percentiles of them
DRAWS, DRAW_SEED = 10_000, 0


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's rho, ties at their average rank; NaN where a value is missing or a side is constant."""
    if np.isnan([*x, *y]).any():
        return math.nan
    a, b = (centred_ranks(side) for side in (x, y))
    size = math.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else math.nan


def centred_ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Ranks less their mean, ties at their average rank."""
    _, place, count = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place] - (len(place) + 1) / 2


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """2.5th and 97.5th."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def interval(groups: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Percentiles of the mean over groups of their means, over redraws: groups drawn with replacement, then values
    within each. With one group, over its values alone. Under `FEWEST_GROUPS` groups it is no 95 % interval. (NaN, NaN)
    under `FEWEST_VALUES`. The draws depend on the sizes of the groups alone: all correlations of a table share them."""
    values = [np.asarray(group, dtype=float) for group in groups.values()]
    if sum(map(len, values)) < FEWEST_VALUES:
        return math.nan, math.nan
    generator = np.random.RandomState(DRAW_SEED)  # its stream is frozen: `check` finds the same with every numpy
    picks = generator.randint(len(values), size=(DRAWS, len(values)), dtype=np.int64)
    means = np.empty(picks.shape)
    for number, group in enumerate(values):
        chosen = picks == number
        draws = generator.randint(len(group), size=(int(chosen.sum()), len(group)), dtype=np.int64)
        means[chosen] = group[draws].mean(1)
    return percentiles(means.mean(1))
