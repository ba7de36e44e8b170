"""Means, deviations and averages of run records, as the paper's Tables 2 and 8 take them.

Everything here reads plain record dictionaries (see `results/README.md`) and returns percent.
The standard deviation is the sample one (n - 1) over seeds. One seed has no spread: its deviation is NaN,
which a table shows as a blank, because a printed 0 would claim a repeatability that was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from bench import taxonomy
from bench.errors import UserError, printable
from bench.naming import is_plain, setting, told

Record = Mapping[str, Any]
Predictions = Mapping[str, tuple[np.ndarray, np.ndarray]]  # target -> predicted and true class, both (B,) integers

TARGETS = ("base", "new")
AVERAGE = "average"  # the dataset id of the average row
SCORES = ("base", "base_std", "new", "new_std", "h", "h_std")
SETTINGS = ("shots", "precision", "protocol", "views", "limit")  # what has to agree for rows to be comparable


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


def counted(count: int, noun: str) -> str:
    """A count with its noun, "1 dataset" or "11 datasets", for captions and sentences."""
    return f"{count} {noun}{'s' * (count != 1)}"


def is_done(record: Record) -> bool:
    """Whether the record holds a finished run with an accuracy on both backbones; of what was trained on another one
    than the base: on the last of its path."""
    targets, run = record.get("targets") or {}, record["run"]
    asked = TARGETS if is_plain(run) else setting(run, "path")[-1:]
    return record.get("status") == "done" and all("accuracy" in (targets.get(name) or {}) for name in asked)


def updates(records: Iterable[Record]) -> list[str]:
    """The upgraded backbones that the records know, by role: "new" first, then an arch's further ones by name."""
    found = {role for record in records for role in record.get("targets") or {}} - set(TARGETS)
    return ["new", *sorted(found)]


def seen_from(records: Iterable[Record], role: str) -> list[Record]:
    """The records with that update in the place of "new", so that every table and figure can be made for it."""
    if role == "new":
        return list(records)
    remade: list[Record] = []
    for record in records:
        targets = record.get("targets") or {}
        kept = {"base": targets.get("base"), "new": targets.get(role)}
        remade.append({**record, "targets": {name: target for name, target in kept.items() if target}})
    return remade


def select(records: Iterable[Record]) -> list[Record]:
    """One record for each (dataset, test set, method, seed), in the paper's order.

    A results folder may hold a run twice, made with other settings (a `--limit` trial, another precision). Two such
    records are not two seeds, so only the last started done one counts (the last started failed one where none is
    done). `mixed_settings` tells where the records that remain disagree.
    """
    chosen: dict[tuple, Record] = {}
    for record in records:
        run = record["run"]
        cell = (run["dataset"], run.get("test", ""), run["method"], run["seed"])
        if cell not in chosen or age(record) > age(chosen[cell]):
            chosen[cell] = record
    return sorted(chosen.values(), key=lambda r: (_place(r, "dataset"), _place(r, "method"), r["run"]["seed"]))


def ids(records: Iterable[Record], kind: str) -> list[str]:
    """The ids of `kind` ("dataset" or "method") in the records, in the paper's order, then by id."""
    return [name for _, name in sorted({_place(record, kind) for record in _first_places(records, kind)})]


def names(records: Iterable[Record], kind: str) -> dict[str, str]:
    """Display name of every id of `kind` ("dataset" or "method"), fit for one line."""
    found = {r["run"][kind]: shown(r, kind) for r in records}
    return {**found, AVERAGE: "Average"} if kind == "dataset" else found


def shown(record: Record, kind: str) -> str:
    """The record's name of `kind`, white space made single, what cannot be printed shown by its code."""
    name = str((record.get("names") or {}).get(kind, record["run"][kind]))
    return printable(" ".join(name.split()))


def depths(records: Iterable[Record]) -> dict[str, str]:
    """Where every method id stands, as ``bench.taxonomy`` names it."""
    return {record["run"]["method"]: taxonomy.place_of(record) for record in records}


def mixed_settings(records: Iterable[Record]) -> dict[str, list]:
    """The settings that are not the same in all records, with the values found, for a warning beside the table."""
    found: dict[str, set] = {name: set() for name in SETTINGS}
    for record in records:
        for name in SETTINGS:
            found[name].add(record["run"].get(name))
    return {name: sorted(values, key=str) for name, values in found.items() if len(values) > 1}


