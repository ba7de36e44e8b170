"""What plain run records say: which count, their names, order and settings (see `results/README.md`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from carryover.bench import places
from carryover.bench.errors import printable
from carryover.bench.plan.defaults import PLAIN_PRECISION
from carryover.bench.plan.run_labels import is_plain, setting
from carryover.datasets.base import AVERAGE as AVERAGE

Record = Mapping[str, Any]
Predictions = Mapping[str, tuple[np.ndarray, np.ndarray]]  # target -> predicted and true class, both (B,) integers
TARGETS = ("base", "new")
SETTINGS = ("shots", "precision", "protocol", "views", "limit")  # what has to agree for rows to be comparable


def counted(count: int, noun: str) -> str:
    """A count with its noun, "1 dataset" or "11 datasets", for captions and sentences."""
    return f"{count} {noun}{'s' * (count != 1)}"


def is_done(record: Record) -> bool:
    """Whether the record holds a finished run: each of both backbones has an accuracy, or the plug-in is refused there.
    Of what was trained on another one than the base: the last of its path; of what was ported: those that its port can
    serve."""
    targets, run, reasons = record.get("targets") or {}, record["run"], refused(record)
    asked = TARGETS if is_plain(run) else [role for role in setting(run, "path")[-1:] if role != "base"]
    done = all("accuracy" in (targets.get(name) or {}) or name in reasons for name in asked)
    return record.get("status") == "done" and done


def refused(record: Record) -> Mapping[str, str]:
    """Why the plug-in cannot be plugged into a backbone, by role; no accuracy was measured there."""
    return record.get("refused") or {}


def accuracy(record: Record, role: str) -> float:
    """In percent; NaN where the run is not done on that backbone."""
    found = (record.get("targets") or {}).get(role) or {}
    return float(found.get("accuracy", math.nan)) if record.get("status") == "done" else math.nan


def updates(records: Iterable[Record]) -> list[str]:
    """The upgraded backbones that the records know, by role: "new" first, then an arch's further ones by name."""
    found = {role for record in records for role in (*(record.get("targets") or {}), *refused(record))} - set(TARGETS)
    return ["new", *sorted(found)]


def seen_from(records: Iterable[Record], role: str) -> list[Record]:
    """The records with that update in the place of "new", so that every table and figure can be made for it."""
    if role == "new":
        return list(records)
    remade: list[Record] = []
    for record in records:
        seen = {}
        for part in ("targets", "refused"):
            of: Mapping[str, Any] = record.get(part) or {}
            kept = {"base": of.get("base"), "new": of.get(role)}
            seen[part] = {name: found for name, found in kept.items() if found}
        remade.append({**record, **seen})
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
    """Where every method id stands, as ``bench.places`` names it."""
    return {record["run"]["method"]: places.place_of(record) for record in records}


def mixed_settings(records: Iterable[Record]) -> dict[str, list]:
    """The settings that are not the same in all records, with the values found, for a warning beside the table."""
    found: dict[str, set] = {name: set() for name in SETTINGS}
    for record in records:
        for name in SETTINGS:
            found[name].add(record["run"].get(name))
    return {name: sorted(values, key=str) for name, values in found.items() if len(values) > 1}


def precisions(records: Iterable[Record], asked: Mapping[str, Any]) -> list[str]:
    """Those of the records which otherwise have the settings ``asked``; the last started one's last."""
    others = {name: value for name, value in asked.items() if name != "precision"}
    fitting = [r for r in records if all(r["run"].get(name) == value for name, value in others.items())]
    newest_first = sorted(fitting, key=lambda r: (r.get("started") or "", r["key"]), reverse=True)
    return list(dict.fromkeys(str(r["run"].get("precision")) for r in newest_first))[::-1]


def precision_of(found: Sequence[str], last: Mapping[str, Any] | None) -> str:
    """Which of several `precisions` is shown: that of the ``last`` report's settings, else the newest; of none the one
    that every device has."""
    said = str((last or {}).get("precision"))
    return said if said in found else found[-1] if found else PLAIN_PRECISION


def averaged(records: Iterable[Record]) -> list[str]:
    """The datasets that the average row is over: those of the arch's own suite (records say so under "averaged"), so
    that a user's further dataset gets its rows but does not change the average; all, where none of them is there."""
    records = list(records)
    own = ids((r for r in records if r.get("averaged", True)), "dataset")
    return own or ids(records, "dataset")


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
