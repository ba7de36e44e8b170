"""The numbers of `bench.analyses.statistics`: every two methods on each dataset and on the average, by intervals over
test images and seeds (`bench.stats.pairs`); which methods can be told apart over datasets: Wilcoxon's test of each
pair with Holm's correction, Friedman's test, average ranks, and places that are shared where the tests show no
difference.

Datasets are what the tests are over, so they speak of other datasets like these; a dataset's score is its mean over
seeds. How far a difference on one dataset can be trusted is told by `bench.stats.pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from carryover.bench.analyses.base import Analysis, Tables
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import Sheet
from carryover.bench.stats.measures import Measure, measures, roles, score_table, seed_counts
from carryover.bench.stats.pairs import DRAWS, Column, Sample, difference, drawn_accuracies, together
from carryover.bench.stats.rank_tests import LEVEL, cliques, friedman, holm, ranks, signed_rank
from carryover.bench.stats.verdicts import decides

KEYS = ("dataset", "measure", "method", "other")
COLUMNS = (*KEYS, "seeds", "images", "difference", "low", "high", "p", "p_holm", "seeds_needed", "images_needed")
WILCOXON_KEYS = ("measure", "method", "other")
WILCOXON_COLUMNS = (*WILCOXON_KEYS, "datasets", "differ", "plus", "minus", "difference", "p", "p_holm")
RANK_KEYS = ("measure", "method")
RANK_COLUMNS = (*RANK_KEYS, "datasets", "score", "rank", "place", "last", "friedman", "friedman_p")


def has_statistics(selection: Selection) -> bool:
    return selection.outcomes is not None and any(map(reading.is_done, selection.main))


def averages_of(analysis: Analysis, selection: Selection, tables: Tables) -> list[Part]:
    """The averages alone of each sheet; the files have each dataset."""
    found: list[Part] = []
    for table in tables.values():
        if (sheet := table.sheet) is None:
            continue
        kept = tuple(block for block in sheet.blocks if block.title.text.startswith("Average over"))
        found += [("subheading", sheet.caption), ("sheet", Sheet(sheet.caption, kept, sheet.remarks))]
        found.append(("files", analysis.files(selection, table)))
    return found


# ---- over images and seeds -------------------------------------------------------------------------------------------


def pairs_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`: every two methods of the main suite on each dataset and on the average over them, by each measure.

    difference   ``method`` less ``other``, in points, over the seeds that both have
    p            two-sided: twice the share of draws on the rarer side of 0; not below 2 / (`DRAWS` + 1)
                 (of one seed none)
    p_holm       Holm's correction over the pairs of this dataset and measure
    seeds_needed, images_needed   where the interval holds 0, how many of either alone would take it off 0, were the
                 difference as it was found; empty where that alone would not (`stats.verdicts.needed`)
    """
    return selection.once("pairs", lambda: compared(selection))


def compared(selection: Selection) -> pd.DataFrame:
    records = list(selection.main)
    methods, found = reading.ids(records, "method"), []
    for sample in samples(selection):
        for measure in measures(records):
            rows = [[sample.name, measure.id, *difference(sample, measure, *pair)] for pair in combinations(methods, 2)]
            adjusted = holm([row[-3] for row in rows])
            found += [[*row[:-2], p, *row[-2:]] for row, p in zip(rows, adjusted, strict=True)]
    return pd.DataFrame(found, columns=list(COLUMNS))


def samples(selection: Selection) -> Iterator[Sample]:
    """One a dataset, then that of the average over the datasets that are averaged."""
    records, over = list(selection.main), set(reading.averaged(selection.main))
    total: Sample | None = None
    for dataset in reading.ids(records, "dataset"):
        sample = sample_of(selection, dataset)
        if dataset in over:
            total = sample if total is None else together(total, sample)
        yield sample
    if total is not None:
        points = {column: value / len(over) for column, value in total.points.items()}
        draws = {column: value / len(over) for column, value in total.draws.items()}
        yield Sample(AVERAGE, total.images, total.step / len(over), points, draws, averaged=True)


def sample_of(selection: Selection, dataset: str) -> Sample:
    """Of the runs on that dataset whose predictions can be used."""
    columns, right = correct(selection, dataset)
    points = 100 * right.mean(0, dtype=np.float64) if columns else np.empty(0)
    draws = drawn_accuracies(right, dataset, "images").T if columns else np.empty((0, DRAWS))
    by_point = dict(zip(columns, points.tolist(), strict=True))
    step = 100 / len(right) if columns else 0.0
    return Sample(dataset, len(right), step, by_point, dict(zip(columns, draws, strict=True)))


def correct(selection: Selection, dataset: str) -> tuple[list[Column], np.ndarray]:
    """Who was right about which image: columns, and (images, columns) of 0 and 1 in fp32. A run that was asked about
    other images than the first, by their labels, cannot be paired and is left out."""
    known, asked = roles(selection.main), None
    found: dict[Column, np.ndarray] = {}
    for record in selection.main:
        run = record["run"]
        if run["dataset"] != dataset:
            continue
        for role, outcome in selection.answers(record).items():
            asked = outcome.label if asked is None else asked
            if role in known and np.array_equal(outcome.label, asked):
                found[run["method"], role, run["seed"]] = outcome.right
    right = np.stack(list(found.values()), axis=1) if found else np.empty((0, 0))
    return list(found), right.astype(np.float32)


