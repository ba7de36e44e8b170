"""Reuse, retrain, or zero-shot: what of a method's gain an update leaves, and which of the three to take.

On a target backbone the floor is its own zero-shot accuracy, the ceiling the same method trained on it from nothing:
``retention = (reused - zero-shot) / (retrained - zero-shot)``. Intervals are those of a paired bootstrap over seeds and
test images (``bench.resample``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from bench import resample, retraining
from bench.errors import UserError
from bench.selection import Selection
from bench.stats import AVERAGE, Record
from bench.trainer import epoch_steps
from methods.base import TrainConfig

OPTIONS = ("zero-shot", "reuse", "retrain")  # the cheapest first: nothing to keep, nothing to train, training
NOTHING = "nothing to retain"
RULE = (
    "The choice is the cheapest of zero-shot, reuse and retrain, in this order, whose accuracy is not below the best "
    "one's beyond the 95 % interval of their difference."
)
KEYS = ("target", "dataset", "method")
SCORES = ("zero_shot", "reused", "retrained")
COST = ("fit_seconds", "feature_seconds", "steps", "parameters")
RETENTION = (*KEYS, "seeds", *SCORES, "retention", "low", "high", *COST)
GAINS = ("reuse_gain", "reuse_low", "reuse_high", "retrain_gain", "retrain_low", "retrain_high")
DECISION = (*KEYS, "seeds", "choice", "gain", "gain_low", "gain_high", *GAINS, *COST)


@dataclass(frozen=True)
class Compared:
    """The three options on one target, dataset (or the average) and method.

    means   accuracies in percent, in the order of ``OPTIONS``
    drawn   (draws, 3) the same of each draw of the bootstrap; empty where the predictions cannot be had
    cost    of retraining, as ``COST`` names it; NaN where it was not measured
    """

    target: str
    dataset: str
    method: str
    seeds: int
    means: tuple[float, float, float]
    drawn: np.ndarray
    cost: tuple[float, ...]

    @property
    def keys(self) -> tuple[str, str, str]:
        return self.target, self.dataset, self.method

    def difference(self, one: str, other: str) -> tuple[float, float, float]:
        """Accuracy of one option less another's, in points, and the ends of its interval."""
        a, b = OPTIONS.index(one), OPTIONS.index(other)
        value = self.means[a] - self.means[b]
        if not len(self.drawn):
            return value, math.nan, math.nan
        return value, *resample.interval(self.drawn[:, a] - self.drawn[:, b])

    @property
    def retention(self) -> tuple[float, float, float]:
        """The share of the gain that was kept, and the ends of its interval; NaN where the gain to be kept is not above
        nothing beyond its interval."""
        kept, gain = self.difference("reuse", "zero-shot")[0], self.difference("retrain", "zero-shot")
        if not gain[1] > 0:
            return math.nan, math.nan, math.nan
        floor, reused, ceiling = self.drawn.T
        return kept / gain[0], *resample.ratio_interval(reused - floor, ceiling - floor)

    @property
    def choice(self) -> str:
        """By ``RULE``; empty where there is no interval to decide by."""
        if not len(self.drawn):
            return ""
        best = OPTIONS[int(np.argmax(self.means))]
        return next(one for one in OPTIONS if one == best or self.difference(best, one)[1] <= 0)


# ---- from records ----------------------------------------------------------------------------------------------------


def compared(selection: Selection) -> list[Compared]:
    """Of every target, dataset and method that was retrained; then, of each target and method, the average over the
    datasets, where the method has all of them."""
    reused = {(r["run"]["dataset"], r["run"]["method"], r["run"]["seed"]): r for r in selection.main}
    rates, found = rates_of(selection.records), []
    for row in selection.rows.get("retention", ()):
        (target,), method = row.variant.path, row.variant.method
        by_seed = {
            record["run"]["seed"]: (
                reused.get((row.dataset, retraining.ZERO_SHOT, record["run"]["seed"])),
                reused.get((row.dataset, method, record["run"]["seed"])),
                record,
            )
            for record in row.records
        }
        whole = {s: three for s, three in by_seed.items() if all(r and accuracy(r, target) >= 0 for r in three)}
        threes = [whole[seed] for seed in sorted(whole)]
        found.append(compare(selection, target, row.dataset, method, threes, rates))
    return [*found, *averages(found)]


def accuracy(record: Record, target: str) -> float:
    """In percent; NaN where the run is not done there."""
    found = (record.get("targets") or {}).get(target) or {}
    return float(found.get("accuracy", math.nan)) if record.get("status") == "done" else math.nan


def compare(
    selection: Selection, target: str, dataset: str, method: str, threes: Sequence[tuple], rates: dict[str, float]
) -> Compared:
    if not threes:
        nothing = (math.nan,) * 3
        return Compared(target, dataset, method, 0, nothing, np.empty((0, 3)), (math.nan,) * len(COST))
    floor, reused, ceiling = (float(np.mean([accuracy(three[k], target) for three in threes])) for k in range(3))
    drawn = draws(selection, target, [[three[k]["key"] for three in threes] for k in range(3)], dataset, method)
    cost = [[value for three in threes if (value := part(three[2])) is not None] for part in costs(target, rates)]
    measured = tuple(median(values) if values else math.nan for values in cost)
    return Compared(target, dataset, method, len(threes), (floor, reused, ceiling), drawn, measured)