def averaged(records: Iterable[Record]) -> list[str]:
    """The datasets that the average row is over: those of the arch's own suite (records say so under "averaged"), so
    that a user's further dataset gets its rows but does not change the average; all, where none of them is there."""
    records = list(records)
    own = ids((r for r in records if r.get("averaged", True)), "dataset")
    return own or ids(records, "dataset")


def seed_scores(records: Iterable[Record]) -> pd.DataFrame:
    """One row a finished run: dataset, method, seed, and base, new, h in percent (h is that seed's own)."""
    rows = []
    for record in filter(is_done, records):
        base, new = (float(record["targets"][name]["accuracy"]) for name in TARGETS)
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
    are `averaged` has no average at all: a mean over part of them beside a mean over all would pass for the same thing.
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
        whole = per_seed[per_seed["sets"] == len(over)]
        (base, base_std), (new, new_std) = mean_std(whole["base"]), mean_std(whole["new"])
        _, h_std = mean_std(map(harmonic_mean, whole["base"], whole["new"]))
        rows.append([AVERAGE, method, len(whole), base, base_std, new, new_std, harmonic_mean(base, new), h_std])
    return pd.DataFrame(rows, columns=["dataset", "method", "seeds", *SCORES])


def average_rows(records: Sequence[Record]) -> pd.DataFrame:
    """The average rows of `summarise`, indexed by method id in the paper's order."""
    table = summarise(records)
    return table[table["dataset"] == AVERAGE].set_index("method")


def recount(records: Iterable[Record], predictions: Callable[[str], Predictions]) -> tuple[list[Record], list[str]]:
    """The records with accuracies counted anew from stored predictions, and a line for each difference found.

    predictions: a run's key -> its stored predictions; it may raise UserError, OSError, KeyError or ValueError where
    there are none. Records that are not done pass unchanged; a target without usable predictions is left out.
    """
    remade: list[Record] = []
    lines: list[str] = []
    for record in records:
        if record.get("status") != "done":
            remade.append(record)
            continue
        run, claims = record["run"], record.get("targets") or {}
        test = f" → {run['test']}" if run.get("test") else ""
        where = f"{record['key']} ({run['dataset']}{test}, {run['method']}, seed {run['seed']}{told(run)})"
        measured: dict[str, dict[str, float]] = {}
        try:
            stored = predictions(record["key"])
        except (UserError, OSError, KeyError, ValueError, TypeError) as error:
            lines.append(f"{where}: no readable predictions ({error})")
            stored, claims = {}, {}
        for target in dict.fromkeys([*claims, *stored]):
            if target not in claims or target not in stored:
                lines.append(f"{where} {target}: {'predictions' if target in stored else 'a record'} only")
                continue
            found, truth = (np.asarray(part) for part in stored[target])
            if found.shape != truth.shape or found.ndim != 1 or not found.size:
                lines.append(f"{where} {target}: predictions {found.shape} do not fit labels {truth.shape}")
                continue
            right, count = int((found == truth).sum()), int(found.size)
            counts = {"correct": right, "count": count, "accuracy": 100 * right / count}
            measured[target] = {**claims[target], **counts}
            for name, value in counts.items():
                claim = claims[target].get(name)
                if claim is None or not abs(claim - value) <= 1e-6:  # a NaN claim differs too
                    lines.append(f"{where} {target}: {name} is {claim} in the record, {value:g} from the predictions")
        remade.append({**record, "targets": measured})
    return remade, lines


def age(record: Record) -> tuple[bool, str, str]:
    """By which `select` takes the last of several records of one cell: done before failed, then the last started."""
    # ISO 8601 in UTC sorts as text; the key only settles a tie, so that file order never decides.
    return is_done(record), str(record.get("started") or ""), str(record.get("key") or "")


def _place(record: Record, kind: str) -> tuple[float, str]:
    place = (record.get("order") or {}).get(kind)
    return math.inf if place is None else float(place), record["run"][kind]


def _first_places(records: Iterable[Record], kind: str) -> list[Record]:
    # Records written by different versions may disagree on a place; an id must still appear once.
    first: dict[str, Record] = {}
    for record in records:
        name = record["run"][kind]
        if name not in first or _place(record, kind) < _place(first[name], kind):
            first[name] = record
    return list(first.values())
