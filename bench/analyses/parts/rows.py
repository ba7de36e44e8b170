"""What the tables of several suites share: rows of a dataset and method, their marks and names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from carryover.bench.plan.runs import FRESH_VIEWS
from carryover.bench.plan.suites import Suite, Variant
from carryover.bench.records import environments, reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.sheets import MISSING
from carryover.bench.stats import means

MEASURE = "Top-1 accuracy in percent, mean ± sample standard deviation over seeds (no deviation with one seed)."
BESIDE = "zero-shot"  # the label of the main suite's rows that a table sets beside its own
PRINTED_ARCH = "vit-b16"  # the paper prints Tables 3 to 7 for ViT-B/16 alone


def views_told(records: Sequence[Record]) -> list[str]:
    """Which of the two ways of augmenting the trained runs took; nothing where none has views."""
    kept = {run["views"] for record in records if (run := record["run"]).get("views") is not None}
    if kept == {FRESH_VIEWS}:
        return ["Every epoch has a fresh view of each training picture, as published."]
    numbers = " / ".join(map(str, sorted(kept - {FRESH_VIEWS})))
    also = ", in other runs a fresh one every epoch" if FRESH_VIEWS in kept else ""
    said = f"An epoch draws each training picture's view from a bank of {numbers}{also}; published is a fresh one"
    return [f"{said} (--views epoch; PROTOCOL.md, section 1)."] if numbers else []


def rows_of(suite: Suite | None, selection: Selection) -> list[Row]:
    """The suite's rows; before each dataset's, those of the main suite that stand beside them."""
    rows = list(selection.rows.get(suite.id, ())) if suite else []
    if not (suite and suite.beside and rows):
        return rows
    found: list[Row] = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        for method in suite.beside:
            label = (BESIDE, *[""] * (len(rows[0].variant.label) - 1))
            records = [r for r in selection.main if (r["run"]["dataset"], r["run"]["method"]) == (dataset, method)]
            found.append(Row(dataset, Variant(label, method), tuple(records)))
        found += [row for row in rows if row.dataset == dataset]
    return found


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
    return told + ([f"Over fewer seeds: {'; '.join(dict.fromkeys(short))}."] if short else [])


def name_of(row: Row) -> str:
    return reading.names(row.records, "method")[row.variant.method]


def dataset_name(rows: Sequence[Row], id: str) -> str:
    return next((r["names"]["dataset"] for row in rows if row.dataset == id for r in row.records), id)


def number(value: float) -> str:
    """Two decimals, never -0.00; a dash for what is not defined."""
    return MISSING if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"
