"""Forecast: what of a method's gain survives an update, told before anything is trained or evaluated on the target?

A case is one method on one dataset carried to one target, where the method gained at least `LEAST_GAIN` points over
zero-shot on the base (what gained nothing has nothing to lose); seeds averaged. Two outcomes:
    kept    gain over the target's own zero-shot, in points
    share   that gain divided by the gain on the base; negative where the plug-in ends below zero-shot
Predictors (`PREDICTORS`) come from the two backbones alone, and from the test accuracy of zero-shot.

Each method has a line of its own, ridge regression with an unpenalised intercept on one or two standardised predictors
(Hoerl & Kennard 1970), fitted on the other targets or on the other datasets and judged on those left out, against the
mean of the same rows. A selected forecast chooses its predictors, or the mean, by the same leave-one-out inside the
rows it was fitted on: it is the only honest one, for the best of all models is known only after the fact. There are
two: from the backbones alone, and with zero-shot accuracy, which needs labelled pictures but no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd

from bench import stats
from bench.drift_report import drift_table, whole_blocks
from bench.intervals import half_width
from bench.naming import ZERO_SHOT
from bench.selection import Selection
from bench.targets import seed_gains

PREDICTORS = {
    "parameter_drift": "parameter drift",  # of the text blocks, relative, mean over blocks; one number a target
    "feature_drift": "feature drift",  # relative, after the last text block, of the dataset's class prompts
    "structure": "class similarities",  # correlation of the cosines between classes, in the joint space
    "cka": "linear CKA",  # of the class features in the joint space
    "zero_shot_base": "zero-shot Base",
    "zero_shot_target": "zero-shot target",
}
BACKBONES = ("parameter_drift", "feature_drift", "structure", "cka")
OUTCOMES = {"kept": "gain kept", "share": "share kept"}
LEFT_OUT = {"target": "target", "dataset": "dataset"}
CASE = ("target", "dataset", "method")
CASE_COLUMNS = (*CASE, "seeds", "gain_base", *OUTCOMES, *PREDICTORS)
MEAN, SAME, EVERY = "mean", "same", "all"
SELECTED = {"backbones": BACKBONES, "with_zero_shot": tuple(PREDICTORS)}  # what each may choose from
KEYS = ("outcome", "left_out", "method", "model")
COLUMNS = (*KEYS, "cases", "groups", "mae", "mae_mean", "better", "better_low", "better_high")
RHO_KEYS = ("outcome", "method", "predictor")
RHO_COLUMNS = (*RHO_KEYS, "cases", "datasets", "rho", "low", "high")
LEAST_GAIN = 1.0  # points on the base; a share of less is a share of noise
PENALTY = 1.0  # ridge, beside the number of cases: predictors are standardised
FEWEST_GROUPS = 3  # targets, and datasets: with one left out, two remain to choose a model on
FEWEST_DATASETS = 6  # under it, redraws of datasets give no 95 % interval (`bench.depth`)
DRAWS, DRAW_SEED, COVERAGE = 1000, 0, 0.95


# ---- cases -----------------------------------------------------------------------------------------------------------


def case_table(selection: Selection) -> pd.DataFrame:
    """`CASE_COLUMNS`, a row a case, for every target whose drift was measured; a predictor may be NaN."""
    measured = [one["pair"] for one in selection.drift if one.get("kind") == "update" and "left_out" not in one]
    records, table = stats.select(selection.main), drift_table(selection.drift)
    frames = []
    for target in [role for role in stats.updates(records) if role in measured]:
        seen = stats.seen_from(records, target)
        found = seed_gains(seen).groupby(["dataset", "method"], sort=False)
        part = found.agg(seeds=("seed", "size"), gain_base=("gain_base", "mean"), kept=("gain_new", "mean"))
        part = part.reset_index()
        shot = stats.seed_scores(r for r in seen if r["run"]["method"] == ZERO_SHOT).groupby("dataset")
        part["zero_shot_base"] = part["dataset"].map(shot["base"].mean())
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


# ---- models ----------------------------------------------------------------------------------------------------------


def models(names: Sequence[str]) -> list[tuple[str, ...]]:
    """No predictor (the mean), each one, each two."""
    return [(), *((name,) for name in names), *combinations(names, 2)]


def model_name(model: tuple[str, ...]) -> str:
    return " + ".join(model) or MEAN


class Forecasts:
    """Forecasts of one outcome where groups of cases (targets, or datasets) are left out.

    Of every method the sums over each group are taken once; leaving groups out is taking theirs away. Ridge on
    predictors standardised over the N rows fitted on: b = (Z'Z + penalty I)^-1 Z'(y - mean y), forecast mean y + z b; a
    predictor that is constant there has no part in it. All models at once.
    """

    def __init__(self, cases: pd.DataFrame, outcome: str, left_out: str):
        self.models = models(usable(cases))
        names = usable(cases)
        self.used = np.array([[name in model for name in names] for model in self.models]).reshape(-1, len(names))
        x, self.y = cases[names].to_numpy(float), cases[outcome].to_numpy(float)
        self.x = (x - x.mean(0)) / x.std(0)  # sums of squares of raw numbers would lose digits
        self.groups, self.methods = (pd.factorize(cases[name])[0] for name in (left_out, "method"))
        self.others = pd.factorize(cases["dataset" if left_out == "target" else "target"])[0]
        ones = np.ones((len(self.y), 1))
        rows = np.concatenate([ones, self.x, self.y[:, None]], axis=1)
        self.sums = np.zeros((self.methods.max() + 1, self.groups.max() + 1, rows.shape[1], rows.shape[1]))
        np.add.at(self.sums, (self.methods, self.groups), rows[:, :, None] * rows[:, None, :])
        self.made: dict[frozenset[int], np.ndarray] = {}

    def without(self, *left_out: int) -> np.ndarray:
        """(models, N): every case from the others of its method that are in no group left out; NaN without any."""
        key = frozenset(left_out)
        if key not in self.made:
            self.made[key] = self._fitted(np.delete(self.sums, list(key), axis=1).sum(1))
        return self.made[key]

    def _fitted(self, sums: np.ndarray) -> np.ndarray:
        count = sums[:, :1, 0]  # (methods, 1), as all below have methods first
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = sums[:, 0] / count
            spread = sums / count[:, :, None] - middle[:, :, None] * middle[:, None, :]
            size = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2)[:, 1:-1], 0))
            scale = np.where(size > 1e-7, 1 / size, 0.0)  # of predictors that vary over all cases by 1
        known = ~np.isnan(middle[:, 0])
        spread, middle = np.nan_to_num(spread), np.nan_to_num(middle)
        alike = spread[:, 1:-1, 1:-1] * scale[:, :, None] * scale[:, None, :] * count[:, :, None]
        towards = spread[:, 1:-1, -1] * scale * count
        used = self.used[:, None, :]  # (models, 1, K)
        system = alike * used[..., None] * used[..., None, :] + PENALTY * np.eye(len(scale[0]))
        slopes = np.linalg.solve(system, (towards * used)[..., None])[..., 0] * scale  # (models, methods, K)
        moved = self.x - middle[self.methods, 1:-1]
        made = middle[self.methods, -1] + np.einsum("mnk,nk->mn", slopes[:, self.methods], moved)
        return np.where(known[self.methods], made, math.nan)

    def every(self) -> np.ndarray:
        """(models, N): each case from the other groups."""
        return np.stack([self.without(group)[:, place] for place, group in enumerate(self.groups)], axis=1)

    def selected(self, among: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """(N,) forecasts of the model on predictors of ``among`` that errs least inside the other groups, each of them
        left out in turn, and that model for each group; of equals the first, so the mean stays unless something is
        better."""
        made, chosen = np.full(len(self.y), math.nan), []
        allowed = [place for place, model in enumerate(self.models) if {*model} <= {*among}]
        for group in np.unique(self.groups):
            errors = []
            for other in np.unique(self.groups[self.groups != group]):
                gaps = np.abs(self.without(group, other) - self.y)[allowed][:, self.groups == other]
                gaps = gaps[:, ~np.isnan(gaps).any(0)]
                errors += [gaps.mean(1)] if gaps.shape[1] else []
            best = allowed[int(np.argmin(np.mean(errors, 0).round(9)))] if errors else 0
            chosen.append(self.models[best])
            made[self.groups == group] = self.without(group)[best, self.groups == group]
        return made, chosen

    def same(self) -> np.ndarray:
        """(N,): a second baseline, the mean of the method's cases in other groups that share the case's dataset (where
        a target is left out) or its target (where a dataset is); NaN without any."""
        made = np.full(len(self.y), math.nan)
        for place in range(len(self.y)):
            like = (self.methods == self.methods[place]) & (self.others == self.others[place])
            like &= self.groups != self.groups[place]
            if like.any():
                made[place] = self.y[like].mean()
        return made


# ---- tables ----------------------------------------------------------------------------------------------------------

Made = dict[tuple[str, str], tuple[dict[str, np.ndarray], dict[str, list[tuple[str, ...]]]]]
Result = TypeVar("Result")


def remembered(make: Callable[[pd.DataFrame], Result]) -> Callable[[pd.DataFrame], Result]:
    """Tables, their sheets, the figure and the report ask for the same of the same cases."""

    @lru_cache(maxsize=4)
    def of_rows(columns: tuple, rows: tuple) -> Result:
        return make(pd.DataFrame(list(rows), columns=list(columns)))

    return wraps(make)(lambda cases: of_rows(tuple(cases.columns), tuple(cases.itertuples(index=False, name=None))))


@remembered
def forecasts(cases: pd.DataFrame) -> Made:
    """By (outcome, what is left out): forecasts of all cases by model, and for each selected one what was selected."""
    found: Made = {}
    for outcome in OUTCOMES:
        for left_out in LEFT_OUT:
            one = Forecasts(cases, outcome, left_out)
            every = dict(zip(map(model_name, one.models), one.every(), strict=True))
            picked = {name: one.selected(among) for name, among in SELECTED.items()}
            own = {MEAN: every.pop(MEAN), SAME: one.same(), **{name: made for name, (made, _) in picked.items()}}
            found[outcome, left_out] = {**own, **every}, {name: chosen for name, (_, chosen) in picked.items()}
    return found


@remembered
def forecast_table(cases: pd.DataFrame) -> pd.DataFrame:
    """`COLUMNS`: the error of every model, over all methods and for each. ``better`` is the mean's error less the
    model's, averaged over groups left out, with Student's 95 % interval over them (they share the rows they were fitted
    on, so it is a rough one); points for the gain, the share as a fraction."""
    rows = []
    for (outcome, left_out), (made, _) in forecasts(cases).items():
        gaps = pd.DataFrame({model: np.abs(one - cases[outcome].to_numpy(float)) for model, one in made.items()})
        whole = ~gaps.isna().any(axis=1)  # all models over the same cases
        for method in (EVERY, *dict.fromkeys(cases["method"])):
            own = whole & ((cases["method"] == method) | (method == EVERY))
            each = gaps[own].groupby(cases[left_out][own], sort=False).mean()
            for model in made:
                better = each[MEAN] - each[model]
                middle, std = stats.mean_std(better)
                half = half_width(std, len(better)) if model != MEAN else math.nan
                errors = each[model].mean(), each[MEAN].mean()
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
