"""Simulated experiments of two methods whose true difference is known: how often the interval of a pair holds it.

`python tests/support/simulated.py` prints the table of docs/statistics.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from carryover.bench.stats import pairs
from carryover.bench.stats.measures import Measure

BASE, H = Measure("base", "Base", ("base",)), Measure("h", "H", ("base", "new"))


@dataclass(frozen=True)
class World:
    """accuracy    of the second method on the base, percent; on the update ten points less
    ahead          of the first one, in points
    deviation      of what a seed adds to accuracy, in points, at most half of what is left to 100
    shared, own    parts of an answer's chance that an image has for both methods, and for one method in all seeds; the
                   rest is drawn for each seed. 1 in all and no deviation: seeds give the same answers
    """

    accuracy: float = 90.0
    ahead: float = 1.0
    images: int = 200
    seeds: int = 3
    deviation: float = 0.0
    shared: float = 0.6
    own: float = 0.4
    measure: Measure = BASE

    @property
    def truths(self) -> np.ndarray:
        """(2, roles)"""
        first, roles = min(self.accuracy + self.ahead, 99.8), len(self.measure.roles)
        return np.array([[top - 10 * place for place in range(roles)] for top in (first, self.accuracy)])

    @property
    def truth(self) -> float:
        first, second = self.measure.of(*self.truths.T)
        return float(first - second)

    def answers(self, rng: np.random.Generator) -> np.ndarray:
        """(2, roles, seeds, images) of right and wrong."""
        roles, left = len(self.measure.roles), np.minimum(self.truths, 100 - self.truths)[..., None]
        effects = np.minimum(self.deviation, left / 2) * rng.normal(size=(2, roles, self.seeds))
        chance = (self.truths[..., None] + np.clip(effects, -0.98 * left, 0.98 * left)) / 100
        z = math.sqrt(self.shared) * rng.normal(size=self.images)
        z = z + math.sqrt(self.own) * rng.normal(size=(2, 1, 1, self.images))
        z = z + math.sqrt(max(0.0, 1 - self.shared - self.own)) * rng.normal(size=(2, roles, self.seeds, self.images))
        return z < ndtri(chance)[..., None]

    def sample(self, rng: np.random.Generator) -> pairs.Sample:
        """As `comparison.sample_of` makes one, but for the draws: of the images that were answered alike by all, counts
        are drawn, which have the same distribution."""
        right = self.answers(rng).reshape(-1, self.images)
        codes = (1 << np.arange(len(right))) @ right  # who was right, as a number
        _, places, counts = np.unique(codes, return_index=True, return_counts=True)
        drawn = 100 * rng.multinomial(self.images, counts / self.images, pairs.DRAWS) @ right[:, places].T / self.images
        columns = list(itertools.product("xy", self.measure.roles, range(self.seeds)))
        points = dict(zip(columns, 100 * right.mean(1), strict=True))
        return pairs.Sample("d", self.images, 100 / self.images, points, dict(zip(columns, drawn.T, strict=True)))

    def difference(self, sample: pairs.Sample) -> list:
        return pairs.difference(sample, self.measure, "x", "y")


def coverage(world: World, worlds: int, rng: np.random.Generator) -> np.ndarray:
    """Share of intervals that hold the truth and their mean width: of redraws alone, then as they are."""
    found = []
    for _ in range(worlds):
        sample = world.sample(rng)
        for step in (0.0, sample.step):
            low, high = world.difference(replace(sample, step=step, cells={}))[5:7]
            found.append((low - 1e-9 <= world.truth <= high + 1e-9, high - low))
    return np.array(found, float).reshape(worlds, 4).mean(0)


KINDS = {  # of seeds
    "one seed, the same again": {"seeds": 1},
    "3 seeds that answer alike": {"seeds": 3},
    "2 seeds, 1 point": {"seeds": 2, "deviation": 1.0, "own": 0.2},
    "3 seeds, 3 points": {"seeds": 3, "deviation": 3.0, "own": 0.1, "shared": 0.5},
    "5 seeds, 6 points": {"seeds": 5, "deviation": 6.0, "own": 0.2},
}
LEVELS = ((60.0, 5.0), (80.0, 0.0), (90.0, 2.0), (97.0, 1.0), (99.0, 0.5), (99.5, 0.3))  # accuracy, ahead by
IMAGES = (50, 200, 1000, 5000)


def grid() -> list[World]:
    of_base = [
        World(accuracy, ahead, images, **kind)
        for (accuracy, ahead), images, kind in itertools.product(LEVELS, IMAGES, KINDS.values())
        if accuracy >= 97 or images in (50, 200)  # where most images differ a draw of many is slow, and normal
    ]
    of_h = [replace(world, measure=H) for world in of_base if world.images in (50, 200) and world.seeds == 3]
    return of_base + of_h


def main(worlds: int = 200) -> None:
    """A line for an accuracy and a number of images, over the kinds of seeds."""
    pairs.DRAWS, rng = 1000, np.random.default_rng(0)
    print("| Of | Accuracy | Images | Before: least, mean | Now: least, mean | Width before, now (points) |")
    print("|---|---|---|---|---|---|")
    for (name, accuracy, images), of in itertools.groupby(grid(), lambda w: (w.measure.name, w.accuracy, w.images)):
        rows = [coverage(world, worlds, rng) for world in of]
        least, mean = np.min(rows, axis=0), np.mean(rows, axis=0)
        print(
            f"| {name} | {accuracy:g} % | {images:,} | {least[0]:.0%}, {mean[0]:.0%} | {least[2]:.0%}, {mean[2]:.0%} | "
            f"{mean[1]:.2f}, {mean[3]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
