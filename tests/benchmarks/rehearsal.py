"""A dress rehearsal of Table 2 at its true size: what an hour of one GPU does, without pictures and without weights.

    python -m tests.benchmarks.rehearsal                            # all parts, within 9 minutes on an H200
    python -m tests.benchmarks.rehearsal --minutes 60               # more of each fit is measured, less is scaled
    python -m tests.benchmarks.rehearsal --parts peak features      # named parts alone

A ViT-B/16 pair with random weights, made-up features of the true counts: 11 datasets, 1,000 classes for ImageNet, 16
shots, 3 seeds, 8 methods, both backbones, by the suite's own methods, trainer (seeds side by side, as the suite trains
them) and evaluator at their published schedules. Left out: decoding pictures, reading and writing files. Parts:

    peak      operations a second of large bf16 and fp32 matrix products
    features  pictures a second of each image tower, from pixels that lie on the device
    means     a step with and without CUDA graphs, and with a small and a large text budget
    methods   seconds of fit and of evaluation, by method and dataset; share of the peak that prompt training reaches

Writes rehearsal.csv and rehearsal.md to --out, anew after every row. A fit or an evaluation takes no longer than its
part of --minutes, larger datasets first, and is scaled up by the steps and pictures that were measured beyond the first
few; every row says how many these were. What ``start`` and ``finish`` of a fit do is measured whole.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from tabulate import tabulate

from benchmarks import table2, workload
from benchmarks.operations import Sizes
from benchmarks.table2 import PROMPTS, StandIn
from benchmarks.workload import seconds
from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.engine.evaluator import predict
from carryover.bench.engine.one_run import STEP_TOKENS, tokens_a_step
from carryover.bench.engine.options import device_budget
from carryover.bench.features.store import FeatureStore
from carryover.bench.host import out_of_memory, processor
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import threads_set
from carryover.bench.training.generators import generator
from carryover.bench.training.resident import allow_graphs
from carryover.bench.training.trainer import FitError, fit_together
from carryover.methods import PAPER_ORDER
from carryover.methods.base import METHODS, Method, Support
from carryover.methods.parts.schedule import epoch_steps

T = TypeVar("T")
PARTS = ("peak", "features", "means", "methods")
HOUR, GIB = 3600.0, 1 << 30
FIRST = {"cuda": 8, "cpu": 1}  # steps of a fit that are slower: kernels are loaded, a graph is recorded
LONGEST = {"cuda": 40, "cpu": 4}  # steps between two looks at the clock
MEANS = (("coop", "contcoop", "cocoop"), ("dtd", "caltech101", "imagenet"))
SMALL_BUDGET = 4  # GB, what a CPU has


@dataclass(frozen=True)
class Row:
    """One method on one dataset, all seeds. ``fit`` and ``evaluation`` in seconds, both backbones; ``steps`` of one
    seed's fit, of which ``measured`` were run; ``pictures`` of the test set, of which ``asked`` were; ``share`` of the
    measured bf16 peak that training reached, of the operations it needs (NaN where not counted)."""

    dataset: str
    method: str
    seeds: int
    classes: int
    steps: int
    measured: int
    pictures: int
    asked: int
    fit: float
    evaluation: float
    share: float


@dataclass
class Clock:
    """Seconds of one thing after another, on a device."""

    device: torch.device

    def __call__(self, run: Callable[[], object]) -> float:
        return seconds(run, self.device)

    def now(self) -> float:
        workload.wait(self.device)
        return time.perf_counter()


class Warnings(logging.Handler):
    """Hands what the suite warns of, a step that is not recorded say, to ``fact``."""

    def __init__(self, fact: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self.fact = fact

    def emit(self, record: logging.LogRecord) -> None:
        self.fact(record.getMessage())


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


# -- methods -----------------------------------------------------------------------------------------------------------


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


def measured_cell(
    towers: dict[str, Backbone], one: StandIn, id: str, seeds: Sequence[int], allowed: float, peak: float
) -> Row:
    base, config = towers["base"], table2.config_of(id, one.id)
    clock, sizes = Clock(base.device), Sizes.of(base)
    support, tests = one.examples(base.dim, base.device), one.test_features(base.dim, base.device)
    # Made and bound outside the clock: the zero-shot classifier, kept by the backbone, serves all methods.
    made = [workload.make(id, base, one.classes, seed, **asdict(config)) for seed in seeds]
    bind = clock(lambda: [method.bind(base, one.classes) for method in made])
    spent, steps, run = fit_seconds(made, base, support, one, allowed / 2, clock)
    work = table2.training_work(sizes, id, one, config).total * steps * len(made) if id in PROMPTS else 0.0
    found = [evaluation_seconds(made[0], tower, one, tests, allowed / 4, clock) for tower in towers.values()]
    evaluated, seen = sum(took for took, _ in found) * len(made), min(count for _, count in found)
    share = work / spent / peak if work and peak else float("nan")
    counts = len(made), len(one.classes), steps, run, one.tests, seen
    return Row(one.id, id, *counts, bind + spent, evaluated, share)


def attempted(towers: dict[str, Backbone], name: str, run: Callable[[], T], fact: Callable[[str], None]) -> T | None:
    """What ``run`` gives, with half the text budget again and again where memory runs out, as in the suite; None and a
    fact where it fails otherwise, so that the rest is measured."""
    full = towers["base"].text.budget
    for budget in out_of_memory.budgets(full):
        for tower in towers.values():
            tower.text.budget = budget
        if budget < full:
            out_of_memory.let_go(towers["base"].device)
            fact(f"{name}: out of memory; again with a text budget of {budget / GIB:.3g} GB")
        try:
            return run()
        except Exception as error:
            if not out_of_memory.ran_out(error):
                fact(f"{name}: FAILED, {type(error).__name__}: {first_line(error)}")
                return None
        finally:
            for tower in towers.values():
                tower.text.budget = full
    fact(f"{name}: FAILED, out of memory")
    return None


def measure_methods(
    towers: dict[str, Backbone],
    chosen: argparse.Namespace,
    peak: float,
    keep: Callable[[list[Row], str], None],
    fact: Callable[[str], None],
) -> list[Row]:
    rows: list[Row] = []
    sets = sorted(table2.stand_ins(chosen.datasets, chosen.most_classes), key=lambda one: -len(one.classes))
    shares = Shares(chosen.end, sum(weight(one) for one in sets) * len(chosen.methods))
    for one in sets:
        for id in chosen.methods:
            allowed, name = shares.of(weight(one)), f"{one.id}, {id}"
            cell = partial(measured_cell, towers, one, id, chosen.seeds, allowed, peak)
            row = attempted(towers, name, cell, fact)
            if row is None:
                continue
            rows.append(row)
            scaled = f" (of {row.measured} of {row.steps} steps)" if row.measured < row.steps else ""
            pictures = f" (of {row.asked} of {row.pictures} pictures)" if row.asked < row.pictures else ""
            keep(rows, f"{name}: fit {row.fit:.3g} s{scaled}, evaluation {row.evaluation:.3g} s{pictures}")
    return rows


def weight(one: StandIn) -> float:
    return len(one.classes) ** 0.5


def step_milliseconds(base: Backbone, id: str, one: StandIn, seeds: Sequence[int], patience: float) -> float:
    """Of one step of all seeds side by side, beyond the first steps."""
    config, clock = table2.config_of(id, one.id), Clock(base.device)
    methods = [workload.make(id, base, one.classes, seed, **asdict(config)) for seed in seeds]
    support = one.examples(base.dim, base.device)
    parts = parted(methods, base, one.support)
    return 1000 * sum(paced(some, support, one, patience / len(parts), clock.now).step for some in parts)


def measure_means(
    towers: dict[str, Backbone],
    chosen: argparse.Namespace,
    keep: Callable[[list[list], str], None],
    fact: Callable[[str], None],
) -> list[list]:
    """[dataset, method, ms with graphs and the large budget, without graphs, with graphs and the small budget]"""
    base, found = towers["base"], []
    large = base.text.budget
    for one in table2.stand_ins([id for id in MEANS[1] if id in (chosen.datasets or MEANS[1])], chosen.most_classes):
        for id in (id for id in MEANS[0] if id in chosen.methods):
            row: list = [one.id, id]
            for graphs, budget in ((True, large), (False, large), (True, min(large, SMALL_BUDGET * GIB))):
                allow_graphs(graphs)
                for tower in towers.values():
                    tower.text.budget = budget
                try:
                    step = partial(step_milliseconds, base, id, one, chosen.seeds, chosen.patience / 5)
                    took = attempted(towers, f"a step of {id} on {one.id}", step, fact)
                    row.append(float("nan") if took is None else took)
                finally:
                    allow_graphs(chosen.cuda_graphs == "auto")
                    for tower in towers.values():
                        tower.text.budget = large
            found.append(row)
            said = f"{row[2]:.2f} ms; without graphs {row[3]:.2f}; small budget {row[4]:.2f}"
            keep(found, f"a step of {id} on {one.id}: {said}")
    return found


# -- device ------------------------------------------------------------------------------------------------------------


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int, patience: float) -> float:
    """Operations a second of square matrix products; the quickest of what fits into ``patience`` seconds."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, begin = float("inf"), time.perf_counter()
    seconds(lambda: a @ b, device)
    while time.perf_counter() - begin < patience or best == float("inf"):
        best = min(best, seconds(lambda: [a @ b for _ in range(10)], device) / 10)
    return 2 * size**3 / best


