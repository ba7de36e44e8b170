"""Figures of the suites beside the main one: length of ContCoOp's context (Figure 4), depth of CoOp's (Figure 2 d)."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.rows import ZERO_SHOT, dataset_name, rows_of
from carryover.bench.analyses.suite_tables import ablation_table
from carryover.bench.plan import suites
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, LABELS, MARKERS, legend, stacked


def draw_figure_4(selection: Selection) -> Figure | None:
    """The paper's Figure 4: ContCoOp's Base, New and H in percent against the length of its context."""
    return draw_lines(selection, "context_length", "context_length", "Context tokens")


def draw_lambda(selection: Selection) -> Figure | None:
    """Table 5 as a figure: Base, New and H against the weight of the distillation."""
    return draw_lines(selection, "lambda", "lambda", "Weight of the distillation")


def draw_lines(selection: Selection, id: str, column: str, label: str) -> Figure | None:
    suite = suites.ABLATIONS[id]
    table = ablation_table(suite, selection)
    table = table[table["seeds"] > 0]
    if table.empty:
        return None
    sets = list(dict.fromkeys(table["dataset"]))
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = table[table["dataset"] == dataset]
        for name in ("base", "new", "h"):
            points(axes, part[column].astype(float), part[name], part[name + "_std"], name, LABELS[name])
        axes.set_xticks(part[column].astype(float), part[column])
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(dataset_name(rows_of(suite, selection), dataset), fontsize=9.5)
    panels[-1].set_xlabel(label)
    legend(figure, panels)
    return figure


def draw_figure_2d(selection: Selection) -> Figure | None:
    """The paper's Figure 2 (d) and what it leaves out: CoOp's context inserted at each block, accuracy in percent on
    both backbones, both initial scales, beside both zero-shot lines. A panel a dataset."""
    suite = suites.ABLATIONS["layers"]
    table = ablation_table(suite, selection)
    table = table[table["seeds"] > 0]
    sets = [d for d in dict.fromkeys(table["dataset"]) if (table[table["dataset"] == d]["layer"] != ZERO_SHOT).any()]
    if not sets:
        return None
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = table[(table["dataset"] == dataset) & (table["layer"] != ZERO_SHOT)]
        for start, line in zip(suites.STARTS, ("-", ":"), strict=True):
            rows = part[part["start"] == start]
            for name in ("base", "new"):
                text = f"{LABELS[name]}, start {start}"
                points(axes, rows["layer"].astype(int), rows[name], rows[name + "_std"], name, text, line)
        shot = table[(table["dataset"] == dataset) & (table["layer"] == ZERO_SHOT)]
        for name in ("base", "new"):
            if len(shot) and not math.isnan(shot[name].iloc[0]):
                label = f"zero-shot {LABELS[name]}"
                axes.axhline(shot[name].iloc[0], color=COLOURS[name], linestyle=(0, (4, 2)), linewidth=1, label=label)
        axes.set_xticks(sorted(set(part["layer"].astype(int))))
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(dataset_name(rows_of(suite, selection), dataset), fontsize=9.5)
    panels[-1].set_xlabel("Block at whose input the context stands")
    legend(figure, panels, columns=2)
    return figure


def points(axes, x: pd.Series, y: pd.Series, spread: pd.Series, name: str, label: str, line: str = "-") -> None:
    style = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 4, "linewidth": 1.3, "linestyle": line}
    axes.errorbar(x, y, yerr=spread.fillna(0), label=label, capsize=2, elinewidth=0.8, **style)