def averages(found: Sequence[Compared]) -> Iterator[Compared]:
    """Seeds are those done on every dataset at least; costs are means over the datasets."""
    for target in dict.fromkeys(one.target for one in found):
        of_target = [one for one in found if one.target == target]
        sets = dict.fromkeys(one.dataset for one in of_target)
        for method in dict.fromkeys(one.method for one in of_target):
            mine = [one for one in of_target if one.method == method and one.seeds]
            whole = len(mine) == len(sets)
            means = np.mean([one.means for one in mine], axis=0) if whole else np.full(3, math.nan)
            drawn = np.empty((0, 3))
            if whole and all(len(one.drawn) for one in mine):
                drawn = np.mean([one.drawn for one in mine], axis=0)
            cost = np.mean([one.cost for one in mine], axis=0) if whole else np.full(len(COST), math.nan)
            seeds = min(one.seeds for one in mine) if whole else 0
            floor, reused, ceiling = map(float, means)
            yield Compared(target, AVERAGE, method, seeds, (floor, reused, ceiling), drawn, tuple(map(float, cost)))


# ---- draws -----------------------------------------------------------------------------------------------------------


def draws(selection: Selection, target: str, keys: Sequence[Sequence[str]], *axes: str) -> np.ndarray:
    """(draws, K) accuracies of K options, each given by the keys of its seeds; empty where any prediction is missing
    or not of the same images."""
    if selection.predictions is None:
        return np.empty((0, len(keys)))
    rows, truth = [], None
    for key in (key for option in keys for key in option):
        try:
            predicted, label = selection.predictions(key)[target]
        except (UserError, OSError, KeyError, ValueError, TypeError):
            return np.empty((0, len(keys)))
        truth = label if truth is None else truth
        if predicted.shape != label.shape or not np.array_equal(label, truth):
            return np.empty((0, len(keys)))
        rows.append(predicted == label)
    shape = len(keys), len(keys[0]), len(rows[0])
    return drawn_once(np.packbits(rows, axis=1).tobytes(), shape, (target, *axes))


@functools.lru_cache(maxsize=2048)
def drawn_once(packed: bytes, shape: tuple[int, int, int], axes: tuple[str, ...]) -> np.ndarray:
    """Tables, figures and report ask for the same draws."""
    options, seeds, count = shape
    bits = np.frombuffer(packed, np.uint8).reshape(options * seeds, -1)
    right = np.unpackbits(bits, axis=1, count=count).astype(bool)
    return resample.accuracies(right.reshape(shape), *axes)


# ---- cost ------------------------------------------------------------------------------------------------------------


def rates_of(records: Sequence[Record]) -> dict[str, float]:
    """Seconds a picture took to encode, by backbone."""
    images: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for record in records:
        for role, made in (record.get("encoded") or {}).items():
            images[role] = images.get(role, 0) + made["images"]
            seconds[role] = seconds.get(role, 0.0) + made["seconds"]
    return {role: seconds[role] / count for role, count in images.items() if count}


def costs(target: str, rates: dict[str, float]) -> tuple:
    """What ``COST`` names, as functions of a retrained record; None where it was not measured."""

    def features(record: Record) -> float | None:
        return rates[target] * pictures(record) if target in rates else None

    return (
        lambda record: (record.get("seconds") or {}).get("fit"),
        features,
        steps_made,
        lambda record: record.get("trainable_parameters"),
    )


def pictures(record: Record) -> int:
    """Pictures and views that training reads: the support images as they are and in views, and few-shot validation's,
    4 a class at most."""
    run, split = record["run"], record.get("split") or {}
    support, config = split.get("support") or 0, run.get("config") or {}
    views = (run.get("views") or len(record.get("curve") or ())) if config.get("crop") != [1.0, 1.0] else 0
    return support * (1 + views) + (split.get("classes") or 0) * min(run.get("shots") or 0, 4)


def steps_made(record: Record) -> int:
    """Training steps that the learning curve tells of, a row an epoch."""
    config, support = record["run"].get("config") or {}, (record.get("split") or {}).get("support") or 0
    if not record.get("curve") or not support:
        return 0
    known = {name: config[name] for name in ("batch", "drop_last") if name in config}
    return len(record["curve"]) * epoch_steps(TrainConfig(**known), support)


# ---- tables ----------------------------------------------------------------------------------------------------------


def retention_table(selection: Selection) -> pd.DataFrame:
    """`RETENTION`: accuracies in percent, retention and its interval as shares, the median cost of retraining."""
    rows = [[*one.keys, one.seeds, *one.means, *one.retention, *one.cost] for one in compared(selection)]
    return pd.DataFrame(rows, columns=list(RETENTION))


def decision_table(selection: Selection) -> pd.DataFrame:
    """`DECISION`: the choice, what it gains over zero-shot, what reuse gains over zero-shot and retraining over reuse
    (points and intervals), and what retraining costs."""
    rows = []
    for one in compared(selection):
        gain = one.difference(one.choice, "zero-shot") if one.choice else (math.nan,) * 3
        reuse, retrain = one.difference("reuse", "zero-shot"), one.difference("retrain", "reuse")
        rows.append([*one.keys, one.seeds, one.choice, *gain, *reuse, *retrain, *one.cost])
    return pd.DataFrame(rows, columns=list(DECISION))
