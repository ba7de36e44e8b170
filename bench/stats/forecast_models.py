"""Models of a forecast: lines from predictors to an outcome, one for each method, and the baselines beside them.

A model is ridge regression with an unpenalised intercept on none, one or two standardised predictors (Hoerl & Kennard
1970). Nothing is forecast outside the outcomes that a line was fitted on: a target further from the base than all
others would otherwise be given losses that no accuracy can have. Every method's forecast is made, and its predictors
are selected, from its own cases alone, so that a method that breaks down moves no other's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

MEAN, SAME, LEVEL, SELECTED = "mean", "same", "level", "selected"
PENALTY = 1.0  # ridge, beside the number of cases: predictors are standardised

Model = tuple[str, ...]


def models(names: Sequence[str]) -> list[Model]:
    """No predictor (the mean), each one, each two."""
    return [(), *((name,) for name in names), *combinations(names, 2)]


def model_name(model: Model) -> str:
    return " + ".join(model) or MEAN


class Forecasts:
    """Forecasts of one outcome where groups of cases (``left_out``: targets, or datasets) are left out.

    Of every method the sums over each group are taken once; leaving groups out is taking theirs away. Ridge on
    predictors standardised over the N rows fitted on: b = (Z'Z + penalty I)^-1 Z'(y - mean y), forecast mean y + z b,
    limited to the least and greatest y of those rows; a predictor that is constant there has no part in it. All models
    at once.
    """

    def __init__(self, cases: pd.DataFrame, names: Sequence[str], outcome: str, left_out: str):
        self.models = models(names)
        self.used = np.array([[name in model for name in names] for model in self.models]).reshape(-1, len(names))
        x, self.y = cases[list(names)].to_numpy(float), cases[outcome].to_numpy(float)
        self.x = (x - x.mean(0)) / x.std(0)  # sums of squares of raw numbers would lose digits
        self.groups, self.methods = (pd.factorize(cases[name])[0] for name in (left_out, "method"))
        self.others = pd.factorize(cases["dataset" if left_out == "target" else "target"])[0]
        self.shot = cases["zero_shot_target"].to_numpy(float)
        self.reused = cases["kept"].to_numpy(float) + self.shot
        self.unit = cases["gain_base"].to_numpy(float) if outcome == "share" else np.ones(len(cases))
        rows = np.concatenate([np.ones((len(self.y), 1)), self.x, self.y[:, None]], axis=1)
        shape = self.methods.max() + 1, self.groups.max() + 1
        self.sums = np.zeros((*shape, rows.shape[1], rows.shape[1]))
        np.add.at(self.sums, (self.methods, self.groups), rows[:, :, None] * rows[:, None, :])
        self.least, self.most = np.full(shape, math.inf), np.full(shape, -math.inf)
        np.minimum.at(self.least, (self.methods, self.groups), self.y)
        np.maximum.at(self.most, (self.methods, self.groups), self.y)
        self.made: dict[frozenset[int], np.ndarray] = {}

    def without(self, *left_out: int) -> np.ndarray:
        """(models, N): every case from the others of its method that are in no group left out; NaN without any."""
        key = frozenset(left_out)
        if key not in self.made:
            made = self._fitted(np.delete(self.sums, list(key), axis=1).sum(1))
            least, most = self.limits(key)
            self.made[key] = np.minimum(np.maximum(made, least), most)
        return self.made[key]

    def limits(self, left_out: Sequence[int] | frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) twice: the least and the greatest outcome of a case's method in groups that are not left out."""
        sides = (np.delete(side, list(left_out), axis=1) for side in (self.least, self.most))
        least, most = next(sides).min(1, initial=math.inf), next(sides).max(1, initial=-math.inf)
        return least[self.methods], most[self.methods]

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

    def selected(self) -> tuple[np.ndarray, list[Model]]:
        """(N,) forecasts of the model that errs least on the case's method inside the other groups, each of them left
        out in turn, and that model for each case; of equals the first, so the mean stays unless another is better."""
        best = np.zeros(len(self.y), dtype=int)
        kinds, made = np.unique(self.groups), np.full(len(self.y), math.nan)
        for group in kinds:
            gaps = np.full((len(self.models), len(self.y)), math.nan)
            for other in kinds[kinds != group]:
                own = self.groups == other
                gaps[:, own] = np.abs(self.without(group, other) - self.y)[:, own]
            for method in np.unique(self.methods):
                own, errors = self.methods == method, []
                for other in kinds[kinds != group]:
                    part = gaps[:, own & (self.groups == other)]
                    errors += [part.mean(1)] if part.shape[1] and not np.isnan(part).any() else []
                here = own & (self.groups == group)
                best[here] = int(np.argmin(np.mean(errors, 0).round(9))) if errors else 0
                made[here] = self.without(group)[best[here], here]
        return made, [self.models[place] for place in best]

    def same(self) -> np.ndarray:
        """(N,): a baseline, the mean of the method's cases in other groups that share the case's dataset (where a
        target is left out) or its target (where a dataset is); NaN without any."""
        return self._mean_of(self.y, self.others)

    def level(self) -> np.ndarray:
        """(N,): a baseline that knows the target's zero-shot: the method's accuracy is its mean accuracy in the other
        groups. What a plug-in keeps that is at chance everywhere, zero-shot alone decides."""
        made = (self._mean_of(self.reused, np.zeros(len(self.y))) - self.shot) / self.unit
        for group in np.unique(self.groups):
            own, (least, most) = self.groups == group, self.limits([group])
            made[own] = np.minimum(np.maximum(made, least), most)[own]
        return made

    def _mean_of(self, values: np.ndarray, shared: np.ndarray) -> np.ndarray:
        made = np.full(len(values), math.nan)
        for place in range(len(values)):
            like = (self.methods == self.methods[place]) & (shared == shared[place])
            like &= self.groups != self.groups[place]
            if like.any():
                made[place] = values[like].mean()
        return made
