"""Figures of ported plug-ins: each method on each target, and accuracy against the number of anchors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from carryover.bench.analyses import port_numbers as numbers
from carryover.bench.analyses.base import Tables
from carryover.bench.analyses.chains import PALETTE
from carryover.bench.analyses.port_numbers import ALL, FIXED, KEYS
from carryover.bench.analyses.retention import CEILING, FLOOR, FRAME_INCHES, FURTHEST, ROW_INCHES, Names
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, INK, LONGEST_NAME, canvas, legend, open_frame

PORTED = PALETTE[0]
HOLLOW = {"marker": "D", "color": PORTED, "markersize": 6, "fillstyle": "none"}
SHOWN: tuple[tuple[tuple[str, str], dict], ...] = (  # way -> how it is drawn; what comes later lies above
    (("reuse", ""), {"marker": "o", "color": COLOURS["new"], "markersize": 5.5, "label": "reused"}),
    (("retrain", ""), {"marker": "s", "color": COLOURS["h"], "markersize": 5.5, "label": CEILING}),
    ((FIXED, "other"), {**HOLLOW, "label": "ported (other pictures)"}),
    ((FIXED, "support"), {"marker": "D", "color": PORTED, "markersize": 5, "label": "ported (few-shot pictures)"}),
)  # fmt: skip
LINES = {  # kind of anchors -> how its line is drawn
    "support": ("few-shot pictures", PALETTE[0], "o", "-"),
    "other": ("other pictures", PALETTE[1], "s", "--"),
    "foreign": ("pictures of other datasets", PALETTE[3], "^", ":"),
}
CURVES_ON = "new"  # the target of the curves
SIDE_BY_SIDE = 2
NUMBER_WIDTH = 5.0  # points that the number at the edge takes
DEEPEST = 30.0  # points below zero-shot that a curve's panel shows at most; what is lower leaves the panel


def averages(table: pd.DataFrame, target: str) -> pd.DataFrame:
    return table[(table["dataset"] == AVERAGE) & (table["target"] == target) & table["accuracy"].notna()]


def draw_ports(tables: Tables, selection: Selection) -> Figure | None:
    """Of each method on each target, averaged over the datasets: zero-shot, reused, ported and retrained."""
    if not tables:
        return None
    names, found = Names(selection), dict(panels(tables["ports"].frame, selection))
    if not found:
        return None
    heights = [len(rows) * ROW_INCHES + FRAME_INCHES for rows, _ in found.values()]
    with canvas(sum(heights) + 0.6) as figure:
        axes_of = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (target, (rows, floor)) in zip(axes_of, found.items(), strict=True):
            axes.set_title(f"on {names.targets[target]}", fontsize=9.5)
            axes.set_yticks(range(len(rows)), [names.method(method)[:LONGEST_NAME] for method in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            open_frame(axes, "x")
            edge = max(min(floor, *(value for of in rows.values() for value in of.values())), floor - FURTHEST)
            axes.axvline(floor, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label=FLOOR, zorder=1)
            for place, of in enumerate(rows.values()):
                draw_row(axes, place, of, edge)
            axes.set_xlim(left=edge - 1.5)
        axes_of[-1].set_xlabel("Top-1 accuracy on the target (%)")
        shown = [axes.get_legend_handles_labels() for axes in axes_of]
        handles = {label: handle for of_panel in shown for handle, label in zip(*of_panel, strict=True)}
        labels = [label for label in (FLOOR, *(style["label"] for _, style in SHOWN)) if label in handles]
        figure.legend([handles[n] for n in labels], labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def panels(table: pd.DataFrame, selection: Selection) -> Iterator[tuple[str, tuple[dict, float]]]:
    """target -> (method -> way -> accuracy, zero-shot accuracy), of the methods that were ported."""
    for target in dict.fromkeys(table["target"]):
        part = averages(table, target)
        floor = part[part["port"] == "zero-shot"]["accuracy"]
        rows: dict[str, dict] = {}
        for row in part[part["count"].isin(["", ALL])].itertuples():
            rows.setdefault(row.method, {})[row.port, row.anchors] = row.accuracy
        rows = {method: of for method, of in rows.items() if any(port == FIXED for port, _ in of)}
        if rows and len(floor):
            yield target, (rows, float(floor.iloc[0]))


def draw_row(axes, place: int, of: dict, edge: float) -> None:
    """What breaks down stands at the edge with its number: it shall not press the others together."""
    inside = [of[way] for way, _ in SHOWN if of.get(way, -math.inf) >= edge]
    if inside:
        axes.plot([min(inside), max(inside)], [place, place], color=INK, alpha=0.25, linewidth=1, zorder=1)
    for level, (way, style) in enumerate(SHOWN):
        if of.get(way, -math.inf) >= edge:
            axes.plot([of[way]], [place], linestyle="", zorder=3 + level, **style)
    below = [(of[way], style["color"]) for way, style in SHOWN if of.get(way, math.inf) < edge]
    for _, colour in below:
        axes.plot([edge], [place], "<", color=colour, markersize=5.5, zorder=3)
    if below:
        behind = max([edge, *(value for value in inside if value < edge + NUMBER_WIDTH)])
        axes.text(behind + 1, place, ", ".join(f"{value:.1f}" for value, _ in below), va="center", fontsize=8)


def draw_anchors(tables: Tables, selection: Selection) -> Figure | None:
    """Gain over zero-shot on the update against the number of anchors, a panel a method, averaged over the datasets."""
    if not tables:
        return None
    names, table, seen = Names(selection), tables["ports"].frame, numbers.measured(selection).seen
    part = averages(table, CURVES_ON)
    part = part.assign(seen=[seen[tuple(row)] for row in part[list(KEYS)].itertuples(index=False)])
    curves = part[(part["port"] == FIXED) & part["seen"].notna()]
    counted = curves.groupby(["method", "anchors"], sort=False)["seen"].transform("size") > 1
    methods = list(dict.fromkeys(curves[counted]["method"]))
    if not methods:
        return None
    lines = -(-len(methods) // SIDE_BY_SIDE)
    lowest = max(-DEEPEST, min(0.0, curves["gain"].min()) - 2)
    with canvas(1.75 * lines + 0.9) as figure:
        grid = figure.subplots(lines, SIDE_BY_SIDE, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(methods) :]:
            axes.set_visible(False)
        for axes, method in zip(grid.flat, methods, strict=False):
            open_frame(axes)
            axes.set_title(names.method(method)[:LONGEST_NAME], fontsize=9)
            axes.axhline(0, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label="zero-shot")
            ceiling = part[(part["method"] == method) & (part["port"] == "retrain")]["gain"]
            if len(ceiling):
                axes.axhline(ceiling.iloc[0], color=COLOURS["h"], linewidth=1.3, label="retrained")
            for kind, (label, colour, marker, dash) in LINES.items():
                line = curves[(curves["method"] == method) & (curves["anchors"] == kind)].sort_values("seen")
                if len(line):
                    style = {"color": colour, "marker": marker, "linestyle": dash, "markersize": 4, "linewidth": 1.3}
                    axes.plot(line["seen"], line["gain"], label=label, **style)
        first = grid[0, 0]
        first.set_xscale("log", base=4)
        first.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        first.xaxis.set_minor_locator(NullLocator())
        first.set_ylim(bottom=lowest - 1)
        for axes in grid.flat[max(0, len(methods) - SIDE_BY_SIDE) : len(methods)]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("Number of anchors")
        figure.supylabel(f"Points over zero-shot on {CURVES_ON}", fontsize=9)
        legend(figure, list(grid.flat[: len(methods)]), columns=3)
    return figure
