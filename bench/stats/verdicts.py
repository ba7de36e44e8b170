"""What a comparison may say of its interval: a verdict from two seeds on, else what would decide."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from carryover.bench.stats.intervals import NORMAL, t_quantile

FEWEST_SEEDS = 2
IMAGES_ALONE = "images alone"
MOST = 100  # seeds, and times the test images, that are called for


def decides(seeds: float) -> bool:
    """Whether that many seeds allow a p, a verdict or a choice. What one seed does to a result cannot be told from it:
    its interval is over images alone, and too narrow wherever seeds matter."""
    return seeds >= FEWEST_SEEDS


def images_alone(seeds: float) -> str:
    """What stands behind an interval."""
    return "" if decides(seeds) else f" ({IMAGES_ALONE})"


def needed(half: float, image_error: float, seed_deviation: float, seeds: int, images: int) -> tuple[float, float]:
    """How many seeds, with the images at hand, or how many images, with the seeds at hand, make half of the interval
    smaller than ``half``. NaN where more of these alone does not, or only more than `MOST` (times).

    image_error     standard error of the difference over images, in points; it falls with the root of their number
    seed_deviation  sample deviation of the seeds' differences; Student's interval of their mean has t s / sqrt(n)
    """
    left = half**2 - (NORMAL * image_error) ** 2
    more_seeds = more_images = math.nan
    if left > 0:
        enough = np.flatnonzero(student_widths() * seed_deviation < math.sqrt(left))
        more_seeds = float(max(seeds + 1, FEWEST_SEEDS + enough[0])) if len(enough) else math.nan
    left = half**2 - (student_widths()[seeds - FEWEST_SEEDS] * seed_deviation) ** 2 if seeds <= MOST else math.nan
    if left > 0:
        times = max((NORMAL * image_error) ** 2 / left, 1.0)
        more_images = rounded_up(images * times) if times <= MOST else math.nan
    return more_seeds, more_images


def rounded_up(count: float) -> float:
    """To two digits: it is no more than an estimate."""
    unit = 10.0 ** max(0, math.floor(math.log10(count)) - 1)
    return math.floor(count / unit + 1) * unit


@lru_cache(maxsize=1)
def student_widths() -> np.ndarray:
    """t / sqrt(n) for n from `FEWEST_SEEDS` to `MOST` seeds."""
    return np.array([t_quantile(n - 1) / math.sqrt(n) for n in range(FEWEST_SEEDS, MOST + 1)])


def would_decide(seeds: float, images: float) -> str:
    """`needed`, as a sentence ends."""
    by = [] if math.isnan(seeds) else [f"about {seeds:.0f} seeds"]
    by += [] if math.isnan(images) else [f"about {images:,.0f} test images"]
    return f"{' or '.join(by)} would decide" if by else "neither more seeds nor more test images alone would decide"
