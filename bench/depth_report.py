"""Drift beside compatibility for readers: the sheets of `bench/depth.py`'s numbers, and what they say."""

from __future__ import annotations

import math

import pandas as pd

from bench import depth, suites
from bench.drift_report import built_in, pair_name
from bench.selection import Selection
from bench.sheets import MISSING, Block, Cell, Sheet, percent
from bench.stats import counted
from bench.suite_tables import dataset_name, marks_of, rows_of

TITLE, RHO_TITLE = "Drift beside compatibility", "Rank correlation of drift and compatibility"


def depth_sheet(selection: Selection) -> Sheet:
    """A block a dataset (and update), a row a start and block: gain on both backbones, loss, drift there."""
    table, rows = depth.depth_table(selection), rows_of(depth.LAYERS, selection)
    header = ("Block / start", "Gain Base", "Gain New", "Lost", "Features (%)", "Parameters (%)")
    blocks = []
    for (update, dataset), part in table.groupby(["update", "dataset"], sort=False):
        lines = [
            (
                Cell(f"{row.layer} / {row.start}"),
                *(Cell(signed(getattr(row, n), getattr(row, n + "_std"))) for n in ("gain_base", "gain_new", "lost")),
                *(Cell(percent(getattr(row, name))) for name in ("feature_drift", "parameter_drift")),
            )
            for row in part.itertuples()
        ]
        title = dataset_name(rows, dataset) + (f", {update}" if update != "new" else "")
        blocks.append(Block(Cell(title), header, tuple(lines)))
    remarks = [
        *findings(selection),
        *nothing_to_lose(table),
        "Gain: accuracy with CoOp's context at the input of the block less zero-shot of the same seed, in points; "
        "lost: gain on Base less gain on New. Mean ± sample standard deviation over seeds.",
        "Features: relative change at the input of the block (0: embeddings and positions), at EOT of the dataset's "
        "class prompts; the context's own rows are not among them, for their values are learned. Parameters: relative "
        "change of the block, the first that reads the context.",
        *built_in(selection.drift),
        *marks_of(rows),
    ]
    return Sheet(TITLE, tuple(blocks), tuple(remarks))


def correlation_sheet(selection: Selection) -> Sheet:
    """A block an update, a row a start, outcome and predictor: rho with its interval, and what it is over."""
    table = depth.correlation_table(selection)
    header = ("Start / outcome / against", "Spearman's rho", "95 % interval", "Datasets", "Pairs")
    blocks = []
    for update, part in table.groupby("update", sort=False):
        lines = [
            [
                f"{row.start} / {depth.OUTCOMES[row.outcome]} / {depth.PREDICTORS[row.predictor]}",
                number(row.rho),
                MISSING if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}",
                str(row.datasets),
                str(row.pairs),
            ]
            for row in part.itertuples()
        ]
        measured = next(one for one in selection.drift if one["pair"] == update)
        blocks.append(Block(Cell(pair_name(measured)), header, tuple(tuple(map(Cell, line)) for line in lines)))
    remarks = [
        "Over blocks, for each pair of dataset and seed whose blocks are all done, averaged over seeds, then over "
        "datasets. Loss: gain on Base less gain on New, both over zero-shot. That less is kept where the backbone "
        "moved more, the paper's reading, is a positive rho with the loss and a negative one with the gain on New "
        "(Figure 2 d). The two need not agree: a context that gained little on Base has little to lose.",
        f"Interval: percentiles of {depth.DRAWS:,} bootstrap draws of datasets, then of seeds within each, for seeds "
        f"of one dataset share its pictures; none under {depth.FEWEST_PAIRS} pairs. Of few datasets it is too narrow, "
        "and of one it tells nothing of others.",
        *shared_ranks(selection),
        *left_out(selection),
    ]
    return Sheet(RHO_TITLE, tuple(blocks), tuple(remarks))


def findings(selection: Selection) -> list[str]:
    """A sentence for each update, start and outcome: rho with feature drift, and whether it is as the paper reads."""
    table, said = depth.correlation_table(selection), []
    for row in table[table["predictor"] == "feature_drift"].itertuples():
        measured = next(one for one in selection.drift if one["pair"] == row.update)
        of = f"{pair_name(measured)}, start {row.start}: Spearman's rho of feature drift and "
        of += depth.OUTCOMES[row.outcome]
        if math.isnan(row.rho):
            said.append(f"{of} is not defined.")
            continue
        over = f"over {counted(row.pairs, 'pair')} of dataset and seed ({counted(row.datasets, 'dataset')})"
        if math.isnan(row.low):
            span, verdict = "no interval", ""
        else:
            span, verdict = f"95 % interval {number(row.low)} to {number(row.high)}", f": {compared(row)}"
        said.append(f"{of} is {number(row.rho)}, {span}, {over}{verdict}.")
    return said


def compared(row) -> str:
    """Where the interval lies beside the paper's reading, that less is kept where the backbone moved more."""
    if row.low <= 0 <= row.high:
        return "the interval holds 0, so no direction is shown"
    return f"{'as' if (row.low > 0) == (row.outcome == 'lost') else 'against'} the paper's reading"


def nothing_to_lose(table: pd.DataFrame) -> list[str]:
    """Rows whose context is no better than zero-shot before the update: what they lose is no loss of anything won."""
    table, said = table[table["seeds"] > 0], []
    for (update, start), part in table.groupby(["update", "start"], sort=False):
        count = int((part["gain_base"] <= 0).sum())
        if count:
            where = f"Start {start}" + (f", {update}" if update != "new" else "")
            said.append(
                f"{where}: {count} of {counted(len(part), 'row')} gain nothing on Base, so had nothing to lose."
            )
    return said


def shared_ranks(selection: Selection) -> list[str]:
    """Whether drift ranks the blocks as depth does, so that the two cannot be told apart."""
    said = []
    for measured in (one for one in selection.drift if one["pair"] in depth.updates(selection)):
        for predictor in ("feature_drift", "parameter_drift"):
            of = f"{pair_name(measured)}: {depth.PREDICTORS[predictor]}"
            falls = depth.not_monotone(selection, measured["pair"], predictor)
            if falls is None:
                said.append(f"{of} is not defined at every block of every dataset.")
            elif falls:
                said.append(f"{of} does not rise from each block to the next on {', '.join(falls)}.")
            else:
                said.append(
                    f"{of} rises from each block to the next on every dataset, so its correlations are those of depth: "
                    "the two cannot be told apart here."
                )
    return said


def left_out(selection: Selection) -> list[str]:
    """Pairs that no rho is over, and why."""
    said, layers = [], depth.depths(selection)
    for update in depth.updates(selection):
        found = depth.losses(selection, update)
        for start in suites.STARTS:
            every = found[found["start"] == start][["dataset", "seed"]].drop_duplicates()
            short = len(every) - len(depth.whole_pairs(found, start, layers))
            if short:
                said.append(
                    f"Start {start}, {update}: {counted(short, 'pair')} with blocks not run or failed left out."
                )
    table = depth.correlation_table(selection)
    for row in table[(table["predictor"] == "layer") & (table["undefined"] > 0)].itertuples():
        what = f"{depth.OUTCOMES[row.outcome]} of {counted(row.undefined, 'pair')}"
        said.append(f"Start {row.start}, {row.update}: {what} is the same at every block and has no rank; left out.")
    return said


def signed(mean: float, std: float) -> str:
    """Points with their sign, as differences are read."""
    return ("+" if mean >= 0.005 else "") + percent(mean, std)


def number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f}"
