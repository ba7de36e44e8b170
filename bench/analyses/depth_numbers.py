"""The numbers of `bench.analyses.depth`.

For CoOp's context at the input of block l, one dataset, initial scale ("start") and seed, in points:
    gain  accuracy with the context less zero-shot accuracy of the same seed, on each backbone
    lost  gain on Base less gain on New; negative where the module is worth more after the update
Drift at l, in percent of the base:
    feature drift    relative change at the input of block l, of that dataset's class prompts: where the context stands
    parameter drift  relative change of block l, the first that reads the context: a number of Figure 2 (b). Pooled over
                     l and all blocks after it, it would be a mean of that same series' tail
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from carryover.bench.analyses.drift import table_of, whole_blocks
from carryover.bench.analyses.layers import STARTS
from carryover.bench.analyses.parts.rows import BESIDE, rows_of
from carryover.bench.plan.suites import SUITES
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.stats import correlation
from carryover.bench.stats.means import mean_std, seed_scores

OUTCOMES = {"lost": "loss", "gain_new": "gain on New"}
PREDICTORS = {"feature_drift": "feature drift", "parameter_drift": "parameter drift", "layer": "depth"}
KEYS = ("update", "dataset", "start", "layer")
COLUMNS = (*KEYS, "seeds", "gain_base", "gain_base_std", "gain_new", "gain_new_std", "lost", "lost_std",
           "feature_drift", "parameter_drift")  # fmt: skip
RHO_KEYS = ("update", "dataset", "start", "outcome", "predictor")
RHO_COLUMNS = (*RHO_KEYS, "datasets", "pairs", "undefined", "rho", "low", "high")


def has_depth(selection: Selection) -> bool:
    """Whether there is a loss to set beside the drift of some update: both suites were run, zero-shot with them."""
    return any(len(losses(selection, update)) for update in updates(selection))


def updates(selection: Selection) -> list[str]:
    """The updates whose drift was measured, in the order of the main tables."""
    measured = {one["pair"] for one in selection.drift if one.get("kind") == "update" and "left_out" not in one}
    return [role for role in reading.updates(r for row in _rows(selection) for r in row.records) if role in measured]


# ---- loss and drift --------------------------------------------------------------------------------------------------


def losses(selection: Selection, update: str) -> pd.DataFrame:
    """A row a finished run that has its zero-shot: dataset, start, layer (int), seed, gain_base, gain_new, lost."""
    return selection.once(f"losses {update}", lambda: lost_with(selection, update))


def lost_with(selection: Selection, update: str) -> pd.DataFrame:
    shot, found = {}, []
    for row in _rows(selection):
        if row.variant.label[0] == BESIDE:
            for score in _scores(row, update):
                shot[row.dataset, score.seed] = score
    for row in _rows(selection):
        layer, start = row.variant.label
        for score in _scores(row, update) if layer != BESIDE else ():
            if (zero := shot.get((row.dataset, score.seed))) is not None:
                base, new = score.base - zero.base, score.new - zero.new
                # Counts over one number of pictures: what differs in the 10th place is tied but for rounding.
                points = (round(value, 9) for value in (base, new, base - new))
                found.append([row.dataset, start, int(layer), score.seed, *points])
    names = ["dataset", "start", "layer", "seed", "gain_base", "gain_new", "lost"]
    return pd.DataFrame(found, columns=names)


def drifts(selection: Selection, update: str, dataset: str) -> pd.DataFrame:
    """feature_drift and parameter_drift in percent, a row a block from 0; NaN where the towers cannot be compared or
    the dataset's prompts were not measured."""
    table = table_of(selection)
    table = table[(table["pair"] == update) & (table["tower"] == "text")]
    features = table[(table["what"] == "features") & (table["dataset"] == dataset) & table["layer"].str.isdigit()]
    blocks = whole_blocks(table[table["what"] == "parameters"])
    # Drift counts layers by their output: layer l is what block l reads, and block l is its layer l + 1.
    at = pd.Series(features["relative"].to_numpy(), features["layer"].astype(int), dtype=float)
    of = pd.Series(blocks["relative"].to_numpy(), blocks["layer"].astype(int) - 1, dtype=float)
    layers = depths(selection)
    return pd.DataFrame({"feature_drift": 100 * at.reindex(layers), "parameter_drift": 100 * of.reindex(layers)})


def depths(selection: Selection) -> list[int]:
    """The blocks at which the suite inserts the context."""
    return sorted({int(row.variant.label[0]) for row in selection.rows.get("layers", ())})


