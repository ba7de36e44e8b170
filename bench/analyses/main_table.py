"""The main table: one frame for the CSV, one sheet for the readers, both made from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from carryover.bench import places
from carryover.bench.plan.runs import shown_setting
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_COLUMNS, read_paper
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, ranked
from carryover.bench.stats import means

COLUMNS = ("dataset", "method", "seeds", *means.SCORES, *PAPER_COLUMNS)


def main_table(records: Iterable[Record], paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """The main table: `COLUMNS`, percent, datasets in the paper's order, the average rows last.

    paper: what `read_paper` gives; its columns stay empty without it, and in the average rows unless the table holds
    exactly the paper's datasets, since an average over others is another number.
    """
    records = reading.select(records)
    table = means.summarise(records)
    if paper is None:
        table[list(PAPER_COLUMNS)] = np.nan
        return table[list(COLUMNS)]
    printed = paper.rename(columns={name.removeprefix("paper_"): name for name in PAPER_COLUMNS})
    if {*reading.averaged(records), AVERAGE} != set(paper["dataset"]):
        printed = printed[printed["dataset"] != AVERAGE]
    return table.merge(printed, on=["dataset", "method"], how="left", sort=False)[list(COLUMNS)]


def main_sheet(records: Iterable[Record], paper: pd.DataFrame | None = None) -> Sheet:
    """The main table as the paper lays it out: a block of methods x (Base, New, H) a dataset, the average first."""
    records = reading.select(records)
    table = main_table(records, paper)
    datasets, methods = reading.names(records, "dataset"), reading.names(records, "method")
    depth, count = reading.depths(records), len(reading.averaged(records))
    shared, of_dataset, of_row = _marks(records, table)
    footnotes = tuple(dict.fromkeys(m for marks in (*of_dataset.values(), *of_row.values()) for m in marks))
    header = ("Method", "Base", "New", "H") + (("Paper Base", "Paper New", "Paper H") if paper is not None else ())

    blocks = []
    for dataset in [AVERAGE, *reading.ids(records, "dataset")] if records else []:
        part = table[table["dataset"] == dataset]
        numbers = [ranked(part[name], part[name + "_std"]) for name in ("base", "new", "h")]
        if paper is not None:
            numbers += [[Cell(percent(value)) for value in part[name]] for name in PAPER_COLUMNS]
        labels = [
            Cell(methods[m] + places.mark(depth[m]), notes=_numbers(footnotes, of_row[dataset, m]))
            for m in part["method"]
        ]
        name = f"Average over {reading.counted(count, 'dataset')}" if dataset == AVERAGE else datasets[dataset]
        title = Cell(name, notes=_numbers(footnotes, of_dataset[dataset]))
        blocks.append(Block(title, header, tuple(zip(labels, *numbers, strict=True))))

    remarks = ["Top-1 accuracy in percent, mean ± sample standard deviation over seeds (no deviation with one seed)."]
    remarks += places.legend_remark(depth.values())
    if (table.loc[table["dataset"] == AVERAGE, "seeds"] == 0).any():
        remarks.append(f"{MISSING} in the average: no seed of the method is done on every dataset.")
    if missing := holes(records):
        remarks.append(f"Not run or failed: {'; '.join(missing)}.")
    remarks += [f"All rows: {mark}." for mark in shared]
    for setting, values in reading.mixed_settings(records).items():
        shown = ", ".join(str(shown_setting(setting, value)) for value in values)
        remarks.append(f"Runs here differ in {setting} ({shown}), so rows may not be comparable.")
    return Sheet("Base, New and their harmonic mean H", tuple(blocks), tuple(remarks), footnotes)


def holes(records: Sequence[Record]) -> list[str]:
    """What is missing where other datasets, methods or seeds of the table have it: "dataset: method (seeds)"."""
    done = {(r["run"]["dataset"], r["run"]["method"], r["run"]["seed"]) for r in records if reading.is_done(r)}
    sets, methods = reading.names(records, "dataset"), reading.names(records, "method")
    seeds = sorted({seed for _, _, seed in done})
    found = []
    for dataset in reading.ids(records, "dataset"):
        for method in reading.ids(records, "method"):
            lacking = [str(seed) for seed in seeds if (dataset, method, seed) not in done]
            if lacking:
                named = "" if len(lacking) == len(seeds) else f" (seed {', '.join(lacking)})"
                found.append(f"{sets[dataset]}: {methods[method]}{named}")
    return found


def _marks(records: Sequence[Record], table: pd.DataFrame) -> tuple[list[str], dict, dict]:
    """The marks that every record bears; those that every record of a dataset does; those of single rows.

    A mark is named at the widest place where it holds, so that what differs between rows stays in sight.
    """
    bears = [(r["run"]["dataset"], r["run"]["method"], tuple(r.get("marks") or ())) for r in records]
    every = dict.fromkeys(mark for *_, marks in bears for mark in marks)
    shared = [mark for mark in every if all(mark in marks for *_, marks in bears)]
    of_dataset: dict[str, list[str]] = {}
    for name in dict.fromkeys(table["dataset"]):
        here = [marks for dataset, _, marks in bears if dataset == name]
        of_dataset[name] = [m for m in every if m not in shared and here and all(m in marks for marks in here)]
    of_dataset[AVERAGE] = list(dict.fromkeys(mark for marks in of_dataset.values() for mark in marks))
    of_row: dict[tuple[str, str], list[str]] = {}
    most = int(table["seeds"].max()) if len(table) else 0
    for row in table.itertuples():
        here = [m for d, method, marks in bears if method == row.method and row.dataset in (AVERAGE, d) for m in marks]
        wider = {*shared, *of_dataset[row.dataset]}
        of_row[row.dataset, row.method] = [mark for mark in every if mark in here and mark not in wider]
        if 0 < row.seeds < most:
            of_row[row.dataset, row.method].append(f"over {row.seeds} of {most} seeds")
    return shared, of_dataset, of_row


def _numbers(footnotes: Sequence[str], marks: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted(footnotes.index(mark) + 1 for mark in marks))


def main_tables(records: Iterable[Record], arch: str) -> dict[str, tuple[pd.DataFrame, Sheet]]:
    """Frame and sheet by file name: "main" for the update, "main-NAME" for each further one of an arch's."""
    records, made = list(records), {}
    for role in reading.updates(records):
        seen, paper = reading.seen_from(records, role), read_paper(arch) if role == "new" else None
        made["main" if role == "new" else f"main-{role}"] = main_table(seen, paper), main_sheet(seen, paper)
    return made


def console_summary(records: Iterable[Record]) -> Table:
    """The average rows of the main suite for the terminal: method, Base, New, H in percent."""
    records = reading.select(records)
    methods, count = reading.names(records, "method"), len(reading.averaged(records))
    shown = Table(title=f"Average over {reading.counted(count, 'dataset')}, accuracy in percent")
    shown.add_column("Method")
    for name in ("Base", "New", "H", "Seeds"):
        shown.add_column(name, justify="right")
    for method, row in means.average_rows(records).iterrows():
        # Text, not str: rich would read [brackets] of a user's method name as its own markup.
        numbers = [percent(row[name], row[name + "_std"]) for name in ("base", "new", "h")]
        shown.add_row(Text(methods[method]), *numbers, str(row["seeds"]))
    return shown
