"""Drift beside compatibility: what a context inserted at each depth loses with the update, and how far the backbone
moved there (`depth_numbers.py` defines both). The argument of the paper's section 3.1, whose Figure 2 shows its
parts (b) to (d) apart, without a measure of how they go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses import depth_numbers as numbers
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.drift import built_in, pair_name
from carryover.bench.analyses.layers import STARTS
from carryover.bench.analyses.parts.rows import dataset_name, marks_of, number, rows_of
from carryover.bench.plan.suites import SUITES
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import INK, canvas, open_frame
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, signed
from carryover.bench.render.tips import tell
from carryover.bench.stats import correlation

RHO_TITLE = "Rank correlation of drift and compatibility"
PANELS = {"gain_new": "Kept: gain over zero-shot on New", "lost": "Lost: gain on Base less gain on New"}
# Okabe and Ito's palette, with a mark and a stroke of its own for each line: colour is never the only difference.
START_LINES = {"fixed": ("#D55E00", "o", "-"), "rows": ("#0072B2", "s", (0, (4, 2)))}
DRIFT_LINES: dict[str, tuple] = {
    "feature_drift": ("features at its input", "#009E73", "^", "-"),
    "parameter_drift": ("parameters of the block", "#CC79A7", "D", (0, (1, 1.5))),
}
APART = 0.07  # blocks by which the starts stand to either side, so that their bars do not cover one another
WIDE = 30  # largest over smallest drift from which only a log axis shows both lines


def depth_sheet(table: pd.DataFrame, rhos: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a dataset (and update), a row a start and block: gain on both backbones, loss, drift there."""
    rows = rows_of(SUITES["layers"], selection)
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
        *findings(table, rhos, selection),
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
    return Sheet(Depth.title, tuple(blocks), tuple(remarks))


def stand(selection: Selection) -> list[str]:
    """Where the main table's methods stand beside these blocks."""
    main = reading.select(selection.main)
    found = places.listed(reading.depths(main), reading.names(main, "method"))
    return [f"Where the methods of the main table stand: {found}."] if found else []


def correlation_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """Two blocks an update: rho and its spread, a row a start, outcome and predictor; rho of each dataset. Predictors
    that rank the blocks alike share a row."""
    rows = rows_of(SUITES["layers"], selection)
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
                f"{row.start} / {numbers.OUTCOMES[row.outcome]} / {labels[row.predictor]}",
                number(row.rho),
                MISSING if math.isnan(row.low) else f"{number(row.low)} to {number(row.high)}",
                str(row.datasets),
                str(row.pairs),
            ]
            for row in mean.itertuples()
        ]
        blocks.append(Block(Cell(pair_name(measured)), header, tuple(tuple(map(Cell, line)) for line in lines)))
        columns = {
            (row.start, row.outcome): f"{row.start} / {numbers.OUTCOMES[row.outcome]}" for row in each.itertuples()
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
        "datasets. Loss: gain on Base less gain on New, both over zero-shot. The paper reads its Figure 2 (d) as: "
        "where the backbone moved more, less is kept. That is a positive rho with the loss and a negative rho with the "
        "gain on New. The two need not agree: a context that gained little on Base has little to lose.",
        f"Spread: 2.5th to 97.5th percentile of {correlation.DRAWS:,} redraws (bootstrap) of datasets, then of seeds "
        f"within each; none under {correlation.FEWEST_VALUES} pairs. Seeds of one dataset share its pictures, so only "
        f"datasets are independent. Under {correlation.FEWEST_GROUPS} datasets the spread is no 95 % interval.",
        *shared_ranks(selection),
        *left_out(table, selection),
    ]
    return Sheet(RHO_TITLE, tuple(blocks), tuple(remarks))


def predictor_rows(selection: Selection, update: str) -> dict[str, str]:
    """The predictors that get a row, with what the row is called: one for all that rank the blocks as depth does."""
    alike = [p for p in numbers.PREDICTORS if p == "layer" or numbers.not_monotone(selection, update, p) == []]
    others = {p: numbers.PREDICTORS[p] for p in numbers.PREDICTORS if p not in alike}
    together = ", ".join(numbers.PREDICTORS[p] for p in alike) + (" (alike)" if len(alike) > 1 else "")
    return {**others, alike[0]: together}


