"""Modules carried through successive updates, and refreshed on the update: from the carried state beside from nothing,
against steps and against shots. Accuracies in percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.chain_numbers import (
    CARRIED,
    CHAIN_KEYS,
    CHAIN_STEPS,
    REFRESH_KEYS,
    REFRESHED,
    RETRAINED,
    SHOT_STEPS,
    TARGET,
    at,
    chain_of,
    chain_table,
    refresh_table,
    rows,
)
from carryover.bench.analyses.parts.retention_numbers import in_points
from carryover.bench.analyses.parts.rows import MEASURE, marks_of, not_run
from carryover.bench.analyses.retention import INTERVAL, Names, labelled
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.suites import Suite
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, legend, stacked
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats import means

CHAIN_METHODS = ("coop", "contcoop", "clip-adapter")  # a context, one that sees the names, and a module in joint space
WHOLE = "all"  # steps of the whole schedule, as rows name it
WAYS = {
    CARRIED: "carried, no training",
    REFRESHED: f"refreshed at each ({CHAIN_STEPS} steps)",
    RETRAINED: "retrained on each",
}
# Okabe and Ito's, and what they leave out of twelve by line style.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8B6914", "#666666")
SIGNS = "os^Dv<>pX*hP"


# ---- for readers -----------------------------------------------------------------------------------------------------


def chain_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block for the average of the main suite, one a dataset of the chains suite: a column a backbone."""
    names, chain = Names(selection), chain_of(selection.arch)
    header = ("Method", *(names.targets[role] for role in chain))
    blocks = []
    for dataset in dict.fromkeys(table["dataset"]):
        part = table[table["dataset"] == dataset]
        rows = []
        for (method, way), line in part.groupby(["method", "way"], sort=False):
            label = names.method(method)
            if dataset != AVERAGE and method != ZERO_SHOT:
                label += f", {WAYS[way]}"
            numbers = [percent(*pair) for pair in zip(line["accuracy"], line["accuracy_std"], strict=True)]
            rows.append((Cell(label), *map(Cell, numbers)))
        count = reading.counted(len(reading.averaged(selection.main)), "dataset")
        title = f"Average over {count}, carried without training" if dataset == AVERAGE else names.dataset(dataset)
        blocks.append(Block(Cell(title), header, tuple(rows)))
    return Sheet(Chains.title, tuple(blocks), (MEASURE, *foot(selection, names)))


def refresh_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a dataset and method: a row a number of steps, then a row a number of shots."""
    names, blocks = Names(selection), []
    header = ("Shots", "Steps", "Made", "From carried", "From nothing", "Carried leads by")
    for (dataset, method), part in table.groupby(["dataset", "method"], sort=False):
        rows = []
        for row in part.drop_duplicates(["shots", "steps"]).itertuples():
            made = MISSING if math.isnan(row.steps_made) else f"{row.steps_made:.0f}"
            accuracies = percent(row.carried, row.carried_std), percent(row.nothing, row.nothing_std)
            lead = in_points(row.lead, row.lead_low, row.lead_high, row.seeds)
            rows.append(tuple(map(Cell, (str(row.shots), row.steps, made, *accuracies, lead))))
        title = f"{names.dataset(dataset)}, {names.method(method)} on {names.targets[TARGET]}"
        blocks.append(Block(Cell(title), header, tuple(rows)))
    own = (
        f"Accuracy on the update after training there. From carried: the plug-in that was trained on the base "
        "(with the shots of the first rows) is where training starts. From nothing: the method's own start. Both with "
        "the same images, batches and schedule, squeezed to the steps; steps are rounded up to whole epochs (Made). "
        f"“{WHOLE}”: the method's whole schedule. Carried at 0 steps is the module reused; from nothing at 0 steps, "
        "the method's initial state.",
        "The lead is in points. It is significant where its interval excludes 0, and never with one seed.",
    )
    return Sheet(
        "Refreshed on the update, or trained from nothing", tuple(blocks), (MEASURE, *own, *foot(selection, names))
    )


def foot(selection: Selection, names: Names) -> tuple[str, ...]:
    rows = selection.rows.get("chains", ())
    missing = [
        f"{names.dataset(row.dataset)}: {names.method(row.variant.method)}, {' / '.join(row.variant.label)}"
        for row in rows
        if not any(record.get("status") == "done" for record in row.records)
    ]
    records = [*selection.main, *(record for row in rows for record in row.records)]
    return (
        INTERVAL,
        *marks_of(labelled(rows, names)),
        *not_run(missing),
        *refused.told(records, chain_of(selection.arch)),
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def draw_chains(tables: Tables, selection: Selection) -> Figure | None:
    """A line a method: accuracy of the module carried through the chain, averaged over the main suite's datasets."""
    if not tables:
        return None
    table, names = tables["chains"].frame, Names(selection)
    table = table[(table["dataset"] == AVERAGE) & (table["seeds"] > 0)]
    chain = chain_of(selection.arch)
    if table.empty:
        return None
    figure, (axes,) = stacked(1)
    for place, (method, line) in enumerate(table.groupby("method", sort=False)):
        if method == ZERO_SHOT:
            style: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 2)), "marker": ""}
        else:
            style = {"color": PALETTE[place % len(PALETTE)], "marker": SIGNS[place % len(SIGNS)], "markersize": 4}
        draw_line(axes, line["place"], line["accuracy"], line["accuracy_std"], names.method(method), style)
    axes.set_xticks(range(len(chain)), [names.targets[role] for role in chain])
    axes.set_ylabel("Top-1 accuracy (%)")
    legend(figure, [axes])
    return figure


