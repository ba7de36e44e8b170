"""The figure of drift beside compatibility: kept, lost and drift over the same blocks."""

from __future__ import annotations

import math

import matplotlib
from matplotlib.figure import Figure

from carryover.bench.analyses import depth
from carryover.bench.analyses.depth_sheet import number, spread_name
from carryover.bench.backbones.drift_measures import AVERAGE
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, STYLE, WIDTH_INCHES
from carryover.bench.render.sheets import MISSING

PANELS = {"gain_new": "Kept: gain over zero-shot on New", "lost": "Lost: gain on Base less gain on New"}
# Okabe and Ito's palette, with a mark and a stroke of its own for each line: colour is never the only difference.
START_LINES = {"fixed": ("#D55E00", "o", "-"), "rows": ("#0072B2", "s", (0, (4, 2)))}
DRIFT_LINES: dict[str, tuple] = {
    "feature_drift": ("features at its input", "#009E73", "^", "-"),
    "parameter_drift": ("parameters of the block", "#CC79A7", "D", (0, (1, 1.5))),
}
APART = 0.07  # blocks by which the starts stand to either side, so that their bars do not cover one another
WIDE = 30  # largest over smallest drift from which only a log axis shows both lines


def draw_depth(selection: Selection) -> Figure | None:
    """What is kept on New, what is lost, and the drift of the same blocks; means over the pairs of dataset and seed
    that have every block, with their sample deviation. For ``new``, as all figures; None without such a pair."""
    table = depth.depth_table(selection)
    table = table[(table["update"] == "new") & (table["dataset"] == AVERAGE) & (table["seeds"] > 0)]
    parts = {start: part.set_index("layer") for start, part in table.groupby("start")}
    starts, layers = [start for start in START_LINES if start in parts], depth.depths(selection)
    if not starts:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 7.4), layout="constrained")
        *above, below = figure.subplots(3, 1, sharex=True)
        for axes, (outcome, title) in zip(above, PANELS.items(), strict=True):
            for start, side in zip(starts, (-APART, APART), strict=False):
                means, bars = parts[start][outcome], parts[start][outcome + "_std"].fillna(0)
                style = {**look(*START_LINES[start]), "capsize": 2, "elinewidth": 0.8}
                axes.errorbar([x + side for x in layers], means, bars, label=f"context, start {start}", **style)
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_ylabel("Points")
            axes.set_title(f"{title}\n{rho_line(selection, outcome)}", fontsize=9)
        draw_drift(below, parts[starts[0]][list(DRIFT_LINES)])
        below.set_xlabel("Block at whose input the context stands")
        below.set_xticks(layers)
        for axes in (*above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
            axes.set_axisbelow(True)
        figure.align_ylabels()
        counts = {start: counted(int(part["seeds"].iloc[0]), "pair") for start, part in parts.items()}
        each = [f"{counts[start]} (start {start})" for start in starts]
        over = counts[starts[0]] if len(set(counts.values())) == 1 else " and ".join(each)
        means = depth.mean_correlations(selection)
        spread = spread_name(means[means["update"] == "new"])
        figure.suptitle(
            f"Mean ± deviation over {over} of dataset and seed\nρ: Spearman's, with feature drift [{spread}]",
            fontsize=9,
        )
        keys = [pair for axes in (above[0], below) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        figure.legend(*zip(*keys, strict=True), loc="outside lower center", ncols=2, frameon=False, columnspacing=1.1)
    return figure


def draw_drift(axes, moved) -> None:
    """``moved``: a row a block, the columns of `DRIFT_LINES`, percent."""
    for name, (label, *line) in DRIFT_LINES.items():
        if moved[name].notna().any():
            axes.plot(moved.index, moved[name], label=f"drift, {label}", **look(*line))
    positive = moved[moved > 0].stack()
    wide = len(positive) and positive.max() > WIDE * positive.min()
    if wide:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("Change (%)")
    axes.set_title("Drift: relative change from the base" + " (log axis)" * bool(wide), fontsize=9)


def rho_line(selection: Selection, outcome: str) -> str:
    """Rho with feature drift and its spread over redraws, for each start that was run."""
    table = depth.mean_correlations(selection)
    table = table[(table["update"] == "new") & (table["predictor"] == "feature_drift") & (table["outcome"] == outcome)]
    each = []
    for row in table[table["pairs"] > 0].itertuples():
        span = MISSING if math.isnan(row.low) else f"{number(row.low)}, {number(row.high)}"
        each.append(f"{row.start} {number(row.rho)} [{span}]")
    return f"ρ {', '.join(each) or MISSING}"


def look(colour: str, mark: str, line) -> dict:
    return {"color": colour, "marker": mark, "markersize": 4.5, "linewidth": 1.4, "linestyle": line}