def spread_name(means: pd.DataFrame) -> str:
    """What the percentiles may be called, given the rows they stand in."""
    return "95 % interval" if (means["datasets"] >= correlation.FEWEST_GROUPS).all() else "spread over redraws"


def findings(points: pd.DataFrame, table: pd.DataFrame, selection: Selection) -> list[str]:
    """A sentence for each update, start and outcome: rho with feature drift, and what may be said of the paper's
    reading. ``points``: `numbers.depth_table`, ``table``: `numbers.correlation_table`."""
    said, table = [], table[table["predictor"] == "feature_drift"]
    each = table[table["dataset"] != AVERAGE].groupby(["update", "start", "outcome"])["rho"]
    lowest, highest = each.min(), each.max()
    for row in table[table["dataset"] == AVERAGE].itertuples():
        measured = next(one for one in selection.drift if one["pair"] == row.update)
        of = f"{pair_name(measured)}, start {row.start}: Spearman's rho of feature drift and "
        of += numbers.OUTCOMES[row.outcome]
        if math.isnan(row.rho):
            said.append(f"{of} is not defined.")
            continue
        where = row.update, row.start, row.outcome
        over = f"over {counted(row.pairs, 'pair')} of dataset and seed; "
        over += f"of single datasets {number(lowest[where])} to {number(highest[where])}"
        if not math.isnan(row.low):
            name = "95 % interval"
            if row.datasets < correlation.FEWEST_GROUPS:
                name = "spread over redraws of seeds and datasets"
            over += f"; {name} {number(row.low)} to {number(row.high)}"
        count, total = idle(points, row.update, row.start)
        said.append(f"{of} is {number(row.rho)}, {over}: {compared(row, mostly_idle=2 * count > total)}.")
    return said


def compared(row, mostly_idle: bool) -> str:
    """Where the interval lies beside the paper's reading, that less is kept where the backbone moved more; no verdict
    under `correlation.FEWEST_GROUPS`, or where most rows had nothing to lose."""
    if row.datasets < correlation.FEWEST_GROUPS:
        return f"{counted(row.datasets, 'dataset')} allow no claim"
    if mostly_idle:
        return "most rows gain nothing on Base, which allows no claim"
    if row.low <= 0 <= row.high:
        return "no clear relation, for the interval contains 0"
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
            said.append(
                f"{where}: {count} of {counted(total, 'row')} gain nothing on Base, so they have nothing to lose."
            )
    return said


def shared_ranks(selection: Selection) -> list[str]:
    """Whether drift ranks the blocks as depth does, so that the two cannot be told apart."""
    said, rows = [], rows_of(SUITES["layers"], selection)
    for measured in (one for one in selection.drift if one["pair"] in numbers.updates(selection)):
        for predictor in ("feature_drift", "parameter_drift"):
            of = f"{pair_name(measured)}: {numbers.PREDICTORS[predictor]}"
            falls = numbers.not_monotone(selection, measured["pair"], predictor)
            names = [dataset_name(rows, dataset) for dataset in falls or ()]
            if falls is None:
                said.append(f"{of} is not defined at every block of every dataset.")
            elif falls:
                said.append(f"{of} does not rise from each block to the next on {', '.join(names)}.")
            else:
                said.append(
                    f"{of} rises from each block to the next on every dataset. Its correlations are those of depth."
                )
    return said


def left_out(table: pd.DataFrame, selection: Selection) -> list[str]:
    """Pairs that no rho is over, and why. ``table``: `numbers.correlation_table`."""
    said, layers = [], numbers.depths(selection)
    for update in numbers.updates(selection):
        found = numbers.losses(selection, update)
        for start in STARTS:
            every = found[found["start"] == start][["dataset", "seed"]].drop_duplicates()
            short = len(every) - len(numbers.whole_pairs(found, start, layers))
            if short:
                said.append(
                    f"Start {start}, {update}: {counted(short, 'pair')} left out, for blocks were not run or failed."
                )
    table = table[table["dataset"] == AVERAGE]
    for row in table[(table["predictor"] == "layer") & (table["undefined"] > 0)].itertuples():
        what = f"{numbers.OUTCOMES[row.outcome]} of {counted(row.undefined, 'pair')}"
        said.append(f"Start {row.start}, {row.update}: {what} left out, for it is the same at every block.")
    return said


# ---- figure ----------------------------------------------------------------------------------------------------------


