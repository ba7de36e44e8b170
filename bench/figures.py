"""Figures made from records alone, as SVG and PNG whose bytes depend on the records and the matplotlib version only."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure  # no pyplot: it would keep every figure alive and choose a screen backend

from bench import stats, taxonomy
from bench.sheets import MISSING
from bench.stats import Record
from bench.store import whole, write_text

# Okabe and Ito's palette, told apart by readers with any of the common colour deficiencies; black text reads on all.
COLOURS = {"base": "#56B4E9", "new": "#E69F00", "h": "#009E73"}
LABELS = {"base": "Base", "new": "New", "h": "H"}
INK = "#222222"  # axes and text, exchanged for the page's own text colour where a figure is put into HTML
ON_BAR = "#000000"  # stays black there, since the bars keep their colours
WHISKER = "#5a5a5a"  # seen on every bar and on a light or dark page
PAPER = "#ffffff"

BAR = 0.27  # height of one bar, in rows; three of them leave a gap between methods
ROW_INCHES, WIDTH_INCHES, FRAME_INCHES = 0.52, 5.0, 1.5  # narrow: its text must still be read on a phone
FOOT, WIDE_ENOUGH = 1.0, 9.0  # percent: where a bar's number starts, and the shortest bar that holds it
LONGEST_NAME = 24
PNG_DPI = 200
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "svg.fonttype": "path", "text.parse_math": False,
}  # fmt: skip


def draw_figure_2a(records: Iterable[Record]) -> Figure:
    """The paper's Figure 2 (a): Base, New and H in percent of each method, averaged over the datasets.

    Deep-layer methods bear a dagger; the line is the upgraded model's zero-shot accuracy, below which a carried-over
    module is worse than none; whiskers are the deviation over seeds. A method without an average shows dashes.
    """
    records = stats.select(records)
    averages, depth, names = stats.average_rows(records), stats.depths(records), stats.names(records, "method")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, FRAME_INCHES + ROW_INCHES * max(len(averages), 1)), layout="constrained")
        axes = figure.add_subplot()
        count = stats.counted(len(stats.averaged(records)), "dataset")
        axes.set_title(f"Accuracy before (Base) and after (New) the update,\nmean of {count}", fontsize=9.5)
        marks = taxonomy.legend(depth.values())  # more than one would not fit beside the axis's name
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


def inline_svg(svg: str, name: str, description: str = "") -> str:
    """A figure's `svg_text` as an <svg> element of an HTML page: no prologue, no fixed size, ink in its text colour."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_attribute(description or name)}">{body}'


def short_label(name: str, depth: str) -> str:
    """A method's name on an axis, cut where it is long, with the mark of its place."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return f"{short} {taxonomy.mark(depth)}".rstrip()


def _write_value(axes, row: float, mean: float, std: float, colour: str) -> None:
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


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as an SVG file."""
    # The salt fixes the ids of clip paths, which are random otherwise; one a figure keeps them apart on one page.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"carryover {salt}"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def save(figure: Figure, stem: Path, svg: str = "") -> list[Path]:
    """Writes stem + ".svg" (``svg``, where it was made before) and ".png"; returns both paths."""
    vector, png = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    write_text(vector, svg or svg_text(figure, stem.name))
    with matplotlib.rc_context(STYLE), whole(png) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return [vector, png]


def _attribute(text: str) -> str:
    return text.translate({ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;"})
