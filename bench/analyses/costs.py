"""H against cost, seconds or trainable parameters: the Pareto front.

Seconds are those of the machine that ran, so this is in the report and its figure, not in a table that two machines
should agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from carryover.bench.analyses.base import Analysis, Drawing, Tables, register
from carryover.bench.analyses.parts.comparison import has_statistics
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.render import tips
from carryover.bench.render.figures import COLOURS, INK, canvas, open_frame, short_label
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell
from carryover.bench.stats.means import average_rows

COSTS = {"seconds": "seconds", "parameters": "trainable parameters"}
COLUMNS = ("method", "h", "fit", "evaluate", "seconds", "parameters")
THOUSAND = 1000  # images that an evaluation is priced by
PANEL = 2.9
DOT = "#0072B2"
LEADER = {"arrowstyle": "-", "alpha": 0.3, "linewidth": 0.6, "shrinkB": 3, "relpos": (0, 0.5)}  # to a name's left end
AXES = {
    "seconds": "Seconds: fit and 1000 test images, frozen features ready (log axis)",
    "parameters": "Trainable parameters (log axis; 0 at its left end)",
}


def costs(selection: Selection, update: str = "new") -> pd.DataFrame:
    """`COLUMNS`, a row for each method with an average H, in percent; NaN where a record does not say what it cost.

    fit         seconds, mean over the averaged datasets of the mean over seeds
    evaluate    seconds for 1000 test images on the update, features ready, the same mean
    seconds     both
    parameters  trainable ones, the same mean
    """
    return selection.once(f"costs {update}", lambda: paid_for(selection.main, update))


def paid_for(records: Sequence[Record], update: str) -> pd.DataFrame:
    seen, over = reading.seen_from(records, update), set(reading.averaged(records))
    found = []
    for record in seen:
        run = record["run"]
        if reading.is_done(record) and run["dataset"] in over:
            found.append([run["method"], run["dataset"], *cost(record, update)])
    paid = pd.DataFrame(found, columns=["method", "dataset", "fit", "evaluate", "parameters"])
    means = paid.groupby(["method", "dataset"]).mean().groupby("method").mean()
    averages = average_rows(reading.select(seen))
    rows = []
    for method, h in averages["h"].dropna().items():
        fit, evaluate, parameters = means.loc[method]
        rows.append([method, h, fit, evaluate, fit + evaluate, parameters])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def cost(record: Record, update: str) -> tuple[float, float, float]:
    """Seconds of the fit, seconds for 1000 images on the update, trainable parameters."""
    seconds = record.get("seconds") or {}
    spent, count = (seconds.get("evaluate") or {}).get(update), (record["targets"].get("new") or {}).get("count")
    evaluate = THOUSAND * spent / count if spent is not None and count else math.nan
    return number(seconds.get("fit")), evaluate, number(record.get("trainable_parameters"))


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def front(points: Iterable[tuple[float, float]]) -> list[int]:
    """Places of the (cost, gain) that no other has for less cost with as much gain, or for as much cost with more; by
    rising cost. Points with a NaN are on no front."""
    known = [(place, x, y) for place, (x, y) in enumerate(points) if not (math.isnan(x) or math.isnan(y))]
    kept = [
        (x, place)
        for place, x, y in known
        if not any(a <= x and b >= y and (a, b) != (x, y) for other, a, b in known if other != place)
    ]
    return [place for _, place in sorted(kept)]


def front_of(table: pd.DataFrame, cost: str) -> list[int]:
    """Of a table of `costs`; one method alone is on none."""
    return front(zip(table[cost], table["h"], strict=True)) if len(table) > 1 else []


# ---- for readers -----------------------------------------------------------------------------------------------------


def findings(selection: Selection) -> list[str]:
    said, names = [], reading.names(selection.main, "method")
    for update in reading.updates(selection.main):
        table = costs(selection, update)
        for cost, what in COSTS.items():
            kept = front_of(table, cost)
            if kept:
                where = "H" if update == "new" else f"H, {update}"
                methods = ", ".join(names[table["method"][place]] for place in kept)
                said.append(f"{where} against {what}: the Pareto front is {methods}.")
    if said:
        said.append("Seconds start from stored features; methods that read pixels encode their pictures within them.")
    return said


def cost_block(selection: Selection) -> Block:
    names, lines = reading.names(selection.main, "method"), []
    for update in reading.updates(selection.main):
        table = costs(selection, update)
        fronts = {cost: front_of(table, cost) for cost in COSTS}
        for place, row in enumerate(table.itertuples()):
            on = " and ".join(cost for cost, kept in fronts.items() if place in kept)
            name = names[row.method] + ("" if update == "new" else f", {update}")
            cells = (f"{row.h:.2f}", shown(row.fit), shown(row.evaluate), shown(row.seconds))
            lines.append((name, *cells, shown(row.parameters, 0), on or MISSING))
    header = ("Method", "H", "Fit (s)", "Evaluate 1000 (s)", "Both (s)", "Parameters", "Pareto front of")
    return Block(Cell("H against cost, means over datasets"), header, tuple(tuple(map(Cell, line)) for line in lines))


def shown(value: float, digits: int = 2) -> str:
    return MISSING if pd.isna(value) else f"{value:,.{digits}f}"


def draw_pareto(tables: Tables, selection: Selection) -> Figure | None:
    """H against seconds and against trainable parameters, a pair of panels an update; the line joins the methods that
    no other beats at both. None where fewer than two methods have an average and a cost."""
    if not has_statistics(selection):
        return None
    records = selection.main
    panels = [
        (update, cost, table)
        for update in reading.updates(records)
        for cost in COSTS
        if (table := costs(selection, update).dropna(subset=[cost])) is not None and len(table) > 1
    ]
    if not panels:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    labels = {method: short_label(names[method], depth[method]) for method in names}
    with canvas(PANEL * len(panels) + 0.1) as figure:
        for place, (update, cost, table) in enumerate(panels, 1):
            axes = figure.add_subplot(len(panels), 1, place)
            draw_front(axes, table, cost, labels)
            axes.set_ylabel("H (%)" if update == "new" else f"H (%), {update}")
    return figure


def draw_front(axes, table: pd.DataFrame, cost: str, labels: dict[str, str]) -> None:
    """Names stand at the right, by H, each with a line to its point: points may lie close together."""
    positive = table[cost][table[cost] > 0]
    least, most = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 10.0)
    nothing = 10.0 ** (math.floor(math.log10(least)) - 1)  # where a cost of 0 stands on a log axis
    places = table[cost].clip(lower=nothing)
    axes.set_xscale("log")
    axes.set_xlim(min(nothing * 2 if (table[cost] > 0).all() else nothing / 2, least / 2), most * 3)
    low, high = table["h"].min(), table["h"].max()
    margin = max(0.08 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    kept = front_of(table, cost)
    axes.step(places.iloc[kept], table["h"].iloc[kept], where="post", color=COLOURS["new"], linewidth=1.6, zorder=2)
    order = table["h"].sort_values(kind="stable").index
    bottom, height = axes.get_ylim()[0], np.ptp(axes.get_ylim())
    rows = spaced([(table["h"][index] - bottom) / height for index in order])
    for row, index in zip(rows, order, strict=True):
        x, y, on = places[index], table["h"][index], table.index.get_loc(index) in kept
        style = {"marker": "o", "markersize": 5, "color": DOT, "fillstyle": "full" if on else "none", "zorder": 4}
        (point,) = axes.plot([x], [y], **style)
        tips.tell(point, f"{labels[table['method'][index]]}: H {y:.2f} %, {cost} {tips.number(table[cost][index])}")
        axes.annotate(
            labels[table["method"][index]], (x, y), (1.03, row), xycoords="data", textcoords="axes fraction",
            fontsize=7.5, va="center", annotation_clip=False,
            arrowprops={**LEADER, "color": INK},
        )  # fmt: skip
    axes.set_xlabel(AXES[cost])
    # The style keeps $ plain, so that a user's names show as they are: no powers of ten in TeX.
    axes.xaxis.set_major_formatter(lambda x, place: "0" if x <= nothing * 1.01 else f"{x:,.0f}" if x >= 1 else f"{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    open_frame(axes)


def spaced(heights: Sequence[float], gap: float = 0.062) -> list[float]:
    """Rising heights between 0 and 1, pushed apart until names at them do not touch, no further than needed."""
    gap = min(gap, 1 / max(len(heights) - 1, 1))
    found = list(heights)
    for place in range(1, len(found)):
        found[place] = max(found[place], found[place - 1] + gap)
    if found:
        found[-1] = min(found[-1], 1.0)
    for place in reversed(range(len(found) - 1)):
        found[place] = min(found[place], found[place + 1] - gap)
    return found


@register("costs")
class Costs(Analysis):
    title, place = "H against cost", 71
    section = "Cost and time"
    drawings = (Drawing("pareto", "H against cost; filled, and on the line, the Pareto front", draw_pareto),)

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        if not has_statistics(selection):
            return []
        figures = list(self.figures(selection, "pareto"))
        links = [(f"pareto.{kind}", f"figures/pareto.{kind}") for kind in ("svg", "png")]
        return [*figures, ("block", cost_block(selection)), *([("files", links)] if figures else [])]
