"""Forecast: what of a method's gain survives an update, told from the two backbones alone?

A case is one method on one dataset carried to one target, where the method gained at least `LEAST_GAIN` points over
zero-shot on the base (what gained nothing has nothing to lose); seeds averaged. Two outcomes:
    kept    accuracy on the target less the target's own zero-shot, in points
    share   that gain divided by the gain on the base; negative where the plug-in ends below zero-shot
Predictors are drift and similarity of the two backbones, which cost neither training nor labelled
pictures. Zero-shot accuracy is none of them: the target's is subtracted in the outcome and the base's nearly equals it,
so that a plug-in at chance everywhere would seem predictable.

Each method has a line of its own (`bench/stats/forecast_models.py`), fitted on the other targets or on the other
datasets and judged on those left out, against baselines from the same rows. The selected forecast chooses its
predictors, or the mean, by the same leave-one-out inside the rows it was fitted on: it is the only honest one, for the
best of all models is known only after the fact. What holds of all methods is told by their median and their count: one
that breaks down has the largest errors, and would decide any mean over methods.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses import forecast_numbers as numbers
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.forecast_numbers import BASELINES, EVERY, LEFT_OUT, OUTCOMES, PREDICTORS, Forecast
from carryover.bench.analyses.parts.rows import number
from carryover.bench.analyses.targets import backbone_name
from carryover.bench.records import reading
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, canvas, open_frame
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.stats import correlation
from carryover.bench.stats.forecast_models import LEVEL, MEAN, SAME, SELECTED

RHO_TITLE = "Rank correlation of the forecast's predictors"
LIKE = {"target": "same dataset on the other targets", "dataset": "same target on the other datasets"}
UNITS = {"kept": "points", "share": "fraction"}
NAMES = {
    MEAN: "Mean (baseline)",
    SAME: "Mean of the same dataset, or target (baseline)",
    LEVEL: "One accuracy everywhere (baseline)",
    SELECTED: "Selected forecast",
}
# Okabe and Ito's palette, with a mark of its own for each target: colour is never the only difference.
TARGET_MARKS = (
    ("#D55E00", "o"),
    ("#0072B2", "D"),
    ("#009E73", "v"),
    ("#CC79A7", "s"),
    ("#56B4E9", "^"),
    ("#E69F00", "P"),
)


def forecast_sheet(found: Forecast, selection: Selection) -> Sheet:
    """Of each outcome a block with a row a model (the pairs of predictors are in the CSV alone), its median error over
    methods with a target and with a dataset left out; then a block for either with a row a method."""
    cases, table, blocks = found.cases, found.table, []
    methods = reading.names(reading.select(selection.main), "method")
    for outcome, name in OUTCOMES.items():
        part, header = {left_out: errors_of(table, EVERY, outcome, left_out) for left_out in LEFT_OUT}, ["Model"]
        for left_out in LEFT_OUT:
            header += [f"Error, {left_out} left out", "Less than the mean's by"]
        rows = []
        for model in (*BASELINES, SELECTED, *numbers.usable(cases)):
            cells = [Cell(NAMES.get(model, PREDICTORS.get(model, model)))]
            for left_out in LEFT_OUT:
                one = part[left_out].loc[model]
                cells += [Cell(number(one["mae"])), Cell(less(one))]
            rows.append(tuple(cells))
        title = f"{name.capitalize()} ({UNITS[outcome]}), mean absolute error, median over methods"
        blocks.append(Block(Cell(title), tuple(header), tuple(rows)))
    for outcome, name in OUTCOMES.items():
        for left_out in LEFT_OUT:
            better = beating(table, outcome, left_out)[1]
            rows = []
            for method in dict.fromkeys(cases["method"]):
                own = errors_of(table, method, outcome, left_out)
                errors = [Cell(number(own.loc[model]["mae"])) for model in (SELECTED, *BASELINES)]
                told = Cell("yes" if method in better else "no")
                rows.append((Cell(methods[method]), *errors, Cell(less(own.loc[SELECTED])), told))
            like = f"Same {'dataset' if left_out == 'target' else 'target'}'s mean"
            columns = (
                "Method",
                "Selected",
                "Mean",
                like,
                "One accuracy",
                "Less than the mean's by",
                "Better than all three",
            )
            title = f"{name.capitalize()} ({UNITS[outcome]}), mean absolute error by method, a {left_out} left out"
            blocks.append(Block(Cell(title), columns, tuple(rows)))
    return Sheet(Survival.title, tuple(blocks), (paragraph(found, methods), *told_of(found)))


def correlation_sheet(found: Forecast, selection: Selection) -> Sheet:
    """A block an outcome: a row for all methods and for each, a column a predictor."""
    names = reading.names(reading.select(selection.main), "method")
    cases, table, predictors = found.cases, found.correlations, numbers.usable(found.cases)
    blocks = []
    for outcome, name in OUTCOMES.items():
        part = table[table["outcome"] == outcome].set_index(["method", "predictor"])
        rows = []
        for method in (EVERY, *dict.fromkeys(cases["method"])):
            rhos = [part.loc[method, predictor] for predictor in predictors]
            cells = [Cell(between(one["rho"], one["low"], one["high"])) for one in rhos]
            rows.append((Cell("Mean over methods" if method == EVERY else names[method]), *cells))
        header = ("Method", *(PREDICTORS[predictor] for predictor in predictors))
        blocks.append(Block(Cell(f"{name.capitalize()}: Spearman's rho"), header, tuple(rows)))
    count = counted(cases["dataset"].nunique(), "dataset")
    remarks = (
        f"Over the cases of a method, in brackets the 2.5th to 97.5th percentile of {numbers.DRAWS:,} redraws of "
        "datasets, each with all its targets: it says nothing of other targets. None under "
        f"{correlation.FEWEST_GROUPS} datasets ({count} here). Many correlations are shown, and about one "
        "interval in twenty leaves out a true 0.",
        "A predictor that is one number a target takes as many values as there are targets: its rho tells little.",
    )
    return Sheet(RHO_TITLE, tuple(blocks), remarks)


def paragraph(found: Forecast, names: Mapping[str, str] | None = None) -> str:
    """What was found, made of the table's numbers alone; ``names`` of methods, where they are not their ids."""
    table, count = found.table, found.cases["method"].nunique()
    general: dict[bool, list[str]] = {True: [], False: []}
    said: list[str] = []
    for outcome, name in OUTCOMES.items():
        for left_out in LEFT_OUT:
            beaten, every = beating(table, outcome, left_out)
            errors = errors_of(table, EVERY, outcome, left_out)["mae"]
            line = (
                f"{name.capitalize()} ({UNITS[outcome]}) for a new {left_out}: median error over methods "
                f"{number(errors[SELECTED])}, of the mean {number(errors[MEAN])}, of the mean of the {LIKE[left_out]} "
                f"{number(errors[SAME])}, of one accuracy everywhere {number(errors[LEVEL])}; "
            )
            said.append(line + verdict(beaten, every, count, names or {}) + ".")
            general[2 * len(every) > count].append(f"{name} for a new {left_out}")
    lead = "Drift and similarity of the two backbones alone "
    if not general[True]:
        return " ".join([lead + "are not shown to tell, for most methods, what survives an update.", *said])
    lead += f"tell for most methods, better than every baseline: {', '.join(general[True])}"
    lead += f"; not shown: {', '.join(general[False])}." if general[False] else "."
    return " ".join([lead, *said])


