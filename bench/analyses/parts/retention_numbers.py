"""The numbers of `bench.analyses.retention`: the three options compared, and what retraining costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.settings import Methods
from carryover.bench.records.reading import AVERAGE, Record, accuracy, refused
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING
from carryover.bench.stats import choices
from carryover.bench.stats.verdicts import decides, images_alone
from carryover.methods.parts.schedule import epoch_steps
from carryover.methods.train_config import TrainConfig

OPTIONS = ("zero-shot", "reuse", "retrain")  # the cheapest first: nothing to keep, nothing to train, training
WITHOUT_REUSE = ("zero-shot", "retrain")  # where the plug-in cannot be plugged in
NOTHING = "nothing to retain"
UNDECIDED = "undecided"
MARGIN = 1.0  # points that an option may be behind the best and still be taken for being cheaper


def rule_of(options: str) -> str:
    """``options``: as a sentence names them, the cheapest first."""
    return (
        f"The choice is the cheapest of {options}, in this order, that is within {MARGIN:g} point of the best: the 95 "
        f"% interval of its difference from the best lies above -{MARGIN:g}. The choice is “{UNDECIDED}” where the "
        f"interval of a cheaper option holds both -{MARGIN:g} and 0. With one seed there is no choice."
    )


RULE = rule_of("zero-shot, reuse and retrain")
KEYS = ("target", "dataset", "method")
SCORES = ("zero_shot", "reused", "retrained")
COST = ("fit_seconds", "feature_seconds", "steps", "parameters")
RETENTION = (*KEYS, "seeds", *SCORES, "retention", "low", "high", *COST)
GAINS = {  # column -> an option, and the one it is compared with
    "reuse": ("reuse", "zero-shot"),
    "retrain": ("retrain", "zero-shot"),
    "more": ("retrain", "reuse"),
}
OF_GAINS = tuple(name + end for name in GAINS for end in ("_gain", "_low", "_high"))
DECIDED = ("seeds", "choice", "best", "gain", "gain_low", "gain_high", "seeds_needed", "images_needed")
DECISION = (*KEYS, *DECIDED, *OF_GAINS, *COST)


@dataclass(frozen=True)
class Compared:
    """The options on one target, dataset (or the average) and method.

    means    accuracies in percent, in the order of ``names``
    options  the same of each seed and of each draw of images; None without a seed
    cost     of retraining, as ``COST`` names it; NaN where it was not measured
    names    of the options, the cheapest first
    """

    target: str
    dataset: str
    method: str
    seeds: int
    means: tuple[float, ...]
    options: choices.Alternatives | None
    cost: tuple[float, ...] = ()
    names: tuple[str, ...] = OPTIONS

    @property
    def keys(self) -> tuple[str, str, str]:
        return self.target, self.dataset, self.method

    @property
    def has_intervals(self) -> bool:
        return self.options is not None and len(self.options.drawn) > 0

    def mean(self, option: str) -> float:
        """NaN for an option that there is not."""
        return self.means[self.names.index(option)] if option in self.names else math.nan

    def difference(self, one: str, other: str) -> tuple[float, float, float]:
        """Accuracy of one option less another's, in points, and the ends of its interval; NaN where either is no option
        here."""
        value = self.mean(one) - self.mean(other)
        known = self.options if {one, other} <= set(self.names) else None
        return value, *(known.interval(self.less(one, other)) if known else (math.nan, math.nan))

    def less(self, one: str, other: str) -> list[int]:
        """Weights of the options in their difference."""
        return [(option == one) - (option == other) for option in self.names]

    @property
    def retention(self) -> tuple[float, float, float]:
        return self.kept("reuse")

    def kept(self, option: str) -> tuple[float, float, float]:
        """The share of retraining's gain that the option has, and the ends of its interval; NaN where the gain to be
        kept is not above nothing beyond its interval."""
        if self.options is None or option not in self.names:
            return math.nan, math.nan, math.nan
        shot, reached, ceiling = map(self.mean, ("zero-shot", option, "retrain"))
        above, below = (self.less(one, "zero-shot") for one in (option, "retrain"))
        low, high = self.options.ratio_interval(above, below)  # no ends where the gain is not above nothing
        return math.nan if math.isnan(low) else (reached - shot) / (ceiling - shot), low, high

    @property
    def best(self) -> str:
        """The option of the highest accuracy, of equal ones the cheapest; empty where there is no interval, or one seed
        alone."""
        return self.names[int(np.argmax(self.means))] if self.has_intervals and decides(self.seeds) else ""

    @property
    def choice(self) -> str:
        """By ``RULE``; empty where there is no interval to decide by."""
        for one in self.names if self.best else ():
            if one == self.best or (near := self.near(one)):
                return one
            if near is None:
                return UNDECIDED
        return ""

    def near(self, one: str) -> bool | None:
        """Whether an option is shown to be near the best one, False where it is shown to be behind it, None where
        neither is shown."""
        _, low, high = self.difference(one, self.best)
        return True if low > -MARGIN else None if high >= 0 else False

    @property
    def needed(self) -> tuple[float, float]:
        """The seeds, and the images, either of which would decide the choice: every option before the best that is
        neither shown to be near nor behind has an interval short enough for one of the two. NaN where it is decided,
        or more of these alone would not do."""
        asked, options = [], self.options
        for one in self.names[: self.names.index(self.best)] if self.choice == UNDECIDED else ():
            if options and self.near(one) is None:
                behind = self.mean(self.best) - self.mean(one)
                asked.append(options.needed(self.less(one, self.best), max(behind, MARGIN - behind)))
        return tuple(np.max(asked, axis=0).tolist()) if asked else (math.nan, math.nan)


# ---- from records ----------------------------------------------------------------------------------------------------

Three = tuple[Record, ...]  # zero-shot's, the reused unless it is refused, the retrained: of one seed


def compared(selection: Selection) -> list[Compared]:
    """Of every target, dataset and method that was retrained; then, of each target and method, the average over the
    datasets, where the method has all of them. Nobody may change the list."""
    return selection.once("retention", lambda: measured(selection))


def measured(selection: Selection) -> list[Compared]:
    of_main = {(r["run"]["dataset"], r["run"]["method"], r["run"]["seed"]): r for r in selection.main}
    threes: dict[tuple[str, str, str], dict[int, Three]] = {}
    for row in selection.rows.get("retention", ()):
        (target,), method = row.variant.path, row.variant.method
        here = threes.setdefault((target, row.dataset, method), {})
        for record in sorted(row.records, key=lambda r: r["run"]["seed"]):
            seed = record["run"]["seed"]
            floor, reused = (of_main.get((row.dataset, name, seed)) for name in (ZERO_SHOT, method))
            if floor and reused:
                three = (floor, record) if target in refused(reused) else (floor, reused, record)
                if all(accuracy(r, target) >= 0 for r in three):
                    here[seed] = three
    drawn = {dataset: drawn_on(selection, dataset, threes) for dataset in dict.fromkeys(key[1] for key in threes)}
    rates, found = rates_of(selection.records), []
    for (target, dataset, method), by_seed in threes.items():
        options = options_of(target, dataset, list(by_seed.values()), drawn[dataset])
        priced = costs(target, rates, selection.chosen_by.methods)
        cost = [[v for three in by_seed.values() if (v := part(three[-1])) is not None] for part in priced]
        medians = tuple(median(values) if values else math.nan for values in cost)
        found.append(compare(target, dataset, method, len(by_seed), options, medians, options_in(by_seed)))
    for target, method in dict.fromkeys((target, method) for target, _, method in threes):
        datasets = dict.fromkeys(dataset for role, dataset, _ in threes if role == target)
        each = {dataset: threes.get((target, dataset, method), {}) for dataset in datasets}
        if WITHOUT_REUSE in map(options_in, each.values()):
            each = {d: {seed: (three[0], three[-1]) for seed, three in by.items()} for d, by in each.items()}
        seeds, options = averaged(target, each, drawn)
        mine = [one.cost for one in found if (one.target, one.method) == (target, method)]
        means = np.mean(mine, axis=0) if seeds else np.full(len(COST), math.nan)
        names = WITHOUT_REUSE if WITHOUT_REUSE in map(options_in, each.values()) else OPTIONS
        found.append(compare(target, AVERAGE, method, seeds, options, tuple(map(float, means)), names))
    return found


def options_in(by_seed: Mapping[int, Three]) -> tuple[str, ...]:
    """The names of the options."""
    return WITHOUT_REUSE if any(len(three) < len(OPTIONS) for three in by_seed.values()) else OPTIONS


def drawn_on(
    selection: Selection, dataset: str, threes: Mapping[tuple[str, str, str], Mapping[int, Three]]
) -> dict[choices.Column, choices.Drawn]:
    here = [(target, by_seed.values()) for (target, name, _), by_seed in threes.items() if name == dataset]
    columns = [(r["key"], target) for target, whole in here for three in whole for r in three]
    return choices.image_draws(selection.predictions, dataset, columns)


def options_of(
    target: str, dataset: str, threes: Sequence[Sequence[Record]], drawn: Mapping[choices.Column, choices.Drawn]
) -> choices.Alternatives | None:
    """``threes``: the options' records of each seed."""
    if not threes:
        return None
    own = np.array([[accuracy(record, target) for record in three] for three in threes])
    columns = [[(record["key"], target) for record in three] for three in threes]
    return choices.alternatives(dataset, own, drawn, columns)


