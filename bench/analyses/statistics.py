"""Which methods differ: tables of ranks, of pairs, and of tests, and sentences on what is significant.

The figure is that of Demsar 2006: average ranks, with bars where no test finds a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses import calibration, costs, flips
from carryover.bench.analyses.base import ANALYSES, Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import comparison
from carryover.bench.analyses.parts.comparison import (
    Ranking,
    has_statistics,
    pairs_table,
    rankings,
    ranks_table,
    told_apart,
    wilcoxon_table,
)
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, INK, STYLE, WHISKER, WIDTH_INCHES, short_label
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.render.tips import tell
from carryover.bench.stats import means
from carryover.bench.stats.measures import measures, score_table
from carryover.bench.stats.pairs import COVERAGE, DRAWS, row_of
from carryover.bench.stats.rank_tests import LEVEL, least_p
from carryover.bench.stats.verdicts import IMAGES_ALONE, decides, would_decide

P_DECIMALS = 6
RANKS_TITLE = "Average ranks over datasets"
ROW, BAR = 0.21, 0.13  # inches of a name and of a bar
TOP = 0.62  # inches of title and axis
MOST_TICKS = 18  # with a number on them
LINE = {"color": WHISKER, "linewidth": 0.8}
LISTED = 6  # names that a sentence holds
UNTESTED = "Methods with one seed are not tested: they have no p and no places."
INTERVALS = (
    f"A difference is called significant if its Holm-corrected p is below {LEVEL}. A {100 * COVERAGE:.0f} % interval "
    f"is over other test images and other seeds: {DRAWS:,} redraws of the images, the same for every method, two "
    "images more on which the methods differ, and Student's t for the seeds. With one seed it is over images alone, "
    "and there is no p. These tests speak of these datasets. The rank tests speak of others like "
    "them."
)


def findings(selection: Selection) -> list[str]:
    """Sentences: ranks, the average's first two and zero-shot, calibration, flips, cost; what is missing."""
    said = [*of_ranks(selection), *of_differences(selection), *of_datasets(selection)]
    for name, own in (("calibration", calibration), ("flips", flips)):
        for table in ANALYSES[name]().made(selection).values():
            said += own.findings(table.frame, selection)
    said += costs.findings(selection)
    assert selection.outcomes is not None
    return [*said, *selection.outcomes.left_out(selection.main)]


# ---- which methods differ --------------------------------------------------------------------------------------------


def of_ranks(selection: Selection) -> list[str]:
    """For each measure: the best average rank, which methods are significantly worse, and which are not."""
    records, said = list(selection.main), []
    names, tests = reading.names(records, "method"), wilcoxon_table(selection)
    for one in rankings(selection):
        best, *others = one.methods
        better = told_apart(tests[tests["measure"] == one.measure.id])
        worse = [method for method in others if (best, method) in better]
        alike = [method for method in others if method not in worse]
        line = f"{one.measure.name} over {counted(one.datasets, 'dataset')}: {names[best]} has the best average rank "
        line += f"({one.ranks[0]:.2f})."
        if not one.tested:
            said.append(f"{line} {UNTESTED}")
            continue
        if worse:
            line += f" It is significantly better than {listed(worse, names)} (Wilcoxon, Holm)."
        if alike:
            line += (
                f" It does not differ significantly from {listed(alike, names)}{'' if worse else ' (Wilcoxon, Holm)'}."
            )
        if not math.isnan(one.friedman_p):
            differ = "The methods differ" if one.friedman_p < LEVEL else "The methods do not differ significantly"
            line += f" {differ} by Friedman's test ({p_text(one.friedman_p)})."
        said.append(line)
    return said


def listed(methods: list[str], names: dict[str, str]) -> str:
    shown = [names[method] for method in methods[:LISTED]]
    rest = len(methods) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def of_differences(selection: Selection) -> list[str]:
    """For each H: the two highest averages, and the first beside zero-shot."""
    records, table, said = list(selection.main), pairs_table(selection), []
    names = reading.names(records, "method")
    for measure in measures(records):
        if len(measure.roles) < 2:
            continue
        averages = means.average_rows(reading.select(reading.seen_from(records, measure.update)))["h"].dropna()
        order = list(averages.sort_values(ascending=False, kind="stable").index)
        zero = [ZERO_SHOT] if ZERO_SHOT in order[2:] else []
        for other in [*order[1:2], *zero]:
            row = row_of(table, AVERAGE, measure.id, order[0], other)
            if row is None:
                continue
            said.append(
                f"{measure.name} averaged over the datasets: {names[order[0]]} less {names[other]} is "
                f"{row['difference']:+.2f} points, 95 % interval {row['low']:+.2f} to {row['high']:+.2f}{verdict(row)}."
            )
    return said


