"""Modules carried through successive updates, and refreshed on the update: from the carried state beside from nothing,
against steps and against shots. Accuracies in percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.retention_numbers import in_points, options_of, steps_made
from carryover.bench.analyses.parts.rows import MEASURE, marks_of, not_run
from carryover.bench.analyses.retention import INTERVAL, Names, labelled
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.run_labels import WHOLE_SCHEDULE, ZERO_SHOT
from carryover.bench.plan.suites import Suite, Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, accuracy
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.figures import INK, legend, stacked
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats import choices, means

ROLES = ("base", "new", "second")  # that update one another in turn, as far as an arch has them
STEPS = (5, 10, 20, 40, 80)  # of a refresh, and of its control from nothing; beside them 0 and the whole schedule
CHAIN_STEPS = 20  # of the refresh on each backbone of the chain
SHOTS = (1, 2, 4, 8)  # beside the call's own
SHOT_STEPS = 80  # at every number of shots, carried or from nothing
CHAIN_METHODS = ("coop", "contcoop", "clip-adapter")  # a context, one that sees the names, and a module in joint space

CHAIN_KEYS = ("dataset", "method", "way", "backbone")
CHAIN = (*CHAIN_KEYS, "place", "seeds", "accuracy", "accuracy_std")
CARRIED, REFRESHED, RETRAINED = "carried", "refreshed", "retrained"
REFRESH_KEYS = ("dataset", "method", "axis", "shots", "steps")
REFRESH = (
    *REFRESH_KEYS, "seeds", "steps_made", "carried", "carried_std", "nothing", "nothing_std", "lead", "lead_low",
    "lead_high",
)  # fmt: skip
TARGET = "new"  # the update that a refresh is on
WHOLE = "all"  # steps of the whole schedule, as rows name it
WAYS = {
    CARRIED: "carried, no training",
    REFRESHED: f"refreshed at each ({CHAIN_STEPS} steps)",
    RETRAINED: "retrained on each",
}
# Okabe and Ito's, and what they leave out of twelve by line style.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8B6914", "#666666")
SIGNS = "os^Dv<>pX*hP"


# ---- what is run -----------------------------------------------------------------------------------------------------


def chain_of(arch: Arch) -> tuple[str, ...]:
    return tuple(role for role in ROLES if role in arch.towers)


def rows(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    found = [Variant((), ZERO_SHOT)] if methods else []
    for method in methods:
        found += [Variant((), method), *refreshed(arch, method, shots)]
    return found


def refreshed(arch: Arch, method: str, shots: int) -> list[Variant]:
    """On the update, carried and from nothing, against steps and against shots; along the chain. Labels are (start,
    steps, shots) and ("chain", role)."""
    told, made = str(shots), []
    pair = "base", "new"
    for steps in STEPS:
        made.append(Variant(("carried", str(steps), told), method, path=pair, refresh=steps))
    made.append(Variant(("carried", "all", told), method, path=pair, refresh=WHOLE_SCHEDULE))
    made.append(Variant(("nothing", "0", told), method, (f"{method}.epochs=0",), path=("new",)))
    for steps in STEPS:
        made.append(Variant(("nothing", str(steps), told), method, (f"{method}.steps={steps}",), path=("new",)))
    made.append(Variant(("nothing", "all", told), method, path=("new",)))
    for few in (few for few in SHOTS if few < shots):
        label = ("carried", str(SHOT_STEPS), str(few))
        made.append(Variant(label, method, (), pair, refresh=SHOT_STEPS, shots=few, carried_shots=shots))
        control = (f"{method}.steps={SHOT_STEPS}",)
        made.append(Variant(("nothing", str(SHOT_STEPS), str(few)), method, control, path=("new",), shots=few))
    chain = chain_of(arch)
    for count, role in enumerate(chain[1:], 2):
        made.append(Variant(("chain", role, "refreshed"), method, path=chain[:count], refresh=CHAIN_STEPS))
        made.append(Variant(("chain", role, "retrained"), method, path=(role,)))
    return made


def rows_by(selection: Selection) -> dict[tuple[str, str], dict[tuple[str, ...], Row]]:
    """(dataset, method) -> label -> row, of what was refreshed."""
    found: dict[tuple[str, str], dict[tuple[str, ...], Row]] = {}
    for row in selection.rows.get("chains", ()):
        found.setdefault((row.dataset, row.variant.method), {})[row.variant.label] = row
    return found


def of_main(selection: Selection, dataset: str, method: str) -> tuple[Record, ...]:
    return tuple(r for r in selection.main if (r["run"]["dataset"], r["run"]["method"]) == (dataset, method))


def at(records: Sequence[Record], target: str) -> dict[int, float]:
    """Accuracy on a backbone by seed, of the runs that are done."""
    found = {record["run"]["seed"]: accuracy(record, target) for record in records}
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


# ---- through successive updates --------------------------------------------------------------------------------------


def chain_table(selection: Selection) -> pd.DataFrame:
    """`CHAIN`: every method of the main suite carried without training, averaged over its datasets (seed by seed, over
    the seeds done on all of them), then on each dataset of the chains suite; there also refreshed at each update, and
    retrained on it. ``place``: of the backbone in the chain, the base is 0."""
    chain, made = chain_of(selection.arch), []
    sets = reading.averaged(selection.main)
    for method in reading.ids(selection.main, "method"):
        scores = [of_main(selection, dataset, method) for dataset in sets]
        made += lines(AVERAGE, method, CARRIED, {role: mean_at(scores, role) for role in chain}, chain)
    for (dataset, method), rows in rows_by(selection).items():
        if not any(row[:3] == [dataset, ZERO_SHOT, CARRIED] for row in made):
            shot = of_main(selection, dataset, ZERO_SHOT)
            made += lines(dataset, ZERO_SHOT, CARRIED, {role: at(shot, role) for role in chain}, chain)
        plain = of_main(selection, dataset, method)
        made += lines(dataset, method, CARRIED, {role: at(plain, role) for role in chain}, chain)
        for way in (REFRESHED, RETRAINED):
            found = {chain[0]: at(plain, chain[0])}
            for role in chain[1:]:
                row = rows.get(("chain", role, way))
                found[role] = at(row.records, role) if row else {}
            made += lines(dataset, method, way, found, chain)
    return pd.DataFrame(made, columns=list(CHAIN))


def lines(dataset: str, method: str, way: str, found: dict[str, dict[int, float]], chain: Sequence[str]) -> list[list]:
    return [
        [dataset, method, way, role, place, len(found[role]), *means.mean_std(found[role].values())]
        for place, role in enumerate(chain)
    ]


def mean_at(scores: Sequence[Sequence[Record]], role: str) -> dict[int, float]:
    """The mean over datasets by seed, of the seeds that all have."""
    each = [at(records, role) for records in scores]
    whole = set.intersection(*map(set, each)) if each else set()
    return {seed: sum(found[seed] for found in each) / len(each) for seed in sorted(whole)}


# ---- refreshed against from nothing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Two ways to the same number of steps and shots: the records of the carried and of the one from nothing."""

    axis: str
    shots: int
    steps: str
    carried: tuple[Record, ...]
    nothing: tuple[Record, ...]