def depth_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`, a row for each update, dataset, start and block; points and percent, mean and sample deviation over
    the seeds that have both the run and its zero-shot; then the rows of `averages`, which the figure plots."""
    made = []
    for update in updates(selection):
        found, sets = losses(selection, update), list(dict.fromkeys(row.dataset for row in _rows(selection)))
        for dataset in sets:
            moved = drifts(selection, update, dataset)
            for start in STARTS:
                for layer in depths(selection):
                    here = (found["dataset"] == dataset) & (found["start"] == start) & (found["layer"] == layer)
                    part = found[here]
                    spread = [x for name in ("gain_base", "gain_new", "lost") for x in mean_std(part[name])]
                    made.append([update, dataset, start, layer, len(part), *spread, *moved.loc[layer]])
        made += averages(selection, update, found)
    return pd.DataFrame(made, columns=list(COLUMNS))


def averages(selection: Selection, update: str, found: pd.DataFrame) -> list[list]:
    """The rows of the dataset `AVERAGE`: mean and sample deviation over the pairs (dataset, seed) that have every
    block, counted under ``seeds``; drift over their datasets. None without such a pair. ``found``: `losses`."""
    layers = depths(selection)
    whole = {start: whole_pairs(found, start, layers).index for start in STARTS}
    sets = list(dict.fromkeys(dataset for pairs in whole.values() for dataset, _ in pairs))
    if not sets:
        return []
    moved = sum(drifts(selection, update, dataset) for dataset in sets) / len(sets)
    made = []
    for start, pairs in whole.items():
        points = [whole_pairs(found, start, layers, outcome) for outcome in ("gain_base", "gain_new", "lost")]
        for layer in layers:
            spread = [x for part in points for x in mean_std(part[layer])]
            made.append([update, AVERAGE, start, layer, len(pairs), *spread, *moved.loc[layer]])
    return made


def whole_pairs(found: pd.DataFrame, start: str, layers: Sequence[int], outcome: str = "lost") -> pd.DataFrame:
    """``outcome`` in points, a row a pair (dataset, seed) and a column a block, of the pairs that have every block: a
    rank over fewer is another number."""
    part = found[found["start"] == start].pivot(index=["dataset", "seed"], columns="layer", values=outcome)
    return part.reindex(columns=list(layers)).dropna()


# ---- rank correlation ------------------------------------------------------------------------------------------------


def correlation_table(selection: Selection) -> pd.DataFrame:
    """`RHO_COLUMNS`: Spearman's rho over blocks, of what is left or lost and drift or depth.

    One rho a pair (dataset, seed); averaged over a dataset's seeds, which is the dataset's row, then over datasets, the
    row of `AVERAGE`. ``undefined`` counts pairs left out because a side is the same at every block, or the drift is not
    defined.
    """
    made, layers = [], depths(selection)
    for update in updates(selection):
        found = losses(selection, update)
        each: list[list[Any]] = []
        mean: list[list[Any]] = []
        sets = list(dict.fromkeys(row.dataset for row in _rows(selection)))
        moved = {dataset: drifts(selection, update, dataset) for dataset in sets}
        for start, outcome, predictor in product(STARTS, OUTCOMES, PREDICTORS):
            points, what = whole_pairs(found, start, layers, outcome), (start, outcome, predictor)
            groups: dict[str, list[float]] = {}
            for dataset in sets:
                rows = points[points.index.get_level_values("dataset") == dataset].to_numpy()
                of = layers if predictor == "layer" else moved[dataset][predictor].tolist()
                group = [rho for row in rows if not math.isnan(rho := correlation.spearman(of, row))]
                if group:
                    groups[dataset] = group
                counts = (int(bool(group)), len(group), len(rows) - len(group))
                rho = float(np.mean(group)) if group else math.nan
                each.append([update, dataset, *what, *counts, rho, math.nan, math.nan])
            used = sum(map(len, groups.values()))
            rho = float(np.mean([np.mean(group) for group in groups.values()])) if groups else math.nan
            mean.append(
                [update, AVERAGE, *what, len(groups), used, len(points) - used, rho, *correlation.interval(groups)]
            )
        made += [*sorted(each, key=lambda row: sets.index(row[1])), *mean]
    return pd.DataFrame(made, columns=list(RHO_COLUMNS))


def not_monotone(selection: Selection, update: str, predictor: str) -> list[str] | None:
    """The datasets with a loss where the drift does not rise from each block to the next, so that it ranks the blocks
    otherwise than depth does; None where some drift is not defined."""
    sets = losses(selection, update)["dataset"].unique()
    moved = {dataset: drifts(selection, update, dataset)[predictor] for dataset in sets}
    if any(values.isna().any() for values in moved.values()):
        return None
    return [dataset for dataset, values in moved.items() if not (values.diff().iloc[1:] > 0).all()]


def _rows(selection: Selection) -> list:
    return rows_of(SUITES["layers"], selection)


def _scores(row, update: str) -> list:
    scores = seed_scores(reading.seen_from(row.records, update))
    return list(scores.dropna(subset=["base", "new"]).itertuples())
