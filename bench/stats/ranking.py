"""Which methods can be told apart over datasets: Wilcoxon's test of each pair with Holm's correction, Friedman's test,
average ranks, and places that are shared where the tests show no difference.

Datasets are what the tests are over, so they speak of other datasets like these; a dataset's score is its mean over
seeds. How far a difference on one dataset can be trusted is told by `bench.stats.pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from carryover.bench import places
from carryover.bench.records import reading
from carryover.bench.records.reading import Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.stats.measures import Measure, measures, score_table
from carryover.bench.stats.pairs import DRAWS
from carryover.bench.stats.rank_tests import LEVEL, cliques, friedman, holm, least_p, ranks, signed_rank

WILCOXON_KEYS = ("measure", "method", "other")
WILCOXON_COLUMNS = (*WILCOXON_KEYS, "datasets", "differ", "plus", "minus", "difference", "p", "p_holm")
RANK_KEYS = ("measure", "method")
RANK_COLUMNS = (*RANK_KEYS, "datasets", "score", "rank", "place", "last", "friedman", "friedman_p")
TITLE = "Average ranks over datasets"


@dataclass(frozen=True)
class Ranking:
    """One measure: methods from the best average rank to the worst, runs of places that no test tells apart."""

    measure: Measure
    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    cliques: tuple[tuple[int, int], ...]
    datasets: int
    friedman_p: float


def wilcoxon_table(selection: Selection) -> pd.DataFrame:
    """`WILCOXON_COLUMNS`, a row for each measure and pair, over the averaged datasets that both have.

    differ       datasets on which the two differ: zeros are left out of the test
    plus, minus  sums of the ranks of the differences in favour of ``method`` and of ``other``
    difference   mean over these datasets, in points
    p, p_holm    two-sided and exact; with Holm's correction over all pairs of the measure
    """
    return selection.once("wilcoxon", lambda: tested(selection.main))


def tested(records: Sequence[Record]) -> pd.DataFrame:
    made = []
    for measure in measures(records):
        scores, rows = score_table(records, measure), []
        for method, other in combinations(scores.columns, 2):
            found = (scores[method] - scores[other]).dropna()
            test = signed_rank(found.tolist())
            mean = float(found.mean()) if len(found) else math.nan
            rows.append([measure.id, method, other, len(found), test.count, test.plus, test.minus, mean, test.p])
        made += [[*row, p] for row, p in zip(rows, holm([row[-1] for row in rows]), strict=True)]
    return pd.DataFrame(made, columns=list(WILCOXON_COLUMNS))


def ranks_table(selection: Selection) -> pd.DataFrame:
    """`RANK_COLUMNS`, a row for each measure and method; a method that lacks a dataset has no rank.

    rank         mean over datasets of its rank, 1 the best, ties at their average
    place, last  the places that it may have: after those that a test shows to be better, before those shown worse
    friedman     chi-square of the measure and its p, the same in all its rows
    """
    return selection.once("ranks", lambda: placed(selection.main, wilcoxon_table(selection)))


def placed(records: Sequence[Record], tests: pd.DataFrame) -> pd.DataFrame:
    made = []
    for measure in measures(records):
        scores = score_table(records, measure)
        found, chi, p = ranked(scores)
        better = told_apart(tests[tests["measure"] == measure.id])
        for method in scores.columns:
            place = last = rank = math.nan
            if method in found:
                others = [name for name in found.index if name != method]
                place = 1 + sum((name, method) in better for name in others)
                last = len(found) - sum((method, name) in better for name in others)
                rank = found[method]
            count, score = int(scores[method].notna().sum()), scores[method].mean(skipna=False)
            made.append([measure.id, method, count, score, rank, place, last, chi, p])
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


def rankings(selection: Selection) -> list[Ranking]:
    """One a measure that two methods or more have on every dataset."""
    records, tests, made = selection.main, wilcoxon_table(selection), []
    for measure in measures(records):
        scores = score_table(records, measure)
        found, _, p = ranked(scores)
        if len(found) < 2:
            continue
        better = told_apart(tests[tests["measure"] == measure.id])
        order = found.sort_values(kind="stable")
        names = list(order.index)

        def alike(a: int, b: int, names: list[str] = names, better: set = better) -> bool:
            return (names[a], names[b]) not in better and (names[b], names[a]) not in better

        bars = cliques(len(names), alike)
        made.append(Ranking(measure, tuple(names), tuple(order), tuple(bars), len(scores), p))
    return made


# ---- for readers -----------------------------------------------------------------------------------------------------


def ranks_sheet(selection: Selection) -> Sheet:
    """A block an update, a row a method: average rank and the places it may have; bold where no method is shown to be
    better."""
    table, records = ranks_table(selection), selection.main
    names, depth = reading.names(records, "method"), reading.depths(records)
    blocks = []
    for update in reading.updates(records):
        shown = [one for one in measures(records) if one.update == update]
        columns = [table[table["measure"] == one.id].set_index("method") for one in shown]
        lines = []
        for method in reading.ids(records, "method"):
            cells = [rank_cell(column.loc[method]) for column in columns]
            lines.append((Cell(names[method] + places.mark(depth[method])), *cells))
        title = "Average rank (places)" + (f", update '{update}'" if update != "new" else "")
        blocks.append(Block(Cell(title), ("Method", *(one.name for one in shown)), tuple(lines)))
    remarks = [
        f"Mean over {counted(len(reading.averaged(records)), 'dataset')} of a method's rank, 1 the best, ties at their "
        "average. In brackets the places that it may have: after the methods that Wilcoxon's signed-rank test shows to "
        f"be better, before those shown worse (exact, two-sided, Holm over all pairs, {LEVEL}). Bold: none is shown "
        "to be better.",
        *limits(records),
        *places.legend_remark(depth.values()),
    ]
    return Sheet(TITLE, tuple(blocks), tuple(remarks))


def rank_cell(row: pd.Series) -> Cell:
    if math.isnan(row["rank"]):
        return Cell(MISSING)
    first, last = int(row["place"]), int(row["last"])
    return Cell(f"{row['rank']:.2f} ({first if first == last else f'{first}–{last}'})", int(first == 1))


def limits(records: Sequence[Record]) -> list[str]:
    """What so few datasets, or so many methods, leave no test to show."""
    said, scores = [], score_table(records, measures(records)[0])
    sets, pairs = len(scores), math.comb(len(scores.columns), 2)
    least = least_p(sets)
    if pairs and least >= LEVEL:
        said.append(
            f"{counted(sets, 'dataset')} cannot tell two methods apart: the smallest two-sided p they allow is "
            f"{least:.4g}. It takes 6 to get below {LEVEL}, and more with Holm's correction."
        )
    elif pairs and pairs * least >= LEVEL:
        said.append(
            f"With {counted(sets, 'dataset')} and {pairs} pairs of methods no pair can be told apart after Holm's "
            f"correction: the smallest p is {least:.4g} and is taken {pairs} times. Fewer methods (--methods) or more "
            "datasets can."
        )
    if pairs * (rarest := 2 / (DRAWS + 1)) >= LEVEL:
        said.append(
            f"With {pairs} pairs of methods none can be told apart over images and seeds after Holm's correction: "
            f"{DRAWS:,} redraws give no p below {rarest:.2g}, which is taken {pairs} times. Fewer methods can."
        )
    lacking = [name for name in scores.columns if scores[name].isna().any()]
    names = reading.names(records, "method")
    if lacking:
        said.append(f"Without a rank, for want of a dataset: {', '.join(names[name] for name in lacking)}.")
    return said
