"""Numbers of others beside ours: scores of both, and every method of theirs less every one of ours.

Predictions on the same pictures are compared as ours are with one another (`stats.pairs`). Of accuracies alone nothing
is paired: their difference has Welch's interval over seeds, from two seeds of each on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from carryover.bench.analyses.parts.comparison import samples
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.records.selection import Selection
from carryover.bench.records.theirs import MARK
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats.intervals import welch
from carryover.bench.stats.means import SCORES, harmonic_mean, seed_scores, summarise
from carryover.bench.stats.measures import measures
from carryover.bench.stats.pairs import difference
from carryover.bench.stats.rank_tests import LEVEL, holm

SCORE_COLUMNS = ("dataset", "method", "source", "seeds", *SCORES)
COLUMNS = (
    "dataset",
    "measure",
    "theirs",
    "ours",
    "seeds",
    "compared",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "verdict",
)
MEASURES = ("base", "new", "h")
PAIRED, UNPAIRED = "by picture", "seeds, unpaired"
FROM_FILE = "from the file; this suite did not measure them"
UNKNOWN = (math.nan, math.nan, math.nan)  # an interval and its p


def is_theirs(method: str) -> bool:
    return method.endswith(MARK)


def score_table(selection: Selection) -> pd.DataFrame:
    """`SCORE_COLUMNS`, as the main table has them, averages over these datasets last."""
    table = summarise(selection.main)
    if len(reading.averaged(selection.main)) < 2:
        table = table[table["dataset"] != AVERAGE]
    source = ["theirs" if is_theirs(method) else "ours" for method in table["method"]]
    return table.assign(source=source)[list(SCORE_COLUMNS)].reset_index(drop=True)


def difference_table(selection: Selection, paired: bool) -> pd.DataFrame:
    """`COLUMNS`: theirs less ours, in points.

    seeds    those that both have where pictures are paired, else the fewer of the two
    p_holm   Holm's correction over the pairs of a dataset and measure
    """
    methods = reading.ids(selection.main, "method")
    pairs = [(a, b) for a in methods if is_theirs(a) for b in methods if not is_theirs(b)]
    found = []
    for dataset, measure, rows in by_picture(selection, pairs) if paired else by_seeds(selection.main, pairs):
        ps = [row[-1] for row in rows]
        known = [p for p in ps if not math.isnan(p)]
        adjusted = iter(holm(known))
        for row in rows:
            p_holm = math.nan if math.isnan(row[-1]) else next(adjusted)
            found.append([dataset, measure, *row, p_holm, verdict(row[-4], p_holm)])
    return pd.DataFrame(found, columns=list(COLUMNS))


def by_picture(selection: Selection, pairs: list) -> Iterator[tuple[str, str, list]]:
    for sample in samples(selection):
        if sample.averaged and len(reading.averaged(selection.main)) < 2:
            continue
        for measure in (one for one in measures(selection.main) if one.id in MEASURES):
            rows = [difference(sample, measure, *pair) for pair in pairs]
            yield sample.name, measure.id, [[a, b, n, PAIRED, *more[:4]] for a, b, n, _, *more in rows]


def by_seeds(records: tuple[Record, ...], pairs: list) -> Iterator[tuple[str, str, list]]:
    scores, over = seed_scores(records), reading.averaged(records)
    still = {method: place == "none" for method, place in reading.depths(records).items()}
    datasets = reading.ids(records, "dataset") + [AVERAGE] * (len(over) > 1)
    for dataset in datasets:
        for measure in MEASURES:
            rows = []
            for a, b in pairs:
                theirs, ours = (values_of(scores, dataset, name, measure, over) for name in (a, b))
                mean = value_of(scores, dataset, a, measure, over) - value_of(scores, dataset, b, measure, over)
                low, high, p = welch(theirs, ours) if varies(theirs) and (still[b] or varies(ours)) else UNKNOWN
                shift = mean - (np.mean(theirs) - np.mean(ours)) if theirs and ours else 0.0  # H of the averages
                rows.append([a, b, min(len(theirs), len(ours)), UNPAIRED, mean, low + shift, high + shift, p])
            yield dataset, measure, rows


def varies(values: list[float]) -> bool:
    """Seeds of a method that learns give the same accuracy by chance alone: no error can be told from them."""
    return len(set(values)) > 1


def values_of(scores: pd.DataFrame, dataset: str, method: str, measure: str, over: list[str]) -> list[float]:
    """One a seed; of the average over those seeds that are there on every dataset."""
    needed = ["base", "new"] if measure == "h" else [measure]  # none where the plug-in is refused
    mine = scores[scores["method"] == method].dropna(subset=needed)
    if dataset != AVERAGE:
        return mine.loc[mine["dataset"] == dataset, measure].tolist()
    by_seed = mine[mine["dataset"].isin(over)].groupby("seed")
    means = by_seed[["base", "new"]].mean()[by_seed["dataset"].nunique() == len(over)]
    return [harmonic_mean(*row) for row in means.to_numpy()] if measure == "h" else means[measure].tolist()


def value_of(scores: pd.DataFrame, dataset: str, method: str, measure: str, over: list[str]) -> float:
    """As `score_table` has it: H of the average is that of the averaged Base and New."""
    if dataset == AVERAGE and measure == "h":
        return harmonic_mean(*(value_of(scores, dataset, method, part, over) for part in ("base", "new")))
    values = values_of(scores, dataset, method, measure, over)
    return float(np.mean(values)) if values else math.nan


def verdict(difference: float, p_holm: float) -> str:
    if math.isnan(p_holm) or p_holm >= LEVEL:
        return "cannot tell"
    return "theirs higher" if difference > 0 else "ours higher"


# ---- for readers -----------------------------------------------------------------------------------------------------


def sheet(
    scores: pd.DataFrame, differences: pd.DataFrame, selection: Selection, paired: bool, source: str = FROM_FILE
) -> Sheet:
    """``source``: what methods that are marked are."""
    datasets, methods = (reading.names(selection.main, kind) for kind in ("dataset", "method"))
    blocks = []
    for dataset, rows in scores.groupby("dataset", sort=False):
        cells = [(methods[r.method], r.source, str(r.seeds), *map(percent, *split(r))) for r in rows.itertuples()]
        title = (
            datasets[dataset]
            if dataset != AVERAGE
            else f"Average over {len(reading.averaged(selection.main))} datasets"
        )
        blocks.append(Block(Cell(title), ("Method", "Source", "Seeds", "Base", "New", "H"), as_cells(cells)))
        mine = differences[differences["dataset"] == dataset]
        lines = [
            (
                f"{methods[r.theirs]} less {methods[r.ours]}",
                {"base": "Base", "new": "New", "h": "H"}[r.measure],
                MISSING if math.isnan(r.difference) else f"{r.difference:+.2f}",
                MISSING if math.isnan(r.low) else f"{r.low:+.2f} to {r.high:+.2f}",
                MISSING if math.isnan(r.p_holm) else "< 0.001" if r.p_holm < 0.001 else f"{r.p_holm:.3f}",
                r.verdict,
            )
            for r in mine.itertuples()
        ]
        header = ("Difference", "Measure", "Points", "95 % interval", "p (Holm)", "Verdict")
        blocks.append(Block(Cell(f"{title}, differences"), header, as_cells(lines)))
    how = (
        "Differences are paired by picture and seed; intervals are over pictures and seeds, of one seed over pictures "
        "alone, and then without p."
        if paired
        else "Accuracies alone are not paired: intervals are Welch's over seeds, from two of each on that "
        "do not agree by chance. They say nothing of other test pictures."
    )
    marked = f"Methods marked '{MARK.strip()}' are {source}."
    borne = dict.fromkeys(mark for record in selection.main for mark in record.get("marks") or ())
    return Sheet("Numbers of others beside ours", tuple(blocks), (marked, how, *(f"Of our runs: {m}." for m in borne)))


def split(row) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (row.base, row.new, row.h), (row.base_std, row.new_std, row.h_std)


def as_cells(rows: list) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(map(Cell, row)) for row in rows)
