"""The paper's Figure 2 (a): Base, New and H of each method."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.figure import Figure  # no pyplot: it would keep every figure alive and choose a screen backend

from carryover.bench import places
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.render.figures import (
    BAR,
    COLOURS,
    FRAME_INCHES,
    INK,
    LABELS,
    PAPER,
    ROW_INCHES,
    STYLE,
    WIDTH_INCHES,
    _write_value,
    short_label,
)
from carryover.bench.stats.means import average_rows


def draw_figure_2a(records: Iterable[Record]) -> Figure:
    """The paper's Figure 2 (a): Base, New and H in percent of each method, averaged over the datasets.

    Deep-layer methods bear a dagger; the line is the upgraded model's zero-shot accuracy, below which a carried-over
    module is worse than none; whiskers are the deviation over seeds. A method without an average shows dashes.
    """
    records = reading.select(records)
    averages, depth, names = average_rows(records), reading.depths(records), reading.names(records, "method")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, FRAME_INCHES + ROW_INCHES * max(len(averages), 1)), layout="constrained")
        axes = figure.add_subplot()
        count = reading.counted(len(reading.averaged(records)), "dataset")
        axes.set_title(f"Accuracy before (Base) and after (New) the update,\nmean of {count}", fontsize=9.5)
        marks = places.legend(depth.values())  # more than one would not fit beside the axis's name
        axes.set_xlabel(("\n" if len(marks) > 1 else "    ").join(["Top-1 accuracy (%)", "    ".join(marks)]).rstrip())
        axes.set_xlim(0, 100)
        axes.set_yticks(range(len(averages)), [short_label(names[m], depth[m]) for m in averages.index])
        axes.set_ylim(max(len(averages), 1) - 0.5, -0.5)  # first method on top, as in the table
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        for step, (name, colour) in zip((-BAR, 0, BAR), COLOURS.items(), strict=True):
            means, rows = averages[name], [row + step for row in range(len(averages))]
            style: dict[str, Any] = {"color": colour, "label": LABELS[name], "edgecolor": PAPER, "linewidth": 0.5}
            axes.barh(rows, means.fillna(0), height=BAR, **style)
            for row, mean, std in zip(rows, means, averages[name + "_std"], strict=True):
                _write_value(axes, row, mean, std, colour)
        level = averages["new"].get("zs-clip", math.nan)
        if not math.isnan(level):
            axes.axvline(level, color=INK, linestyle=(0, (4, 2)), linewidth=1.1, label=f"zero-shot New, {level:.1f}")
        # Below the axes: inside, a legend would hide the bar of whichever method happens to be long.
        handles, labels = axes.get_legend_handles_labels()
        keys = sorted(zip(handles, labels, strict=True), key=lambda key: key[1] not in LABELS.values())  # the line last
        place = {"loc": "outside lower center", "ncols": 4, "columnspacing": 1.1}
        figure.legend(*zip(*keys, strict=True), frameon=False, handlelength=1.4, **place)
    return figure