def points(selection: Selection, dataset: str, method: str, rows: dict[tuple[str, ...], Row]) -> Iterator[Point]:
    """Against steps, with the call's shots; then against shots, each with ``SHOT_STEPS`` steps."""

    def of(start: str, steps: str, shots: str) -> tuple[Record, ...]:
        if (start, steps) == (CARRIED, "0"):
            return of_main(selection, dataset, method)
        row = rows.get((start, steps, shots))
        return row.records if row else ()

    every = [label for label in rows if label[0] == "nothing"]
    own = max(int(label[2]) for label in every)
    for _, steps, shots in every:
        if int(shots) == own:
            yield Point("steps", own, steps, of(CARRIED, steps, shots), of("nothing", steps, shots))
    fixed = str(SHOT_STEPS)
    for few in sorted(int(label[2]) for label in every if label[1] == fixed):
        yield Point("shots", few, fixed, of(CARRIED, fixed, str(few)), of("nothing", fixed, str(few)))


def refresh_table(selection: Selection) -> pd.DataFrame:
    """`REFRESH`: accuracy on the update after so many steps on so many shots, started from what was carried and from
    nothing; ``lead`` is the first less the second in points over the seeds that both have, with the interval of
    `bench.stats.choices`; ``steps_made`` what the steps come to in whole epochs."""
    made: list[list] = []
    of = {key: list(points(selection, *key, rows)) for key, rows in rows_by(selection).items()}
    drawn = {dataset: drawn_on(selection, dataset, of) for dataset in dict.fromkeys(key[0] for key in of)}
    for (dataset, method), found in of.items():
        for point in found:
            carried, nothing = at(point.carried, TARGET), at(point.nothing, TARGET)
            both = sorted(set(carried) & set(nothing))
            trained = [steps_made(record) for record in point.nothing if reading.is_done(record)]
            made.append(
                [
                    *(dataset, method, point.axis, point.shots, point.steps, len(both)),
                    median(trained) if trained else math.nan,
                    *means.mean_std(carried.values()),
                    *means.mean_std(nothing.values()),
                    *lead(point, dataset, both, drawn[dataset]),
                ]
            )
    return pd.DataFrame(made, columns=list(REFRESH))


