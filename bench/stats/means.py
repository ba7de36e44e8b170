"""Means, deviations and averages of run records, as the paper's Tables 2 and 8 take them.

Everything here reads plain record dictionaries (see `results/README.md`) and returns percent.
The standard deviation is the sample one (n - 1) over seeds. One seed has no spread: its deviation is NaN,
which a table shows as a blank, because a printed 0 would claim a repeatability that was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from carryover.bench.records.reading import AVERAGE, TARGETS, Record, accuracy, averaged, ids, is_done

SCORES = ("base", "base_std", "new", "new_std", "h", "h_std")


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 Base New / (Base + New), in the unit of its arguments (percent); 0 where either is 0, NaN where either is.

    Raises ValueError for a negative argument, for which a harmonic mean says nothing.
    """
    if math.isnan(base) or math.isnan(new):
        return math.nan
    if base < 0 or new < 0:
        raise ValueError(f"accuracies must not be negative: base={base}, new={new}")
    return 2 * base * new / (base + new) if base and new else 0.0


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); (NaN, NaN) of nothing, (value, NaN) of a single value."""
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        return math.nan, math.nan
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else math.nan


def seed_scores(records: Iterable[Record]) -> pd.DataFrame:
    """One row a finished run: dataset, method, seed, and base, new, h in percent (h is that seed's own). NaN where the
    plug-in is refused."""
    rows = []
    for record in filter(is_done, records):
        base, new = (accuracy(record, name) for name in TARGETS)
        run = record["run"]
        rows.append((run["dataset"], run["method"], run["seed"], base, new, harmonic_mean(base, new)))
    return pd.DataFrame(rows, columns=["dataset", "method", "seed", "base", "new", "h"])


def spread(scores: pd.DataFrame) -> list[float]:
    """Seeds, then mean and deviation of base, new and h over them, of rows as `seed_scores` gives them."""
    return [len(scores), *(number for name in ("base", "new", "h") for number in mean_std(scores[name]))]


def summarise(records: Sequence[Record]) -> pd.DataFrame:
    """Mean and deviation over seeds for each dataset and method, then the average rows, in percent.

    records: those of one suite, as `select` gives them; failed ones keep their row, with no numbers.
    Columns dataset, method, seeds, base, base_std, new, new_std, h, h_std. H of a dataset is the mean over seeds of
    each seed's H. Base and New of the average row are averaged over datasets seed by seed, over the seeds that are
    done on every dataset; its H is the harmonic mean of the averaged Base and New (both as in the paper's tables),
    its deviation that of the per-seed average H. A method that lacks one of the datasets that
    are `averaged`, or is refused on the update on one, has no average there at all: a mean over part of them beside a
    mean over all would pass for the same thing.
    """
    scores, datasets, methods = seed_scores(records), ids(records, "dataset"), ids(records, "method")
    over = averaged(records)
    rows = []
    cells = dict(list(scores.groupby(["dataset", "method"])))
    for cell in product(datasets, methods):
        rows.append([*cell, *spread(cells.get(cell, scores.iloc[:0]))])
    for method in methods:
        of_method = scores[(scores["method"] == method) & scores["dataset"].isin(over)]
        by_seed = of_method.groupby("seed")
        per_seed = by_seed.agg(base=("base", "mean"), new=("new", "mean"), sets=("dataset", "nunique"))
        for name in TARGETS:
            per_seed[name] = per_seed[name].where(by_seed[name].count() == len(over))
        whole = per_seed[per_seed["sets"] == len(over)]
        (base, base_std), (new, new_std) = mean_std(whole["base"]), mean_std(whole["new"])
        _, h_std = mean_std(map(harmonic_mean, whole["base"], whole["new"]))
        rows.append([AVERAGE, method, len(whole), base, base_std, new, new_std, harmonic_mean(base, new), h_std])
    return pd.DataFrame(rows, columns=["dataset", "method", "seeds", *SCORES])


def average_rows(records: Sequence[Record]) -> pd.DataFrame:
    """The average rows of `summarise`, indexed by method id in the paper's order."""
    table = summarise(records)
    return table[table["dataset"] == AVERAGE].set_index("method")