def averaged(
    target: str,
    each: Mapping[str, Mapping[int, Sequence[Record]]],
    drawn: Mapping[str, Mapping[choices.Column, choices.Drawn]],
) -> tuple[int, choices.Alternatives | None]:
    """The number of seeds that all datasets have, and the options averaged over the datasets. ``each``: dataset -> seed
    -> the options' records."""
    shared = sorted(set.intersection(*map(set, each.values())))
    parts = [options_of(target, d, [by_seed[seed] for seed in shared], drawn[d]) for d, by_seed in each.items()]
    return len(shared), choices.joined(AVERAGE, [part for part in parts if part]) if shared else None


def compare(
    target: str,
    dataset: str,
    method: str,
    seeds: int,
    options: choices.Alternatives | None,
    cost: tuple[float, ...] = (),
    names: tuple[str, ...] = OPTIONS,
) -> Compared:
    means = options.own.mean(0).tolist() if options else [math.nan] * len(names)
    return Compared(target, dataset, method, seeds, tuple(means), options, cost, names)


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


def costs(target: str, rates: dict[str, float], methods: Methods) -> tuple:
    """What ``COST`` names, as functions of a retrained record; None where it was not measured."""

    def features(record: Record) -> float | None:
        return rates[target] * pictures(record, methods) if target in rates else None

    return (
        lambda record: (record.get("seconds") or {}).get("fit"),
        features,
        steps_made,
        lambda record: record.get("trainable_parameters"),
    )


