"""Drift beside compatibility for readers: the sheets of `bench/analyses/depth.py`'s numbers, and what they say."""

from __future__ import annotations

import math

import pandas as pd

from carryover.bench import places
from carryover.bench.analyses import depth
from carryover.bench.analyses.drift import built_in, pair_name
from carryover.bench.analyses.rows import dataset_name, marks_of, rows_of
from carryover.bench.backbones.drift_measures import AVERAGE
from carryover.bench.plan import suites
from carryover.bench.records import reading
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, signed

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
        title = "Average over pairs of dataset and seed" if dataset == AVERAGE else dataset_name(rows, dataset)
        title += f", {update}" if update != "new" else ""
        blocks.append(Block(Cell(title), header, tuple(lines)))
    remarks = [
        *findings(selection),
        *nothing_to_lose(table),
        "Gain: accuracy with CoOp's context at the input of the block less zero-shot of the same seed, in points; "
        "lost: gain on Base less gain on New. Mean ± sample standard deviation over seeds; in the average, "
        "which the figure shows, over the pairs of dataset and seed that have every block.",
        "Features: relative change at the input of the block (0: embeddings and positions), at EOT of the dataset's "
        "class prompts; the context's own rows are not among them, for their values are learned. Parameters: relative "
        "change of the block, the first that reads the context.",
        *built_in(selection.drift),
        *stand(selection),
        *marks_of(rows),
    ]
    return Sheet(TITLE, tuple(blocks), tuple(remarks))


def stand(selection: Selection) -> list[str]:
    """Where the main table's methods stand beside these blocks."""
    main = reading.select(selection.main)
    found = places.listed(reading.depths(main), reading.names(main, "method"))
    return [f"Where the methods of the main table stand: {found}."] if found else []


def correlation_sheet(selection: Selection) -> Sheet:
    """Two blocks an update: rho and its spread, a row a start, outcome and predictor; rho of each dataset. Predictors
    that rank the blocks alike share a row."""
    table, rows = depth.correlation_table(selection), rows_of(depth.LAYERS, selection)
    blocks = []
    for update, part in table.groupby("update", sort=False):
        measured = next(one for one in selection.drift if one["pair"] == update)
        labels = predictor_rows(selection, update)
        part = part[part["predictor"].isin(list(labels))]
        mean, each = part[part["dataset"] == AVERAGE], part[part["dataset"] != AVERAGE]
        header: tuple[str, ...] = (
            "Start / outcome / against",
            "Spearman's rho",
            spread_name(mean).capitalize(),
            "Datasets",
            "Pairs",
        )
        lines = [
            [
                f"{row.start} / {depth.OUTCOMES[row.outcome]} / {labels[row.predictor]}",
                number(row.rho),
                MISSING if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}",
                str(row.datasets),
                str(row.pairs),
            ]
            for row in mean.itertuples()
        ]
        blocks.append(Block(Cell(pair_name(measured)), header, tuple(tuple(map(Cell, line)) for line in lines)))
        columns = {
            (row.start, row.outcome): f"{row.start} / {depth.OUTCOMES[row.outcome]}" for row in each.itertuples()
        }
        rho = each.set_index(["dataset", "predictor", "start", "outcome"])["rho"]
        lines = [
            [f"{dataset_name(rows, dataset)} / {label}", *(number(rho.loc[dataset, of, a, b]) for a, b in columns)]
            for of, label in labels.items()
            for dataset in dict.fromkeys(each["dataset"])
        ]
        title = f"{pair_name(measured)}: rho of each dataset, mean over seeds"
        header = ("Dataset / against", *columns.values())
        blocks.append(Block(Cell(title), header, tuple(tuple(map(Cell, line)) for line in lines)))
    remarks = [
        "Over blocks, for each pair of dataset and seed whose blocks are all done, averaged over seeds, then over "
        "datasets. Loss: gain on Base less gain on New, both over zero-shot. That less is kept where the backbone "
        "moved more, the paper's reading, is a positive rho with the loss and a negative one with the gain on New "
        "(Figure 2 d). The two need not agree: a context that gained little on Base has little to lose.",
        f"Spread: 2.5th to 97.5th percentile of {depth.DRAWS:,} redraws (bootstrap) of datasets, then of seeds within "
        f"each; none under {depth.FEWEST_PAIRS} pairs. Seeds of one dataset share its pictures, so only datasets are "
        f"independent: under {depth.FEWEST_DATASETS} of them the spread is no 95 % interval and shows no direction.",
        *shared_ranks(selection),
        *left_out(selection),
    ]
    return Sheet(RHO_TITLE, tuple(blocks), tuple(remarks))


