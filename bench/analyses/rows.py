"""What the tables of several suites share: rows of a dataset and method, their marks and names."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from carryover.bench.plan import suites
from carryover.bench.records import environments, reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Row, Selection
from carryover.bench.stats import means

ZERO_SHOT = "zero-shot"  # the label of the rows that the layers table sets beside its own


def rows_of(suite: suites.Suite, selection: Selection) -> list[Row]:
    """The suite's rows; zero-shot, from the main suite, beside those of the depth suite."""
    rows = list(selection.rows.get(suite.id, ()))
    if suite.id != "layers":
        return rows
    shot: dict[str, list[Record]] = {r["run"]["dataset"]: [] for r in selection.main}
    for record in selection.main:
        if record["run"]["method"] == "zs-clip":
            shot[record["run"]["dataset"]].append(record)
    label = suites.Variant((ZERO_SHOT, ""), "zs-clip")
    beside = [
        Row(dataset, label, tuple(shot.get(dataset, ()))) for dataset in dict.fromkeys(row.dataset for row in rows)
    ]
    return [row for one in beside for row in (one, *(r for r in rows if r.dataset == one.dataset))]


def indifferent(part: pd.DataFrame) -> bool:
    """Whether rows that were run are all alike, to the last digit of every mean and deviation."""
    run = part[part["seeds"] > 0]
    return len(run) > 1 and len(run[list(means.SCORES)].drop_duplicates()) == 1


def done(records: Sequence[Record]) -> bool:
    return any(map(reading.is_done, records))


def not_run(missing: Sequence[str]) -> list[str]:
    return [f"Not run or failed: {'; '.join(missing)}."] if missing else []


def marks_of(rows: Sequence[Row]) -> list[str]:
    """What stands beside any of the rows' numbers, and rows over fewer seeds than the others."""
    bears = [tuple(record.get("marks") or ()) for row in rows for record in row.records]
    marks = dict.fromkeys(mark for of_record in bears for mark in of_record)
    counts = [sum(map(reading.is_done, row.records)) for row in rows]
    short = [
        f"{row.dataset}, {' / '.join(filter(None, row.variant.label)) or row.variant.method}"
        for row, count in zip(rows, counts, strict=True)
        if 0 < count < max(counts)
    ]
    told = []
    for mark in marks:
        bearing = [row for row in rows if any(mark in (record.get("marks") or ()) for record in row.records)]
        apart = mark.startswith(environments.MARK)  # of one cell, where other marks are of a method or an option
        labels = [" / ".join(filter(None, row.variant.label)) or name_of(row) for row in bearing]
        labels = [f"{row.dataset}, {label}" if apart else label for row, label in zip(bearing, labels, strict=True)]
        names = "; ".join(dict.fromkeys(labels))
        every = all(mark in of_record for of_record in bears)
        told.append(f"All rows: {mark}." if every else f"Some rows ({names}): {mark}.")
    return told + ([f"Over fewer seeds: {'; '.join(short)}."] if short else [])


def name_of(row: Row) -> str:
    return reading.names(row.records, "method")[row.variant.method]


def dataset_name(rows: Sequence[Row], id: str) -> str:
    return next((r["names"]["dataset"] for row in rows if row.dataset == id for r in row.records), id)
