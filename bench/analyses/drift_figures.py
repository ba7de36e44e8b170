"""Figures 2 (b) and (c): layer drift by depth, drawn from what `bench/engine/drift_runs.py` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from carryover.bench.analyses.drift import drift_table, pair_name, present, whole_blocks
from carryover.bench.backbones.drift_measures import AVERAGE
from carryover.bench.render.figures import INK, LONGEST_NAME, PAPER, STYLE, WIDTH_INCHES

# Okabe and Ito's palette, with a mark of its own for each line: colour is never the only difference.
UPDATE_LINES = (("#D55E00", "o"), ("#0072B2", "D"), ("#009E73", "v"), ("#E69F00", "P"))
CONTROL_LINES = (("#56B4E9", "s"), ("#CC79A7", "^"), ("#777777", "X"))
LEGEND_LETTERS = 52  # of three names that fit side by side


def draw_figure_2b(measures: Sequence[dict]) -> Figure:
    """The paper's Figure 2 (b): change of each text block's parameters, all pooled, relative above, absolute below.

    Log axes, for the update and an unrelated model differ by orders of magnitude; a pair with no change is named in the
    legend alone.
    """
    table = drift_table(measures)
    rows = whole_blocks(table[(table["tower"] == "text") & (table["what"] == "parameters")])
    labels = ("mean |d| / mean |base|", "mean |d|", "Text block")
    return _draw(measures, rows, "Change of parameters from the base", labels)


def draw_figure_2c(measures: Sequence[dict]) -> Figure:
    """The paper's Figure 2 (c): change of text features at EOT after each layer, mean over datasets; `ln_final` and the
    projected feature stand apart from the stream they end."""
    table = drift_table(measures)
    rows = table[(table["tower"] == "text") & (table["what"] == "features") & (table["dataset"] == AVERAGE)]
    place = "Text layer (0: embeddings, ln: after ln_final, proj: joint space)"
    return _draw(
        measures, rows, "Change of features at EOT from the base", ("mean ||d|| / ||base||", "mean |d|", place)
    )


def _draw(measures: Sequence[dict], rows: pd.DataFrame, title: str, labels: tuple[str, str, str]) -> Figure:
    shown, layers = present(measures), list(dict.fromkeys(rows["layer"]))
    stream = [place for place, layer in enumerate(layers) if layer.isdigit()]
    after = [place for place, layer in enumerate(layers) if not layer.isdigit()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 5.6), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, value, label in zip(panels, ("relative", "absolute"), labels[:2], strict=True):
            for measured, style in zip(shown, _styles(shown), strict=True):
                own = rows[rows["pair"] == measured["pair"]].set_index("layer")[value].reindex(layers)
                name = pair_name(measured)
                name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
                name += " (0 throughout)" * bool(len(own) and (own == 0).all())
                seen = own.where(own > 0)
                axes.plot(stream, seen.iloc[stream], label=name, **style)
                axes.plot(after, seen.iloc[after], **{**style, "linestyle": "none"})
            positive = rows[value][rows[value] > 0]
            if len(positive):
                axes.set_yscale("log")
                wide = positive.max() > 300 * positive.min()
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
                # The style keeps $ plain, so that a user's names show as they are: no powers of ten in TeX.
                axes.yaxis.set_major_formatter((lambda x, place: f"{100 * x:g} %") if value == "relative" else "{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel(f"{value.capitalize()}, {label}")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        panels[0].set_title(f"{title}\n(log axes; no mark where nothing changed)", fontsize=9.5)
        panels[1].set_xlabel(labels[2])
        panels[1].set_xticks(range(len(layers)), [{"ln_final": "ln", "projected": "proj"}.get(n, n) for n in layers])
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            columns = 3 if len("".join(names[:3])) < LEGEND_LETTERS else 2
            figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=columns, columnspacing=1.1)
    return figure


def _styles(shown: Sequence[dict]) -> list[dict]:
    """Updates solid and filled, in front; controls dashed and hollow."""
    updates, controls = cycle(UPDATE_LINES), cycle(CONTROL_LINES)
    styles = []
    for measured in shown:
        if measured["kind"] == "update":
            colour, mark = next(updates)
            look = {"linestyle": "-", "markersize": 4.5, "zorder": 4}
        else:
            colour, mark = next(controls)
            look = {"linestyle": (0, (4, 2)), "markersize": 6, "markerfacecolor": PAPER, "zorder": 3}
        styles.append({"color": colour, "marker": mark, "linewidth": 1.4, **look})
    return styles