def draw_depth(tables: Tables, selection: Selection) -> Figure | None:
    """What is kept on New, what is lost, and the drift of the same blocks; means over the pairs of dataset and seed
    that have every block, with their sample deviation. For ``new``, as all figures; None without such a pair."""
    if not tables:
        return None
    table, rhos = tables["depth"].frame, tables["depth_correlation"].frame
    correlations = rhos[(rhos["update"] == "new") & (rhos["dataset"] == AVERAGE)]
    table = table[(table["update"] == "new") & (table["dataset"] == AVERAGE) & (table["seeds"] > 0)]
    parts = {start: part.set_index("layer") for start, part in table.groupby("start")}
    starts, layers = [start for start in START_LINES if start in parts], numbers.depths(selection)
    if not starts:
        return None
    with canvas(7.4) as figure:
        *above, below = figure.subplots(3, 1, sharex=True)
        for axes, (outcome, title) in zip(above, PANELS.items(), strict=True):
            for start, side in zip(starts, (-APART, APART), strict=False):
                means, bars = parts[start][outcome], parts[start][outcome + "_std"].fillna(0)
                style = {**look(*START_LINES[start]), "capsize": 2, "elinewidth": 0.8}
                drawn = axes.errorbar([x + side for x in layers], means, bars, label=f"context, start {start}", **style)
                said = (
                    f"start {start}, block {x}: {y:+.2f} points" for x, y in zip(layers, means, strict=True) if y == y
                )
                tell(drawn.lines[0], *said)
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_ylabel("Points")
            axes.set_title(f"{title}\n{rho_line(correlations, outcome)}", fontsize=9)
        draw_drift(below, parts[starts[0]][list(DRIFT_LINES)])
        below.set_xlabel("Block at whose input the context stands")
        below.set_xticks(layers)
        for axes in (*above, below):
            open_frame(axes, "y")
        figure.align_ylabels()
        counts = {start: counted(int(part["seeds"].iloc[0]), "pair") for start, part in parts.items()}
        each = [f"{counts[start]} (start {start})" for start in starts]
        over = counts[starts[0]] if len(set(counts.values())) == 1 else " and ".join(each)
        spread = spread_name(correlations)
        figure.suptitle(
            f"Mean ± deviation over {over} of dataset and seed\nρ: Spearman's, with feature drift [{spread}]",
            fontsize=9,
        )
        keys = [pair for axes in (above[0], below) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        figure.legend(*zip(*keys, strict=True), loc="outside lower center", ncols=2, frameon=False, columnspacing=1.1)
    return figure


def draw_drift(axes, moved) -> None:
    """``moved``: a row a block, the columns of `DRIFT_LINES`, percent."""
    for name, (label, *line) in DRIFT_LINES.items():
        if moved[name].notna().any():
            axes.plot(moved.index, moved[name], label=f"drift, {label}", **look(*line))
    positive = moved[moved > 0].stack()
    wide = len(positive) and positive.max() > WIDE * positive.min()
    if wide:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("Change (%)")
    axes.set_title("Drift: relative change from the base" + " (log axis)" * bool(wide), fontsize=9)


def rho_line(table: pd.DataFrame, outcome: str) -> str:
    """Rho with feature drift and its spread over redraws, for each start that was run."""
    table = table[(table["predictor"] == "feature_drift") & (table["outcome"] == outcome)]
    each = []
    for row in table[table["pairs"] > 0].itertuples():
        span = MISSING if math.isnan(row.low) else f"{number(row.low)}, {number(row.high)}"
        each.append(f"{row.start} {number(row.rho)} [{span}]")
    return f"ρ {', '.join(each) or MISSING}"


def look(colour: str, mark: str, line) -> dict:
    return {"color": colour, "marker": mark, "markersize": 4.5, "linewidth": 1.4, "linestyle": line}


@register("depth")
class Depth(Analysis):
    title, place = "Drift and compatibility", 30
    section = "Drift"
    names = ("depth", "depth_correlation")
    drawings = (
        Drawing(
            "depth",
            "What CoOp's context keeps and loses with the update, beside the drift of the same blocks",
            draw_depth,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if numbers.has_depth(selection):
            frame, rhos = numbers.depth_table(selection), numbers.correlation_table(selection)
            yield Table("depth", frame, numbers.KEYS, depth_sheet(frame, rhos, selection))
            yield Table("depth_correlation", rhos, numbers.RHO_KEYS, correlation_sheet(rhos, selection))
