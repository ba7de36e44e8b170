"""The forecast for readers: the sheets of `bench/analyses/forecast.py`'s numbers, and the paragraph that they amount
to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from carryover.bench.analyses import forecast
from carryover.bench.analyses.forecast import BASELINES, EVERY, LEFT_OUT, OUTCOMES, PREDICTORS
from carryover.bench.analyses.targets import backbone_name
from carryover.bench.records import reading
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.stats.forecast_models import LEVEL, MEAN, SAME, SELECTED

TITLE, RHO_TITLE = "Forecast of what survives an update", "Rank correlation of the forecast's predictors"
LIKE = {"target": "same dataset on the other targets", "dataset": "same target on the other datasets"}
UNITS = {"kept": "points", "share": "fraction"}
NAMES = {
    MEAN: "Mean (baseline)",
    SAME: "Mean of the same dataset, or target (baseline)",
    LEVEL: "One accuracy everywhere (baseline)",
    SELECTED: "Selected forecast",
}


def forecast_sheet(selection: Selection) -> Sheet:
    """Of each outcome a block with a row a model (the pairs of predictors are in the CSV alone), its median error over
    methods with a target and with a dataset left out; then a block for either with a row a method."""
    cases, methods = forecast.case_table(selection), reading.names(reading.select(selection.main), "method")
    table = forecast.forecast_table(cases)
    blocks = []
    for outcome, name in OUTCOMES.items():
        part, header = {left_out: errors_of(table, EVERY, outcome, left_out) for left_out in LEFT_OUT}, ["Model"]
        for left_out in LEFT_OUT:
            header += [f"Error, {left_out} left out", "Less than the mean's by"]
        rows = []
        for model in (*BASELINES, SELECTED, *forecast.usable(cases)):
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
    return Sheet(TITLE, tuple(blocks), (paragraph(cases, methods), *told_of(selection, cases)))


def correlation_sheet(selection: Selection) -> Sheet:
    """A block an outcome: a row for all methods and for each, a column a predictor."""
    cases, names = forecast.case_table(selection), reading.names(reading.select(selection.main), "method")
    table, predictors = forecast.correlation_table(cases), forecast.usable(cases)
    blocks = []
    for outcome, name in OUTCOMES.items():
        part = table[table["outcome"] == outcome].set_index(["method", "predictor"])
        rows = []
        for method in (EVERY, *dict.fromkeys(cases["method"])):
            found = [part.loc[method, predictor] for predictor in predictors]
            cells = [Cell(between(one["rho"], one["low"], one["high"])) for one in found]
            rows.append((Cell("Mean over methods" if method == EVERY else names[method]), *cells))
        header = ("Method", *(PREDICTORS[predictor] for predictor in predictors))
        blocks.append(Block(Cell(f"{name.capitalize()}: Spearman's rho"), header, tuple(rows)))
    count = counted(cases["dataset"].nunique(), "dataset")
    remarks = (
        f"Over the cases of a method, in brackets the 2.5th to 97.5th percentile of {forecast.DRAWS:,} redraws of "
        f"datasets, each with all its targets: it says nothing of other targets. None under {forecast.FEWEST_DATASETS} "
        f"datasets ({count} here). Many correlations are shown, and about one interval in twenty leaves out a true 0.",
        "A predictor that is one number a target takes as many values as there are targets: its rho tells little.",
    )
    return Sheet(RHO_TITLE, tuple(blocks), remarks)


def paragraph(cases: pd.DataFrame, names: Mapping[str, str] | None = None) -> str:
    """What was found, made of the table's numbers alone; ``names`` of methods, where they are not their ids."""
    table = forecast.forecast_table(cases)
    general: dict[bool, list[str]] = {True: [], False: []}
    said: list[str] = []
    count = cases["method"].nunique()
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
    """The rows of `forecast.forecast_table` of one method, outcome and what is left out, by model."""
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


def told_of(selection: Selection, cases: pd.DataFrame) -> list[str]:
    """What the numbers are of: cases, models that were selected, predictors that are not used."""
    targets = ", ".join(backbone_name(role) for role in dict.fromkeys(cases["target"]))
    intervals = cases["method"].nunique() * len(OUTCOMES) * len(LEFT_OUT)
    lines = [
        f"{counted(len(cases), 'case')}: a method on a dataset carried to a target, seeds averaged, where it gained at "
        f"least {forecast.LEAST_GAIN:g} point on the base; {counted(cases['method'].nunique(), 'method')}, "
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
    for (outcome, left_out), (_, chosen) in forecast.forecasts(cases).items():
        each = pd.DataFrame({"method": cases["method"], "group": cases[left_out], "model": chosen})
        models = each.drop_duplicates(["method", "group"])["model"]
        counts = Counter(NAMES[MEAN] if not model else shown(model) for model in models)
        picked = ", ".join(f"{one} ({count})" for one, count in counts.most_common())
        lines.append(f"Selected for {OUTCOMES[outcome]}, a {left_out} left out, by method and {left_out}: {picked}.")
    idle = [name for name in PREDICTORS if name not in forecast.usable(cases)]
    if idle:
        names = ", ".join(PREDICTORS[name] for name in idle)
        lines.append(f"Not used, for it is not defined everywhere or the same in all cases: {names}.")
    return lines


def shown(model: tuple[str, ...]) -> str:
    return " with ".join(PREDICTORS[name] for name in model)


def number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def between(value: float, low: float, high: float) -> str:
    """A number with its interval, where it has one."""
    return number(value) + ("" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]")


def less(row: pd.Series) -> str:
    """By how much a model's error is less than the mean's; a dash for the mean itself."""
    return MISSING if math.isnan(row["better_low"]) else between(row["better"], row["better_low"], row["better_high"])
