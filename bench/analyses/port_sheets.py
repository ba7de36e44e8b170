"""What readers see of the tables of ports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from carryover.bench import places
from carryover.bench.analyses import port_numbers as numbers
from carryover.bench.analyses.parts.port_cases import CARRIED, NOTHING, Cases, Way, failed
from carryover.bench.analyses.parts.retention_numbers import UNDECIDED, in_points, rule_of
from carryover.bench.analyses.parts.rows import marks_of, not_run
from carryover.bench.analyses.port_figures import averages
from carryover.bench.analyses.port_numbers import ALL, CHOICES, EVERY, FIXED, SITUATIONS
from carryover.bench.analyses.retention import INTERVAL, Names, undecided
from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent, signed
from carryover.bench.stats.verdicts import images_alone

TITLE = "Plug-ins ported by a map between the backbones"
KINDS = {
    "support": "few-shot pictures",
    "other": "other pictures",
    "foreign": "pictures of other datasets",
    "texts": "texts",
}
SHOWN = {  # columns of the sheet
    (FIXED, "support"): "few-shot",
    (FIXED, "other"): "other",
    ("linear", "other"): "other",
    ("delta", "other"): "other",
}
MEASURE = (
    "Top-1 accuracy on the target in percent. Reused: the plug-in of the base, unchanged. Ported: the same plug-in "
    "behind a map between the two backbones that is fitted on pictures without their labels. Retrained: trained on "
    "the target from nothing. Few-shot: the map is fitted on the pictures that the plug-in was trained on, which "
    "flatters it. Other: on training pictures that the plug-in never saw. No map sees a test picture."
)
RETENTION = (
    "Retention: (ported - zero-shot) / (retrained - zero-shot). A dash: the interval of retraining's gain is not above "
    "0, or it was not run."
)
GAINS = (
    "Points gained: over the target's zero-shot accuracy, with all anchors, a mean over the methods that the port "
    "carries. Ports that carry different methods cannot be compared."
)
SECONDS = "A map that several methods share is fitted once. Its seconds are in the row of each of them."
FIXED_PORT = (
    "The port was named beforehand, not chosen by accuracy. Port: Procrustes, fitted on the few-shot pictures that "
    "retraining reads, or, without labels, on other pictures. General map: Procrustes fitted on pictures of other "
    "datasets; somebody else may have fitted it. Text map: fitted on class names and common nouns. Retraining reads "
    "labels and needs no old model."
)
HAS = {
    "everything": "With labels, pictures and the old model",
    "no labels": "Without labels",
    "no old model": "Without the old model",
    "no pictures": "Without pictures",
}


# ---- every port ------------------------------------------------------------------------------------------------------


def ports_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a target, averaged over the datasets; then the mean gain of every port on every target."""
    names, cases = Names(selection), Cases(selection)
    over, blocks = counted(len(cases.averaged), "dataset"), []
    for target in cases.targets:
        part = averages(table, target)
        if len(part):
            title = f"Average over {over}, {names.targets[target]}"
            blocks.append(target_block(title, part, table, names))
    blocks += gains_blocks(table, cases, names)
    remarks = MEASURE, RETENTION, GAINS, SECONDS, INTERVAL
    return Sheet(TITLE, tuple(blocks), (*remarks, *refusals(table, names), *foot(cases, names)))


def target_block(title: str, part: pd.DataFrame, table: pd.DataFrame, names: Names) -> Block:
    """``part``: the average rows of one target."""
    whole = part[part["count"].isin(["", ALL])].set_index(["method", "port", "anchors"])
    ways = {("reuse", ""): "Reused"}
    ways |= {way: f"{PORT_SPECS[way[0]].name}, {kind}" for way, kind in SHOWN.items() if way[0] in PORT_SPECS}
    ways |= {("retrain", ""): "Retrained"}
    present = {(port, kind) for _, port, kind in whole.index}
    ways = {way: text for way, text in ways.items() if way in present}
    floor = whole.loc[(ZERO_SHOT, "zero-shot", ""), "accuracy"] if ZERO_SHOT in whole.index else math.nan
    retained = ("retrain", "") in present and (FIXED, "other") in present
    rows = []
    for method in (method for method in dict.fromkeys(table["method"]) if method != ZERO_SHOT):

        def of(way: tuple[str, str], column: str, method: str = method) -> float:
            return whole[column].get((method, *way), math.nan)

        cells = [names.method(method), percent(floor), *(percent(of(way, "accuracy")) for way in ways)]
        if retained:
            value, low, high = (of((FIXED, "other"), f"retention{end}") for end in ("", "_low", "_high"))
            cells.append(share(value, low, high, of((FIXED, "other"), "seeds")))
        rows.append(tuple(map(Cell, cells)))
    header = ("Method", "Zero-shot", *ways.values(), *(["Retention, other"] if retained else []))
    return Block(Cell(title), header, tuple(rows))