def errors_of(table: pd.DataFrame, method: str, outcome: str, left_out: str) -> pd.DataFrame:
    """The rows of `numbers.forecast_table` of one method, outcome and what is left out, by model."""
    own = (table["method"] == method) & (table["outcome"] == outcome) & (table["left_out"] == left_out)
    return table[own].set_index("model")


def beating(table: pd.DataFrame, outcome: str, left_out: str) -> tuple[list[str], list[str]]:
    """Methods whose selected forecast is better than the mean (the interval lies above 0), and those of them where it
    errs less than the other baselines too."""
    beaten, every = [], []
    for method in [name for name in dict.fromkeys(table["method"]) if name != EVERY]:
        part = errors_of(table, method, outcome, left_out)
        if part.loc[SELECTED]["better_low"] > 0:
            beaten.append(method)
            if all(part.loc[SELECTED]["mae"] < part.loc[model]["mae"] for model in BASELINES):
                every.append(method)
    return beaten, every


def verdict(beaten: Sequence[str], every: Sequence[str], count: int, names: Mapping[str, str]) -> str:
    """For how many of ``count`` methods the forecast is shown to be better than the mean, and than all baselines."""
    if not beaten:
        return f"not shown to be better than the mean for any of {counted(count, 'method')}"

    def listed(found: Sequence[str]) -> str:
        short = f" ({', '.join(names.get(method, method) for method in found)})"
        return f"{len(found)} of {counted(count, 'method')}{short if len(found) < count else ''}"

    if len(every) == len(beaten):
        return f"better than every baseline for {listed(every)}"
    return f"better than the mean for {listed(beaten)}, than every baseline for {listed(every) if every else 'none'}"


