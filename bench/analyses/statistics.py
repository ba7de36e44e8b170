"""The statistics for readers: what can be told apart and what cannot, in sentences from the numbers."""

from __future__ import annotations

import math

import pandas as pd

from carryover.bench.analyses.statistics_figures import p_text
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet
from carryover.bench.stats import calibration_error, flips, means, ranking
from carryover.bench.stats.measures import measures
from carryover.bench.stats.pairs import COVERAGE, DRAWS, pairs_table, row_of
from carryover.bench.stats.pareto import COSTS, costs, front
from carryover.bench.stats.rank_tests import LEVEL

HEADING = "Statistics"
LISTED = 6  # names that a sentence holds
INTERVALS = (
    f"Intervals hold the difference with {100 * COVERAGE:.0f} % over other test images and other seeds: {DRAWS:,} "
    "redraws of the images, the same for every method, and Student's t for the seeds. They speak of these datasets. "
    "What is called told apart goes by Holm over all pairs, beside the p of the pair alone. The ranks' tests are over "
    "datasets and speak of others like them. Every pair on every dataset, also with p corrected for their number: "
    "tables/pairs.csv; over datasets: tables/wilcoxon.csv."
)


def parts(selection: Selection) -> list[Part]:
    """The section's sentences and short tables; its figures stand beside the sheet of the ranks. Empty without
    predictions."""
    if not has_statistics(selection):
        return []
    told = findings(selection)
    found: list[Part] = [("heading", HEADING), ("list", told) if told else ("text", "One method alone: no comparison.")]
    if len(table := pairs_table(selection)):
        found += [("text", INTERVALS)] if table["low"].notna().any() else []
        found += [("sheet", ranking.ranks_sheet(selection))]
    return found


def tables(selection: Selection) -> list[Part]:
    """What follows the figures: cost, calibration and flips of the averages."""
    if not has_statistics(selection):
        return []
    return [
        ("block", cost_block(selection)),
        ("heading", calibration_error.TITLE),
        ("sheet", averages_of(calibration_error.calibration_sheet(selection))),
        ("heading", flips.TITLE),
        ("sheet", averages_of(flips.flips_sheet(selection))),
        ("text", "Each dataset: tables/calibration.md and tables/flips.md."),
    ]


def has_statistics(selection: Selection) -> bool:
    return selection.outcomes is not None and any(map(reading.is_done, selection.main))


def averages_of(sheet: Sheet) -> Sheet:
    kept = tuple(block for block in sheet.blocks if block.title.text.startswith("Average over"))
    return Sheet(sheet.caption, kept, sheet.remarks)


def findings(selection: Selection) -> list[str]:
    """Sentences: ranks, the average's first two and zero-shot, calibration, flips, cost; what is missing."""
    said = [*of_ranks(selection), *of_differences(selection), *of_datasets(selection)]
    said += [*of_calibration(selection), *of_flips(selection), *of_costs(selection)]
    assert selection.outcomes is not None
    return [*said, *selection.outcomes.left_out(selection.main)]


# ---- which methods differ --------------------------------------------------------------------------------------------


def of_ranks(selection: Selection) -> list[str]:
    """For each measure: the best average rank, which methods the tests show to be worse, and which they cannot."""
    records, said = list(selection.main), []
    names, tests = reading.names(records, "method"), ranking.wilcoxon_table(selection)
    for one in ranking.rankings(selection):
        best, *others = one.methods
        better = ranking.told_apart(tests[tests["measure"] == one.measure.id])
        worse = [method for method in others if (best, method) in better]
        alike = [method for method in others if method not in worse]
        line = f"{one.measure.name} over {counted(one.datasets, 'dataset')}: {names[best]} has the best average rank "
        line += f"({one.ranks[0]:.2f})"
        if not math.isnan(one.friedman_p):
            differ = "shows a difference among the methods" if one.friedman_p < LEVEL else "shows no difference"
            line += f"; Friedman's test {differ} ({p_text(one.friedman_p)})"
        told = [f"is told apart from {listed(worse, names)}"] if worse else []
        told += [f"cannot be told apart from {listed(alike, names)}"] if alike else []
        said.append(f"{line}. It {' and '.join(told)} (Wilcoxon, Holm).")
    return said + ranking.limits(records)


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
        zero = [flips.ZERO_SHOT] if flips.ZERO_SHOT in order[2:] else []
        for other in [*order[1:2], *zero]:
            row = row_of(table, AVERAGE, measure.id, order[0], other)
            if row is None:
                continue
            shown = "told apart" if row["p_holm"] < LEVEL else "not told apart"
            over = "over one seed: images alone" if row["seeds"] == 1 else f"over {counted(int(row['seeds']), 'seed')}"
            said.append(
                f"{measure.name} averaged over the datasets: {names[order[0]]} less {names[other]} is "
                f"{row['difference']:+.2f} points, 95 % interval {row['low']:+.2f} to {row['high']:+.2f}, "
                f"{p_text(row['p'])} ({p_text(row['p_holm'])} by Holm over all pairs), {over}: {shown} on these "
                "datasets."
            )
    return said


