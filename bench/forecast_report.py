"""The forecast for readers: the sheets of `bench/forecast.py`'s numbers, and the paragraph that they amount to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from bench import forecast, stats
from bench.forecast import EVERY, LEFT_OUT, MEAN, OUTCOMES, PREDICTORS, SAME, SELECTED
from bench.selection import Selection
from bench.sheets import MISSING, Block, Cell, Sheet
from bench.stats import counted
from bench.targets import backbone_name

TITLE, RHO_TITLE = "Forecast of what survives an update", "Rank correlation of the forecast's predictors"
LIKE = {"target": "same dataset on the other targets", "dataset": "same target on the other datasets"}
UNITS = {"kept": "points", "share": "share"}
NAMES = {
    MEAN: "Mean (baseline)",
    SAME: "Mean of the same dataset, or target",
    "backbones": "Selected, backbones alone",
    "with_zero_shot": "Selected, with zero-shot",
}


def forecast_sheet(selection: Selection) -> Sheet:
    """A block an outcome: a row a model (the pairs of predictors are in the CSV alone), error with a target and with a
    dataset left out, each less than the mean's by how much."""
    cases = forecast.case_table(selection)
    table = forecast.forecast_table(cases)
    table = table[table["method"] == EVERY]
    blocks = []
    for outcome, name in OUTCOMES.items():
        part = table[table["outcome"] == outcome].set_index(["left_out", "model"])
        header = ["Model"]
        for left_out in LEFT_OUT:
            header += [f"Error, {left_out} left out", "Less than the mean's by"]
        rows = []
        for model in (MEAN, SAME, *SELECTED, *forecast.usable(cases)):
            cells = [Cell(NAMES.get(model, PREDICTORS.get(model, model)))]
            for left_out in LEFT_OUT:
                one = part.loc[left_out, model]
                better = MISSING if model == MEAN else between(one["better"], one["better_low"], one["better_high"])
                cells += [Cell(number(one["mae"])), Cell(better)]
            rows.append(tuple(cells))
        title = f"{name.capitalize()} ({UNITS[outcome]}), mean absolute error over all methods"
        blocks.append(Block(Cell(title), tuple(header), tuple(rows)))
    return Sheet(TITLE, tuple(blocks), (paragraph(cases), *told(selection, cases)))


def correlation_sheet(selection: Selection) -> Sheet:
    """A block an outcome: a row for all methods and for each, a column a predictor."""
    cases, names = forecast.case_table(selection), stats.names(stats.select(selection.main), "method")
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


def paragraph(cases: pd.DataFrame) -> str:
    """What was found, made of the table's numbers alone."""
    table = forecast.forecast_table(cases)
    table = table[table["method"] == EVERY].set_index(["outcome", "left_out", "model"])
    said = []
    for outcome, name in OUTCOMES.items():
        for selected, what in {"backbones": "the two backbones alone", "with_zero_shot": "these and zero-shot"}.items():
            found = {left_out: table.loc[outcome, left_out, selected] for left_out in LEFT_OUT}
            same = {left_out: table.loc[outcome, left_out, SAME]["mae"] for left_out in LEFT_OUT}
            parts = [
                f"with a {left_out} left out by {number(one['mae'])} (the mean by {number(one['mae_mean'])}, the mean "
                f"of the {LIKE[left_out]} by {number(same[left_out])})"
                for left_out, one in found.items()
            ]
            line = f"{name.capitalize()} ({UNITS[outcome]}) forecast from {what} errs {', '.join(parts)}: "
            said.append(line + f"{verdict(found, same)}.")
    return " ".join(said)


def verdict(found: Mapping[str, pd.Series], same: Mapping[str, float]) -> str:
    """Of a selected forecast, by what was left out: whether its interval lies on the better side of the mean, and
    whether a mean that knows more does better still."""
    beaten = [left_out for left_out, one in found.items() if one["better_low"] > 0]
    if not beaten:
        return "not shown to be better than the mean"
    told = f"better than the mean for {' and for '.join(f'new {left_out}s' for left_out in beaten)}"
    told += "".join(f", not shown to be for new {left_out}s" for left_out in found if left_out not in beaten)
    worse = [left_out for left_out in beaten if same[left_out] <= found[left_out]["mae"]]
    return told + "".join(f", but no better than the mean of the {LIKE[left_out]}" for left_out in worse)


def told(selection: Selection, cases: pd.DataFrame) -> list[str]:
    """What the numbers are of: cases, models that were selected, predictors that are not used."""
    targets = ", ".join(backbone_name(role) for role in dict.fromkeys(cases["target"]))
    lines = [
        f"{counted(len(cases), 'case')}: a method on a dataset carried to a target, seeds averaged, where it gained at "
        f"least {forecast.LEAST_GAIN:g} point on the base; {counted(cases['method'].nunique(), 'method')}, "
        f"{counted(cases['dataset'].nunique(), 'dataset')}, {counted(cases['target'].nunique(), 'target')} "
        f"({targets}). Gain kept: over the target's own zero-shot; share kept: that divided by the gain on the base.",
        "Error: mean over the cases of a group left out, then over groups. Each method has a line of its own (ridge on "
        "standardised predictors). A selected forecast chooses one or two predictors, or the mean, without the group "
        "left out; a single predictor's row is one of many tried, so the lowest of them is no finding. In brackets "
        "Student's 95 % interval over groups, which share rows, so a rough one.",
        "A dataset's own zero-shot on the base is the same for all targets: where it helps with a target left out, it "
        "tells datasets apart, which the mean of the same dataset on the other targets does as well.",
    ]
    for (outcome, left_out), (_, selected) in forecast.forecasts(cases).items():
        for name, chosen in selected.items():
            counts = Counter(NAMES[MEAN] if not model else shown(model) for model in chosen)
            picked = ", ".join(f"{one} ({count})" for one, count in counts.most_common())
            lines.append(f"{NAMES[name]}, for {OUTCOMES[outcome]}, a {left_out} left out: {picked}.")
    idle = [name for name in PREDICTORS if name not in forecast.usable(cases)]
    if idle:
        names = ", ".join(PREDICTORS[name] for name in idle)
        lines.append(f"Not used, for it is not defined everywhere or the same in all cases: {names}.")
    return lines


def shown(model: tuple[str, ...]) -> str:
    return " with ".join(PREDICTORS[name] for name in model)


def number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f}"


def between(value: float, low: float, high: float) -> str:
    """A number with its interval, where it has one."""
    return number(value) + ("" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]")
