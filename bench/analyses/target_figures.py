"""Figures of many targets: methods and targets as two heat maps, and forecasts beside what was measured."""

from __future__ import annotations

import math
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses import forecast
from carryover.bench.analyses.targets import backbone_name, has_targets, targets_table
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, STYLE, WIDTH_INCHES, short_label
from carryover.bench.render.sheets import MISSING
from carryover.bench.stats.forecast_models import SELECTED

CELL_INCHES, FRAME_INCHES = 0.3, 1.15  # height of a row; of a panel's title and its column names
DARK, LIGHT = "#000000", "#fefefe"  # on the cells, which keep their colours; not the page's own ink and paper
EMPTY = "#dddddd"
# Both maps are told apart by readers with any of the common colour deficiencies, and by their lightness.
H_MAP, GAIN_MAP = "cividis", "PuOr"
# Okabe and Ito's palette, with a mark of its own for each target: colour is never the only difference.
TARGET_MARKS = (
    ("#D55E00", "o"),
    ("#0072B2", "D"),
    ("#009E73", "v"),
    ("#CC79A7", "s"),
    ("#56B4E9", "^"),
    ("#E69F00", "P"),
)
LEAST_SPAN = 1.0  # points: a matrix of equal numbers is no picture of differences
H_SPAN, GAIN_SPAN = 40.0, 20.0  # points: one method that breaks down shall not leave a single colour for the others


def draw_targets(selection: Selection) -> Figure | None:
    """H with each target (Base: accuracy) above, gain over the backbone's own zero-shot below; averages over the
    datasets. None where there is one target, or no average."""
    if not has_targets(selection.main):
        return None
    records = reading.select(selection.main)
    table = targets_table(records)
    table = table[(table["dataset"] == AVERAGE) & table["accuracy"].notna()]
    if table.empty:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    methods, backbones = (list(dict.fromkeys(table[name])) for name in ("method", "backbone"))
    value = table["h"].where(table["backbone"] != "base", table["accuracy"])
    matrices = {
        "H with each target (Base: accuracy), %": table.assign(shown=value),
        f"Gain over the backbone's own zero-shot, points\n(colours end at ±{GAIN_SPAN:g})": table[
            table["method"] != ZERO_SHOT
        ].assign(shown=lambda rows: rows["gain"]),
    }
    with matplotlib.rc_context(STYLE):
        height = 2 * (FRAME_INCHES + CELL_INCHES * len(methods)) + 0.4
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        for axes, (title, cells) in zip(figure.subplots(2, 1), matrices.items(), strict=True):
            matrix = cells.pivot(index="method", columns="backbone", values="shown")
            shown = [method for method in methods if method in matrix.index]
            draw_matrix(axes, matrix.reindex(index=shown, columns=backbones), signed="Gain" in title)
            axes.set_title(title, fontsize=9.5)
            axes.set_yticks(range(len(shown)), [short_label(names[m], depth[m]) for m in shown])
            turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(backbones) > 6 else {}
            axes.set_xticks(range(len(backbones)), [backbone_name(role) for role in backbones], **turned)
        figure.suptitle(f"Mean of {counted(len(reading.averaged(records)), 'dataset')}", fontsize=9.5)
        legend = "    ".join(places.legend(depth.values()))
        if legend:
            figure.supxlabel(legend, fontsize=8)
    return figure


def draw_matrix(axes, matrix: pd.DataFrame, signed: bool) -> None:
    """A cell a number, as vectors; what was not measured is grey with a dash. ``signed``: colours part at 0."""
    values = matrix.to_numpy(dtype=float)
    known = values[~np.isnan(values)]
    if signed:
        far = min(max(LEAST_SPAN, float(np.abs(known).max()) if known.size else 0.0), GAIN_SPAN)
        low, high, colours = -far, far, matplotlib.colormaps[GAIN_MAP]
    else:
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        low = min(max(low, high - H_SPAN), high - LEAST_SPAN)
        colours = matplotlib.colormaps[H_MAP]
    norm = Normalize(low, high)
    edges = [np.arange(count + 1) - 0.5 for count in (values.shape[1], values.shape[0])]
    shown = np.ma.masked_invalid(values)
    axes.set_facecolor(EMPTY)
    axes.pcolormesh(*edges, shown, norm=norm, cmap=colours, edgecolors=LIGHT, linewidth=1)
    size = 8 if values.shape[1] <= 6 else 6.5
    for (row, column), number in np.ndenumerate(values):
        text = MISSING if math.isnan(number) else f"{number:+.1f}" if signed else f"{number:.1f}"
        red, green, blue, _ = (1.0, 1.0, 1.0, 1.0) if math.isnan(number) else colours(norm(min(max(number, low), high)))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=LIGHT if dark else DARK)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)  # first method on top, as in the table
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_forecast(selection: Selection) -> Figure | None:
    """The gain kept as measured against what was forecast from the backbones alone, a mark a case: from cases of other
    targets on the left, from those of other datasets on the right. None without a forecast."""
    cases, outcome, model = forecast.case_table(selection), "kept", SELECTED
    if not forecast.has_forecast(cases):
        return None
    table = forecast.forecast_table(cases).set_index(["outcome", "method", "model", "left_out"])
    found, measured = forecast.forecasts(cases), cases[outcome].to_numpy(float)
    ends = [*measured, *(value for left_out in forecast.LEFT_OUT for value in found[outcome, left_out][0][model])]
    low, high = float(np.nanmin(ends)) - 3, float(np.nanmax(ends)) + 3
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 3.5), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, left_out in zip(panels, forecast.LEFT_OUT, strict=True):
            made = found[outcome, left_out][0][model]
            axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            for target, (colour, mark) in zip(dict.fromkeys(cases["target"]), cycle(TARGET_MARKS), strict=False):
                own = (cases["target"] == target).to_numpy()
                look = {"color": colour, "marker": mark, "markersize": 3.5, "linestyle": "none", "alpha": 0.75}
                axes.plot(made[own], measured[own], label=backbone_name(target), **look)
            row = table.loc[(outcome, forecast.EVERY, model, left_out)]
            axes.set_title(
                f"each {left_out} from the others\nerror {row['mae']:.1f}, of the mean {row['mae_mean']:.1f}",
                fontsize=9,
            )
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
            axes.set_xlabel("Forecast (points)")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=INK, alpha=0.15, linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set_ylabel("Gain kept on the target (points)")
        figure.suptitle("From the two backbones alone. Error: mean absolute, median over methods", fontsize=9)
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            columnspacing=1.1,
        )
    return figure