def of_datasets(selection: Selection) -> list[str]:
    """How many of the pairs on single datasets are told apart, after Holm's correction on each."""
    table, said = pairs_table(selection), []
    for measure in measures(selection.main):
        part = table[(table["measure"] == measure.id) & (table["dataset"] != AVERAGE) & table["p_holm"].notna()]
        if len(part):
            apart = int((part["p_holm"] < LEVEL).sum())
            said.append(f"{measure.name}, {apart} of {len(part)} pairs")
    return [f"Told apart on single datasets (Holm over a dataset's pairs): {'; '.join(said)}."] if said else []


# ---- calibration, flips, cost ----------------------------------------------------------------------------------------


def of_calibration(selection: Selection) -> list[str]:
    table = calibration_error.calibration_table(selection)
    names, said = reading.names(selection.main, "method"), []
    part = table[(table["dataset"] == AVERAGE) & table["ece"].notna()]
    for update in reading.updates(selection.main):
        own = part[part["backbone"] == update].sort_values("ece", kind="stable")
        before = part[part["backbone"] == "base"].set_index("method")["ece"]
        if len(own) < 2:
            continue
        worse = sum(row.ece > before.get(row.method, math.nan) for row in own.itertuples())
        sure = int((own["gap"] > 0).sum())
        low, high = own.iloc[0], own.iloc[-1]
        where = "New" if update == "new" else update
        said.append(
            f"Calibration on {where}: lowest ECE {low['ece']:.1f} ({names[low['method']]}), highest {high['ece']:.1f} "
            f"({names[high['method']]}); higher than on Base for {worse} of {counted(len(own), 'method')}, too sure of "
            f"themselves {sure}."
        )
    return said


def of_flips(selection: Selection) -> list[str]:
    table = flips.flips_table(selection)
    names, said = reading.names(selection.main, "method"), []
    for update in reading.updates(selection.main):
        part = table[(table["dataset"] == AVERAGE) & (table["backbone"] == update) & table["flips"].notna()]
        part = part.sort_values("flips", kind="stable")
        if part.empty:
            continue
        zero = part[part["method"] == flips.ZERO_SHOT]
        line = f"With the update{'' if update == 'new' else f' {update!r}'} "
        if len(zero):
            row = zero.iloc[0]
            line += f"zero-shot changes {row['flips']:.1f} % of its predictions ({row['negative']:.1f} from right to "
            line += f"wrong, {row['positive']:.1f} from wrong to right); "
        few, many = part.iloc[0], part.iloc[-1]
        if len(part) > 1:
            line += f"fewest are changed by {names[few['method']]} ({few['flips']:.1f}, {few['negative']:.1f} to wrong)"
            line += f", most by {names[many['method']]} ({many['flips']:.1f}, {many['negative']:.1f} to wrong)"
        if len(part) > 1 or len(zero):
            said.append(line.removesuffix("; ") + ".")
    return said


def of_costs(selection: Selection) -> list[str]:
    said, names = [], reading.names(selection.main, "method")
    for update in reading.updates(selection.main):
        table = costs(selection, update)
        for cost, what in COSTS.items():
            kept = front(zip(table[cost], table["h"], strict=True)) if len(table) > 1 else []
            if kept:
                where = "H" if update == "new" else f"H, {update}"
                methods = ", ".join(names[table["method"][place]] for place in kept)
                said.append(f"{where} against {what}: no method beats {methods} at both.")
    if said:
        said.append("Seconds have frozen features ready; methods that read pixels encode them within.")
    return said


def cost_block(selection: Selection) -> Block:
    names, lines = reading.names(selection.main, "method"), []
    for update in reading.updates(selection.main):
        table = costs(selection, update)
        fronts = {cost: front(zip(table[cost], table["h"], strict=True)) for cost in COSTS}
        for place, row in enumerate(table.itertuples()):
            on = " and ".join(cost for cost, kept in fronts.items() if place in kept)
            name = names[row.method] + ("" if update == "new" else f", {update}")
            cells = (f"{row.h:.2f}", shown(row.fit), shown(row.evaluate), shown(row.seconds))
            lines.append((name, *cells, shown(row.parameters, 0), on or MISSING))
    header = ("Method", "H", "Fit (s)", "Evaluate 1000 (s)", "Both (s)", "Parameters", "On the front of")
    return Block(Cell("H against cost, means over datasets"), header, tuple(tuple(map(Cell, line)) for line in lines))


def shown(value: float, digits: int = 2) -> str:
    return MISSING if pd.isna(value) else f"{value:,.{digits}f}"