def pictures(record: Record, methods: Methods) -> int:
    """Pictures and views that are encoded before training: the support images as they are and in views, and few-shot
    validation's, 4 a class at most. A method that reads pixels encodes its views while it is fitted."""
    run, split = record["run"], record.get("split") or {}
    support, config = split.get("support") or 0, run.get("config") or {}
    views = (run.get("views") or len(record.get("curve") or ())) if config.get("crop") != [1.0, 1.0] else 0
    if run["method"] in methods and methods[run["method"]].needs == "pixels":
        views = 0
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
    rows = [[*one.keys, one.seeds, *map(one.mean, OPTIONS), *one.retention, *one.cost] for one in compared(selection)]
    return pd.DataFrame(rows, columns=list(RETENTION))


def decision_table(selection: Selection) -> pd.DataFrame:
    """`DECISION`: the choice, the best option and what that which is chosen (undecided: the best) gains over zero-shot,
    then `GAINS` (points and intervals), and what retraining costs."""
    rows = []
    for one in compared(selection):
        gains = [value for pair in GAINS.values() for value in one.difference(*pair)]
        rows.append([*one.keys, *decided(one), *gains, *one.cost])
    return pd.DataFrame(rows, columns=list(DECISION))


def in_points(value: float, low: float, high: float, seeds: float) -> str:
    """A gain and its interval: "+13.1 [+12.3, +13.9]"; of one seed it says that it is over images alone."""
    if math.isnan(value):
        return MISSING
    return signed(value) + ("" if math.isnan(low) else f" [{signed(low)}, {signed(high)}]{images_alone(seeds)}")


def signed(points: float) -> str:
    """One decimal; what rounds to nothing is +0.0."""
    return f"{round(points, 1) + 0.0:+.1f}"


def decided(one: Compared) -> list:
    """`DECIDED`."""
    return [one.seeds, one.choice, one.best, *gain_of(one), *one.needed]


def gain_of(one: Compared) -> tuple[float, float, float]:
    """Over zero-shot, of the option that is chosen, or of the best where it is undecided."""
    if not one.choice:
        return (math.nan,) * 3
    return one.difference(one.best if one.choice == UNDECIDED else one.choice, "zero-shot")