def predictor_rows(selection: Selection, update: str) -> dict[str, str]:
    """The predictors that get a row, with what the row is called: one for all that rank the blocks as depth does."""
    alike = [p for p in depth.PREDICTORS if p == "layer" or depth.not_monotone(selection, update, p) == []]
    others = {p: depth.PREDICTORS[p] for p in depth.PREDICTORS if p not in alike}
    together = ", ".join(depth.PREDICTORS[p] for p in alike) + (" (alike)" if len(alike) > 1 else "")
    return {**others, alike[0]: together}


def spread_name(means: pd.DataFrame) -> str:
    """What the percentiles may be called, given the rows they stand in."""
    return "95 % interval" if (means["datasets"] >= depth.FEWEST_DATASETS).all() else "spread over redraws"


def findings(selection: Selection) -> list[str]:
    """A sentence for each update, start and outcome: rho with feature drift, and what may be said of the paper's
    reading."""
    table, points, said = depth.correlation_table(selection), depth.depth_table(selection), []
    table = table[table["predictor"] == "feature_drift"]
    each = table[table["dataset"] != AVERAGE].groupby(["update", "start", "outcome"])["rho"]
    lowest, highest = each.min(), each.max()
    for row in table[table["dataset"] == AVERAGE].itertuples():
        measured = next(one for one in selection.drift if one["pair"] == row.update)
        of = f"{pair_name(measured)}, start {row.start}: Spearman's rho of feature drift and "
        of += depth.OUTCOMES[row.outcome]
        if math.isnan(row.rho):
            said.append(f"{of} is not defined.")
            continue
        where = row.update, row.start, row.outcome
        over = f"over {counted(row.pairs, 'pair')} of dataset and seed; "
        over += f"of single datasets {number(lowest[where])} to {number(highest[where])}"
        if not math.isnan(row.low):
            name = "95 % interval"
            if row.datasets < depth.FEWEST_DATASETS:
                name = "spread over redraws of seeds and datasets"
            over += f"; {name} {number(row.low)} to {number(row.high)}"
        count, total = idle(points, row.update, row.start)
        said.append(f"{of} is {number(row.rho)}, {over}: {compared(row, mostly_idle=2 * count > total)}.")
    return said


def compared(row, mostly_idle: bool) -> str:
    """Where the interval lies beside the paper's reading, that less is kept where the backbone moved more; no verdict
    under `depth.FEWEST_DATASETS`, or where most rows had nothing to lose."""
    if row.datasets < depth.FEWEST_DATASETS:
        return f"over {counted(row.datasets, 'dataset')} no direction can be claimed"
    if mostly_idle:
        return "most rows had nothing to lose, so no direction can be claimed"
    if row.low <= 0 <= row.high:
        return "the interval holds 0, so no direction is shown"
    return f"{'as' if (row.low > 0) == (row.outcome == 'lost') else 'against'} the paper's reading"


def idle(table: pd.DataFrame, update: str, start: str) -> tuple[int, int]:
    """How many rows of single datasets gain nothing on Base, of how many that were run. ``table``: `depth_table`."""
    part = table[(table["update"] == update) & (table["start"] == start) & (table["dataset"] != AVERAGE)]
    part = part[part["seeds"] > 0]
    return int((part["gain_base"] <= 0).sum()), len(part)


def nothing_to_lose(table: pd.DataFrame) -> list[str]:
    """Rows whose context is no better than zero-shot before the update: what they lose is no loss of anything won."""
    said = []
    for update, start in table[["update", "start"]].drop_duplicates().itertuples(index=False):
        count, total = idle(table, update, start)
        if count:
            where = f"Start {start}" + (f", {update}" if update != "new" else "")
            said.append(f"{where}: {count} of {counted(total, 'row')} gain nothing on Base, so had nothing to lose.")
    return said


def shared_ranks(selection: Selection) -> list[str]:
    """Whether drift ranks the blocks as depth does, so that the two cannot be told apart."""
    said, rows = [], rows_of(depth.LAYERS, selection)
    for measured in (one for one in selection.drift if one["pair"] in depth.updates(selection)):
        for predictor in ("feature_drift", "parameter_drift"):
            of = f"{pair_name(measured)}: {depth.PREDICTORS[predictor]}"
            falls = depth.not_monotone(selection, measured["pair"], predictor)
            names = [dataset_name(rows, dataset) for dataset in falls or ()]
            if falls is None:
                said.append(f"{of} is not defined at every block of every dataset.")
            elif falls:
                said.append(f"{of} does not rise from each block to the next on {', '.join(names)}.")
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
    table = depth.mean_correlations(selection)
    for row in table[(table["predictor"] == "layer") & (table["undefined"] > 0)].itertuples():
        what = f"{depth.OUTCOMES[row.outcome]} of {counted(row.undefined, 'pair')}"
        said.append(f"Start {row.start}, {row.update}: {what} is the same at every block and has no rank; left out.")
    return said


def number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f}"