def image_rate(backbone: Backbone, batch: int, patience: float) -> float:
    """Pictures a second through the feature store's own forward pass, from pixels on the device."""
    pixels, _ = workload.pictures(backbone, batch, 1)
    with TemporaryDirectory() as cache:
        store = FeatureStore(cache, backbone, backbone.text.precision, batch)
        store.forward(pixels)
        rounds, spent = 0, 0.0
        while spent < patience:
            spent, rounds = spent + seconds(lambda: store.forward(pixels), backbone.device), rounds + 1
    return rounds * batch / spent


# -- report ------------------------------------------------------------------------------------------------------------


def as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        known = {k: v for k, v in asdict(row).items() if v == v}  # NaN: an empty cell
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in known.items()})
    return text.getvalue()


def as_markdown(
    head: str, facts: Sequence[str], rows: Sequence[Row], peak: float, means: Sequence[Sequence] = ()
) -> str:
    parts = [head, "\n".join(f"- {fact}" for fact in facts)] if facts else [head]
    if means:
        names = ("dataset", "method", "graphs, large budget", "no graphs", f"graphs, {SMALL_BUDGET} GB")
        parts.append("Milliseconds of a training step, all seeds side by side:")
        parts.append(tabulate(means, names, tablefmt="pipe", floatfmt=".2f"))
    if rows:
        ids, methods = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("dataset", "method"))
        cell = {(row.dataset, row.method): row.fit + row.evaluation for row in rows}
        names = [METHODS[id].name for id in methods]
        ids = [id for id in ids if all((id, m) in cell for m in methods)]  # whole ones
        table = [[id, *(cell[id, m] for m in methods), sum(cell[id, m] for m in methods)] for id in ids]
        if not table:
            return "\n\n".join(parts) + "\n"
        table.append(["sum", *(sum(column) for column in list(zip(*table, strict=True))[1:])])
        total = table[-1][-1]
        parts.append(f"Seconds of fit and evaluation, {rows[0].seeds} seeds:")
        parts.append(tabulate(table, ["dataset", *names, "sum"], tablefmt="pipe", floatfmt=".1f"))
        scaled = sum(row.measured < row.steps for row in rows)
        seen = sum(row.asked < row.pictures for row in rows)
        note = f"; {scaled} of {len(rows)} fits and {seen} evaluations were measured in part and scaled"
        note = note if scaled + seen else "; measured whole"
        parts.append(f"**{total:.0f} s = {total / HOUR:.2f} hours of this device** for {len(ids)} datasets{note}.")
        shares = [row for row in rows if row.share == row.share]
        if shares and peak:
            done = sum(row.share * row.fit for row in shares) / sum(row.fit for row in shares)
            each = ", ".join(f"{row.method} on {row.dataset} {row.share:.1%}" for row in shares)
            parts.append(f"Share of the bf16 peak that prompt training reaches: {done:.1%} in all ({each}).")
    return "\n\n".join(parts) + "\n"


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rehearsal", description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--datasets", nargs="+", choices=list(table2.datasets.default("paper")), default=[])
    parser.add_argument("--methods", nargs="+", choices=PAPER_ORDER, default=list(PAPER_ORDER))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, table2.SEEDS + 1)))
    parser.add_argument("--minutes", type=float, default=7.5, help="for all; what must be done takes two on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--cuda-graphs", choices=("auto", "off"), default="auto", help="off: but for the part means")
    parser.add_argument("--budget", type=float, help="text budget in GB (default: the suite's own)")
    parser.add_argument("--models", nargs=2, default=[workload.VIT_B16, "EVA02-B-16"], metavar=("BASE", "NEW"))
    parser.add_argument("--image-batch", type=int, default=128)
    parser.add_argument("--peak-size", type=int, help="rows of the matrices; default 8192, on the CPU 1024")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds for each measurement of the device")
    parser.add_argument("--most-classes", type=int, help="a trial with no more classes a dataset than this")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=Path("results/rehearsal"))
    chosen = parser.parse_args(argv)
    if chosen.minutes < 0:
        parser.error(f"--minutes is 0 or more; found {chosen.minutes:g}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    chosen = arguments(argv)
    chosen.end = time.perf_counter() + 60 * chosen.minutes
    allow_graphs(chosen.cuda_graphs == "auto")
    with threads_set(chosen.threads):
        pair = zip(("base", "new"), chosen.models, strict=True)
        towers = {
            role: workload.random_backbone(model, chosen.device, chosen.precision, 0, seed)
            for seed, (role, model) in enumerate(pair)
        }
        device = towers["base"].device
        budget = int(chosen.budget * GIB) if chosen.budget else device_budget(device.type)
        for tower in towers.values():
            tower.text.budget = budget
        head = workload.machine(towers["base"])
        if device.type == "cuda":
            memory = torch.cuda.mem_get_info(device)[1] / GIB
            head += f", CUDA {torch.version.cuda}, card of {memory:.0f} GB, CUDA graphs {chosen.cuda_graphs}"
        head += f", text budget {budget / GIB:.3g} GB; host {processor.name()}, {cores()} cores"
        head += f"; TRIAL with at most {chosen.most_classes} classes" if chosen.most_classes else ""
        facts, rows, means, peak = [], [], [], 0.0

        def keep(line: str) -> None:
            write_text(chosen.out / "rehearsal.md", as_markdown(head, facts, rows, peak, means))
            if rows:
                write_text(chosen.out / "rehearsal.csv", as_csv(rows))
            print(line, flush=True)

        def fact(line: str) -> None:
            facts.append(line)
            keep(line)

        def row(found: list[Row], line: str) -> None:
            rows[:] = found
            keep(line)

        def mean(found: list[list], line: str) -> None:
            means[:] = found
            keep(line)

        keep(head)
        logging.getLogger().addHandler(warnings := Warnings(fact))
        if "peak" in chosen.parts:
            size = chosen.peak_size or (8192 if device.type == "cuda" else 1024)
            for dtype in (torch.float32, torch.bfloat16):  # bf16 last: the share is of it
                peak = matmul_peak(device, dtype, size, chosen.patience)
                fact(f"{str(dtype)[6:]} matrix product of {size} rows: {peak / 1e12:.4g} Top/s")
        if "features" in chosen.parts:
            passes = table2.pictures()
            for role, tower in towers.items():
                rate = image_rate(tower, chosen.image_batch, chosen.patience)
                whole = (
                    f"{passes[role]:,} pictures and views of Table 2 in {passes[role] / rate:.0f} s without decoding"
                )
                fact(f"{tower.label}: {rate:.4g} pictures a second, batch {chosen.image_batch}; {whole}")
        if "means" in chosen.parts:
            measure_means(towers, chosen, mean, fact)
        if "methods" in chosen.parts:
            measure_methods(towers, chosen, peak, row, fact)
        logging.getLogger().removeHandler(warnings)
        print(f"\n{as_markdown(head, facts, rows, peak, means)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
