"""The records behind every cell: `tables/records.csv`, a line a table, row and seed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from carryover.bench.analyses.base import Analysis, Table, Tables, register
from carryover.bench.analyses.parts.rows import rows_of
from carryover.bench.plan.suites import SUITES
from carryover.bench.records import environments
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part

COLUMNS = ("table", "dataset", "row", "method", "seed", "record", "plugin", "status", "device", "commit")


def records_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`; an average's records are those of its datasets."""
    return pd.DataFrame(list(lines(selection)), columns=list(COLUMNS))


def lines(selection: Selection) -> Iterator[tuple]:
    for record in selection.main:
        yield line("main", record["run"]["dataset"], record["run"]["method"], record)
    for id in selection.rows:
        for row in rows_of(SUITES[id], selection):
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


@register("records")
class Records(Analysis):
    title, place = "The records behind every cell", 90

    def tables(self, selection: Selection) -> Iterator[Table]:
        if selection.records:
            yield Table("records", records_table(selection), COLUMNS)

    def first(self, selection: Selection, tables: Tables) -> list[Part]:
        return [("files", [("The records and plug-ins behind each cell", "tables/records.csv")])] if tables else []
