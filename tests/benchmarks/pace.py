"""Fits and evaluations that are measured for as long as they are allowed to take, and scaled up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from benchmarks import table2, workload
from benchmarks.table2 import StandIn
from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.evaluator import predict
from carryover.bench.engine.one_run import STEP_TOKENS, tokens_a_step
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import FitError, fit_together
from carryover.methods.base import Method, Support
from carryover.methods.parts.schedule import epoch_steps

FIRST = {"cuda": 8, "cpu": 1}  # steps of a fit that are slower: kernels are loaded, a graph is recorded
LONGEST = {"cuda": 40, "cpu": 4}  # steps between two looks at the clock


@dataclass
class Clock:
    """Seconds of one thing after another, on a device."""

    device: torch.device

    def __call__(self, run: Callable[[], object]) -> float:
        return workload.seconds(run, self.device)

    def now(self) -> float:
        workload.wait(self.device)
        return time.perf_counter()


@dataclass
class Shares:
    """The time until ``end`` parted among what is still to be measured, by its weight; what one leaves, the next
    have."""

    end: float  # of time.perf_counter()
    weight: float

    def of(self, weight: float) -> float:
        """Seconds for something of this weight, which is then no longer to be measured."""
        share = max(0.0, self.end - time.perf_counter()) * weight / max(self.weight, weight)
        self.weight -= weight
        return share


class Enough(Exception):
    """Ends a fit between two epochs."""


@dataclass
class Pace:
    """A fit that is ended when it took ``allowed`` seconds: (steps, seconds) at its begin and at each epoch's end."""

    allowed: float
    first: int  # steps at its begin that are slower: kernels are loaded, a graph is recorded
    now: Callable[[], float]
    marks: list[tuple[int, float]] = field(default_factory=list)
    begun: float = 0.0

    def begin(self) -> None:
        self.begun = self.now()
        self.marks.append((0, 0.0))

    def mark(self, steps: int) -> None:
        self.marks.append((self.steps + steps, self.now() - self.begun))
        if len(self.later) > 1 and self.marks[-1][1] > self.allowed:
            raise Enough

    @property
    def later(self) -> list[tuple[int, float]]:
        """The marks of which the first is behind the first steps."""
        return [mark for mark in self.marks[1:] if mark[0] >= self.first]

    @property
    def steps(self) -> int:
        return self.marks[-1][0]

    @property
    def step(self) -> float:
        """Seconds of one step beyond the first; of all where there are no others."""
        (before, early), (after, late) = self.later[0], self.marks[-1]
        return (late - early) / (after - before) if after > before else late / after

    def whole(self, total: int) -> float:
        """Seconds of so many steps."""
        return self.marks[-1][1] + self.step * max(0, total - self.steps)


def parted(methods: Sequence[Method], backbone: Backbone, count: int) -> list[Sequence[Method]]:
    """All seeds of one method as the suite trains them: side by side as far as a step may have so many tokens."""
    first = methods[0]
    room = STEP_TOKENS[backbone.device.type] // max(1, tokens_a_step(first, backbone, min(first.config.batch, count)))
    most = int(max(1, room)) if type(first).alike(first.config) is not None else 1
    return [methods[start : start + most] for start in range(0, len(methods), most)]


def train(methods: Sequence[Method], support: Support, dataset: str) -> None:
    """The one place that trains: by the suite's trainer, side by side."""
    draws = [generator("fit", dataset, type(method).__name__, number) for number, method in enumerate(methods)]
    for outcome in fit_together(methods, [support] * len(methods), draws):
        if isinstance(outcome, FitError):
            raise outcome


def paced(methods: Sequence[Method], support: Support, one: StandIn, allowed: float, now: Callable[[], float]) -> Pace:
    """A fit of the methods without their ``start`` and ``finish``, by its own epochs, or shorter ones where these are
    long; ended when it took ``allowed`` seconds."""
    config, count = methods[0].config, len(support.labels)
    device = support.labels.device.type
    total, an_epoch = table2.steps_of(config, count), epoch_steps(config, count)
    pace = Pace(allowed, min(total, FIRST.get(device, 1)), now)
    places, calls = sum(len(method.candidates()) for method in methods), [0]

    def end_epoch(own: Callable[[Support], None], support: Support) -> None:
        own(support)
        calls[0] += 1
        if pace.marks and calls[0] % places == 0:
            pace.mark(an_epoch)

    for method in methods:
        method.start = method.finish = lambda support: None
        method.end_epoch = partial(end_epoch, method.end_epoch)
    try:
        train(methods, part(methods, support, 1), one.id)  # libraries
        calls[0] = 0
        if an_epoch > LONGEST.get(device, 4):
            an_epoch = LONGEST.get(device, 4)
            support = part(methods, support, an_epoch)
            for method in methods:
                method.config = replace(method.config, epochs=-(-total // an_epoch))
        else:
            for method in methods:
                method.config = config
        pace.begin()
        with suppress(Enough):
            train(methods, support, one.id)
    finally:
        for method in methods:
            del method.start, method.finish, method.end_epoch
            method.config = config
    return pace


def fit_seconds(
    methods: Sequence[Method], backbone: Backbone, support: Support, one: StandIn, allowed: float, clock: Clock
) -> tuple[float, int, int]:
    """(seconds of all seeds, steps of one fit, steps measured), in about ``allowed`` seconds."""
    total = table2.steps_of(methods[0].config, len(support.labels))
    if not any(p.requires_grad for p in methods[0].parameters()):
        return clock(lambda: train(methods, support, one.id)), 0, 0
    if not total:  # all is in ``start``: one seed, as often as there are seeds
        return clock(lambda: train(methods[:1], support, one.id)) * len(methods), 0, 0
    spent, measured = clock(lambda: [method.start(support) for method in methods]), total
    for some in parted(methods, backbone, len(support.labels)):
        pace = paced(some, support, one, allowed * len(some) / len(methods), clock.now)
        spent, measured = spent + pace.whole(total), min(measured, pace.steps)
    return spent + clock(lambda: [method.finish(support) for method in methods]), total, measured


def part(methods: Sequence[Method], support: Support, steps: int) -> Support:
    """Support for one epoch of so many steps at the method's batch; the methods' schedules are set to that."""
    count = len(support.labels)
    batch = min(methods[0].config.batch, count)
    for method in methods:
        method.config = replace(method.config, batch=batch, epochs=1, steps=0, warmup_epochs=0)
    chosen = torch.arange(batch * steps, device=support.labels.device) % count
    assert epoch_steps(methods[0].config, len(chosen)) == steps
    views = support.features[chosen].expand(len(support.views), -1, -1)
    return replace(support, features=support.features[chosen], labels=support.labels[chosen], views=views)


def evaluation_seconds(
    method: Method, backbone: Backbone, one: StandIn, tests: torch.Tensor, allowed: float, clock: Clock
) -> tuple[float, int]:
    """One seed on one backbone: seconds, and pictures measured. Of ever more pictures, as ``allowed`` lets; scaled by
    the last two, since some of the work is done once."""

    def run(count: int) -> float:
        return clock(lambda: predict(method, backbone, one.classes, tests[:count]))

    some = min(32, one.tests)
    run(some)
    spent, last = run(some), 0.0
    while some < one.tests and 4 * spent < allowed:
        some, last, before = min(4 * some, one.tests), spent, some
        spent = run(some)
        allowed -= spent
    if some == one.tests:
        return spent, some
    if not last:
        before, last = some, spent
        some *= 2
        spent = run(some)
    return spent + max(0.0, spent - last) / (some - before) * (one.tests - some), some
