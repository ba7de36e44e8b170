"""Seconds that a call has still to go: the cost model of ``--dry-run``, corrected by what its runs have taken so far.

A call shorter than a measurement needs none, so it is made by a process beside it (`bench.preflight.asked`) once the
call has gone on for a while. Before it answers there is no estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from carryover.bench.plan.runs import Run

STAGES = ("features", "fit", "evaluation")
SURE = 10.0  # seconds spent that count like one more unit
BESIDE = 0.07  # seconds of a run that no stage has: lists, files, its record (mean over a micro run)


@dataclass(frozen=True)
class Predicted:
    """What the cost model says of the runs of a call.

    runs    key -> seconds of fit and of evaluation
    images  backbone -> pictures that had to be encoded when the call began, seconds for one
    """

    runs: dict[str, tuple[float, float]]
    images: dict[str, tuple[int, float]]


@dataclass
class Unit:
    """Runs begun together (``bench.engine.units``)."""

    keys: tuple[str, ...]
    begun: float
    left: set[str]
    encoding: float = 0.0  # seconds of it that went into features


@dataclass
class Ratio:
    """Seconds spent and predicted for the same units."""

    spent: float = 0.0
    predicted: float = 0.0
    units: int = 0

    def add(self, spent: float, predicted: float) -> None:
        self.spent, self.predicted, self.units = self.spent + spent, self.predicted + predicted, self.units + 1

    def over(self, before: float) -> float:
        """The ratio, drawn towards ``before`` while it rests on few units and seconds; a mean of logarithms, for the
        first may be wrong by a large factor (a measurement on other hardware)."""
        if not (self.spent > 0 and self.predicted > 0):
            return before
        trust = self.units + self.spent / SURE
        weight = trust / (trust + 1)
        return float((self.spent / self.predicted) ** weight * before ** (1 - weight))


def kind_of(run: Run) -> tuple:
    """Runs whose seconds are corrected by one factor."""
    return run.method, bool(run.port), bool(run.test)


@dataclass
class TimeLeft:
    """Told of each run that begins and ends. ``todo`` are the runs of the call, done by ``jobs`` workers."""

    todo: Iterable[tuple[Run, str]]
    jobs: int
    clock: Callable[[], float] = time.monotonic
    predicted: Predicted | None = None

    _kinds: dict[str, tuple] = field(init=False, default_factory=dict)
    _left: set[str] = field(init=False, default_factory=set)
    _working: dict[str, Unit] = field(init=False, default_factory=dict)
    _finished: list[tuple[Unit, float]] = field(init=False, default_factory=list)
    _encoded: dict[str, tuple[int, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._kinds = {key: kind_of(run) for run, key in self.todo}
        self._left = set(self._kinds)
        self._begun = self._changed = self.clock()

    def begin(self, keys: list[str]) -> None:
        self._changed = self.clock()
        unit = Unit(tuple(keys), self._changed, set(keys))
        self._working.update(dict.fromkeys(keys, unit))

    def done(self, key: str, record: dict[str, Any]) -> None:
        self._changed = self.clock()
        self._left.discard(key)
        made = record.get("encoded") or {}
        for role, more in made.items():
            images, seconds = self._encoded.get(role, (0, 0.0))
            self._encoded[role] = images + more["images"], seconds + more["seconds"]
        unit = self._working.pop(key, None)
        if unit is None:  # done by another process
            return
        unit.left.discard(key)
        unit.encoding += sum(more["seconds"] for more in made.values())
        if not unit.left:
            wall = self._changed - unit.begun
            # A worker's features are made before its units, and told with the first run that reads them.
            self._finished.append((unit, wall - unit.encoding if unit.encoding < wall else wall))

    def seconds(self) -> float | None:
        """On the clock, until the last run is done; None where nothing is predicted yet."""
        return None if self.predicted is None else sum(self.stages().values())

    def stages(self) -> dict[str, float]:
        """The same by stage, of `STAGES`; empty where nothing is predicted yet."""
        if self.predicted is None:
            return {}
        now, ratios, costs = self.clock(), self._ratios(), self._costs()
        work = dict.fromkeys(STAGES, 0.0)
        ahead: dict[int, tuple[Unit, float, float]] = {}  # what is begun: seconds of fit and evaluation
        for key in list(self._left):
            ratio = ratios.get(self._kinds[key], ratios[()])
            fit, evaluation = (ratio * seconds for seconds in costs[key])
            if unit := self._working.get(key):
                _, before, beside = ahead.get(id(unit), (unit, 0.0, 0.0))
                ahead[id(unit)] = unit, before + fit, beside + evaluation
            else:
                work["fit"] += fit
                work["evaluation"] += evaluation
        longest = 0.0
        for unit, fit, evaluation in ahead.values():
            spent = min(now - unit.begun, fit + evaluation)
            longest = max(longest, fit + evaluation - spent)
            work["fit"] += max(0.0, fit - spent)
            work["evaluation"] += evaluation - max(0.0, spent - fit)
        workers = max(1, min(self.jobs, len(self._left)))
        idle = max(0, workers - len(ahead)) * (now - self._changed)  # they encode
        work["features"] = max(0.0, self._features() - idle)
        whole = sum(work.values())
        on_the_clock = max(whole / workers * self._waits(now), longest)
        return {stage: seconds / whole * on_the_clock if whole else 0.0 for stage, seconds in work.items()}

    def _waits(self, now: float) -> float:
        """Seconds of the workers over those at work: they wait for features, for one another, for this process."""
        units = {id(unit): now - unit.begun for unit in self._working.values()}
        work = sum(wall for _, wall in self._finished) + sum(units.values())
        work += sum(spent for _, spent in self._encoded.values())
        passed = self.jobs * (now - self._begun)
        return max(1.0, (passed + SURE) / (work + SURE)) if work else 1.0

    def _features(self) -> float:
        """Seconds of work for the pictures that are still to be encoded."""
        assert self.predicted is not None
        total = 0.0
        for role, (images, predicted) in self.predicted.images.items():
            done, spent = self._encoded.get(role, (0, 0.0))
            total += max(0, images - done) * (spent / done if done else predicted)
        return total

    def _costs(self) -> dict[str, tuple[float, float]]:
        """Of every run; one that could not be measured costs as much as the others do on average."""
        assert self.predicted is not None
        known = self.predicted.runs.values()
        count = max(len(known), 1)
        mean = (sum(fit for fit, _ in known) / count or 1.0, sum(evaluation for _, evaluation in known) / count)
        costs = {key: self.predicted.runs.get(key, mean) for key in self._kinds}
        return {key: (fit, evaluation + BESIDE) for key, (fit, evaluation) in costs.items()}

    def _ratios(self) -> dict[tuple, float]:
        """Spent over predicted, by kind of run: that of all runs where a kind has few, by way of runs of its sort
        (trained, ported, on a shifted set)."""
        costs = self._costs()
        found: dict[tuple, Ratio] = {(): Ratio()}
        for unit, wall in self._finished:
            kind = self._kinds[unit.keys[0]]
            predicted = sum(sum(costs[key]) for key in unit.keys)
            for level in ((), kind[1:], kind):
                found.setdefault(level, Ratio()).add(wall, predicted)
        ratios = {(): found[()].over(1.0)}
        for kind in dict.fromkeys(self._kinds.values()):
            sort = found.get(kind[1:], Ratio()).over(ratios[()])
            ratios[kind] = found.get(kind, Ratio()).over(sort)
        return ratios
