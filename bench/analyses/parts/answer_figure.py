"""The figure of `bench.analyses.answer`: what each method gains over zero-shot, as it is, ported, retrained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.parts.answer_numbers import IMPOSSIBLE, of
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.render.figures import COLOURS, INK, LONGEST_NAME, canvas, open_frame

WAYS = {"": "as it is", "ported": "ported", "retrained": "retrained"}
LOOKS = {
    "": {"marker": "o", "color": COLOURS["new"], "markersize": 6},
    "ported": {"marker": "D", "color": COLOURS["base"], "markersize": 5},
    "retrained": {"marker": "s", "color": COLOURS["h"], "markersize": 5},
}
ROW_INCHES, FRAME_INCHES = 0.3, 0.8
XLABEL = "Points over zero-shot on the new model (95 % intervals)"
ACROSS, WIDE = 4, 2.0  # panels a row, and the width, where there are several updates
FURTHEST = 20.0  # points below zero-shot that the figure shows; what is lower stands at the edge with its number


def drawn(table: pd.DataFrame, methods: Mapping[str, str], targets: Mapping[str, str]) -> Figure | None:
    """A panel an update, its methods the highest gain first; None where nothing was gained or lost. ``methods``,
    ``targets``: names by id."""
    panels = {target: of(table, target) for target in dict.fromkeys(table["target"])}
    panels = {t: part[told(part) & (part["method"] != ZERO_SHOT)] for t, part in panels.items()}
    panels = {target: part for target, part in panels.items() if len(part)}
    if not panels:
        return None
    across = min(ACROSS, len(panels))
    rows = [list(panels.values())[i : i + across] for i in range(0, len(panels), across)]
    heights = [max(map(len, row)) * ROW_INCHES + FRAME_INCHES for row in rows]
    with canvas(sum(heights) + 0.3, WIDE if across > 1 else 1.0) as figure:
        places = figure.subplots(len(rows), across, squeeze=False, height_ratios=heights).ravel()
        axes_of = places[: len(panels)]
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        for axes, (target, part) in zip(axes_of, panels.items(), strict=True):
            axes.set_title(targets.get(target, target).replace(" (", "\n(") if len(panels) > 1 else "", fontsize=9)
            axes.set_yticks(range(len(part)), [methods[m][:LONGEST_NAME] for m in part["method"]])
            axes.set_ylim(len(part) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            open_frame(axes, "x")
            axes.axvline(0, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label="zero-shot", zorder=1)
            edge = max(lowest(part) - 1, -FURTHEST)
            for place, (_, row) in enumerate(part.iterrows()):
                draw_row(axes, place, row, edge)
            axes.set_xlim(left=edge - 1.5)
        if across == 1:
            axes_of[-1].set_xlabel(XLABEL)
        else:
            figure.supxlabel(XLABEL, fontsize=9)
        shown = [axes.get_legend_handles_labels() for axes in axes_of]
        handles = {label: handle for found in shown for handle, label in zip(*found, strict=True)}
        labels = [label for label in ("zero-shot", *WAYS.values()) if label in handles]
        figure.legend(
            [handles[n] for n in labels],
            labels,
            loc=f"outside {'lower' if across == 1 else 'upper'} center",
            ncols=4,
            frameon=False,
        )
    return figure


def told(part: pd.DataFrame) -> pd.Series:
    """Which methods have a gain; of those that cannot be plugged in, as ported or retrained."""
    further = part[[column_of(way, "gain") for way in WAYS if way]].notna().any(axis=1)
    return part["gain"].notna() | ((part["verdict"] == IMPOSSIBLE) & further)


def lowest(part: pd.DataFrame) -> float:
    """Of all that is drawn, in points over zero-shot; 0 where nothing is below."""
    columns = [part[column_of(way, name)] for way in WAYS for name in ("gain", "low")]
    return min([0.0, *(float(values.min()) for values in columns if values.notna().any())])


def column_of(way: str, name: str) -> str:
    return f"{way}_{name}" if way else name


def draw_row(axes, place: int, row: pd.Series, edge: float) -> None:
    """What falls far below stands at the edge with its number: it shall not press the others together."""
    for step, (way, label) in zip((0.0, -0.16, 0.16), WAYS.items(), strict=True):
        gain, low, high = (row[column_of(way, name)] for name in ("gain", "low", "high"))
        look, y = LOOKS[way], place + step
        if math.isnan(gain):
            continue
        if gain < edge:
            axes.plot([edge], [y], "<", color=look["color"], markersize=6, zorder=3)
            beside = {"xytext": (6, 0), "textcoords": "offset points"}
            axes.annotate(f"{gain:.1f}", (edge, y), va="center", fontsize=8, **beside)
            continue
        ends = None if math.isnan(low) else [[max(0.0, gain - low)], [max(0.0, high - gain)]]
        axes.errorbar([gain], [y], xerr=ends, elinewidth=1, capsize=2, linestyle="", label=label, zorder=3, **look)
