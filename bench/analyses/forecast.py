"""Forecast: what of a method's gain survives an update, told from the two backbones alone?

A case is one method on one dataset carried to one target, where the method gained at least `LEAST_GAIN` points over
zero-shot on the base (what gained nothing has nothing to lose); seeds averaged. Two outcomes:
    kept    accuracy on the target less the target's own zero-shot, in points
    share   that gain divided by the gain on the base; negative where the plug-in ends below zero-shot
Predictors (`PREDICTORS`) are drift and similarity of the two backbones, which cost neither training nor labelled
pictures. Zero-shot accuracy is none of them: the target's is subtracted in the outcome and the base's nearly equals it,
so that a plug-in at chance everywhere would seem predictable.

Each method has a line of its own (`bench/stats/forecast_models.py`), fitted on the other targets or on the other
datasets and
judged on those left out, against baselines from the same rows. The selected forecast chooses its predictors, or the
mean, by the same leave-one-out inside the rows it was fitted on: it is the only honest one, for the best of all models
is known only after the fact. What holds of all methods is told by their median and their count: one that breaks down
has the largest errors, and would decide any mean over methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import TypeVar

import numpy as np
import pandas as pd

from carryover.bench.analyses.drift import drift_table, whole_blocks
from carryover.bench.analyses.targets import seed_gains
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection
from carryover.bench.stats.forecast_models import LEVEL, MEAN, SAME, SELECTED, Forecasts, Model, model_name
from carryover.bench.stats.intervals import half_width
from carryover.bench.stats.means import mean_std, seed_scores

PREDICTORS = {
    "parameter_drift": "parameter drift",  # of the text blocks, relative, mean over blocks; one number a target
    "feature_drift": "feature drift",  # relative, after the last text block, of the dataset's class prompts
    "structure": "class similarities",  # correlation of the cosines between classes, in the joint space
    "cka": "linear CKA",  # of the class features in the joint space
}
OUTCOMES = {"kept": "gain kept", "share": "share kept"}
LEFT_OUT = {"target": "target", "dataset": "dataset"}
CASE = ("target", "dataset", "method")
CASE_COLUMNS = (*CASE, "seeds", "gain_base", *OUTCOMES, "zero_shot_target", *PREDICTORS)
EVERY = "all"
BASELINES = (MEAN, SAME, LEVEL)
KEYS = ("outcome", "left_out", "method", "model")
COLUMNS = (*KEYS, "cases", "groups", "mae", "mae_mean", "better", "better_low", "better_high")
RHO_KEYS = ("outcome", "method", "predictor")
RHO_COLUMNS = (*RHO_KEYS, "cases", "datasets", "rho", "low", "high")
LEAST_GAIN = 1.0  # points on the base; a share of less is a share of noise
FEWEST_GROUPS = 3  # targets, and datasets: with one left out, two remain to choose a model on
FEWEST_DATASETS = 6  # under it, redraws of datasets give no 95 % interval (`bench.analyses.depth`)
DRAWS, DRAW_SEED, COVERAGE = 1000, 0, 0.95


# ---- cases -----------------------------------------------------------------------------------------------------------


def case_table(selection: Selection) -> pd.DataFrame:
    """`CASE_COLUMNS`, a row a case, for every target whose drift was measured; a predictor may be NaN."""
    measured = [one["pair"] for one in selection.drift if one.get("kind") == "update" and "left_out" not in one]
    records, table = reading.select(selection.main), drift_table(selection.drift)
    frames = []
    for target in [role for role in reading.updates(records) if role in measured]:
        seen = reading.seen_from(records, target)
        found = seed_gains(seen).groupby(["dataset", "method"], sort=False)
        part = found.agg(seeds=("seed", "size"), gain_base=("gain_base", "mean"), kept=("gain_new", "mean"))
        part = part.reset_index()
        shot = seed_scores(r for r in seen if r["run"]["method"] == ZERO_SHOT).groupby("dataset")
        part["zero_shot_target"] = part["dataset"].map(shot["new"].mean())
        own = table[(table["pair"] == target) & (table["tower"] == "text")]
        blocks = whole_blocks(own[own["what"] == "parameters"])["relative"]
        part["parameter_drift"] = blocks.mean() if len(blocks) else math.nan
        features = own[own["what"] == "features"]
        stream = features[features["layer"].str.isdigit()]
        last = stream[stream["layer"].astype(int) == stream["layer"].astype(int).max()]
        joint = features[features["layer"] == "projected"].set_index("dataset")
        part["feature_drift"] = part["dataset"].map(last.set_index("dataset")["relative"])
        for name in ("structure", "cka"):
            part[name] = part["dataset"].map(joint[name])
        frames.append(part.assign(target=target))
    if not frames:
        return pd.DataFrame(columns=list(CASE_COLUMNS))
    whole = pd.concat(frames, ignore_index=True)
    whole = whole[(whole["method"] != ZERO_SHOT) & (whole["gain_base"] >= LEAST_GAIN)]
    return whole.assign(share=whole["kept"] / whole["gain_base"])[list(CASE_COLUMNS)].reset_index(drop=True)


def has_forecast(cases: pd.DataFrame) -> bool:
    """Whether there are targets and datasets enough to leave one out, and a predictor."""
    return bool(usable(cases)) and all(cases[name].nunique() >= FEWEST_GROUPS for name in LEFT_OUT)


def usable(cases: pd.DataFrame) -> list[str]:
    """The predictors that are defined in every case and not the same in all."""
    return [name for name in PREDICTORS if len(cases) and cases[name].notna().all() and cases[name].nunique() > 1]


# ---- tables ----------------------------------------------------------------------------------------------------------

Made = dict[tuple[str, str], tuple[dict[str, np.ndarray], list[Model]]]
Result = TypeVar("Result")


def remembered(make: Callable[[pd.DataFrame], Result]) -> Callable[[pd.DataFrame], Result]:
    """Tables, their sheets, the figure and the report ask for the same of the same cases."""

    @lru_cache(maxsize=4)
    def of_rows(columns: tuple, rows: tuple) -> Result:
        return make(pd.DataFrame(list(rows), columns=list(columns)))

    return wraps(make)(lambda cases: of_rows(tuple(cases.columns), tuple(cases.itertuples(index=False, name=None))))


@remembered
def forecasts(cases: pd.DataFrame) -> Made:
    """By (outcome, what is left out): forecasts of all cases by model, and the model selected for each."""
    found: Made = {}
    for outcome in OUTCOMES:
        for left_out in LEFT_OUT:
            one = Forecasts(cases, usable(cases), outcome, left_out)
            every = dict(zip(map(model_name, one.models), one.every(), strict=True))
            picked, chosen = one.selected()
            own = {MEAN: every.pop(MEAN), SAME: one.same(), LEVEL: one.level(), SELECTED: picked}
            found[outcome, left_out] = {**own, **every}, chosen
    return found


@remembered
def forecast_table(cases: pd.DataFrame) -> pd.DataFrame:
    """`COLUMNS`: the error of every model, for each method, and as the median over methods. ``better`` is the mean's
    error less the model's, averaged over groups left out, with Student's 95 % interval over them (they share the rows
    they were fitted on, so it is a rough one); points for the gain, the share as a fraction."""
    rows = []
    for (outcome, left_out), (made, _) in forecasts(cases).items():
        gaps = pd.DataFrame({model: np.abs(one - cases[outcome].to_numpy(float)) for model, one in made.items()})
        whole = ~gaps.isna().any(axis=1)  # all models over the same cases
        each = gaps[whole].groupby([cases[name][whole] for name in ("method", left_out)], sort=False).mean()
        for method in (EVERY, *dict.fromkeys(cases["method"])):
            own = whole & ((cases["method"] == method) | (method == EVERY))
            part = each.groupby(level=left_out, sort=False).median() if method == EVERY else None
            if part is None:
                part = each[each.index.get_level_values("method") == method]
            for model in made:
                better = part[MEAN] - part[model]
                middle, std = mean_std(better)
                half = half_width(std, len(better)) if model != MEAN else math.nan
                errors = part[model].mean(), part[MEAN].mean()
                span = (middle - half, middle + half)
                rows.append([outcome, left_out, method, model, int(own.sum()), len(better), *errors, middle, *span])
    return pd.DataFrame(rows, columns=list(COLUMNS))


@remembered
def correlation_table(cases: pd.DataFrame) -> pd.DataFrame:
    """`RHO_COLUMNS`: Spearman's rho of each predictor and outcome over a method's cases; "all" is the mean over methods
    for which it is defined. The interval: percentiles over redraws of datasets with all their targets, given these
    targets; empty under `FEWEST_DATASETS`."""
    rows, sets = [], list(dict.fromkeys(cases["dataset"]))
    picks = np.random.RandomState(DRAW_SEED).randint(len(sets), size=(DRAWS, len(sets))) if sets else np.empty((0, 0))
    for outcome in OUTCOMES:
        for predictor in usable(cases):
            each, drawn = {}, {}
            for method in dict.fromkeys(cases["method"]):
                own = cases[cases["method"] == method]
                each[method] = own, weighted_rho(own[predictor], own[outcome], np.ones((1, len(own))))[0]
                times = np.stack(
                    [(picks == place).sum(1) for place in range(len(sets))], 1
                )  # of each dataset in a draw
                drawn[method] = weighted_rho(
                    own[predictor], own[outcome], times[:, [sets.index(name) for name in own["dataset"]]]
                )
            rhos = [rho for _, rho in each.values() if not math.isnan(rho)]
            overall = float(np.mean(rhos)) if rhos else math.nan
            every = np.array([drawn[method] for method, (_, rho) in each.items() if not math.isnan(rho)])
            rows.append([outcome, EVERY, predictor, len(cases), len(sets), overall, *spread(every, len(sets))])
            for method, (own, rho) in each.items():
                count = own["dataset"].nunique()
                rows.append([outcome, method, predictor, len(own), count, rho, *spread(drawn[method][None], count)])
    return pd.DataFrame(rows, columns=list(RHO_COLUMNS))


def spread(drawn: np.ndarray, datasets: int) -> tuple[float, float]:
    """Percentiles of (methods, draws) averaged over methods; draws in which one of them is not defined are left out."""
    means = drawn.mean(0) if len(drawn) else np.empty(0)
    means = means[~np.isnan(means)]
    if datasets < FEWEST_DATASETS or len(means) < DRAWS / 2:
        return math.nan, math.nan
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def weighted_rho(x: Sequence[float], y: Sequence[float], times: np.ndarray) -> np.ndarray:
    """Spearman's rho (ties at their average rank) of N pairs of which draw d holds each ``times[d, i]`` times, (D,);
    NaN where a side is constant."""
    ranked = []
    for values in (np.asarray(x, float), np.asarray(y, float)):
        before = (values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None])
        ranked.append(times @ before.T)  # (D, N): how many of the draw stand before each, ties by half
    total = times.sum(1, keepdims=True)
    a, b = (rank - (times * rank).sum(1, keepdims=True) / total for rank in ranked)
    size = np.sqrt((times * a * a).sum(1) * (times * b * b).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 1e-9, (times * a * b).sum(1) / size, math.nan)
