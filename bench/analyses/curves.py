"""Learning curves: how the training loss of each method fell, and where it was still falling when training ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.render import tips
from carryover.bench.render.figures import COLOURS, INK, canvas, open_frame, short_label
from carryover.bench.render.sheets import Block, Cell, Sheet
from carryover.bench.stats.learning_curves import still_falling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS = ("method", "progress")
COLUMNS = (*KEYS, "runs", "median", "low", "high", "falling")
PROGRESS = np.arange(0, 101, 5)  # percent of training at which curves of different lengths are compared
BAND = (25, 75)  # percentiles over datasets and seeds: the middle half of the runs
ACROSS, PANEL = 3, 1.55  # panels a row, inches of one's height
LINE, FALLING = COLOURS["base"], COLOURS["new"]


def curve_of(record: Record) -> list[dict]:
    """A done run's row an epoch; nothing where it has none, or where a loss is no positive number to begin with."""
    rows = list(record.get("curve") or ()) if reading.is_done(record) else []
    for row in rows:
        numbers = [row.get(name) for name in ("loss", "lr")] if isinstance(row, dict) else [None]
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            return []
    return rows if rows and rows[0]["loss"] > 0 else []


def relative(curve: Sequence[dict]) -> np.ndarray:
    """(P,) the loss at each of ``PROGRESS``, as a percentage of the first epoch's. An epoch's mean loss stands at the
    middle of the epoch."""
    loss = np.array([row["loss"] for row in curve], dtype=float)
    middle = 100 * (np.arange(len(loss)) + 0.5) / len(loss)
    return 100 * np.interp(PROGRESS, middle, loss) / loss[0]


def curves_table(records: Sequence[Record]) -> pd.DataFrame:
    """`COLUMNS`: for each method and share of training, median and band over runs; ``falling``: how many of the runs
    ended while their loss was still falling."""
    rows: list[list] = []
    for method in reading.ids(records, "method"):
        found = [curve for record in records if record["run"]["method"] == method and (curve := curve_of(record))]
        if not found:
            continue
        losses = np.array([relative(curve) for curve in found])
        low, high = np.percentile(losses, BAND, axis=0)
        falling = sum(map(still_falling, found))
        for place, progress in enumerate(PROGRESS.tolist()):
            median = np.median(losses[:, place])
            rows.append([method, progress, len(found), median, low[place], high[place], falling])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curves_sheet(table: pd.DataFrame, records: Sequence[Record]) -> Sheet:
    """A row a method, of the end of training."""
    names, depth = reading.names(records, "method"), reading.depths(records)
    lines = [
        (
            Cell(names[row.method] + places.mark(depth[row.method])),
            Cell(str(row.runs)),
            Cell(f"{row.median:.0f} % ({row.low:.0f} to {row.high:.0f})"),
            Cell(f"{row.falling} of {row.runs}"),
        )
        for row in table[table["progress"] == PROGRESS[-1]].itertuples()
    ]
    block = Block(Cell("Training loss"), ("Method", "Runs", "Loss at the end", "Still falling"), tuple(lines))
    remarks = (
        "Loss at the end: the last epoch's training loss as a percentage of the first epoch's, median and middle half "
        "over datasets and seeds.",
        "Still falling: runs that ended while their loss was falling steeply. More steps or a higher rate would lower "
        "it.",
        "Methods without training steps have no curve.",
        *places.legend_remark(depth.values()),
    )
    return Sheet(Curves.title, (block,), remarks)


def draw_curves(tables: Tables, selection: Selection) -> Figure | None:
    """A panel a method. None where no run has a curve."""
    if "curves" not in tables:
        return None
    table, records = tables["curves"].frame, selection.main
    names, depth = reading.names(records, "method"), reading.depths(records)
    methods = list(dict.fromkeys(table["method"]))
    across = min(ACROSS, len(methods))
    rows = -(-len(methods) // across)
    with canvas(PANEL * rows + 0.6) as figure:
        panels = np.ravel(figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False))
        for axes, method in zip(panels, methods, strict=False):
            draw_panel(axes, table[table["method"] == method], short_label(names[method], depth[method]))
        for axes in panels[len(methods) :]:
            axes.set_visible(False)
        for axes in panels[len(methods) - across : len(methods)]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("Training done (%)", fontsize=9)
        figure.supylabel("Loss (% of the first epoch's)", fontsize=9)
    return figure


def draw_panel(axes, part: pd.DataFrame, label: str) -> None:
    """Median and band of one method; its end is marked where runs were still falling."""
    end = part.iloc[-1]
    axes.fill_between(part["progress"], part["low"], part["high"], color=LINE, alpha=0.3, linewidth=0)
    (line,) = axes.plot(part["progress"], part["median"], color=LINE, linewidth=1.6, marker="o", markersize=2)
    said = [
        f"{label} after {row.progress} % of training: {row.median:.0f} % of the first loss "
        f"(middle half {row.low:.0f} to {row.high:.0f} %)"
        for row in part.itertuples()
    ]
    tips.tell(line, *said)
    if end["falling"]:
        (mark,) = axes.plot(end["progress"], end["median"], marker="v", markersize=6, color=FALLING, mec=INK)
        told = f"{end['falling']} of {end['runs']} still falling"
        tips.tell(mark, f"{said[-1]}; {told}")
        axes.text(0.97, 0.95, told, transform=axes.transAxes, ha="right", va="top", fontsize=6.5)
    axes.set_title(label, fontsize=8.5)
    axes.set_xticks((0, 50, 100))
    axes.tick_params(labelsize=7.5)
    axes.set_xlim(0, 104)
    axes.set_ylim(bottom=0)
    open_frame(axes)


@register("curves")
class Curves(Analysis):
    title, place = "Learning curves", 2.4
    drawings = (
        Drawing(
            "curves",
            "Training loss of each method: median and middle half over datasets and seeds. A triangle marks methods "
            "with runs whose loss was still falling at the end",
            draw_curves,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        table = curves_table(selection.main)
        if len(table):
            yield Table("curves", table, KEYS, curves_sheet(table, selection.main))
