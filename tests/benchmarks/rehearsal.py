"""A dress rehearsal of Table 2 at its true size: what an hour of one GPU does, without pictures and without weights.

    python -m tests.benchmarks.rehearsal                            # all parts, up to 10 minutes on an H200
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from tabulate import tabulate

from benchmarks import table2, workload
from benchmarks.operations import Sizes
from benchmarks.pace import Clock, Shares, evaluation_seconds, fit_seconds, paced, parted
from benchmarks.table2 import PROMPTS, StandIn
from benchmarks.workload import seconds
from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.engine.options import device_budget
from carryover.bench.features.store import FeatureStore
from carryover.bench.host import out_of_memory, processor
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import threads_set
from carryover.bench.training.resident import allow_graphs
from carryover.methods import PAPER_ORDER
from carryover.methods.base import METHODS

T = TypeVar("T")
PARTS = ("peak", "features", "means", "methods")
HOUR, GIB = 3600.0, 1 << 30
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


class Warnings(logging.Handler):
    """Hands what the suite warns of, a step that is not recorded say, to ``fact``."""

    def __init__(self, fact: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self.fact = fact

    def emit(self, record: logging.LogRecord) -> None:
        self.fact(record.getMessage())


# -- methods -----------------------------------------------------------------------------------------------------------


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
