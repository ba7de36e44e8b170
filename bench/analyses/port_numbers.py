"""The numbers of `bench.analyses.ports`: what a port makes of a plug-in, and which of a reader's options to take.

On a target the floor is its own zero-shot accuracy and the ceiling the same method retrained on it. Differences, shares
and choices are those of `retention_numbers`, over any number of options.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import pandas as pd

from carryover.bench.analyses.calibration import calibration_error
from carryover.bench.analyses.flips import flips
from carryover.bench.analyses.parts.port_cases import (
    CARRIED,
    NOTHING,
    RETRAINED,
    REUSED,
    ZERO,
    Case,
    Cases,
    Way,
)
from carryover.bench.analyses.parts.port_rows import PLAIN, REFRESH_STEPS
from carryover.bench.analyses.parts.retention_numbers import DECIDED, Compared, decided
from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records.reading import AVERAGE, Record, accuracy, refused
from carryover.bench.records.selection import Selection
from carryover.bench.stats.means import mean_std

KEYS = ("dataset", "method", "target", "port", "anchors", "count")
PORTS = (
    *KEYS, "seeds", "accuracy", "accuracy_std", "gain", "retention", "retention_low", "retention_high",
    "negative_flips", "seconds", "needs", "ece", "reason",
)  # fmt: skip
FAILED = "the run failed"
EVERY = "all"  # datasets and targets, in the row of a method that a port does not carry

ALL = "all"  # anchors, where no number is given
FIXED = "procrustes"  # the port that a decision is about, named before any test picture was seen
# What a reader has -> the options by name, the cheapest first.
SITUATIONS: dict[str, dict[str, Way]] = {
    "everything": {
        "zero-shot": ZERO, "reuse": REUSED, "port": Way(FIXED, "support", ALL), "retrain": RETRAINED,
    },
    "no labels": {"zero-shot": ZERO, "reuse": REUSED, "port": Way(FIXED, "other", ALL)},
    "no old model": {
        "zero-shot": ZERO, "reuse": REUSED, "general map": Way(FIXED, "foreign", ALL), "retrain": RETRAINED,
    },
    "no pictures": {
        "zero-shot": ZERO, "reuse": REUSED, "text map": Way("texts", "texts", ALL),
        "general map": Way(FIXED, "foreign", ALL),
    },
}  # fmt: skip
CHOICES = ("zero-shot", "reuse", "text map", "general map", "port", "retrain")
DECISION_KEYS = ("target", "dataset", "method", "situation")
DECISION = (
    *DECISION_KEYS, *DECIDED,
    *(name.replace("-", "_").replace(" ", "_") for name in CHOICES),
)  # fmt: skip
CHAIN_KEYS = ("dataset", "method", "target", "via", "port", "anchors", "count")
CHAIN = (*CHAIN_KEYS, "seeds", "chained", "chained_std", "fresh", "fresh_std", "difference", "low", "high")
REFRESH_KEYS = ("dataset", "method", "target", "port", "anchors", "steps")
REFRESH = (
    *REFRESH_KEYS, "seeds",
    *(name + end for name in ("ported", CARRIED, NOTHING) for end in ("", "_std")),
    *(f"over_{name}{end}" for name in (CARRIED, NOTHING) for end in ("", "_low", "_high")),
)  # fmt: skip
REFRESH_TARGET = "new"


@dataclass
class Numbers:
    """Rows of the four tables; ``seen``: the mean number of anchors, by the keys of a row of ``ports``."""

    ports: list[list] = field(default_factory=list)
    decision: list[list] = field(default_factory=list)
    chains: list[list] = field(default_factory=list)
    refresh: list[list] = field(default_factory=list)
    seen: dict[tuple, float] = field(default_factory=dict)


def measured(selection: Selection) -> Numbers:
    """Nobody may change them."""
    return selection.once("numbers of ports", lambda: of_cases(Cases(selection)))


def of_cases(cases: Cases) -> Numbers:
    found = Numbers()
    for method in (ZERO_SHOT, *cases.methods) if cases.datasets else ():
        case = Case(cases, method)
        port_rows(case, found)
        if method != ZERO_SHOT:
            found.decision += decision_rows(case)
            found.chains += chain_rows(case)
            found.refresh += refresh_rows(case)
    order = {name: place for place, name in enumerate((*cases.datasets, AVERAGE, EVERY))}
    targets = {name: place for place, name in enumerate(cases.targets)}
    found.ports.sort(key=lambda row: order[row[0]])
    for rows in (found.chains, found.refresh):
        rows.sort(key=lambda row: order[row[0]])
    found.decision.sort(key=lambda row: (targets[row[0]], order[row[1]]))
    return found


# ---- every way -------------------------------------------------------------------------------------------------------


def port_rows(case: Case, found: Numbers) -> None:
    """`PORTS` of one method: on each dataset and on average, each target, each way without a chain or a refresh."""
    cases, method = case.cases, case.method
    plain = [way for way in cases.ways if not way.via and not way.steps]
    ways = [ZERO] if method == ZERO_SHOT else [way for way in (REUSED, *plain, RETRAINED) if case.has(way)]
    each: dict[tuple[str, Way], dict[str, dict[int, list[float]]]] = {}
    reasons: dict[tuple[str, Way], str] = {}

    def add(dataset: str, target: str, way: Way, values: Mapping[int, list[float]], reason: str) -> None:
        row = port_row(case, dataset, target, way, values, floors[target][dataset], reason)
        found.ports.append(row)
        found.seen[tuple(row[: len(KEYS)])] = seen(values)

    floors = {target: floors_of(case, target) for target in cases.targets}
    for dataset in cases.datasets:
        for target in cases.targets:
            for way in ways:
                values = {s: scores(case, dataset, r, target) for s, r in case.at(dataset, way, target).items()}
                told = [refusal(record, target) for record in cases.records(dataset, method, way, target)]
                reason = next(filter(None, told), "")
                reasons[target, way] = reasons.get((target, way)) or reason
                each.setdefault((target, way), {})[dataset] = values
                add(dataset, target, way, values, reason)
    for (target, way), of in each.items():
        add(AVERAGE, target, way, over_datasets(of[name] for name in cases.averaged), reasons[target, way])
    for port, reason in cases.refused(method) if method != ZERO_SHOT else ():
        blank = [math.nan] * 8
        found.ports.append([EVERY, method, EVERY, port.id, "", "", 0, *blank, needs(port.id), math.nan, reason])


def floors_of(case: Case, target: str) -> dict[str, dict[int, list[float]]]:
    """Dataset, or the average -> seed -> zero-shot accuracy, alone in a list."""
    found = {
        dataset: {seed: [accuracy(r, target)] for seed, r in case.at(dataset, ZERO, target).items()}
        for dataset in case.cases.datasets
    }
    return {**found, AVERAGE: over_datasets(found[name] for name in case.cases.averaged)}


def over_datasets(each: Iterable[Mapping[int, Sequence[float]]]) -> dict[int, list[float]]:
    """The means by seed, of the seeds that all datasets have."""
    each = list(each)
    shared = sorted(set.intersection(*map(set, each)))
    return {seed: np.mean([by_seed[seed] for by_seed in each], axis=0).tolist() for seed in shared}


VALUES = ("accuracy", "negative_flips", "ece", "seconds", "anchors")


def scores(case: Case, dataset: str, record: Record, target: str) -> list[float]:
    """`VALUES` of one run on a target; NaN for what cannot be told."""
    selection, run = case.cases.selection, record["run"]
    told = record["targets"][target].get("port") or {}
    old = case.at(dataset, ZERO if case.method == ZERO_SHOT else REUSED, "base").get(run["seed"])
    before = selection.answers(old).get("base") if old else None
    after = selection.answers(record).get(target)
    negative = ece = math.nan
    if before and after and np.array_equal(before.label, after.label):
        negative = flips(before, after)[1]
    if after and after.confidence is not None:
        ece = calibration_error(after.confidence, after.right)
    retrained = run.get("path", ["base"]) != ["base"]
    seconds = told.get("seconds") if told else (record.get("seconds") or {}).get("fit") if retrained else 0.0
    return [accuracy(record, target), negative, ece, as_number(seconds), as_number(told.get("anchors"))]


def as_number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def refusal(record: Record, target: str) -> str:
    """Why the port does not serve that target or the plug-in cannot be plugged in there, or that the run failed."""
    told = {**refused(record), **((record.get("port") or {}).get("refused") or {})}.get(target)
    return told or ("" if record.get("status") == "done" else FAILED)


def port_row(
    case: Case,
    dataset: str,
    target: str,
    way: Way,
    values: Mapping[int, Sequence[float]],
    floors: Mapping[int, Sequence[float]],
    reason: str,
) -> list:
    own = [[value[place] for value in values.values()] for place in range(len(VALUES))]
    accuracies, negative, ece, seconds, _ = own
    gain = mean_std(values[seed][0] - floors[seed][0] for seed in values if seed in floors)[0]
    kept = (math.nan,) * 3
    if values and way not in (ZERO, RETRAINED) and case.has(RETRAINED):
        kept = case.compared(target, dataset, {"zero-shot": ZERO, "port": way, "retrain": RETRAINED}).kept("port")
    return [
        *(dataset, case.method, target, way.port, way.anchors, way.number, len(values)),
        *(*mean_std(accuracies), gain, *kept),
        *(mean_std(negative)[0], median(seconds) if seconds else math.nan),
        *(needs(way.port), mean_std(ece)[0], "" if values else reason),
    ]


def seen(values: Mapping[int, Sequence[float]]) -> float:
    return mean_std(value[VALUES.index("anchors")] for value in values.values())[0]


def needs(port: str) -> str:
    if port in (ZERO.port, REUSED.port):
        return ""
    return "images labels" if port == RETRAINED.port else " ".join(PORT_SPECS[port].needs)


# ---- which option to take --------------------------------------------------------------------------------------------


def decision_rows(case: Case) -> Iterator[list]:
    """`DECISION` of one method, of each situation whose options were all run."""
    for target in case.cases.targets:
        for dataset in (*case.cases.datasets, AVERAGE):
            without = [REUSED] if case.refused(dataset, target) else []
            for situation, ways in SITUATIONS.items():
                one = case.compared(target, dataset, {name: way for name, way in ways.items() if way not in without})
                if one.seeds:
                    yield [*one.keys, situation, *decided(one), *map(one.mean, CHOICES)]


# ---- maps of maps, and refreshes -------------------------------------------------------------------------------------


def chain_rows(case: Case) -> Iterator[list]:
    """`CHAIN` of one method: through two maps in turn beside one fitted on the pair itself, of the same anchors."""
    for way in (way for way in case.cases.ways if way.via):
        fresh = way._replace(via="")
        for dataset in (*case.cases.datasets, AVERAGE):
            for target in case.cases.targets:
                one = case.compared(target, dataset, {"chained": way, "fresh": fresh})
                if one.seeds:
                    kinds = target, way.via, way.port, way.anchors, way.number
                    both = [value for name in one.names for value in spread(one, name)]
                    yield [dataset, case.method, *kinds, one.seeds, *both, *one.difference("chained", "fresh")]


def refresh_rows(case: Case) -> Iterator[list]:
    """`REFRESH` of one method: ported and trained for so many steps, beside the same steps from what was carried as it
    is and from nothing, where the suite `chains` has them."""
    port = Way(PLAIN, "other", ALL)
    for dataset in (*case.cases.datasets, AVERAGE):
        trained = [port._replace(steps=steps) for steps in REFRESH_STEPS]
        if not any(case.compared(REFRESH_TARGET, dataset, {"ported": way}).seeds for way in trained):
            continue
        for steps in (0, *REFRESH_STEPS):
            own = {
                "ported": port._replace(steps=steps),
                CARRIED: Way(CARRIED, steps=steps) if steps else REUSED,
                NOTHING: Way(NOTHING, steps=steps),
            }
            alone = {name: case.compared(REFRESH_TARGET, dataset, {name: way}) for name, way in own.items()}
            if not alone["ported"].seeds:
                continue
            scores = [value for name in own for value in spread(alone[name], name)]
            over: list[float] = []
            for name in (CARRIED, NOTHING):
                both = case.compared(REFRESH_TARGET, dataset, {"ported": own["ported"], name: own[name]})
                over += both.difference("ported", name)
            kinds = REFRESH_TARGET, port.port, port.anchors, str(steps)
            yield [dataset, case.method, *kinds, alone["ported"].seeds, *scores, *over]


def spread(one: Compared, name: str) -> tuple[float, float]:
    """Mean and deviation over seeds of one option."""
    return mean_std(one.options.own[:, one.names.index(name)]) if one.options else (math.nan, math.nan)


def frame(rows: Sequence[Sequence], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))
