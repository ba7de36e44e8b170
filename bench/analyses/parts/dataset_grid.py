"""The report's table of every dataset and method, in the place of a tile a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from carryover.bench.analyses.base import Table
from carryover.bench.analyses.parts.answer_numbers import gain_text
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.render.sheets import Cell, Column, Grid, Row


def datasets_of(records: Sequence[Record]) -> dict[str, int]:
    """How many of the averaged datasets each method has a finished run on."""
    over = set(reading.averaged(records))
    found: dict[str, set[str]] = {method: set() for method in reading.ids(records, "method")}
    for record in filter(reading.is_done, records):
        found[record["run"]["method"]] |= {record["run"]["dataset"]} & over
    return {method: len(sets) for method, sets in found.items()}


def dataset_grid(table: Table, answers: pd.DataFrame, role: str) -> Grid:
    """A row a dataset and method, the average first; from the sheet, with seeds and the gain over zero-shot."""
    assert table.sheet is not None
    gained = answers[answers["target"] == role].set_index(["dataset", "method"])
    seeds, rows = table.frame.set_index(["dataset", "method"])["seeds"], []
    datasets = [AVERAGE, *(name for name in dict.fromkeys(table.frame["dataset"]) if name != AVERAGE)]
    for dataset, block in zip(datasets, table.sheet.blocks, strict=True):
        methods = table.frame[table.frame["dataset"] == dataset]["method"]
        for method, cells in zip(methods, block.rows, strict=True):
            more = Cell(gain_text(gained.loc[(dataset, method)])), Cell(str(seeds[dataset, method]))
            rows.append(Row((block.title, *cells, *more)))
    numbers = [Column(title, "number") for title in (*table.sheet.blocks[0].header[1:], "New less zero-shot", "Seeds")]
    columns = Column("Dataset", filter=True), Column("Method", filter=True), *numbers
    return Grid(columns, tuple(rows), "Accuracy on each dataset, in percent")
