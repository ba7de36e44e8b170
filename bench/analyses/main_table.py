"""The main table, one for each update, and the paper's Figure 2 (a): Base, New and H of each method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure  # no pyplot: it would keep every figure alive and choose a screen backend

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.answer_numbers import answer_table
from carryover.bench.analyses.parts.dataset_grid import dataset_grid, datasets_of
from carryover.bench.analyses.parts.rows import views_told
from carryover.bench.plan import suites
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.runs import shown_setting
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_COLUMNS, read_paper
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, INK, LABELS, PAPER, WHISKER, canvas, open_frame, short_label
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, ranked
from carryover.bench.render.terminal import Table as ConsoleTable
from carryover.bench.stats import means

ON_BAR = "#000000"  # stays black there, since the bars keep their colours
BAR = 0.27  # height of one bar, in rows; three of them leave a gap between methods
ROW_INCHES, FRAME_INCHES = 0.52, 1.5
FOOT, WIDE_ENOUGH = 1.0, 9.0  # percent: where a bar's number starts, and the shortest bar that holds it
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


def main_sheet(table: pd.DataFrame, records: Iterable[Record], paper: pd.DataFrame | None = None) -> Sheet:
    """The main table as the paper lays it out: a block of methods x (Base, New, H) a dataset, the average first."""
    records = reading.select(records)
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
    remarks += refused.told(records, reading.TARGETS)
    remarks += [*views_told(records), *(f"All rows: {mark}." for mark in shared)]
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


def console_summary(records: Iterable[Record]) -> ConsoleTable:
    """The average rows of these records for the terminal: Base, New, H in percent, New less zero-shot in points."""
    records = reading.select(records)
    methods, over, sets = reading.names(records, "method"), reading.averaged(records), reading.names(records, "dataset")
    title = f"Average over {len(over)} datasets" if len(over) > 1 else sets[over[0]]
    numbers = ("Base", "New", "H", "New less zero-shot", "Seeds")
    shown = ConsoleTable("Method", *numbers, right=numbers, title=f"{title}, accuracy in percent")
    averages = means.average_rows(records)
    level = float(averages["new"].get(ZERO_SHOT, math.nan))
    for method, row in averages.iterrows():
        cells = [percent(row[name], row[name + "_std"]) for name in ("base", "new", "h")]
        gain = math.nan if method == ZERO_SHOT else row["new"] - level
        cells.append(MISSING if math.isnan(gain) else f"{round(gain, 2) + 0.0:+.2f}")
        shown.row(methods[method], *cells, str(row["seeds"]))
    return shown


def draw_figure_2a(records: Iterable[Record]) -> Figure:
    """The paper's Figure 2 (a): Base, New and H in percent of each method, averaged over the datasets.

    Output-space methods bear a dagger; the line is the new model's zero-shot accuracy, below which a carried-over
    module is worse than none; whiskers are the deviation over seeds. A method without an average shows dashes.
    """
    records = reading.select(records)
    averages, depth, names = means.average_rows(records), reading.depths(records), reading.names(records, "method")
    with canvas(FRAME_INCHES + ROW_INCHES * max(len(averages), 1)) as figure:
        axes = figure.add_subplot()
        count = reading.counted(len(reading.averaged(records)), "dataset")
        axes.set_title(f"Accuracy before (Base) and after (New) the update,\nmean of {count}", fontsize=9.5)
        marks = places.legend(depth.values())  # one fits beside the axis's name, two fit on a line
        pairs = ["    ".join(marks[i : i + 2]) for i in range(0, len(marks), 2)]
        axes.set_xlabel(("\n" if len(marks) > 1 else "    ").join(["Top-1 accuracy (%)", *pairs]))
        axes.set_xlim(0, 100)
        axes.set_yticks(range(len(averages)), [short_label(names[m], depth[m]) for m in averages.index])
        axes.set_ylim(max(len(averages), 1) - 0.5, -0.5)  # first method on top, as in the table
        axes.tick_params(axis="y", length=0)
        open_frame(axes, "x")
        for step, (name, colour) in zip((-BAR, 0, BAR), COLOURS.items(), strict=True):
            heights, rows = averages[name], [row + step for row in range(len(averages))]
            style: dict[str, Any] = {"color": colour, "label": LABELS[name], "edgecolor": PAPER, "linewidth": 0.5}
            axes.barh(rows, heights.fillna(0), height=BAR, **style)
            for row, mean, std in zip(rows, heights, averages[name + "_std"], strict=True):
                write_value(axes, row, mean, std, colour)
        level = averages["new"].get("zs-clip", math.nan)
        if not math.isnan(level):
            axes.axvline(level, color=INK, linestyle=(0, (4, 2)), linewidth=1.1, label=f"zero-shot New, {level:.1f}")
        # Below the axes: inside, a legend would hide the bar of whichever method happens to be long.
        handles, labels = axes.get_legend_handles_labels()
        keys = sorted(zip(handles, labels, strict=True), key=lambda key: key[1] not in LABELS.values())  # the line last
        place = {"loc": "outside lower center", "ncols": 4, "columnspacing": 1.1}
        figure.legend(*zip(*keys, strict=True), frameon=False, handlelength=1.4, **place)
    return figure


def write_value(axes, row: float, mean: float, std: float, colour: str) -> None:
    known, inside = not math.isnan(mean), mean > WIDE_ENOUGH
    spread = 0.0 if math.isnan(std) else std
    if spread:
        axes.errorbar(mean, row, xerr=spread, ecolor=WHISKER, elinewidth=0.8, capsize=1.5)
    axes.text(
        # At the foot of the bar, where neither whisker nor zero-shot line comes; beside a bar too short to hold it.
        FOOT if inside or not known else mean + spread + FOOT,
        row,
        f"{mean:.1f}" if known else MISSING,
        va="center_baseline",
        fontsize=7.5,
        color=ON_BAR if inside else INK,
        zorder=5,
        bbox={"facecolor": colour if inside else PAPER, "edgecolor": "none", "pad": 0.5},
    )


@register("main")
class Main(Analysis):
    title, source, place, section = "Main table", "Tables 2 and 8", 2, "Per dataset"
    suite = suites.Suite(suites.plain, kind="main")
    drawings = (
        Drawing(
            "figure2a",
            "Base, New and H of each method, averaged over the datasets (the paper's Figure 2 a)",
            lambda tables, selection: draw_figure_2a(selection.main),
            "main",
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        """ "main" for the update, "main-NAME" for each further one of an arch's."""
        for role in reading.updates(selection.main):
            records = reading.seen_from(selection.main, role)
            paper = read_paper(selection.arch.id) if role == "new" else None
            frame, name = main_table(records, paper), "main" if role == "new" else f"main-{role}"
            yield Table(name, frame, COLUMNS[:2], main_sheet(frame, records, paper))

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        """One grid in the place of the sheet's blocks, which stay in its files."""
        found: list[Part] = []
        for table in tables.values():
            role = "new" if table.name == "main" else table.name.removeprefix("main-")
            if table.sheet is not None and table.sheet.blocks:
                found += [("subheading", f"Update '{role}'")] if len(tables) > 1 else []
                found += [("grid", dataset_grid(table, answer_table(selection), role))]
                found += [("sheet", replace(table.sheet, blocks=())), *self.figures(selection, table.name)]
                found += [("files", self.files(selection, table))]
        return found

    def limits(self, selection: Selection, tables: Tables) -> list[str]:
        records = selection.main
        lacking = [name for name, of in datasets_of(records).items() if of < len(reading.averaged(records))]
        names = reading.names(records, "method")
        told = ", ".join(names[name] for name in lacking)
        said = [f"No average, for want of a dataset: {told}."] if lacking else []
        return [*said, *views_told(records)]
