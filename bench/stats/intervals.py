"""Student's t interval of a mean, for the few degrees of freedom that a handful of seeds leaves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

NORMAL = 1.959964  # the normal distribution's 97.5 % point


def _of_angle(angle: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(angle)) of Student's t with ``df`` degrees of freedom (a whole number from 1).

    The finite sums of Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: exact for whole
    numbers, so no table and no further package is needed.
    """
    odd, cos = df % 2, math.cos(angle)
    term, total = (cos, 0.0) if odd else (1.0, 0.0)
    for n in range(odd, df - 1, 2):  # cos^n with its coefficient, 1 at the first
        total += term
        term *= cos * cos * (n + 1) / (n + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def t_quantile(df: int, level: float = 0.95) -> float:
    """The t for which P(|T| <= t) = ``level``: 12.706 for one degree of freedom, 4.303 for two.

    By bisection of the angle. Raises ValueError for less than one degree of freedom or a level outside (0, 1).
    """
    if df < 1 or not 0 < level < 1:
        raise ValueError(f"no t quantile for {df} degrees of freedom at level {level}")
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _of_angle(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan(low)


def half_width(std: float, count: int, level: float = 0.95) -> float:
    """Half of the interval of a mean over ``count`` values with sample deviation ``std``; NaN for fewer than two."""
    return t_quantile(count - 1, level) * std / math.sqrt(count) if count > 1 else math.nan


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Low and high end of the interval of mean(a) - mean(b) of independent samples, and the two-sided p that it is 0
    (Welch 1947). The degrees of freedom are rounded down, which makes the interval wider; NaN for fewer than two values
    of either, and where neither varies."""
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan, math.nan
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    error = math.sqrt(sum(parts))
    if not error:
        return math.nan, math.nan, math.nan
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True) if part
    )
    df = max(1, math.floor(freedom + 1e-9))
    difference = statistics.fmean(a) - statistics.fmean(b)
    half = t_quantile(df, level) * error
    p = 1 - _of_angle(math.atan(abs(difference) / error / math.sqrt(df)), df)
    return difference - half, difference + half, max(p, 0.0)
