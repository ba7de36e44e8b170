"""The numbers of `bench.analyses.forecast`: cases, their forecasts and errors, and what the lead is worth as a rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Selection
from carryover.bench.stats.correlation import spearman
from carryover.bench.stats.forecast_models import by_line, by_mean
from carryover.bench.stats.intervals import half_width
from carryover.bench.stats.means import mean_std

SUITES = ("ports", "maps")
TOLD = ("agreement", "zero_agreement", "confidence", "entropy", "fit")  # as a record has them (`bench.ports.checks`)
PREDICTORS = ("lead", "agreement", "confidence", "entropy", "fit")
OUTCOMES = {  # outcome -> the predictors of its forecast, the one that is taken as it is, its baselines
    "gain": (("lead",), "lead", ("mean", "like")),
    "accuracy": (("agreement", "confidence"), "agreement", ("mean", "like", "zero_shot")),
}
LEFT_OUT = ("dataset", "target", "method")
FORECAST, AS_IT_IS = "forecast", "as_it_is"
ALL, ANY = "all", "any"  # cases with all anchors there are; with any number
KINDS = ("support", "other", "foreign")  # of anchors that are pictures
CASE = ("anchors", "count", "port", "method", "dataset", "target")
CASE_COLUMNS = (*CASE, "seed", "accuracy", "gain", *PREDICTORS, "zero_shot", "reuse")
KEYS = ("anchors", "count", "outcome", "left_out", "model")
ERRORS = ("cases", "groups", "mae", "mae_mean", "better", "better_low", "better_high")
COLUMNS = (*KEYS, *ERRORS, "rho", "rho_within", "rho_least")
FEWEST_GROUPS = 3  # with one left out, two remain
FEWEST_CASES = 10
CHOICE_KEYS = ("anchors", "choice")
CHOICE_COLUMNS = (*CHOICE_KEYS, "cells", "accuracy", "regret", "worst")
GREATEST, IF_IT_LEADS = "greatest lead", " if it leads"


# ---- cases -----------------------------------------------------------------------------------------------------------


def runs_of(selection: Selection) -> pd.DataFrame:
    """`CASE_COLUMNS`, a row a ported run and target: accuracy, agreement, confidence in percent, gain and lead in
    points, ``count`` 0 for all anchors. Those that go straight from the base to the target, without a refresh, whose
    port told what it agrees with."""
    plain = {(r["run"]["dataset"], r["run"]["method"], r["run"]["seed"]): r for r in selection.main}
    rows = []
    for variant, record in ported(selection):
        dataset, method, seed = (record["run"][name] for name in ("dataset", "method", "seed"))
        for target, found in record["targets"].items():
            told = found.get("port") or {}
            if not all(isinstance(told.get(name), (int, float)) for name in TOLD[:4]):
                continue
            floor, reused = (accuracy(plain.get((dataset, one, seed)), target) for one in (ZERO_SHOT, method))
            agreement, zero, confidence = (100 * float(told[name]) for name in TOLD[:3])
            rows.append([
                variant.anchors, variant.count, variant.port, method, dataset, target, seed, found["accuracy"],
                found["accuracy"] - floor, agreement - zero, agreement, confidence, told["entropy"],
                told.get("fit", math.nan), floor, reused,
            ])  # fmt: skip
    table = pd.DataFrame(rows, columns=list(CASE_COLUMNS))
    return table[table["gain"].notna()].reset_index(drop=True)


def ported(selection: Selection) -> Iterator[tuple]:
    """Variants and finished records, each record once."""
    seen = set()
    for row in (row for id in SUITES for row in selection.rows.get(id, ())):
        if row.variant.port and not row.variant.via and not row.variant.refresh:
            for record in filter(reading.is_done, row.records):
                if record["key"] not in seen:
                    seen.add(record["key"])
                    yield row.variant, record


def accuracy(record: Record | None, target: str) -> float:
    found = ((record or {}).get("targets") or {}).get(target) or {}
    return float(found.get("accuracy", math.nan))


def cases_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, a row a case, sorted."""
    return runs.groupby(list(CASE)).mean().reset_index().drop(columns="seed")


