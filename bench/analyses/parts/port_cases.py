"""The records of ported plug-ins by the way on which a method came to a target, and their comparisons.

Ways are zero-shot, the plug-in as it is (reuse), the plug-in through a port, and the method retrained on the target.
Rows of the suites `maps` and `ports` are one set here: a run that both ask for counts once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from carryover.bench.analyses.parts.retention_numbers import Compared, averaged, compare, options_of
from carryover.bench.plan.option_rows import method_of
from carryover.bench.plan.port_specs import PORT_SPECS, PortSpec, ported_by
from carryover.bench.plan.run_labels import ZERO_SHOT, setting
from carryover.bench.plan.suites import Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, accuracy
from carryover.bench.records.selection import Row, Selection
from carryover.bench.stats import choices

SUITES = ("ports", "maps", "taught")


class Way(NamedTuple):
    """How a method comes to a target: a port and its anchors, or one of the three without a port."""

    port: str
    anchors: str = ""
    number: str = ""  # of anchors; "all" of them
    via: str = ""  # the backbones that the port goes through
    steps: int = 0  # of the refresh after the port


ZERO, REUSED, RETRAINED = Way("zero-shot"), Way("reuse"), Way("retrain")
CARRIED, NOTHING = "carried", "nothing"  # starts of a refresh without a port, as the suite `chains` labels them


def way_of(variant: Variant) -> Way | None:
    """None for a row of something else."""
    if variant.port:
        return Way(variant.port, variant.anchors, str(variant.count or "all"), " ".join(variant.via), variant.refresh)
    retrained = len(variant.path) == 1 and variant.path != ("base",) and not variant.options and not variant.shots
    return RETRAINED if retrained else None


class Cases:
    """All records that the tables of ports read.

    datasets  those that any plug-in was ported on
    averaged  those of them that averages are over: where methods were retrained on any, these; else all
    ways      all on which a plug-in was ported, in the order of their rows
    rows      of the plug-ins that were ported, each once
    """

    def __init__(self, selection: Selection):
        self.selection = selection
        self.targets = [role for role in selection.arch.towers if role != "base"]
        rows: dict[tuple[str, Variant], Row] = {}
        for row in (row for id in SUITES for row in selection.rows.get(id, ())):
            rows.setdefault((row.dataset, row.variant), row)
        ported = {way_of(row.variant) for row in rows.values() if row.variant.port and row.records}
        self.ways = in_order(way for way in ported if way)
        self.rows = [row for row in rows.values() if row.variant.port and way_of(row.variant) in ported]
        self.datasets = list(dict.fromkeys(row.dataset for row in self.rows if row.records))
        here = [r for r in selection.main if r["run"]["dataset"] in self.datasets]
        self.methods = [m for m in reading.ids(here, "method") if learns(selection, m)]
        found = {record["key"]: (REUSED, record) for record in here}
        beside = [*selection.rows.get("retention", ()), *selection.rows.get("chains", ())]
        for row in (*rows.values(), *beside):
            if (way := way_of(row.variant) or started(row.variant, selection)) and row.dataset in self.datasets:
                for record in row.records:
                    found.setdefault(record["key"], (way, record))
        self.of: dict[tuple[str, str, Way], list[Record]] = {}
        for way, record in found.values():
            self.of.setdefault((record["run"]["dataset"], record["run"]["method"], way), []).append(record)

    @cached_property
    def averaged(self) -> list[str]:
        retrained = {dataset for (dataset, _, way), found in self.of.items() if way == RETRAINED and found}
        return [name for name in self.datasets if name in retrained] or self.datasets

    def records(self, dataset: str, method: str, way: Way, target: str) -> list[Record]:
        """Those that were asked about the target. Zero-shot's are the same for every method."""
        found = self.of.get((dataset, ZERO_SHOT, REUSED) if way == ZERO else (dataset, method, way), ())
        return [r for r in found if (path := setting(r["run"], "path")) == ["base"] or path[-1] == target]

    def at(self, dataset: str, method: str, way: Way, target: str) -> dict[int, Record]:
        """By seed, those that are done on the target."""
        found = self.records(dataset, method, way, target)
        return {r["run"]["seed"]: r for r in found if not math.isnan(accuracy(r, target))}

    def refused(self, method: str) -> Iterator[tuple[PortSpec, str]]:
        """The ports that carry nothing of the method, of those that the suites here ask for, and why not."""
        dear = any(not PORT_SPECS[way.port].closed_form for way in self.ways if way.port in PORT_SPECS)
        for port in ported_by():
            if (port.closed_form or dear) and (reason := port.reason(method_of(method))):
                yield port, reason