def against(axis: str, label: str) -> Callable[[Tables, Selection], Figure | None]:
    return lambda tables, selection: draw_refresh(tables["refresh"].frame, selection, axis, label) if tables else None


def draw_refresh(table: pd.DataFrame, selection: Selection, axis: str, label: str) -> Figure | None:
    """Accuracy on the update against steps or shots, from the carried state (solid) and from nothing (dotted)."""
    names, table = Names(selection), table[(table["axis"] == axis) & (table["seeds"] > 0)]
    if table.empty:
        return None
    sets, methods = (list(dict.fromkeys(table[name])) for name in ("dataset", "method"))
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = table[table["dataset"] == dataset]
        ticks = list(dict.fromkeys(part[axis].astype(str)))
        for place, method in enumerate(methods):
            line = part[part["method"] == method]
            x = pd.Series([ticks.index(tick) for tick in line[axis].astype(str)], index=line.index)
            for start, dash in (("carried", "-"), ("nothing", ":")):
                style = {"color": PALETTE[place % len(PALETTE)], "marker": SIGNS[place], "markersize": 4}
                text = f"{names.method(method)}, from {start}"
                draw_line(axes, x, line[start], line[f"{start}_std"], text, {**style, "linestyle": dash})
        shot = [r for r in selection.main if (r["run"]["dataset"], r["run"]["method"]) == (dataset, ZERO_SHOT)]
        level, _ = means.mean_std(at(shot, TARGET).values())
        if not math.isnan(level):
            axes.axhline(level, color=INK, linestyle=(0, (4, 2)), linewidth=1, label="zero-shot")
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(names.dataset(dataset), fontsize=9.5)
    panels[-1].set_xlabel(label)
    legend(figure, panels, columns=2)
    return figure


def draw_line(axes, x: pd.Series, y: pd.Series, spread: pd.Series, label: str, style: dict) -> None:
    """With a band of one deviation over seeds."""
    axes.plot(x, y, label=label, linewidth=1.3, **style)
    if spread.notna().any():
        low, high = y - spread.fillna(0), y + spread.fillna(0)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


@register("chains")
class Chains(Analysis):
    title, place = "Modules through successive updates", 50
    section = "Retention"
    names = ("chains", "refresh")
    suite = Suite(
        rows,
        {"paper": ("dtd",), "micro": ("micro_textures", "micro_stars")},
        kind="further",
        needs="steps",
        methods=CHAIN_METHODS,
    )
    drawings = (
        Drawing(
            "chains",
            "Each method's module carried through the updates without training, averaged over the datasets",
            draw_chains,
        ),
        Drawing(
            "refresh_steps",
            "Accuracy on the update against training steps there, from the carried module and from nothing",
            against("steps", "Training steps on the update"),
            "refresh",
        ),
        Drawing(
            "refresh_shots",
            "Accuracy on the update against training images there, from the carried module and from nothing",
            against("shots", f"Training images a class on the update ({SHOT_STEPS} steps)"),
            "refresh",
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if "chains" in selection.rows:
            frames = chain_table(selection), refresh_table(selection)
            yield Table("chains", frames[0], CHAIN_KEYS, chain_sheet(frames[0], selection))
            yield Table("refresh", frames[1], REFRESH_KEYS, refresh_sheet(frames[1], selection))
