"""Whether training was stopped while its loss still fell steeply, judged by the learning curve alone.

A cosine schedule flattens the end of every curve, for the rate goes to 0 there. So the loss is looked at over the sum
of the learning rates, not over the epochs: what fell in the last third of that sum, as a share of the whole fall. An
exponential that falls by a factor e^k in all leaves (e^(-2k/3) - e^-k) / (1 - e^-k) of it to the last third: 1/3 where
it is a straight line, 0.15 at k = 2, with an eighth of the way still to go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from carryover.bench.stats.intervals import t_quantile

STEEP = 0.15  # share of the whole fall
LAST = 1 / 3  # of the summed rate
FEWEST = 4  # epochs; of fewer no line can be told from the noise of the random views
SURE = 0.90  # level of the two-sided interval of the share, so 95 % that it is above ``STEEP``
LEAST = 0.01  # nats that the whole fall comes to: below, nothing was left to learn
NOISE = 3.0  # a fall within so many deviations of single epochs is none
MARK = "the loss was still falling steeply when training ended (more steps or a higher rate would lower it)"


def end_share(curve: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """(share, lower bound): how much of the whole fall of the loss came in the last third of the summed rate.

    curve  a row an epoch, with ``loss``, the epoch's mean, and ``lr``

    The fall at the end is that of a straight line through the epochs there (three at least), and the bound allows for
    their scatter about it; the whole fall goes from the first epoch to the line's end. NaN where nothing can be said:
    too few epochs, no fall beyond the scatter, or next to none at all.
    """
    loss = np.array([row["loss"] for row in curve], dtype=float)
    rate = np.array([row["lr"] for row in curve], dtype=float)
    if len(curve) < FEWEST or not np.isfinite(loss).all() or not rate.sum() > 0:
        return math.nan, math.nan
    at = (np.cumsum(rate) - rate / 2) / rate.sum()  # the middle of each epoch
    first = min(int(np.searchsorted(at, 1 - LAST)), len(curve) - 3)
    x, y = at[first:] - at[first:].mean(), loss[first:]
    spread, freedom = float(x @ x), len(x) - 2
    if not spread > 0:
        return math.nan, math.nan
    slope = float(x @ y) / spread
    scatter = math.sqrt(float(((y - y.mean() - slope * x) ** 2).sum()) / freedom)
    whole = float(loss[0] - y.mean() - slope * (1 - at[first:].mean()))
    if not whole > max(NOISE * scatter, LEAST):
        return math.nan, math.nan
    share = -slope * LAST / whole
    return share, share - t_quantile(freedom, SURE) * scatter / math.sqrt(spread) * LAST / whole


def still_falling(curve: Sequence[Mapping[str, float]]) -> bool:
    return end_share(curve)[1] > STEEP


def marks(curve: Sequence[Mapping[str, float]]) -> list[str]:
    return [MARK] if still_falling(curve) else []
