"""The numbers of `bench.analyses.forecast`: cases, forecasts of each, their errors, and rank correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from carryover.bench.analyses.drift import table_of, whole_blocks
from carryover.bench.analyses.targets import seed_gains
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection
from carryover.bench.stats import correlation
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
DRAWS, DRAW_SEED = 1000, 0


# ---- cases -----------------------------------------------------------------------------------------------------------


def case_table(selection: Selection) -> pd.DataFrame:
    """`CASE_COLUMNS`, a row a case, for every target whose drift was measured; a predictor may be NaN."""
    measured = [one["pair"] for one in selection.drift if one.get("kind") == "update" and "left_out" not in one]
    records, table = reading.select(selection.main), table_of(selection)
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


@dataclass(frozen=True)
class Forecast:
    """All that is made of the cases, each once."""

    cases: pd.DataFrame

    @cached_property
    def made(self) -> Made:
        """By (outcome, what is left out): forecasts of all cases by model, and the model selected for each."""
        found: Made = {}
        for outcome in OUTCOMES:
            for left_out in LEFT_OUT:
                one = Forecasts(self.cases, usable(self.cases), outcome, left_out)
                every = dict(zip(map(model_name, one.models), one.every(), strict=True))
                picked, chosen = one.selected()
                own = {MEAN: every.pop(MEAN), SAME: one.same(), LEVEL: one.level(), SELECTED: picked}
                found[outcome, left_out] = {**own, **every}, chosen
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        return forecast_table(self.cases, self.made)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        return correlation_table(self.cases)


def forecast_of(selection: Selection) -> Forecast:
    return selection.once("forecast", lambda: Forecast(case_table(selection)))


def forecast_table(cases: pd.DataFrame, made_of: Made) -> pd.DataFrame:
    """`COLUMNS`: the error of every model, for each method, and as the median over methods. ``better`` is the mean's
    error less the model's, averaged over groups left out, with Student's 95 % interval over them (they share the rows
    they were fitted on, so it is a rough one); points for the gain, the share as a fraction."""
    rows = []
    for (outcome, left_out), (made, _) in made_of.items():
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


def correlation_table(cases: pd.DataFrame) -> pd.DataFrame:
    """`RHO_COLUMNS`: Spearman's rho of each predictor and outcome over a method's cases; "all" is the mean over methods
    for which it is defined. The interval: percentiles over redraws of datasets with all their targets, given these
    targets; empty under `correlation.FEWEST_GROUPS`."""
    rows, sets = [], list(dict.fromkeys(cases["dataset"]))
    picks = np.random.RandomState(DRAW_SEED).randint(len(sets), size=(DRAWS, len(sets))) if sets else np.empty((0, 0))
    for outcome in OUTCOMES:
        for predictor in usable(cases):
            each, drawn = {}, {}
            for method in dict.fromkeys(cases["method"]):
                own = cases[cases["method"] == method]
                each[method] = own, correlation.weighted_rho(own[predictor], own[outcome], np.ones((1, len(own))))[0]
                # Of each dataset in a draw
                times = np.stack([(picks == place).sum(1) for place in range(len(sets))], 1)
                drawn[method] = correlation.weighted_rho(
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
    if datasets < correlation.FEWEST_GROUPS or len(means) < DRAWS / 2:
        return math.nan, math.nan
    return correlation.percentiles(means)
