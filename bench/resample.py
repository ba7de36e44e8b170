"""Paired bootstrap over seeds and test images of accuracies that were measured on the same images.

Seeds and images are drawn anew independently of each other, with replacement, and every option that is compared gets
the same draw (the "pigeonhole" bootstrap of crossed factors; Owen 2007, Annals of Applied Statistics 1(2), 386-411).
One seed cannot be drawn anew: the interval then tells of images alone. With S seeds the spread over seeds comes out
smaller by the factor (S - 1) / S in its square, as ever with a bootstrap of few.
"""

from __future__ import annotations

import math

import numpy as np

from bench.seeds import derive

DRAWS = 2000
LEVEL = 0.95


def accuracies(right: np.ndarray, *axes: object, draws: int = DRAWS) -> np.ndarray:
    """Drawn accuracies in percent, (draws, K), of K options; each row is one draw of seeds and images for all of them.

    right  (K, S, N) whether option k with seed s gets image i right
    axes   name the stream of random numbers, as in ``bench.seeds.derive``

    Images that all options and seeds answer alike are interchangeable, so only their counts are drawn: the same
    distribution, at a cost that does not grow with N.
    """
    options, seeds, count = right.shape
    if not seeds or not count:
        raise ValueError(f"nothing to draw from: {seeds} seeds, {count} images")
    random = np.random.default_rng(derive("bootstrap", *axes))
    patterns, sizes = np.unique(right.reshape(options * seeds, count), axis=1, return_counts=True)
    images = random.multinomial(count, sizes / count, size=draws) / count
    drawn = (images @ patterns.T.astype(np.float64)).reshape(draws, options, seeds)
    weights = random.multinomial(seeds, [1 / seeds] * seeds, size=draws) / seeds
    return 100 * np.einsum("dks,ds->dk", drawn, weights)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of drawn values; its ends are values that were drawn, so that infinite ones among them
    cannot make others of them."""
    low, high = (1 - level) / 2, (1 + level) / 2
    ends = np.quantile(values, [low, high], method="inverted_cdf")
    return float(ends[0]), float(ends[1])


def ratio_interval(above: np.ndarray, below: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Of ``above / below``, draw by draw. A draw whose denominator is not positive says nothing of the ratio's size:
    it counts as infinite, in the direction of its numerator. NaN where these could reach an end."""
    if interval(below, level)[0] <= 0:
        return math.nan, math.nan
    positive = below > 0
    ratios = np.where(above > 0, np.inf, -np.inf)
    ratios[positive] = above[positive] / below[positive]
    return interval(ratios, level)
