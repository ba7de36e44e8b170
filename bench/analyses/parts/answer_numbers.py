"""The numbers of `bench.analyses.answer`: what each method gains over the new backbone's zero-shot accuracy, as it is,
ported and retrained, with a verdict.

Differences are paired over seeds and test images: as it is, that of `bench.stats.pairs`; ported and retrained, that of
`bench.stats.choices`. The p values of one dataset (or the average), one target and one way are corrected by Holm over
the methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from carryover.bench.analyses.parts import refused, retention_numbers
from carryover.bench.analyses.parts.comparison import has_statistics, pairs_table
from carryover.bench.analyses.parts.port_cases import REUSED, ZERO, Case, Cases, Way
from carryover.bench.analyses.parts.retention_numbers import MARGIN, Compared, averaged, compare, in_points, options_of
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING
from carryover.bench.stats import choices, means
from carryover.bench.stats.pairs import row_of
from carryover.bench.stats.rank_tests import LEVEL, holm
from carryover.bench.stats.verdicts import decides

CARRIES, NO_BETTER, HURTS, CANNOT_TELL = "carries over", "no better than zero-shot", "hurts", "cannot tell"
IMPOSSIBLE = "not possible"  # the plug-in cannot be plugged into that backbone
BASELINE = "baseline"  # zero-shot itself
KEYS = ("target", "dataset", "method")
GAIN = ("gain", "low", "high", "p_holm", "verdict")  # points over zero-shot
WAYS = ("ported", "retrained")
SHOWN = ("gain", "low", "high", "seeds")
COLUMNS = (
    *KEYS, "place", "datasets", "seeds", "base", "new", "h", *GAIN,
    *(f"{way}_{name}" for way in WAYS for name in ("datasets", "seeds", *GAIN)), "without_labels",
)  # fmt: skip
PORT, ANCHORS, EVERY = "procrustes", ("other", "support"), "all"  # named beforehand, not chosen by accuracy

Gained = tuple[int, float, float, float, float]  # seeds, gain, low, high, p
NOT_THERE: Gained = (0, math.nan, math.nan, math.nan, math.nan)
Of = Mapping[tuple[str, str, str], Gained]  # target, dataset, method


def answer_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`: of each update, dataset (the average last) and method of the main suite.

    datasets  on which the method has finished, of the average; ported_datasets: those that the ported gain is over
    verdict   `verdict`; that of zero-shot is `BASELINE`, of a plug-in that is refused `IMPOSSIBLE`
    without_labels  the cheapest of zero-shot, reuse and port that is within `MARGIN` of the best, by the rule of
              `bench.analyses.retention`; empty where nothing was ported
    """
    return selection.once("answer", lambda: pd.DataFrame(rows(selection), columns=list(COLUMNS)))


def verdict(gain: float, high: float, p: float, seeds: int) -> str:
    """Significantly above zero-shot (p, corrected), significantly below, neither and by no more than `MARGIN` above, or
    none of these. Of one seed, or without an interval, nothing is told."""
    if not decides(seeds) or math.isnan(p):
        return CANNOT_TELL
    if p < LEVEL:
        return CARRIES if gain > 0 else HURTS
    return NO_BETTER if high < MARGIN else CANNOT_TELL


def rows(selection: Selection) -> Iterator[list]:
    records = selection.main
    depth, methods = reading.depths(records), reading.ids(records, "method")
    through, again = ported(selection), retrained(selection)
    further: dict[str, Of] = {
        "ported": {one.keys: gained(one, "port") for one in through},
        "retrained": {one.keys: gained(one, "retrain") for one in again},
    }
    chosen, impossible = {one.keys: one.choice for one in through}, refused.cells(records)
    for role in reading.updates(records):
        scores = means.summarise(reading.select(reading.seen_from(records, role))).set_index(["dataset", "method"])
        for dataset in dict.fromkeys(name for name, _ in scores.index):
            here = {method: scores.loc[dataset, method] for method in methods}
            own = judged(role, dataset, methods, as_it_is(selection, role, dataset, here))
            more = {way: judged(role, dataset, methods, found) for way, found in further.items()}
            for method, score in here.items():
                cells = [role, dataset, method, depth[method], done_on(scores, dataset, method), int(score["seeds"])]
                cells += [score["base"], score["new"], score["h"]]
                told = own[method] if method != ZERO_SHOT else [0.0 * score["new"], *[math.nan] * 3, BASELINE]
                told = [*[math.nan] * 4, IMPOSSIBLE] if (dataset, method, role) in impossible else told
                for way in WAYS:
                    count = sum((role, name, method) in further[way] for name in averaged_sets(selection, dataset))
                    told = [*told, count, further[way].get((role, dataset, method), NOT_THERE)[0], *more[way][method]]
                yield [*cells, *told, chosen.get((role, dataset, method), "")]