def drawn_on(
    selection: Selection, dataset: str, of: Mapping[tuple[str, str], Sequence[Point]]
) -> dict[choices.Column, choices.Drawn]:
    here = [point for (name, _), found in of.items() if name == dataset for point in found]
    records = [r for point in here for r in (*point.carried, *point.nothing) if reading.is_done(r)]
    return choices.image_draws(selection.predictions, dataset, [(record["key"], TARGET) for record in records])


def lead(
    point: Point, dataset: str, seeds: Sequence[int], drawn: Mapping[choices.Column, choices.Drawn]
) -> tuple[float, float, float]:
    ways = [{r["run"]["seed"]: r for r in records} for records in (point.carried, point.nothing)]
    options = options_of(TARGET, dataset, [[records[seed] for records in ways] for seed in seeds], drawn)
    if options is None:
        return (math.nan,) * 3
    first, second = options.own.mean(0).tolist()
    return first - second, *options.interval([1, -1])


# ---- for readers -----------------------------------------------------------------------------------------------------


def chain_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block for the average of the main suite, one a dataset of the chains suite: a column a backbone."""
    names, chain = Names(selection), chain_of(selection.arch)
    header = ("Method", *(names.targets[role] for role in chain))
    blocks = []
    for dataset in dict.fromkeys(table["dataset"]):
        part = table[table["dataset"] == dataset]
        rows = []
        for (method, way), line in part.groupby(["method", "way"], sort=False):
            label = names.method(method)
            if dataset != AVERAGE and method != ZERO_SHOT:
                label += f", {WAYS[way]}"
            numbers = [percent(*pair) for pair in zip(line["accuracy"], line["accuracy_std"], strict=True)]
            rows.append((Cell(label), *map(Cell, numbers)))
        count = reading.counted(len(reading.averaged(selection.main)), "dataset")
        title = f"Average over {count}, carried without training" if dataset == AVERAGE else names.dataset(dataset)
        blocks.append(Block(Cell(title), header, tuple(rows)))
    return Sheet(Chains.title, tuple(blocks), (MEASURE, *foot(selection, names)))


def refresh_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a dataset and method: a row a number of steps, then a row a number of shots."""
    names, blocks = Names(selection), []
    header = ("Shots", "Steps", "Made", "From carried", "From nothing", "Carried leads by")
    for (dataset, method), part in table.groupby(["dataset", "method"], sort=False):
        rows = []
        for row in part.drop_duplicates(["shots", "steps"]).itertuples():
            made = MISSING if math.isnan(row.steps_made) else f"{row.steps_made:.0f}"
            accuracies = percent(row.carried, row.carried_std), percent(row.nothing, row.nothing_std)
            lead = in_points(row.lead, row.lead_low, row.lead_high, row.seeds)
            rows.append(tuple(map(Cell, (str(row.shots), row.steps, made, *accuracies, lead))))
        title = f"{names.dataset(dataset)}, {names.method(method)} on {names.targets[TARGET]}"
        blocks.append(Block(Cell(title), header, tuple(rows)))
    own = (
        f"Accuracy on the update after training there. From carried: the plug-in that was trained on the base "
        "(with the shots of the first rows) is where training starts. From nothing: the method's own start. Both with "
        "the same images, batches and schedule, squeezed to the steps; steps are rounded up to whole epochs (Made). "
        f"“{WHOLE}”: the method's whole schedule. Carried at 0 steps is the module reused; from nothing at 0 steps, "
        "the method's initial state.",
        "The lead is in points. It is significant where its interval excludes 0, and never with one seed.",
    )
    return Sheet(
        "Refreshed on the update, or trained from nothing", tuple(blocks), (MEASURE, *own, *foot(selection, names))
    )