def told_of(found: Forecast) -> list[str]:
    """What the numbers are of: cases, models that were selected, predictors that are not used."""
    cases = found.cases
    targets = ", ".join(backbone_name(role) for role in dict.fromkeys(cases["target"]))
    intervals = cases["method"].nunique() * len(OUTCOMES) * len(LEFT_OUT)
    lines = [
        f"{counted(len(cases), 'case')}: a method on a dataset carried to a target, seeds averaged, where it gained at "
        f"least {numbers.LEAST_GAIN:g} point on the base; {counted(cases['method'].nunique(), 'method')}, "
        f"{counted(cases['dataset'].nunique(), 'dataset')}, {counted(cases['target'].nunique(), 'target')} "
        f"({targets}). Gain kept: over the target's own zero-shot; share kept: that divided by the gain on the base.",
        "Each method has a line of its own (ridge on standardised predictors), fitted without the group that it is "
        "judged on. The selected forecast chooses one or two predictors, or the mean, without that group as well; a "
        "single predictor's row is one of many tried, so the lowest of them is no finding. No forecast lies outside "
        "the outcomes of the cases it was made from.",
        "Error: mean over a method's cases of a group left out, then over groups; the median over methods is taken "
        "group by group. In brackets Student's 95 % interval over groups, which share rows, so a rough one: by chance "
        f"alone it would lie above 0 about once in forty, and {intervals} are asked.",
        "Baselines: the mean of the method's other cases; the mean of those with the same dataset (a target left out) "
        "or on the same target (a dataset left out); and one accuracy everywhere, the method's mean accuracy in its "
        "other cases less the target's zero-shot. The last knows zero-shot on the target, which the forecast does not: "
        "where it errs least, as for a plug-in that ends at chance, what is kept is zero-shot's doing. Better than all "
        "three: the interval lies above 0, and neither of the other two errs less.",
    ]
    for (outcome, left_out), (_, chosen) in found.made.items():
        each = pd.DataFrame({"method": cases["method"], "group": cases[left_out], "model": chosen})
        models = each.drop_duplicates(["method", "group"])["model"]
        counts = Counter(NAMES[MEAN] if not model else shown(model) for model in models)
        picked = ", ".join(f"{one} ({count})" for one, count in counts.most_common())
        lines.append(f"Selected for {OUTCOMES[outcome]}, a {left_out} left out, by method and {left_out}: {picked}.")
    idle = [name for name in PREDICTORS if name not in numbers.usable(cases)]
    if idle:
        names = ", ".join(PREDICTORS[name] for name in idle)
        lines.append(f"Not used, for it is not defined everywhere or the same in all cases: {names}.")
    return lines


def shown(model: tuple[str, ...]) -> str:
    return " with ".join(PREDICTORS[name] for name in model)


def between(value: float, low: float, high: float) -> str:
    """A number with its interval, where it has one."""
    return number(value) + ("" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]")


def less(row: pd.Series) -> str:
    """By how much a model's error is less than the mean's; a dash for the mean itself."""
    return MISSING if math.isnan(row["better_low"]) else between(row["better"], row["better_low"], row["better_high"])


def draw_forecast(tables: Tables, selection: Selection) -> Figure | None:
    """The gain kept as measured against what was forecast from the backbones alone, a mark a case: from cases of other
    targets on the left, from those of other datasets on the right. None without a forecast."""
    if not tables:
        return None
    one, outcome, model = numbers.forecast_of(selection), "kept", SELECTED
    table = one.table.set_index(["outcome", "method", "model", "left_out"])
    cases, found, measured = one.cases, one.made, one.cases[outcome].to_numpy(float)
    ends = [*measured, *(value for left_out in LEFT_OUT for value in found[outcome, left_out][0][model])]
    low, high = float(np.nanmin(ends)) - 3, float(np.nanmax(ends)) + 3
    with canvas(3.5) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, left_out in zip(panels, LEFT_OUT, strict=True):
            made = found[outcome, left_out][0][model]
            axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
            for target, (colour, mark) in zip(dict.fromkeys(cases["target"]), cycle(TARGET_MARKS), strict=False):
                own = (cases["target"] == target).to_numpy()
                look = {"color": colour, "marker": mark, "markersize": 3.5, "linestyle": "none", "alpha": 0.75}
                axes.plot(made[own], measured[own], label=backbone_name(target), **look)
            row = table.loc[(outcome, EVERY, model, left_out)]
            axes.set_title(
                f"each {left_out} from the others\nerror {row['mae']:.1f}, of the mean {row['mae_mean']:.1f}",
                fontsize=9,
            )
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
            axes.set_xlabel("Forecast (points)")
            open_frame(axes)
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


@register("forecast")
class Survival(Analysis):
    title, place = "Forecast of what survives an update", 60
    names = ("forecast", "forecast_correlation")
    drawings = (
        Drawing(
            "forecast",
            "Gain kept on a target: forecast before anything was trained there, and as measured",
            draw_forecast,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        found = numbers.forecast_of(selection)
        if numbers.has_forecast(found.cases):
            yield Table("forecast", found.table, numbers.KEYS, forecast_sheet(found, selection))
            yield Table(
                "forecast_correlation", found.correlations, numbers.RHO_KEYS, correlation_sheet(found, selection)
            )