def started(variant: Variant, selection: Selection) -> Way | None:
    """Rows of the suite `chains` beside a refresh of what was ported: with the call's own shots, carried as it is or
    from nothing. None for others."""
    start, steps, shots = (*variant.label, "", "", "")[:3]
    beside = start in (CARRIED, NOTHING) and steps.isdigit() and shots == str(selection.chosen_by.shots)
    return Way(start, steps=int(steps)) if beside else None


def in_order(ways: Iterable[Way]) -> list[Way]:
    """Ports by their place, anchors as the registry names them, the most anchors last."""
    ports = {port.id: place for place, port in enumerate(ported_by())}
    kinds = ("support", "other", "foreign", "texts")

    def place(way: Way) -> tuple:
        number = math.inf if way.number == "all" else int(way.number)
        return ports.get(way.port, math.inf), way.port, kinds.index(way.anchors), number, way.via, way.steps

    return sorted(ways, key=place)


def learns(selection: Selection, method: str) -> bool:
    known = selection.chosen_by.methods
    return method in known and known.learns(method)


@dataclass(frozen=True)
class Case:
    """One method on all datasets and targets: what needs draws of images is asked here, so that they are kept no
    longer than they are needed."""

    cases: Cases
    method: str

    def at(self, dataset: str, way: Way, target: str) -> dict[int, Record]:
        return self.cases.at(dataset, self.method, way, target)

    def refused(self, dataset: str, target: str) -> bool:
        """Whether the plug-in as it is cannot be plugged in there; of the average: on any of its datasets."""
        sets = self.cases.averaged if dataset == AVERAGE else [dataset]
        plain = [r for name in sets for r in self.cases.records(name, self.method, REUSED, target)]
        return any(target in reading.refused(record) for record in plain)

    def has(self, way: Way) -> bool:
        """Whether it was run on any dataset."""
        return any((dataset, self.method, way) in self.cases.of for dataset in self.cases.datasets)

    def ways(self, dataset: str) -> list[Way]:
        return [ZERO, *(way for at, method, way in self.cases.of if (at, method) == (dataset, self.method))]

    @cached_property
    def drawn(self) -> dict[str, dict[choices.Column, choices.Drawn]]:
        found = {}
        for dataset in self.cases.datasets:
            columns = [
                (record["key"], target)
                for way in self.ways(dataset)
                for target in self.cases.targets
                for record in self.at(dataset, way, target).values()
            ]
            found[dataset] = choices.image_draws(self.cases.selection.predictions, dataset, columns, keep=False)
        return found

    def together(self, dataset: str, ways: Sequence[Way], target: str) -> dict[int, list[Record]]:
        """The ways' records of each seed that all of them have."""
        found = [self.at(dataset, way, target) for way in ways]
        return {seed: [by_seed[seed] for by_seed in found] for seed in sorted(set.intersection(*map(set, found)))}

    def compared(self, target: str, dataset: str, ways: Mapping[str, Way]) -> Compared:
        """``ways``: by the names of the options. The average is over the datasets of ``Cases.averaged``, where the
        method has all of them."""
        asked = list(ways.values())
        if dataset == AVERAGE:
            each = {name: self.together(name, asked, target) for name in self.cases.averaged}
            seeds, options = averaged(target, each, self.drawn)
        else:
            by_seed = self.together(dataset, asked, target)
            seeds, options = len(by_seed), options_of(target, dataset, list(by_seed.values()), self.drawn[dataset])
        return compare(target, dataset, self.method, seeds, options, names=tuple(ways))


def failed(rows: Sequence[Row]) -> list[Row]:
    """Those without a finished run."""
    return [row for row in rows if not any(map(reading.is_done, row.records))]