def foot(selection: Selection, names: Names) -> tuple[str, ...]:
    rows = selection.rows.get("chains", ())
    missing = [
        f"{names.dataset(row.dataset)}: {names.method(row.variant.method)}, {' / '.join(row.variant.label)}"
        for row in rows
        if not any(record.get("status") == "done" for record in row.records)
    ]
    records = [*selection.main, *(record for row in rows for record in row.records)]
    return (
        INTERVAL,
        *marks_of(labelled(rows, names)),
        *not_run(missing),
        *refused.told(records, chain_of(selection.arch)),
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def draw_chains(tables: Tables, selection: Selection) -> Figure | None:
    """A line a method: accuracy of the module carried through the chain, averaged over the main suite's datasets."""
    if not tables:
        return None
    table, names = tables["chains"].frame, Names(selection)
    table = table[(table["dataset"] == AVERAGE) & (table["seeds"] > 0)]
    chain = chain_of(selection.arch)
    if table.empty:
        return None
    figure, (axes,) = stacked(1)
    for place, (method, line) in enumerate(table.groupby("method", sort=False)):
        if method == ZERO_SHOT:
            style: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 2)), "marker": ""}
        else:
            style = {"color": PALETTE[place % len(PALETTE)], "marker": SIGNS[place % len(SIGNS)], "markersize": 4}
        draw_line(axes, line["place"], line["accuracy"], line["accuracy_std"], names.method(method), style)
    axes.set_xticks(range(len(chain)), [names.targets[role] for role in chain])
    axes.set_ylabel("Top-1 accuracy (%)")
    legend(figure, [axes])
    return figure


def against(axis: str, label: str) -> Callable[[Tables, Selection], Figure | None]:
    return lambda tables, selection: draw_refresh(tables["refresh"].frame, selection, axis, label) if tables else None


def draw_refresh(table: pd.DataFrame, selection: Selection, axis: str, label: str) -> Figure | None:
    """Accuracy on the update against steps or shots, from the carried state (solid) and from nothing (dotted)."""
    names, table = Names(selection), table[(table["axis"] == axis) & (table["seeds"] > 0)]
    if table.empty:
        return None
    sets, methods = (list(dict.fromkeys(table[name])) for name in ("dataset", "method"))
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = table[table["dataset"] == dataset]
        ticks = list(dict.fromkeys(part[axis].astype(str)))
        for place, method in enumerate(methods):
            line = part[part["method"] == method]
            x = pd.Series([ticks.index(tick) for tick in line[axis].astype(str)], index=line.index)
            for start, dash in (("carried", "-"), ("nothing", ":")):
                style = {"color": PALETTE[place % len(PALETTE)], "marker": SIGNS[place], "markersize": 4}
                text = f"{names.method(method)}, from {start}"
                draw_line(axes, x, line[start], line[f"{start}_std"], text, {**style, "linestyle": dash})
        shot = [r for r in selection.main if (r["run"]["dataset"], r["run"]["method"]) == (dataset, ZERO_SHOT)]
        level, _ = means.mean_std(at(shot, TARGET).values())
        if not math.isnan(level):
            axes.axhline(level, color=INK, linestyle=(0, (4, 2)), linewidth=1, label="zero-shot")
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(names.dataset(dataset), fontsize=9.5)
    panels[-1].set_xlabel(label)
    legend(figure, panels, columns=2)
    return figure


def draw_line(axes, x: pd.Series, y: pd.Series, spread: pd.Series, label: str, style: dict) -> None:
    """With a band of one deviation over seeds."""
    axes.plot(x, y, label=label, linewidth=1.3, **style)
    if spread.notna().any():
        low, high = y - spread.fillna(0), y + spread.fillna(0)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


@register("chains")
class Chains(Analysis):
    title, place = "Modules through successive updates", 50
    section = "Retention"
    names = ("chains", "refresh")
    suite = Suite(
        rows,
        {"paper": ("dtd",), "micro": ("micro_textures", "micro_stars")},
        kind="further",
        needs="steps",
        methods=CHAIN_METHODS,
    )
    drawings = (
        Drawing(
            "chains",
            "Each method's module carried through the updates without training, averaged over the datasets",
            draw_chains,
        ),
        Drawing(
            "refresh_steps",
            "Accuracy on the update against training steps there, from the carried module and from nothing",
            against("steps", "Training steps on the update"),
            "refresh",
        ),
        Drawing(
            "refresh_shots",
            "Accuracy on the update against training images there, from the carried module and from nothing",
            against("shots", f"Training images a class on the update ({SHOT_STEPS} steps)"),
            "refresh",
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if "chains" in selection.rows:
            frames = chain_table(selection), refresh_table(selection)
            yield Table("chains", frames[0], CHAIN_KEYS, chain_sheet(frames[0], selection))
            yield Table("refresh", frames[1], REFRESH_KEYS, refresh_sheet(frames[1], selection))