def verdict(row: Mapping[str, float]) -> str:
    """How a sentence on a pair's interval ends."""
    if not decides(row["seeds"]):
        return f" ({IMAGES_ALONE}; one seed allows no verdict)"
    shown = "significant" if row["p_holm"] < LEVEL else "not significant"
    told = f", {p_text(row['p'])} ({p_text(row['p_holm'])} by Holm over all pairs), over "
    told += f"{counted(int(row['seeds']), 'seed')}: {shown}"
    if row["low"] <= 0 <= row["high"]:
        told += f". If this is the true difference, {would_decide(row['seeds_needed'], row['images_needed'])}"
    return told


def of_datasets(selection: Selection) -> list[str]:
    """How many of the pairs on single datasets differ significantly, after Holm's correction on each."""
    table, said = pairs_table(selection), []
    for measure in measures(selection.main):
        part = table[(table["measure"] == measure.id) & (table["dataset"] != AVERAGE) & table["p_holm"].notna()]
        if len(part):
            apart = int((part["p_holm"] < LEVEL).sum())
            said.append(f"{measure.name}, {apart} of {len(part)} pairs")
    return (
        [f"Significant differences on single datasets (Holm over a dataset's pairs): {'; '.join(said)}."]
        if said
        else []
    )


# ---- ranks -----------------------------------------------------------------------------------------------------------


def ranks_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block an update on which two methods or more have a rank, a row a method: average rank and the places that it
    may have; bold where no method is significantly better."""
    records = selection.main
    names, depth = reading.names(records, "method"), reading.depths(records)
    blocks = []
    for update in reading.updates(records):
        shown = [one for one in measures(records) if one.update == update]
        columns = [table[table["measure"] == one.id].set_index("method") for one in shown]
        if all(column["rank"].count() < 2 for column in columns):
            continue
        lines = []
        for method in reading.ids(records, "method"):
            cells = [rank_cell(column.loc[method]) for column in columns]
            lines.append((Cell(names[method] + places.mark(depth[method])), *cells))
        title = "Average rank (places)" + (f", update '{update}'" if update != "new" else "")
        blocks.append(Block(Cell(title), ("Method", *(one.name for one in shown)), tuple(lines)))
    tested = bool(table["place"].notna().any())
    sets = counted(len(reading.averaged(records)), "dataset")
    over = f"Mean over {sets} of a method's rank. 1 is the best; ties share their"
    shown_places = (
        " In brackets: the places that a method may have, after those significantly better and before those "
        f"significantly worse (Wilcoxon's signed-rank test, exact, two-sided, Holm over all pairs, {LEVEL}). Bold: no "
        "method is significantly better."
    )
    remarks = [
        *([] if tested else [UNTESTED]),
        f"{over} average.{shown_places if tested else ''}",
        *limits(records),
        *places.legend_remark(depth.values()),
    ]
    return Sheet(RANKS_TITLE, tuple(blocks), tuple(remarks))


def rank_cell(row: pd.Series) -> Cell:
    if math.isnan(row["rank"]):
        return Cell(MISSING)
    if math.isnan(row["place"]):
        return Cell(f"{row['rank']:.2f}")
    first, last = int(row["place"]), int(row["last"])
    return Cell(f"{row['rank']:.2f} ({first if first == last else f'{first}–{last}'})", int(first == 1))


def limits(records: Sequence[Record]) -> list[str]:
    """What so few datasets, or so many methods, leave no test to show."""
    said, scores = [], score_table(records, measures(records)[0])
    sets, pairs = len(scores), math.comb(len(scores.columns), 2)
    least = least_p(sets)
    if pairs and least >= LEVEL:
        said.append(
            f"{counted(sets, 'dataset')} cannot make a difference of ranks significant: the smallest two-sided p is "
            f"{least:.4g}. It takes 6 datasets to get below {LEVEL}, and more with Holm's correction."
        )
    elif pairs and pairs * least >= LEVEL:
        said.append(
            f"With {counted(sets, 'dataset')} and {pairs} pairs of methods, no difference of ranks can be significant "
            f"after Holm's correction: the smallest p is {least:.4g}, times {pairs}. Fewer methods (--methods) or more "
            "datasets can."
        )
    if pairs * (rarest := 2 / (DRAWS + 1)) >= LEVEL:
        said.append(
            f"With {pairs} pairs of methods, no difference over images and seeds can be significant after Holm's "
            f"correction: {DRAWS:,} redraws give no p below {rarest:.2g}, times {pairs}. Fewer methods can."
        )
    lacking = [name for name in scores.columns if scores[name].isna().any()]
    names = reading.names(records, "method")
    if lacking:
        said.append(f"No rank, for want of a dataset: {', '.join(names[name] for name in lacking)}.")
    return said


def draw_ranks(tables: Tables, selection: Selection) -> Figure | None:
    """A panel a measure: methods at their average rank, the best on the left; a bar joins neighbours that do not differ
    significantly. None where fewer than two methods have every dataset."""
    found, records = rankings(selection) if has_statistics(selection) else [], selection.main
    if not found:
        return None
    names, depth = reading.names(records, "method"), reading.depths(records)
    labels = {method: short_label(names[method], depth[method]) for method in names}
    heights: list[float] = [TOP + BAR * (1 + len(one.cliques)) + ROW * (rows_of(one) + 0.3) for one in found]
    foot: float = 0.24 * (1 + bool(places.legend(depth.values())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + foot))
        top = sum(heights) + foot
        for one, height in zip(found, heights, strict=True):
            top -= height
            draw_panel(figure.add_axes((0, top / sum((*heights, foot)), 1, height / sum((*heights, foot)))), one,
                       labels, height)  # fmt: skip
        joined = f"Joined: not significantly different (Wilcoxon's test with Holm's correction, {LEVEL})"
        told = [joined if all(one.tested for one in found) else UNTESTED]
        told += ["    ".join(marks)] if (marks := places.legend(depth.values())) else []
        figure.text(0.5, 0.06 / sum((*heights, foot)), "\n".join(told), ha="center", va="bottom", fontsize=8)
    return figure


def rows_of(one: Ranking) -> int:
    return math.ceil(len(one.methods) / 2)


def draw_panel(axes, one: Ranking, labels: dict[str, str], height: float) -> None:
    """In inches: names stand in two columns, the better half on the left, each with a line to its rank."""
    count, left, right = len(one.methods), 1.5, WIDTH_INCHES - 1.5
    axes.set_xlim(0, WIDTH_INCHES)
    axes.set_ylim(-height + TOP, TOP)
    axes.axis("off")

    def at(rank: float) -> float:
        return left + (rank - 1) / max(count - 1, 1) * (right - left)

    chance = "" if math.isnan(one.friedman_p) else f", Friedman {p_text(one.friedman_p)}"
    title = f"{one.measure.name}: average rank over {reading.counted(one.datasets, 'dataset')}{chance}"
    axes.text(WIDTH_INCHES / 2, TOP - 0.1, title, ha="center", va="top", fontsize=9.5)
    axes.plot([left, right], [0, 0], color=INK, linewidth=1)
    for tick in range(1, count + 1):
        axes.plot([at(tick), at(tick)], [0, 0.06], color=INK, linewidth=0.8)
        if (tick - 1) % -(-count // MOST_TICKS) == 0:
            axes.text(at(tick), 0.09, str(tick), ha="center", va="bottom", fontsize=7.5)
    for place, (first, last) in enumerate(one.cliques):
        ends = [at(one.ranks[first]) - 0.04, at(one.ranks[last]) + 0.04]
        axes.plot(ends, [-BAR * (place + 0.8)] * 2, color=COLOURS["h"], linewidth=3, solid_capstyle="round", zorder=4)
    start, half = BAR * (1 + len(one.cliques)), rows_of(one)
    for place, (method, rank) in enumerate(zip(one.methods, one.ranks, strict=True)):
        better = place < half
        row = place if better else count - 1 - place
        y, x, edge = -start - ROW * (row + 0.5), at(rank), left - 0.08 if better else right + 0.08
        axes.plot([x, x, edge], [0, y, y], **LINE)
        (point,) = axes.plot([x], [0], marker="o", markersize=3.5, color=INK, zorder=5)
        tell(point, f"{labels[method]}: average rank {rank:.2f}")
        text = f"{labels[method]}  {rank:.2f}" if better else f"{rank:.2f}  {labels[method]}"
        axes.text(edge + (-0.05 if better else 0.05), y, text, ha="right" if better else "left", va="center",
                  fontsize=7.5)  # fmt: skip


def p_text(p: float) -> str:
    """As readers expect a p: three decimals, never 0."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