def scopes(cases: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kind of anchors, `ALL` or `ANY`, and its cases; the latter where there are cases with fewer anchors."""
    for kind in KINDS:
        own = cases[cases["anchors"] == kind]
        for name, part in ((ALL, own[own["count"] == 0]), (ANY, own if (own["count"] > 0).any() else own[:0])):
            if len(part) >= FEWEST_CASES:
                yield kind, name, part.reset_index(drop=True)


# ---- forecasts -------------------------------------------------------------------------------------------------------


def made(cases: pd.DataFrame, outcome: str, left_out: str) -> dict[str, np.ndarray]:
    """By model, (N,): every case forecast from the cases of other groups; percent, or points. Baselines know labels:
    ``like`` those of cases that differ in nothing but what is left out, ``zero_shot`` the target's zero-shot."""
    y, groups = cases[outcome].to_numpy(float), cases[left_out].tolist()
    names, raw, baselines = OUTCOMES[outcome]
    rest = [name for name in CASE if name != left_out]
    found = {"mean": by_mean(y, groups), "like": by_mean(y, groups, list(zip(*(cases[n] for n in rest), strict=True)))}
    if "zero_shot" in baselines:
        found["zero_shot"] = cases["zero_shot"].to_numpy(float) + by_mean(cases["gain"].to_numpy(float), groups)
    found |= {FORECAST: by_line(cases[list(names)].to_numpy(float), y, groups), AS_IT_IS: cases[raw].to_numpy(float)}
    for name in PREDICTORS:
        if (name,) != names and cases[name].notna().all():
            found[name] = by_line(cases[[name]].to_numpy(float), y, groups)
    return {model: np.clip(one, 0, 100) if outcome == "accuracy" else one for model, one in found.items()}


def judged(cases: pd.DataFrame, outcome: str, left_out: str) -> Iterator[list]:
    """A row of `COLUMNS` a model, without the first two. Errors are means over groups of their cases' mean. Rank
    correlation over all cases, each forecast from the others' groups; and within each group, the mean and the least."""
    measured, groups = cases[outcome].to_numpy(float).round(9), cases[left_out].to_numpy()  # no tie broken by rounding
    kinds, errors = list(dict.fromkeys(groups)), {}
    for model, one in ((model, one.round(9)) for model, one in made(cases, outcome, left_out).items()):
        errors[model] = np.array([np.abs(one - measured)[groups == kind].mean() for kind in kinds])
        better = errors["mean"] - errors[model]
        middle, std = mean_std(better)
        half = half_width(std, len(kinds)) if model != "mean" else math.nan
        within = [spearman(one[groups == kind], measured[groups == kind]) for kind in kinds]
        within = [rho for rho in within if not math.isnan(rho)] or [math.nan]
        rho = spearman(one, measured) if model != "mean" else math.nan  # a constant: what it correlates is the rest
        counts = len(cases), len(kinds), errors[model].mean(), errors["mean"].mean()
        yield [
            outcome,
            left_out,
            model,
            *counts,
            middle,
            middle - half,
            middle + half,
            rho,
            np.mean(within),
            min(within),
        ]


def forecast_table(cases: pd.DataFrame) -> pd.DataFrame:
    """`COLUMNS`; of what is left out only what has `FEWEST_GROUPS`."""
    rows = []
    for kind, number, part in scopes(cases):
        for outcome in OUTCOMES:
            for left_out in (name for name in LEFT_OUT if part[name].nunique() >= FEWEST_GROUPS):
                rows += [[kind, number, *row] for row in judged(part, outcome, left_out)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


# ---- as a rule -------------------------------------------------------------------------------------------------------


def choice_table(runs: pd.DataFrame) -> pd.DataFrame:
    """`CHOICE_COLUMNS`: what each rule loses, in points, against the best of zero-shot, reuse and the ports of that
    kind of anchors (all of them). A cell is a method on a dataset, target and seed that has all of these."""
    rows = []
    for kind in KINDS:
        own = runs[(runs["anchors"] == kind) & (runs["count"] == 0) & runs["reuse"].notna()]
        cell = ["dataset", "target", "method", "seed"]
        got = own.pivot(index=cell, columns="port", values="accuracy").dropna()
        if len(got) < FEWEST_CASES:
            continue
        ports = [port for port in dict.fromkeys(own["port"]) if port in got]
        lead = own.pivot(index=cell, columns="port", values="lead").loc[got.index, ports]
        beside = own.groupby(cell)[["zero_shot", "reuse"]].first().loc[got.index]
        ways = {"zero-shot": beside["zero_shot"], "reuse": beside["reuse"], **{port: got[port] for port in ports}}
        best = pd.concat(ways, axis=1).max(axis=1)
        floor = ways["zero-shot"]
        rules = {**ways, **{port + IF_IT_LEADS: got[port].where(lead[port] > 0, floor) for port in ports}}
        if len(ports) > 1:
            place = lead.to_numpy().argmax(1)
            most = pd.Series(got[ports].to_numpy()[np.arange(len(got)), place], index=got.index)
            rules[GREATEST] = most.where(lead.max(axis=1) > 0, floor)
        for name, one in rules.items():
            lost = best - one
            rows.append([kind, name, len(got), one.mean(), lost.mean(), lost.max()])
    return pd.DataFrame(rows, columns=list(CHOICE_COLUMNS))


@dataclass(frozen=True)
class Forecast:
    """All that is made of the runs, each once."""

    runs: pd.DataFrame

    @cached_property
    def cases(self) -> pd.DataFrame:
        return cases_of(self.runs)

    @cached_property
    def table(self) -> pd.DataFrame:
        return forecast_table(self.cases)

    @cached_property
    def choices(self) -> pd.DataFrame:
        return choice_table(self.runs)


def forecast_of(selection: Selection) -> Forecast:
    return selection.once("forecast", lambda: Forecast(runs_of(selection)))


def rows_where(table: pd.DataFrame, **values: str | Sequence[str]) -> pd.DataFrame:
    """The rows with those values."""
    for name, value in values.items():
        table = table[table[name].isin([value] if isinstance(value, str) else value)]
    return table