def gains_blocks(table: pd.DataFrame, cases: Cases, names: Names) -> Iterator[Block]:
    """On average; and on the datasets of the ports that were not run on all of them, beside every other there."""
    ways = [way for way in cases.ways if way.number == ALL and not way.via and not way.steps]
    found = table[table["accuracy"].notna() & (table["count"] == ALL)]
    of = {way: found[(found["port"] == way.port) & (found["anchors"] == way.anchors)] for way in ways}
    average = {way: part[part["dataset"] == AVERAGE] for way, part in of.items()}
    title = "Points gained over zero-shot"
    if whole := {way: part for way, part in average.items() if len(part)}:
        over = counted(len(cases.averaged), "dataset")
        yield gains_block(f"{title}, average over {over}", whole, cases)
    apart = [part for way, part in of.items() if way not in whole]
    sets = [name for name in cases.datasets if any((part["dataset"] == name).any() for part in apart)]
    if sets:
        here = {way: part[part["dataset"].isin(sets)] for way, part in of.items()}
        yield gains_block(f"{title}, {', '.join(map(names.dataset, sets))}", here, cases)


def gains_block(title: str, of: Mapping[Way, pd.DataFrame], cases: Cases) -> Block:
    rows = []
    for way, part in of.items():
        gains = [part[part["target"] == target]["gain"].mean() for target in cases.targets]
        needs = ", ".join(numbers.needs(way.port).split()).replace("_", " ")
        rows.append((named(way.port), KINDS[way.anchors], str(part["method"].nunique()), *map(signed, gains), needs))
    header = ("Port", "Fitted on", "Methods", *cases.targets, "Needs")
    return Block(Cell(title), header, tuple(tuple(map(Cell, row)) for row in rows))


def named(port: str) -> str:
    return PORT_SPECS[port].name if port in PORT_SPECS else port


def share(value: float, low: float, high: float, seeds: float) -> str:
    if math.isnan(value):
        return MISSING
    return f"{value:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]{images_alone(seeds)}")


def refusals(table: pd.DataFrame, names: Names) -> list[str]:
    """A line for ports and a reason: what they do not carry."""
    ports: dict[tuple[str, str], list[str]] = {}
    blank = table[table["dataset"].isin([EVERY, AVERAGE]) & ~table["reason"].isin(["", numbers.FAILED])]
    for row in blank.itertuples():
        what = names.method(row.method) + ("" if row.target == EVERY else f" on {row.target}")
        ports.setdefault((what, row.reason), []).append(named(row.port))
    of: dict[tuple[str, str], list[str]] = {}
    for (what, reason), found in ports.items():
        of.setdefault((", ".join(dict.fromkeys(found)), reason), []).append(what)
    return [f"Not carried by {found}: {', '.join(what)} ({reason})." for (found, reason), what in of.items()]


def foot(cases: Cases, names: Names) -> tuple[str, ...]:
    legend = places.legend_remark(names.depth.get(method, "") for method in cases.methods)
    told = [replace(row, variant=replace(row.variant, label=label(row, names))) for row in cases.rows if row.records]
    return (*legend, *marks_of(told), *not_run(missing(cases, names)))


def label(row: Row, names: Names) -> tuple[str, str]:
    """A remark names methods and ports: with every kind and number of anchors it would fill a page."""
    return names.method(row.variant.method), named(row.variant.port)


def missing(cases: Cases, names: Names) -> list[str]:
    """Rows without a finished run, counted by dataset and method, with their ports."""
    of: dict[tuple[str, str], list[str]] = {}
    for row in failed(cases.rows):
        of.setdefault((row.dataset, row.variant.method), []).append(named(row.variant.port))
    return [
        f"{names.dataset(dataset)}: {names.method(method)}, {counted(len(ports), 'row')} "
        f"({', '.join(dict.fromkeys(ports))})"
        for (dataset, method), ports in of.items()
    ]


# ---- which to take ---------------------------------------------------------------------------------------------------


