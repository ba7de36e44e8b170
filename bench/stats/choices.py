"""Differences and ratios of a few options, runs on the same seeds and test images: `bench.stats.pairs`'s intervals.

Images are drawn once for all seeds and seeds have Student's error, from the very draws of the dataset's pairs: what two
tables of one report say of the same difference is the same interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carryover.bench.errors import UserError
from carryover.bench.records.reading import Predictions
from carryover.bench.stats import pairs
from carryover.bench.stats.verdicts import needed

Column = tuple[str, str]  # a run's key, role of the backbone
LARGEST = 60  # doublings, of how far from a ratio its interval's ends are looked for
NARROW = 1e-5  # to which they are found


@dataclass(frozen=True)
class Drawn:
    """images    what tells the images of the draws apart from others
    accuracies  (DRAWS,) in percent of as many images drawn with replacement, the same ones for every run on them
    count       how many images there are
    """

    images: bytes
    accuracies: np.ndarray
    count: int


@dataclass(frozen=True)
class Alternatives:
    """K options on a dataset (``name``, that of its stream of seed errors) or averaged over datasets.

    own    (S, K) accuracies in percent of each seed
    drawn  (DRAWS, K) means over the seeds for each draw of images; empty where predictions cannot be had
    images, step   how many there are, and what one counts in points (`pairs.Sample`)
    """

    name: str
    own: np.ndarray
    drawn: np.ndarray
    images: int
    step: float

    def interval(self, weights: Sequence[float] | np.ndarray) -> tuple[float, float]:
        """95 %, of a weighted sum of the options; NaN without draws. The first weight counts as positive, as the first
        method of a pair does: a difference taken the other way has the same ends, turned."""
        low, high, _ = self.tested(weights)
        return low, high

    def p(self, weights: Sequence[float] | np.ndarray) -> float:
        """Two-sided, that the weighted sum is 0; NaN without draws."""
        return self.tested(weights)[2]

    def tested(self, weights: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
        """`interval` and `p`."""
        if not len(self.drawn):
            return math.nan, math.nan, math.nan
        by = np.asarray(weights, np.float64)
        sign = turned(by)
        low, high, p = pairs.interval(self.errors(self.drawn @ (sign * by), self.own @ (sign * by), by))
        return (low, high, p) if sign > 0 else (0.0 - high, 0.0 - low, p)

    def errors(self, drawn: np.ndarray, own: np.ndarray, by: np.ndarray) -> np.ndarray:
        """The draws of images of a sum of the options by these weights, with its other errors."""
        more = self.step * float(np.linalg.norm(by))
        return drawn + pairs.unseen_errors(more, self.name) + pairs.seed_errors(own, self.name)

    def needed(self, weights: Sequence[float], half: float) -> tuple[float, float]:
        """The seeds, and the images, that make half of the interval of the sum smaller (`verdicts.needed`)."""
        by = np.asarray(weights, np.float64)
        spreads = pairs.spreads(self.drawn @ by, self.step * float(np.linalg.norm(by)), own := self.own @ by)
        return needed(half, *spreads, len(own), self.images)

    def ratio_interval(self, above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
        """Of a ratio of two weighted sums: all r for which the interval of above - r below holds 0 (Fieller 1954), so
        that it holds 0, or 1, just where the interval of that difference holds 0. NaN where the interval of ``below``
        is not above 0, for then r is not bounded."""
        if not self.interval(below)[0] > 0:
            return math.nan, math.nan
        up, down = np.asarray(above, np.float64), np.asarray(below, np.float64)
        means = self.own.mean(0)
        ratio = float(means @ up) / float(means @ down)
        drawn, own = (self.drawn @ up, self.drawn @ down), (self.own @ up, self.own @ down)

        def holds(r: float) -> bool:  # what `interval` of up - r down says
            sign = turned(up - r * down)
            draws, seeds = (sign * (parts[0] - r * parts[1]) for parts in (drawn, own))
            return pairs.holds_nothing(self.errors(draws, seeds, up - r * down))

        low, high = edge(holds, ratio, -1), edge(holds, ratio, 1)
        for r in (0.0, 1.0):  # where an option drops out of the difference, draws are turned and an end may jump
            if holds(r):
                low, high = min(low, r), max(high, r)
            elif low <= r <= high:
                low, high = (math.nextafter(r, math.inf), high) if r < ratio else (low, math.nextafter(r, -math.inf))
        return low, high


def turned(by: np.ndarray) -> int:
    """-1 where the first weight that counts is below 0, else 1."""
    return -1 if by[np.flatnonzero(by)[:1]].sum() < 0 else 1


def edge(holds, start: float, sign: int) -> float:
    """The last place from ``start`` on in the direction of ``sign`` that ``holds``."""
    inside, step = 0.0, 0.25
    for _ in range(LARGEST):
        if not holds(start + sign * step):
            break
        inside, step = step, 2 * step
    else:
        return sign * math.inf
    outside = step
    while outside - inside > NARROW * max(1.0, inside):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(start + sign * middle) else (inside, middle)
    return start + sign * inside


def joined(name: str, parts: Sequence[Alternatives]) -> Alternatives:
    """The average over datasets, whose seeds are the same."""
    drawn = np.mean([part.drawn for part in parts], axis=0) if all(len(p.drawn) for p in parts) else parts[0].drawn[:0]
    images, step = sum(part.images for part in parts), max(part.step for part in parts) / len(parts)
    return Alternatives(name, np.mean([part.own for part in parts], axis=0), drawn, images, step)


def alternatives(
    name: str, own: np.ndarray, drawn: Mapping[Column, Drawn], columns: Sequence[Sequence[Column]]
) -> Alternatives:
    """Of (S, K) accuracies and the columns that they are of."""
    draws = mean_draws(drawn, columns)
    images = drawn[columns[0][0]].count if len(draws) else 0
    return Alternatives(name, own, draws, images, 100 / images if images else 0.0)


def mean_draws(drawn: Mapping[Column, Drawn], columns: Sequence[Sequence[Column]]) -> np.ndarray:
    """(S, K) columns -> (DRAWS, K) means over seeds; empty where any is missing or of other images than the rest."""
    found = [[drawn.get(column) for column in seed] for seed in columns]
    flat = [one for seed in found for one in seed if one is not None]
    if len(flat) < sum(map(len, columns)) or len({one.images for one in flat}) != 1:
        return np.empty((0, len(columns[0])))
    options = zip(*found, strict=True)
    return np.stack([np.mean([one.accuracies for one in option if one], axis=0) for option in options], axis=1)


def image_draws(
    predictions: Callable[[str], Predictions] | None, dataset: str, columns: Iterable[Column], keep: bool = True
) -> dict[Column, Drawn]:
    """Of those of the columns whose predictions can be had. ``keep``: for the next call with the same ones."""
    if predictions is None:
        return {}
    roles: dict[str, list[str]] = {}
    for key, role in dict.fromkeys(columns):
        roles.setdefault(key, []).append(role)
    right: dict[bytes, dict[Column, np.ndarray]] = {}
    for key, wanted in roles.items():
        try:
            stored = predictions(key)
            for role in wanted:
                predicted, label = stored[role]
                if predicted.shape == label.shape and label.size:
                    right.setdefault(np.asarray(label, np.int64).tobytes(), {})[key, role] = predicted == label
        except (UserError, OSError, KeyError, ValueError, TypeError):
            continue
    found = {}
    for images, of in right.items():
        rows = list(of.values())
        draw = drawn_once if keep else drawn_once.__wrapped__
        draws = draw(np.packbits(rows, axis=1).tobytes(), (len(rows), len(rows[0])), dataset, pairs.DRAWS)
        count = len(rows[0])
        found.update({column: Drawn(images, draws[:, place], count) for place, column in enumerate(of)})
    return found


@functools.lru_cache(maxsize=16)
def drawn_once(packed: bytes, shape: tuple[int, int], dataset: str, draws: int) -> np.ndarray:
    """(draws, columns): tables, figures and report ask for the same ones."""
    bits = np.frombuffer(packed, np.uint8).reshape(shape[0], -1)
    right = np.unpackbits(bits, axis=1, count=shape[1]).T.astype(np.float32)
    return pairs.drawn_accuracies(np.ascontiguousarray(right), dataset, "images")
