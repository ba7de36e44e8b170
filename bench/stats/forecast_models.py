"""Forecasts of cases from others: of each group of cases (a dataset, a target, a method) from the groups beside it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def by_line(x: np.ndarray, y: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Least squares with an intercept. ``x`` (N, P), ``y`` (N,); (N,): each case by the line of the other groups. A
    predictor that is constant in these has no part in it."""
    x, y, made = np.asarray(x, float), np.asarray(y, float), np.empty(len(y))
    for own in parts(groups):
        centre, middle = x[~own].mean(0), y[~own].mean()
        spread = x[~own].std(0)
        unit = np.where(spread > 1e-9 * (1 + np.abs(centre)), spread, np.inf)
        slopes = np.linalg.lstsq((x[~own] - centre) / unit, y[~own] - middle, rcond=None)[0]
        made[own] = middle + (x[own] - centre) / unit @ slopes
    return made


def by_mean(y: np.ndarray, groups: Sequence[Hashable], like: Sequence[Hashable] | None = None) -> np.ndarray:
    """(N,): the mean of the other groups' cases; with ``like`` (N,) of those of them that share the case's value, or of
    all where none does."""
    y, made = np.asarray(y, float), np.empty(len(y))
    kinds = np.zeros(len(y), int) if like is None else codes(like)
    for own in parts(groups):
        sums, counts = (np.bincount(kinds[~own], weights, kinds.max() + 1) for weights in (y[~own], None))
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), y[~own].mean())
        made[own] = mean[kinds[own]]
    return made


def parts(groups: Sequence[Hashable]) -> list[np.ndarray]:
    """Of each group, which cases are its own. Raises ValueError for one group: nothing is left to forecast it from."""
    found = codes(groups)
    if not len(found) or found.max() == 0:
        raise ValueError("a group is forecast from the others, and there is one group")
    return [found == group for group in range(found.max() + 1)]


def codes(values: Sequence[Hashable]) -> np.ndarray:
    """Each value's number, equal ones the same."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], int)