def decision_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block for what a reader has, averaged over the datasets; then how often each option is chosen."""
    names, cases = Names(selection), Cases(selection)
    blocks, counts = [], []
    for situation, options in SITUATIONS.items():
        part = table[(table["situation"] == situation) & (table["dataset"] == AVERAGE)]
        if part.empty:
            continue
        of = {(row.method, row.target): chosen(row) for row in part.itertuples()}
        targets = [target for target in cases.targets if target in set(part["target"])]
        rows = [
            tuple(map(Cell, (names.method(method), *(of.get((method, target), MISSING) for target in targets))))
            for method in dict.fromkeys(part["method"])
        ]
        over = counted(len(cases.averaged), "dataset")
        title = f"{HAS[situation]} ({', '.join(options)}), average over {over}"
        blocks.append(Block(Cell(title), ("Method", *(names.targets[t] for t in targets)), tuple(rows)))
        single = table[(table["situation"] == situation) & (table["dataset"] != AVERAGE)]
        chosen_of = Counter(single["choice"])
        every = (*CHOICES, UNDECIDED)
        numbers_of = [str(chosen_of[name]) if name in (*options, UNDECIDED) else MISSING for name in every]
        counts.append(tuple(map(Cell, (HAS[situation], *numbers_of))))
    header = ("What one has", *(name.capitalize() for name in (*CHOICES, UNDECIDED)))
    blocks.append(Block(Cell("How often each is chosen, over methods, datasets and targets"), header, tuple(counts)))
    told = (
        "Behind a choice stands its gain over zero-shot, in points, with its interval. Behind "
        f"“{UNDECIDED}” stand the best option, its gain, and what would decide. A block needs runs of all its options."
    )
    rule = rule_of("the options of a block's title")
    return Sheet("Reuse, port, retrain, or zero-shot", tuple(blocks), (rule, FIXED_PORT, told, INTERVAL))


def chosen(row) -> str:
    if not row.choice:
        return MISSING
    if row.choice == "zero-shot":
        return row.choice
    gain = in_points(row.gain, row.gain_low, row.gain_high, row.seeds)
    asked = row.seeds_needed, row.images_needed
    return undecided(row.best, gain, *asked) if row.choice == UNDECIDED else f"{row.choice} {gain}"


# ---- maps of maps, and refreshes -------------------------------------------------------------------------------------


def chains_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a target, averaged over the datasets, a row a method."""
    names, cases, blocks = Names(selection), Cases(selection), []
    part = table[table["dataset"] == AVERAGE]
    for (target, via), rows in part.groupby(["target", "via"], sort=False):
        lines = [
            (
                names.method(row.method),
                percent(row.chained, row.chained_std),
                percent(row.fresh, row.fresh_std),
                in_points(row.difference, row.low, row.high, row.seeds),
            )
            for row in rows.itertuples()
        ]
        title = f"To {names.targets[target]}, average over {counted(len(cases.averaged), 'dataset')}"
        header = ("Method", f"By way of {via}", "Straight", "Difference")
        blocks.append(Block(Cell(title), header, tuple(tuple(map(Cell, line)) for line in lines)))
    told = (
        "Top-1 accuracy in percent, mean ± sample standard deviation over seeds. By way of another backbone: one map "
        "from the base to that backbone and a second one from there to the target. Straight: one map fitted on the "
        "base and the target, on the same pictures. The difference is in points."
    )
    return Sheet("Two updates in turn: a map of a map", tuple(blocks), (told, INTERVAL))


def refresh_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """Ported against steps, averaged over the datasets; then a block for each dataset and method that has the same
    steps from elsewhere."""
    names, cases, steps = Names(selection), Cases(selection), list(dict.fromkeys(table["steps"]))
    part = table[table["dataset"] == AVERAGE]
    blocks = []
    if len(part):
        of = {(row.method, row.steps): percent(row.ported, row.ported_std) for row in part.itertuples()}
        rows = [
            tuple(map(Cell, (names.method(method), *(of.get((method, step), MISSING) for step in steps))))
            for method in dict.fromkeys(part["method"])
        ]
        title = f"Ported, then so many steps: average over {counted(len(cases.averaged), 'dataset')}"
        blocks.append(Block(Cell(title), ("Method", *steps), tuple(rows)))
    header = ("Steps", "Ported", "Carried as it is", "From nothing", "Over carried", "Over nothing")
    for (dataset, method), lines in table.groupby(["dataset", "method"], sort=False):
        beside = lines[(lines["steps"] != "0") & (lines[CARRIED].notna() | lines[NOTHING].notna())]
        if beside.empty:
            continue
        rows = []
        for row in lines.itertuples():
            accuracies = [percent(getattr(row, n), getattr(row, n + "_std")) for n in ("ported", CARRIED, NOTHING)]
            over = [
                in_points(
                    getattr(row, f"over_{n}"), getattr(row, f"over_{n}_low"), getattr(row, f"over_{n}_high"), row.seeds
                )
                for n in (CARRIED, NOTHING)
            ]
            rows.append(tuple(map(Cell, (row.steps, *accuracies, *over))))
        title = f"{names.dataset(dataset)}, {names.method(method)}"
        blocks.append(Block(Cell(title), header, tuple(rows)))
    target = names.targets[numbers.REFRESH_TARGET]
    told = (
        f"Top-1 accuracy on {target} in percent, mean ± sample standard deviation over seeds, after so many training "
        "steps there. Ported: training starts from the plug-in behind a Procrustes map fitted on other pictures; the "
        "map stays as it is. Carried as it is: from the plug-in without a map. From nothing: from the method's own "
        "start. All with the same images, batches and schedule; 0 steps: no training.",
        "Over: ported less the other, in points, over the seeds that both have.",
    )
    return Sheet("Ported, then refreshed", tuple(blocks), (*told, INTERVAL))
