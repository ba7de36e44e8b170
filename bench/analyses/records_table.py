"""The records behind every cell: `tables/records.csv`, a line a table, row and seed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from carryover.bench.analyses.rows import rows_of
from carryover.bench.plan import suites
from carryover.bench.records import environments
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection

COLUMNS = ("table", "dataset", "row", "method", "seed", "record", "plugin", "status", "device", "commit")


def records_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`; an average's records are those of its datasets."""
    return pd.DataFrame(list(lines(selection)), columns=list(COLUMNS))


def lines(selection: Selection) -> Iterator[tuple]:
    for record in selection.main:
        yield line("main", record["run"]["dataset"], record["run"]["method"], record)
    for id, rows in selection.rows.items():
        suite = suites.ABLATIONS.get(id)
        for row in rows_of(suite, selection) if suite else rows:
            label = " / ".join(filter(None, row.variant.label)) or row.variant.method
            for record in row.records:
                yield line(id, row.dataset, label, record)


def line(table: str, dataset: str, row: str, record: Record) -> tuple:
    run, found = record["run"], environments.traits(record)
    plugin = record.get("trained") or record["key"]
    return (
        *(table, dataset, row, run["method"], str(run["seed"]), record["key"], plugin),
        *(str(record.get("status")), found["device"], found["commit"]),
    )
