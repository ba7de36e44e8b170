"""Figures of the statistics: average ranks with bars where no test tells apart (Demsar 2006), and H against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from carryover.bench.places import legend
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, INK, STYLE, WHISKER, WIDTH_INCHES, short_label
from carryover.bench.stats.pareto import COSTS, costs, front
from carryover.bench.stats.rank_tests import LEVEL
from carryover.bench.stats.ranking import Ranking, rankings

ROW, BAR = 0.21, 0.13  # inches of a name and of a bar
TOP = 0.62  # inches of title and axis
LINE = {"color": WHISKER, "linewidth": 0.8}
PANEL = 2.9
DOT = "#0072B2"
LEADER = {"arrowstyle": "-", "alpha": 0.3, "linewidth": 0.6, "shrinkB": 3, "relpos": (0, 0.5)}  # to a name's left end


def draw_ranks(selection: Selection) -> Figure | None:
    """A panel a measure: methods at their average rank, the best on the left; a bar joins neighbours none of which a
    test tells from another. None where fewer than two methods have every dataset."""
    found, records = rankings(selection), selection.main
    if not found:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    labels = {method: short_label(names[method], depth[method]) for method in names}
    heights: list[float] = [TOP + BAR * (1 + len(one.cliques)) + ROW * (rows_of(one) + 0.3) for one in found]
    foot: float = 0.24 * (1 + bool(legend(depth.values())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + foot))
        top = sum(heights) + foot
        for one, height in zip(found, heights, strict=True):
            top -= height
            draw_panel(figure.add_axes((0, top / sum((*heights, foot)), 1, height / sum((*heights, foot)))), one,
                       labels, height)  # fmt: skip
        told = [f"Joined: not told apart by Wilcoxon's test with Holm's correction at {LEVEL}"]
        told += ["    ".join(marks)] if (marks := legend(depth.values())) else []
        figure.text(0.5, 0.06 / sum((*heights, foot)), "\n".join(told), ha="center", va="bottom", fontsize=8)
    return figure


def rows_of(one: Ranking) -> int:
    return math.ceil(len(one.methods) / 2)


def draw_panel(axes, one: Ranking, labels: dict[str, str], height: float) -> None:
    """In inches: names stand in two columns, the better half on the left, each with a line to its rank."""
    count, left, right = len(one.methods), 1.5, WIDTH_INCHES - 1.5
    axes.set_xlim(0, WIDTH_INCHES)
    axes.set_ylim(-height + TOP, TOP)
    axes.axis("off")

    def at(rank: float) -> float:
        return left + (rank - 1) / max(count - 1, 1) * (right - left)

    chance = "" if math.isnan(one.friedman_p) else f", Friedman {p_text(one.friedman_p)}"
    title = f"{one.measure.name}: average rank over {reading.counted(one.datasets, 'dataset')}{chance}"
    axes.text(WIDTH_INCHES / 2, TOP - 0.1, title, ha="center", va="top", fontsize=9.5)
    axes.plot([left, right], [0, 0], color=INK, linewidth=1)
    for tick in range(1, count + 1):
        axes.plot([at(tick), at(tick)], [0, 0.06], color=INK, linewidth=0.8)
        axes.text(at(tick), 0.09, str(tick), ha="center", va="bottom", fontsize=7.5)
    for place, (first, last) in enumerate(one.cliques):
        ends = [at(one.ranks[first]) - 0.04, at(one.ranks[last]) + 0.04]
        axes.plot(ends, [-BAR * (place + 0.8)] * 2, color=COLOURS["h"], linewidth=3, solid_capstyle="round", zorder=4)
    start, half = BAR * (1 + len(one.cliques)), rows_of(one)
    for place, (method, rank) in enumerate(zip(one.methods, one.ranks, strict=True)):
        better = place < half
        row = place if better else count - 1 - place
        y, x, edge = -start - ROW * (row + 0.5), at(rank), left - 0.08 if better else right + 0.08
        axes.plot([x, x, edge], [0, y, y], **LINE)
        axes.plot([x], [0], marker="o", markersize=3.5, color=INK, zorder=5)
        text = f"{labels[method]}  {rank:.2f}" if better else f"{rank:.2f}  {labels[method]}"
        axes.text(edge + (-0.05 if better else 0.05), y, text, ha="right" if better else "left", va="center",
                  fontsize=7.5)  # fmt: skip


def draw_pareto(selection: Selection) -> Figure | None:
    """H against seconds and against trainable parameters, a pair of panels an update; the line joins the methods that
    no other beats at both. None where no method has an average and a cost."""
    records = selection.main
    panels = [
        (update, cost, table)
        for update in reading.updates(records)
        for cost in COSTS
        if (table := costs(selection, update).dropna(subset=[cost])) is not None and len(table)
    ]
    if not panels:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    labels = {method: short_label(names[method], depth[method]) for method in names}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, PANEL * len(panels) + 0.1), layout="constrained")
        for place, (update, cost, table) in enumerate(panels, 1):
            axes = figure.add_subplot(len(panels), 1, place)
            draw_front(axes, table, cost, labels)
            axes.set_ylabel("H (%)" if update == "new" else f"H (%), {update}")
    return figure


AXES = {
    "seconds": "Seconds: fit and 1000 test images, frozen features ready (log axis)",
    "parameters": "Trainable parameters (log axis; 0 at its left end)",
}


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
    kept = front(zip(table[cost], table["h"], strict=True))
    axes.step(places.iloc[kept], table["h"].iloc[kept], where="post", color=COLOURS["new"], linewidth=1.6, zorder=2)
    order = table["h"].sort_values(kind="stable").index
    bottom, height = axes.get_ylim()[0], np.ptp(axes.get_ylim())
    rows = spaced([(table["h"][index] - bottom) / height for index in order])
    for row, index in zip(rows, order, strict=True):
        x, y, on = places[index], table["h"][index], table.index.get_loc(index) in kept
        axes.plot([x], [y], marker="o", markersize=5, color=DOT, fillstyle="full" if on else "none", zorder=4)
        axes.annotate(
            labels[table["method"][index]], (x, y), (1.03, row), xycoords="data", textcoords="axes fraction",
            fontsize=7.5, va="center", annotation_clip=False,
            arrowprops={**LEADER, "color": INK},
        )  # fmt: skip
    axes.set_xlabel(AXES[cost])
    # The style keeps $ plain, so that a user's names show as they are: no powers of ten in TeX.
    axes.xaxis.set_major_formatter(lambda x, place: "0" if x <= nothing * 1.01 else f"{x:,.0f}" if x >= 1 else f"{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


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


def p_text(p: float) -> str:
    """As readers expect a p: three decimals, never 0."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
