"""Forecast: how well will a ported plug-in do? Told from unlabelled anchors that the port was fitted without.

A case is a method on a dataset, ported to a target by one port, with one kind and number of anchors; seeds averaged.
The ports are those that are formulas, fitted on pictures (`bench/ports/checks.py` measures the predictors).
    lead        agreement of the ported and the old plug-in, less that of the new zero-shot model and the old plug-in
    gain        points over the target's zero-shot: forecast by a line on the lead
    accuracy    percent: forecast by a line on agreement and confidence
One line serves all ports and methods, for a new method has no cases of its own. Which predictors it has is fixed here
and chosen from no case. Each case is forecast from the other datasets, targets or methods, and judged beside baselines;
lines on single predictors stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses import forecast_numbers as numbers
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.forecast_numbers import (
    ALL,
    ANY,
    AS_IT_IS,
    FORECAST,
    GREATEST,
    IF_IT_LEADS,
    KINDS,
    LEFT_OUT,
    OUTCOMES,
    PREDICTORS,
    rows_where,
)
from carryover.bench.analyses.parts.rows import number
from carryover.bench.records import reading
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, canvas, open_frame
from carryover.bench.render.sheets import Block, Cell, Sheet

CHOICE_TITLE = "Port where it leads"
UNITS = {"gain": "Gain over zero-shot (points)", "accuracy": "Accuracy (percent)"}
PLAIN = "procrustes"  # the port of the opening's second sentence
MAIN_KIND = "other"  # pictures that the plug-in was not fitted to, as a user's are
NAMES = {  # models of the sheet
    FORECAST: "Forecast",
    AS_IT_IS: "No line",
    "mean": "Mean",
    "like": "Its like",
    "zero_shot": "Zero-shot and mean gain",
}
DATASET_MARKS = (("#D55E00", "o"), ("#0072B2", "D"), ("#009E73", "v"), ("#CC79A7", "s"), ("#56B4E9", "^"))


# ---- sheets ----------------------------------------------------------------------------------------------------------


def forecast_sheet(found: numbers.Forecast, selection: Selection) -> Sheet:
    """A block for each outcome and what is left out, a row a kind and number of anchors; then the single predictors."""
    blocks = []
    for outcome, (names, raw, baselines) in OUTCOMES.items():
        models = (FORECAST, AS_IT_IS, *baselines)
        for left_out in LEFT_OUT:
            part, rows = rows_where(found.table, outcome=outcome, left_out=left_out), []
            for (kind, count), own in part.groupby(["anchors", "count"], sort=False):
                by = own.set_index("model")
                one, errors = by.loc[FORECAST], [number(by.loc[model]["mae"]) for model in models]
                less = f"{number(one['better'])} [{number(one['better_low'])}, {number(one['better_high'])}]"
                rhos = [number(one[name]) for name in ("rho", "rho_within", "rho_least")]
                told = [f"{kind}, {count}", str(one["cases"]), *errors, less, *rhos, number(by.loc[AS_IT_IS]["rho"])]
                rows.append(tuple(map(Cell, told)))
            header = ["Anchors", "Cases", *map(NAMES.__getitem__, models), "Less than the mean's by"]
            header += ["Rank correlation", f"Within a {left_out}", "Least of them", f"Of the {raw} alone"]
            if rows:
                title = f"{UNITS[outcome]}, mean absolute error, a {left_out} left out; by {' and '.join(names)}"
                blocks.append(Block(Cell(title), tuple(header), tuple(rows)))
    part = rows_where(found.table, outcome="gain")
    for (kind, count, left_out), own in part.groupby(["anchors", "count", "left_out"], sort=False):
        if (kind, count, left_out) == plain_scope(part):
            by, rows = own.set_index("model").rename({FORECAST: "lead"}), []
            for name in (name for name in PREDICTORS if name in by.index):
                each = (number(by.loc[name][column]) for column in ("mae", "rho", "rho_within"))
                rows.append((Cell(name), *map(Cell, each)))
            title = f"Gain by a line on one predictor, anchors {kind} ({count}), a {left_out} left out"
            columns = ("Predictor", "Error", "Rank correlation", f"Within a {left_out}")
            blocks.append(Block(Cell(title), columns, tuple(rows)))
    return Sheet(Told.title, tuple(blocks), (*sentences(found), *remarks(found, selection)))


def plain_scope(table: pd.DataFrame) -> tuple[str, str, str]:
    """Kind and number of anchors, and what is left out, that the words speak of: the strictest there are."""
    kind = next(kind for kind in (MAIN_KIND, *KINDS) if kind in set(table["anchors"]))
    own = table[table["anchors"] == kind]
    count = ALL if ALL in set(own["count"]) else ANY
    own = own[own["count"] == count]
    return kind, count, next(name for name in LEFT_OUT if name in set(own["left_out"]))


def choice_sheet(found: numbers.Forecast) -> Sheet:
    """A block a kind of anchors, a row a rule."""
    blocks = []
    for kind, own in found.choices.groupby("anchors", sort=False):
        rows = []
        for row in own.to_dict("records"):
            figures = (number(row[name]) for name in ("accuracy", "regret", "worst"))
            rows.append((Cell(rule_name(row["choice"])), *map(Cell, figures)))
        title = f"Anchors {kind}, all of them: {counted(int(own['cells'].iloc[0]), 'cell')}"
        header = ("Rule", "Accuracy (percent)", "Behind the best (points)", "At most behind")
        blocks.append(Block(Cell(title), header, tuple(rows)))
    told = (
        "A cell is a method on a dataset, target and seed. The best is the most accurate of zero-shot, reuse and the "
        "ports on the test pictures, so part of it is luck. Retraining, which needs labels, is no choice here.",
        "A port leads where it agrees with the old plug-in on more anchors than the new zero-shot model does; where it "
        "does not, the rule takes zero-shot. No rule reads a label.",
    )
    return Sheet(CHOICE_TITLE, tuple(blocks), told)


def rule_name(choice: str) -> str:
    if choice == GREATEST:
        return "the port with the greatest lead, if it is above 0"
    return choice if not choice.endswith(IF_IT_LEADS) else f"{choice.removesuffix(IF_IT_LEADS)} if it leads"


# ---- in words --------------------------------------------------------------------------------------------------------


def sentences(found: numbers.Forecast) -> list[str]:
    """What holds for a dataset left out; nothing where there are too few to leave one out."""
    part = rows_where(found.table, outcome="gain", left_out="dataset")
    if part.empty:
        return []
    kind, count, _ = plain_scope(part)
    by = rows_where(part, anchors=kind, count=count).set_index("model")
    one, errors = by.loc[FORECAST], by["mae"]
    figures = (
        f"On a held-out dataset its mean error is {errors[FORECAST]:.1f} points; that of the mean gain is "
        f"{errors['mean']:.1f}. {rank_words(one['rho'], one['rho_within'])}"
    )
    if works(by):
        said = [f"Agreement with the old model predicts a port's gain without labels. {figures}", *doubt(one)]
        return [*said, *rule_words(found.choices, kind)]
    return [f"Agreement with the old model does not predict a port's gain. {figures}"]


def works(by: pd.DataFrame) -> bool:
    """Whether the forecast errs less than both baselines of the gain, and orders the cases of every group rightly."""
    one = by.loc[FORECAST]
    return bool(all(one["mae"] < by.loc[name]["mae"] for name in OUTCOMES["gain"][2]) and one["rho_least"] > 0)


def doubt(one: pd.Series) -> list[str]:
    """Where the difference from the mean is not significant over the groups."""
    few = f"With {counted(int(one['groups']), 'dataset')} that difference is not significant."
    return [] if one["better_low"] > 0 else [few]


def rank_words(rho: float, within: float) -> str:
    if math.isnan(rho):
        return "The rank correlation is not defined."
    return f"The rank correlation is {rho:.2f}" + ("." if math.isnan(within) else f", within a dataset {within:.2f}.")


def rule_words(choices: pd.DataFrame, kind: str) -> list[str]:
    """What the rule loses against the best; nothing without the port of which it speaks."""
    lost = rows_where(choices, anchors=kind).set_index("choice")["regret"]
    if PLAIN not in lost:
        return []
    return [
        f"Porting by {PLAIN} where the lead is above 0, and zero-shot elsewhere, is {lost[PLAIN + IF_IT_LEADS]:.1f} "
        f"points behind the best choice on average. Always porting is {lost[PLAIN]:.1f} behind, always zero-shot "
        f"{lost['zero-shot']:.1f}."
    ]


def remarks(found: numbers.Forecast, selection: Selection) -> list[str]:
    cases = found.cases
    amounts = [counted(cases[name].nunique(), name) for name in ("dataset", "target", "method", "port")]
    return [
        f"{counted(len(cases), 'case')}: a method on a dataset ported to a target by a port that is a formula, fitted "
        f"on pictures; seeds averaged. {', '.join(amounts)}. Cases with “{ALL}” anchors there are, and “{ANY}”.",
        "The lead: the share of anchors on which the ported plug-in gives the old plug-in's class, each ported without "
        "that anchor, less the share on which the new zero-shot model gives it. No label and no test picture is read.",
        "The line is that of all ports and methods together, fitted on the other groups. Error: mean over a group's "
        "cases, then over groups. In brackets Student's 95 % interval over groups, rough, for they share what the "
        f"lines were fitted on; with {counted(cases['dataset'].nunique(), 'dataset')} it says little.",
        "Its like: the mean of the cases that differ in nothing but what is left out. It needs labels of the same "
        "method's ported runs elsewhere. Zero-shot and mean gain reads the target's labels.",
        "Over all cases a rank correlation may only reflect differences between datasets. Within one it cannot.",
        "Few-shot pictures (support) flatter: the old plug-in was fitted to them. Foreign ones are of other classes, "
        "so agreement on them says less of the task.",
    ]


# ---- figure ----------------------------------------------------------------------------------------------------------


def draw_forecast(tables: Tables, selection: Selection) -> Figure | None:
    """The gain as measured against its forecast, a mark a case; a panel each for two things left out."""
    if "forecast" not in tables:
        return None
    found = numbers.forecast_of(selection)
    table = rows_where(found.table, outcome="gain")
    kind, count, _ = plain_scope(table)
    table = rows_where(table, anchors=kind, count=count)
    cases = next(part for *scope, part in numbers.scopes(found.cases) if scope == [kind, count])
    panels_of = [name for name in LEFT_OUT if name in set(table["left_out"])][:2]
    names = reading.names([record for _, record in numbers.ported(selection)], "dataset")
    measured = cases["gain"].to_numpy()
    made = {left_out: numbers.made(cases, "gain", left_out)[FORECAST] for left_out in panels_of}
    ends = np.concatenate([measured, *made.values()])
    low, high = ends.min() - 3, ends.max() + 3
    with canvas(3.6) as figure:
        panels = figure.subplots(1, len(panels_of), sharey=True, squeeze=False)[0]
        for axes, left_out in zip(panels, panels_of, strict=True):
            axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            for dataset, (colour, mark) in zip(dict.fromkeys(cases["dataset"]), cycle(DATASET_MARKS), strict=False):
                own = (cases["dataset"] == dataset).to_numpy()
                look = {"color": colour, "marker": mark, "markersize": 2.5, "linestyle": "none", "alpha": 0.5}
                axes.plot(made[left_out][own], measured[own], label=names[dataset], **look)
            by = rows_where(table, left_out=left_out).set_index("model")
            one = by.loc[FORECAST]
            told = f"error {one['mae']:.1f} (mean {one['mae_mean']:.1f}), rank {number(one['rho'])}"
            axes.set_title(f"each {left_out} from the others\n{told}", fontsize=8)
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
            axes.set_xlabel("Forecast (points)")
            open_frame(axes)
        number_of = "all of them" if count == ALL else "any number of them"
        figure.suptitle(f"Anchors: {kind}, {number_of}", fontsize=9)
        panels[0].set_ylabel("Gain over zero-shot (points)")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            frameon=False,
            markerscale=1.6,
        )
    return figure


@register("forecast")
class Told(Analysis):
    title, place = "A port's gain, forecast without labels", 44
    section = "Ports"
    names = ("forecast", "forecast_choice")
    drawings = (
        Drawing(
            "forecast",
            "Gain of ported plug-ins over zero-shot: forecast from unlabelled pictures, and as measured",
            draw_forecast,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        found = numbers.forecast_of(selection)
        if len(found.table):
            yield Table("forecast", found.table, numbers.KEYS, forecast_sheet(found, selection))
        if len(found.choices):
            yield Table("forecast_choice", found.choices, numbers.CHOICE_KEYS, choice_sheet(found))