# ---- over datasets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """One measure: methods from the best average rank to the worst, runs of places that no test tells apart; none of
    either where a pair was not ``tested``, for want of seeds."""

    measure: Measure
    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    cliques: tuple[tuple[int, int], ...]
    datasets: int
    friedman_p: float
    tested: bool


def wilcoxon_table(selection: Selection) -> pd.DataFrame:
    """`WILCOXON_COLUMNS`, a row for each measure and pair, over the averaged datasets that both have.

    differ       datasets on which the two differ: zeros are left out of the test
    plus, minus  sums of the ranks of the differences in favour of ``method`` and of ``other``
    difference   mean over these datasets, in points
    p, p_holm    two-sided and exact; with Holm's correction over all pairs of the measure; none where either method has
                 one seed on a dataset
    """
    return selection.once("wilcoxon", lambda: tested(selection.main))


def tested(records: Sequence[Record]) -> pd.DataFrame:
    made = []
    for measure in measures(records):
        scores, counts, rows = score_table(records, measure), seed_counts(records, measure), []
        for method, other in combinations(scores.columns, 2):
            found = (scores[method] - scores[other]).dropna()
            test = signed_rank(found.tolist())
            mean = float(found.mean()) if len(found) else math.nan
            both = np.minimum(counts[method].to_numpy(), counts[other].to_numpy())
            p = test.p if decides(min(both[both > 0], default=0)) else math.nan
            rows.append([measure.id, method, other, len(found), test.count, test.plus, test.minus, mean, p])
        made += [[*row, p] for row, p in zip(rows, holm([row[-1] for row in rows]), strict=True)]
    return pd.DataFrame(made, columns=list(WILCOXON_COLUMNS))


def ranks_table(selection: Selection) -> pd.DataFrame:
    """`RANK_COLUMNS`, a row for each measure and method; a method that lacks a dataset has no rank.

    rank         mean over datasets of its rank, 1 the best, ties at their average
    place, last  the places that it may have: after those that a test shows to be better, before those shown worse; none
                 where a pair of the measure was not tested
    friedman     chi-square of the measure and its p, the same in all its rows
    """
    return selection.once("ranks", lambda: placed(selection.main, wilcoxon_table(selection)))


def placed(records: Sequence[Record], tests: pd.DataFrame) -> pd.DataFrame:
    made = []
    for measure in measures(records):
        scores = score_table(records, measure)
        found, chi, p = ranked(scores)
        of_measure = tests[tests["measure"] == measure.id]
        better, known = told_apart(of_measure), all_tested(of_measure, found.index)
        for method in scores.columns:
            place = last = rank = math.nan
            if method in found:
                rank = found[method]
            if method in found and known:
                others = [name for name in found.index if name != method]
                place = 1 + sum((name, method) in better for name in others)
                last = len(found) - sum((method, name) in better for name in others)
            count, score = int(scores[method].notna().sum()), scores[method].mean(skipna=False)
            made.append(
                [measure.id, method, count, score, rank, place, last, *((chi, p) if known else (math.nan,) * 2)]
            )
    return pd.DataFrame(made, columns=list(RANK_COLUMNS))


def ranked(scores: pd.DataFrame) -> tuple[pd.Series, float, float]:
    """Average ranks of the methods that have every dataset, Friedman's chi-square and p over these."""
    whole = scores.loc[:, scores.notna().all()]
    if whole.empty:
        return pd.Series(dtype=float), math.nan, math.nan
    values = whole.to_numpy()
    return pd.Series(ranks(values).mean(0), whole.columns), *friedman(values)


def told_apart(tests: pd.DataFrame) -> set[tuple[str, str]]:
    """(better, worse) of each pair whose corrected p is below `LEVEL`."""
    shown = tests[tests["p_holm"] < LEVEL]
    return {
        (row.method, row.other) if row.plus > row.minus else (row.other, row.method)
        for row in shown.itertuples(index=False)
    }


def all_tested(tests: pd.DataFrame, methods: Iterable[str]) -> bool:
    """Whether each two of the methods have a p."""
    among = tests[tests["method"].isin(methods) & tests["other"].isin(methods)]
    return bool(among["p"].notna().all())


def rankings(selection: Selection) -> list[Ranking]:
    """One a measure that two methods or more have on every dataset."""
    records, tests, made = selection.main, wilcoxon_table(selection), []
    for measure in measures(records):
        scores = score_table(records, measure)
        found, _, p = ranked(scores)
        if len(found) < 2:
            continue
        of_measure = tests[tests["measure"] == measure.id]
        better, known = told_apart(of_measure), all_tested(of_measure, found.index)
        order = found.sort_values(kind="stable")
        names = list(order.index)

        def alike(a: int, b: int, names: list[str] = names, better: set = better) -> bool:
            return (names[a], names[b]) not in better and (names[b], names[a]) not in better

        bars = cliques(len(names), alike) if known else []
        p = p if known else math.nan
        made.append(Ranking(measure, tuple(names), tuple(order), tuple(bars), len(scores), p, known))
    return made