@register("statistics")
class Statistics(Analysis):
    title, place = "Statistics", 70
    section = "Statistics"
    names = ("ranks", "wilcoxon", "pairs")
    drawings = (
        Drawing(
            "ranks", "Average ranks over datasets; a bar joins methods that do not differ significantly", draw_ranks
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        """What needs two methods is left out where there is one."""
        if has_statistics(selection) and len(pairs := pairs_table(selection)):
            ranks, tests = ranks_table(selection), wilcoxon_table(selection)
            yield Table("ranks", ranks, comparison.RANK_KEYS, ranks_sheet(ranks, selection), P_DECIMALS)
            yield Table("wilcoxon", tests, comparison.WILCOXON_KEYS, decimals=P_DECIMALS)
            yield Table("pairs", pairs, comparison.KEYS, decimals=P_DECIMALS)

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        if not has_statistics(selection):
            return []
        told = findings(selection)
        found: list[Part] = [("list", told) if told else ("text", "One method alone: no comparison.")]
        if tables:
            found += [("text", INTERVALS)] if tables["pairs"].frame["low"].notna().any() else []
            found += [("subheading", RANKS_TITLE), ("sheet", tables["ranks"].sheet)]
            found += self.figures(selection, "ranks")
            more = [("pairs.csv", "tables/pairs.csv"), ("wilcoxon.csv", "tables/wilcoxon.csv")]
            found.append(("files", [*self.files(selection, tables["ranks"]), *more]))
        return found

    def limits(self, selection: Selection, tables: Tables) -> list[str]:
        return limits(list(selection.main)) if has_statistics(selection) else []
