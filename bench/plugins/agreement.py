"""How alike two models answer about the same pictures where no label is: classes or scores, each with an interval.

Intervals are percentiles over redraws of the pictures, always the same ones. Letters: N pictures, C classes, S scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.stats.correlation import percentiles

DRAWS, DRAW_SEED = 2000, 0
Figures = dict[str, float]


def of_classes(old: Tensor, new: Tensor) -> dict[str, Any]:
    """Of logits (N, C) of the same classes.

    same      share of pictures on which both name the same class
    chance    what that share would be if each named classes as often as it does, by chance
    kappa     Cohen's (1960): (same - chance) / (1 - chance)
    distance  mean over pictures of half the summed absolute differences of probabilities (0: the same, 1: nothing
              shared)
    """
    one, other = old.argmax(-1).cpu().numpy(), new.argmax(-1).cpu().numpy()
    count = old.shape[1]
    apart = 0.5 * (old.double().softmax(-1) - new.double().softmax(-1)).abs().sum(-1).cpu().numpy()
    same = (one == other).astype(float)

    def figures(weights: np.ndarray) -> Figures:
        total = weights.sum()
        shares = [np.bincount(side, weights=weights, minlength=count) / total for side in (one, other)]
        agreed, chance = float(weights @ same / total), float(shares[0] @ shares[1])
        kappa = (agreed - chance) / (1 - chance) if chance < 1 else math.nan
        return {"same": agreed, "chance": chance, "kappa": kappa, "distance": float(weights @ apart / total)}

    return {"kind": "classes", "count": len(one), **with_intervals(figures, len(one))}


def of_scores(names: Sequence[str], old: Tensor, new: Tensor) -> dict[str, Any]:
    """Of scores (N, S): by the name of each what ``of_score`` gives."""
    columns = [side.double().cpu().numpy().T for side in (old, new)]
    found = {name: of_score(*pair) for name, *pair in zip(names, *columns, strict=True)}
    return {"kind": "scores", "count": len(old), "scores": found}


def of_score(old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    """Of (N,) each: correlations ``pearson`` and ``spearman`` (ties at their average rank), ``mae`` and ``rmse``, the
    mean absolute and the root mean squared difference, all with intervals; mean and deviation of both, for scale."""
    places = [np.unique(side, return_inverse=True)[1] for side in (old, new)]
    error = new - old

    def figures(weights: np.ndarray) -> Figures:
        total = weights.sum()
        return {
            "pearson": weighted(old, new, weights),
            "spearman": weighted(ranks(places[0], weights), ranks(places[1], weights), weights),
            "mae": float(weights @ np.abs(error) / total),
            "rmse": float(np.sqrt(weights @ error**2 / total)),
        }

    sizes = {f"{name}_{what}": float(f(side)) for name, side in (("old", old), ("new", new)) for what, f in SIZES}
    return {**with_intervals(figures, len(old)), **sizes}


SIZES: tuple[tuple[str, Callable[[np.ndarray], Any]], ...] = (("mean", np.mean), ("std", np.std))


def weighted(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's correlation of (N,) each, each entry so many times; NaN where one does not vary."""
    total = weights.sum()
    a, b = one - weights @ one / total, other - weights @ other / total
    size = math.sqrt((weights @ a**2) * (weights @ b**2))
    nothing = 1e-12 * total * max(1e-300, float(np.abs(one).max() * np.abs(other).max()))
    return float(weights @ (a * b) / size) if size > nothing else math.nan


def ranks(place: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) ranks of entries that stand so many times; ``place``: each one's place among the different values."""
    times = np.bincount(place, weights=weights)
    return (np.cumsum(times) - (times - 1) / 2)[place]


def with_intervals(figures: Callable[[np.ndarray], Figures], count: int) -> dict[str, dict[str, float | None]]:
    """Each figure as ``value``, ``low`` and ``high`` (2.5th and 97.5th percentile); None where it is not defined."""
    drawn: dict[str, list[float]] = {}
    for weights in redraws(count):
        for name, value in figures(weights).items():
            drawn.setdefault(name, []).append(value)
    found = {}
    for name, value in figures(np.ones(count)).items():
        draws = np.array(drawn[name])
        low, high = percentiles(draws) if np.isfinite(draws).all() else (math.nan, math.nan)
        parts = {"value": value, "low": low, "high": high}
        found[name] = {part: one if math.isfinite(one) else None for part, one in parts.items()}
    return found


def redraws(count: int) -> Iterator[np.ndarray]:
    """How often each of ``count`` pictures is drawn, (N,), in each redraw."""
    generator = np.random.RandomState(DRAW_SEED)  # its stream is frozen
    for _ in range(DRAWS):
        yield np.bincount(generator.randint(count, size=count, dtype=np.int64), minlength=count).astype(float)


@torch.no_grad()
def of(names: Sequence[str], scores: bool, old: Tensor, new: Tensor) -> dict[str, Any]:
    """Of answers (N, C) or (N, S) about the same pictures."""
    return of_scores(names, old, new) if scores else of_classes(old, new)