def averaged_sets(selection: Selection, dataset: str) -> list[str]:
    return reading.averaged(selection.main) if dataset == AVERAGE else [dataset]


def done_on(scores: pd.DataFrame, dataset: str, method: str) -> int:
    """The datasets that the method has finished, where the row is the average."""
    there = scores["new"].xs(method, level="method").notna()
    return int(there.drop(AVERAGE).sum()) if dataset == AVERAGE else int(there[dataset])


def judged(role: str, dataset: str, methods: Iterable[str], found: Of) -> dict[str, list]:
    """`GAIN` by method."""
    of = {method: found.get((role, dataset, method), NOT_THERE) for method in methods}
    corrected = dict(zip(of, holm([one[4] for one in of.values()]), strict=True))
    made = {}
    for method, (seeds, gain, low, high, _) in of.items():
        told = verdict(gain, high, corrected[method], seeds) if seeds or (role, dataset, method) in found else ""
        made[method] = [gain, low, high, corrected[method], told]
    return made


def of(table: pd.DataFrame, target: str, dataset: str = AVERAGE) -> pd.DataFrame:
    """The rows of one update and dataset, the highest gain first, those without one last."""
    part = table[(table["target"] == target) & (table["dataset"] == dataset)]
    return part.sort_values("gain", ascending=False, kind="stable", na_position="last")


def gain_text(row: pd.Series, way: str = "") -> str:
    """ "+13.1 [+12.3, +13.9]"; zero-shot itself gains nothing. ``way``: of `WAYS`; empty: as it is."""
    return (
        MISSING if row["verdict"] == BASELINE else in_points(*(row[f"{way}_{name}" if way else name] for name in SHOWN))
    )


# ---- as it is --------------------------------------------------------------------------------------------------------


def as_it_is(selection: Selection, role: str, dataset: str, scores: Mapping[str, pd.Series]) -> dict:
    """By the pairs; without stored predictions the difference of the means alone."""
    table = pairs_table(selection) if has_statistics(selection) else None
    shot, found = scores[ZERO_SHOT]["new"] if ZERO_SHOT in scores else math.nan, {}
    for method in scores:
        if method == ZERO_SHOT:
            continue
        pair = None if table is None else row_of(table, dataset, role, method, ZERO_SHOT)
        one = (int(scores[method]["seeds"]), scores[method]["new"] - shot, math.nan, math.nan, math.nan)
        if pair is not None:
            one = (int(pair["seeds"]), pair["difference"], pair["low"], pair["high"], pair["p"])
        found[role, dataset, method] = one
    return found


# ---- ported and retrained --------------------------------------------------------------------------------------------


def ported(selection: Selection) -> list[Compared]:
    """Through the port that is named beforehand, fitted on pictures that the plug-in never saw (where there are none,
    on its few-shot pictures), beside zero-shot and the plug-in as it is."""
    cases = Cases(selection)
    way = next((one for kind in ANCHORS if (one := Way(PORT, kind, EVERY)) in cases.ways), None)
    if way is None:
        return []
    names = [name for name in cases.datasets if name in reading.averaged(selection.main)]
    found: dict[tuple[str, str, str], Compared] = {}
    drawn, threes, asked = {}, {}, {}
    for dataset in cases.datasets:
        for method in cases.methods:
            for target in cases.targets:
                case = Case(cases, method)
                ways = {"zero-shot": ZERO, "reuse": REUSED, "port": way}
                if any(case.refused(name, target) for name in cases.datasets):
                    del ways["reuse"]
                asked[target, method] = tuple(ways)
                threes[target, dataset, method] = case.together(dataset, list(ways.values()), target)
        here = [(target, of) for (target, name, _), of in threes.items() if name == dataset]
        columns = [(record["key"], target) for target, of in here for three in of.values() for record in three]
        drawn[dataset] = choices.image_draws(selection.predictions, dataset, columns, keep=False)
    for (target, dataset, method), of in threes.items():
        options = options_of(target, dataset, list(of.values()), drawn[dataset])
        found[target, dataset, method] = compare(target, dataset, method, len(of), options, names=asked[target, method])
    for target, method in dict.fromkeys((target, method) for target, _, method in threes):
        each = {name: threes[target, name, method] for name in names}
        seeds, options = averaged(target, each, drawn) if each else (0, None)
        found[target, AVERAGE, method] = compare(target, AVERAGE, method, seeds, options, names=asked[target, method])
    return [one for one in found.values() if one.seeds]


def retrained(selection: Selection) -> list[Compared]:
    return [one for one in retention_numbers.compared(selection) if one.seeds]


def gained(one: Compared, option: str) -> Gained:
    value, low, high = one.difference(option, "zero-shot")
    p = one.options.p(one.less(option, "zero-shot")) if one.options and decides(one.seeds) else math.nan
    return one.seeds, value, low, high, p
