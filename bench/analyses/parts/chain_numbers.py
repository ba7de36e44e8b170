"""The numbers of `bench.analyses.chains`, and which runs they need: modules carried through successive updates, and
refreshed on the update beside trained from nothing there. Accuracies in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd

from carryover.bench.analyses.parts.retention_numbers import options_of, steps_made
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.run_labels import WHOLE_SCHEDULE, ZERO_SHOT
from carryover.bench.plan.suites import Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, accuracy
from carryover.bench.records.selection import Row, Selection
from carryover.bench.stats import choices, means

ROLES = ("base", "new", "second")  # that update one another in turn, as far as an arch has them
STEPS = (5, 10, 20, 40, 80)  # of a refresh, and of its control from nothing; beside them 0 and the whole schedule
CHAIN_STEPS = 20  # of the refresh on each backbone of the chain
SHOTS = (1, 2, 4, 8)  # beside the call's own
SHOT_STEPS = 80  # at every number of shots, carried or from nothing

CHAIN_KEYS = ("dataset", "method", "way", "backbone")
CHAIN = (*CHAIN_KEYS, "place", "seeds", "accuracy", "accuracy_std")
CARRIED, REFRESHED, RETRAINED = "carried", "refreshed", "retrained"
REFRESH_KEYS = ("dataset", "method", "axis", "shots", "steps")
REFRESH = (
    *REFRESH_KEYS, "seeds", "steps_made", "carried", "carried_std", "nothing", "nothing_std", "lead", "lead_low",
    "lead_high",
)  # fmt: skip
TARGET = "new"  # the update that a refresh is on


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
