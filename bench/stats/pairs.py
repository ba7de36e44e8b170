"""Paired comparison of every two methods: difference, 95 % interval and p over test images and seeds.

Two things would be others in another run of the experiment: the test images, and what a seed decides (few-shot images,
initial values, order). Every method sees the same of both, so differences are taken image by image and seed by seed.

Images are drawn with replacement (paired bootstrap), one draw for all methods, backbones and seeds: the seeds of a
dataset share its test images, so they are drawn once, not once a seed, which would count each image as often as there
are seeds. Seeds are too few for that: of three drawn with replacement no interval is wider than from the least to the
greatest, which misses a true median in one case of four. Their part is Student's: the mean of the seeds' own
differences has the error t s / sqrt(n), t of n - 1 degrees of freedom, as in the audit's intervals. An interval is the
2.5th to 97.5th percentile of difference + image draw + seed draw; of one seed it tells of the images alone, and there
is no p.

Images that two methods differ on and that happen not to be among the test images are in no redraw: of 200 images
without a difference all redraws are 0. So an interval counts two images more, of which each method alone has one right
(Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
data"): their part of the error is a normal one beside the redraws, sqrt(2) / N of accuracies. Near the ceiling it
decides; where many images differ it is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import pandas as pd

from carryover.bench.seeds import derive
from carryover.bench.stats.intervals import t_quantile
from carryover.bench.stats.measures import Measure
from carryover.bench.stats.rank_tests import DECIMALS
from carryover.bench.stats.verdicts import decides, needed

DRAWS, COVERAGE = 10_000, 0.95
NEAR = 0.5 * 10.0**-DECIMALS  # what rounds to 0
BLOCK = 2_000_000  # images drawn at a time, 16 MB of counts
KEPT = 64_000_000  # draws times images of a dataset whose counts are kept, a byte each, for the next method

Column = tuple[str, str, int]  # method, role, seed


Cell = tuple[float, np.ndarray, np.ndarray, float]


@dataclass
class Sample:
    """Accuracies in percent on one dataset, or their averages over datasets: as measured, and for each draw of images.

    points   by method, role and seed
    draws    the same, (DRAWS,)
    step     what one image counts, in points; of an average over datasets the most that one does
    """

    name: str
    images: int
    step: float
    points: dict[Column, float]
    draws: dict[Column, np.ndarray]
    averaged: bool = False
    cells: dict = field(default_factory=dict)

    def seeds(self, method: str, measure: Measure) -> set[int]:
        found = [{s for m, r, s in self.points if (m, r) == (method, role)} for role in measure.roles]
        return set.intersection(*found)

    def cell(self, method: str, measure: Measure, seeds: tuple[int, ...]) -> Cell:
        """The measure over these seeds: its value, each seed's own, (S,), that of each draw of images, (DRAWS,), and
        its slope. H as the main table has it: a dataset's is the mean of the seeds' own, the average's that of the
        averages."""
        token = method, measure.id, seeds
        if token not in self.cells:
            points = [np.array([self.points[method, role, seed] for seed in seeds]) for role in measure.roles]
            draws = [np.stack([self.draws[method, role, seed] for seed in seeds]) for role in measure.roles]
            own = measure.of(*points)
            if self.averaged:
                value, drawn = measure.of(*(p.mean() for p in points)), measure.of(*(d.mean(0) for d in draws))
            else:
                value, drawn = own.mean(), measure.of(*draws).mean(0)
            self.cells[token] = float(value), own, drawn, measure.slope(*(float(p.mean()) for p in points))
        return self.cells[token]


def difference(sample: Sample, measure: Measure, method: str, other: str) -> list:
    """method, other, seeds, images, difference, low, high, p, and the numbers of seeds and of images either of which
    would take the interval off 0; no p of one seed."""
    seeds = tuple(sorted(sample.seeds(method, measure) & sample.seeds(other, measure)))
    if not seeds:
        return [method, other, 0, sample.images, *[math.nan] * 6]
    (a, own_a, drawn_a, up), (b, own_b, drawn_b, down) = (sample.cell(name, measure, seeds) for name in (method, other))
    drawn, own, more = drawn_a - drawn_b, own_a - own_b, sample.step * math.hypot(up, down)
    low, high, p = interval(drawn + unseen_errors(more, sample.name) + seed_errors(own, sample.name))
    if not decides(len(seeds)):
        p = math.nan
    decided = low > 0 or high < 0 or math.isnan(p)
    asked = (math.nan, math.nan) if decided else needed(abs(a - b), *spreads(drawn, more, own), len(own), sample.images)
    return [method, other, len(seeds), sample.images, a - b, low, high, p, *asked]


def spreads(drawn: np.ndarray, more: float, own: np.ndarray) -> tuple[float, float]:
    """Of a difference: its standard error over images, those that were not seen included; its deviation over seeds."""
    return math.hypot(float(drawn.std()), more), float(own.std(ddof=1))


def unseen_errors(size: float, name: str) -> np.ndarray | float:
    """Draws of the error from images that happen not to be among the test images: normal, of deviation ``size``."""
    return size * normal(name, DRAWS) if size else 0.0


@lru_cache(maxsize=64)
def normal(name: str, draws: int) -> np.ndarray:
    """As `student`, of the normal distribution."""
    quantile = NormalDist().inv_cdf
    return source(name, "unseen").permutation([quantile((i + 0.5) / draws) for i in range(draws)])


def seed_errors(differences: np.ndarray, name: str) -> np.ndarray | float:
    """Draws of the error of the mean of the seeds' differences; 0 where there is one seed, or all agree."""
    count = len(differences)
    spread = float(np.round(differences, DECIMALS).std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return spread * student(name, count, DRAWS) if spread else 0.0


@lru_cache(maxsize=64)
def student(name: str, count: int, draws: int) -> np.ndarray:
    """The same for all pairs of a dataset, as they share its seeds: the quantiles themselves in an order drawn at
    random, so that the part of the seeds has no error of its own."""
    return source(name, "seeds", count).permutation(student_quantiles(count - 1, draws))


@lru_cache(maxsize=8)
def student_quantiles(freedom: int, draws: int) -> np.ndarray:
    """Of Student's t at (i + 1/2) / draws, rising."""
    odd = draws % 2
    upper = [t_quantile(freedom, (2 * i + 1 + odd) / draws) for i in range(draws // 2)]
    return np.array([*(-t for t in reversed(upper)), *[0.0] * odd, *upper])


def interval(draws: np.ndarray) -> tuple[float, float, float]:
    """2.5th and 97.5th percentile of draws of a difference, and the two-sided p that it is 0."""
    draws = np.round(draws, DECIMALS)
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], method="hazen")
    rarer = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return float(low), float(high), min(1.0, 2 * (rarer + 1) / (len(draws) + 1))


def holds_nothing(draws: np.ndarray) -> bool:
    """Whether `interval` of the draws holds 0. Draws are counted, for sorting them is dear: an end lies between two
    neighbours among them, and only where those stand on either side of 0 does it matter where."""
    place = len(draws) * (1 - COVERAGE) / 2 - 0.5
    lower, part = math.floor(place), place % 1
    for sided in (draws, -draws):
        below = sided <= NEAR
        count = np.count_nonzero(below)
        if count <= lower:
            return False
        if count == lower + 1:
            first, second = sided[below].max(), sided[~below].min()
            end = first + part * (second - first)
            if abs(end) <= NEAR:  # to the last digit
                low, high, _ = interval(draws)
                return low <= 0 <= high
            if end > 0:
                return False
    return True


# ---- draws -----------------------------------------------------------------------------------------------------------


def together(a: Sample, b: Sample) -> Sample:
    """Sums, of what both have: an average over part of the datasets would be another number."""
    shared = [column for column in a.points if column in b.points]
    points = {column: a.points[column] + b.points[column] for column in shared}
    return Sample(
        "",
        a.images + b.images,
        max(a.step, b.step),
        points,
        {column: a.draws[column] + b.draws[column] for column in shared},
    )


def drawn_accuracies(right: np.ndarray, *what: object) -> np.ndarray:
    """(images, columns) of 0 and 1 in fp32 -> (DRAWS, columns): percent right of as many images drawn with
    replacement, the same for all columns. Sums of whole numbers: the same on every machine. ``what``: see `source`."""
    images = len(right)
    counts = kept_counts if images * DRAWS <= KEPT else image_counts
    found = [times.astype(np.float32) @ right for times in counts(images, DRAWS, what)]
    return 100 * np.concatenate(found).astype(np.float64) / images


def image_counts(images: int, draws: int, what: tuple) -> Iterator[np.ndarray]:
    """How often each image is in each draw: blocks of (some draws, images), ``draws`` in all."""
    generator, step = source(*what), max(1, BLOCK // images)
    kind = np.uint16 if images <= 2**16 else np.uint32
    for start in range(0, draws, step):
        picks = generator.randint(images, size=(min(step, draws - start), images), dtype=kind)
        times = np.stack([np.bincount(row, minlength=images) for row in picks])
        yield times.astype(np.uint8 if times.max() < 2**8 else np.uint32)


@lru_cache(maxsize=16)
def kept_counts(images: int, draws: int, what: tuple) -> tuple[np.ndarray, ...]:
    return tuple(image_counts(images, draws, what))


def source(*what: object) -> np.random.RandomState:
    """A stream of its own, frozen in every numpy: `check` makes the very draws of the report."""
    return np.random.RandomState(derive("comparison", *what) % 2**32)


# ---- reading ---------------------------------------------------------------------------------------------------------


def row_of(table: pd.DataFrame, dataset: str, measure: str, method: str, other: str) -> Mapping[str, float] | None:
    """The pair's row, turned where the table has the two the other way; None where it has no number."""
    part = table[(table["dataset"] == dataset) & (table["measure"] == measure) & table["difference"].notna()]
    for first, second, sign in ((method, other, 1), (other, method, -1)):
        rows = part[(part["method"] == first) & (part["other"] == second)]
        if len(rows):
            row = rows.iloc[0]
            ends: Sequence[float] = sorted((sign * row["low"], sign * row["high"]))
            turned = {"difference": sign * row["difference"], "low": ends[0], "high": ends[1]}
            return {**row[["p", "p_holm", "seeds", "seeds_needed", "images_needed"]], **turned}
    return None
