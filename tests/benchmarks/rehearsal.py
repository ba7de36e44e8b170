"""A dress rehearsal of Table 2 at its true size: what an hour of one GPU does, without pictures and without weights.

    python -m tests.benchmarks.rehearsal --device cuda --precision bf16                  # whole
    python -m tests.benchmarks.rehearsal --device cuda --precision bf16 --fraction 0.02  # 2 % of each fit, scaled
    python -m tests.benchmarks.rehearsal --parts peak features --device cuda             # named parts alone

A ViT-B/16 pair with random weights, made-up features of the true counts: 11 datasets, 1,000 classes for ImageNet, 16
shots, 3 seeds, 8 methods, both backbones, by the suite's own methods, trainer and evaluator at their published
schedules. Left out: decoding pictures, reading and writing files. Parts:

    peak      operations a second of large bf16 and fp32 matrix products
    features  pictures a second of each image tower, from pixels that lie on the device
    methods   seconds of fit and of evaluation, by method and dataset; share of the peak that prompt training reaches

Writes rehearsal.csv and rehearsal.md to --out. With --fraction below 1, so large a share of each fit's steps and of
each evaluation's pictures is measured and scaled up, and every row says how much it was; what ``start`` and ``finish``
of a fit do is measured whole.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tabulate import tabulate

from benchmarks import table2, workload
from benchmarks.operations import Sizes
from benchmarks.table2 import PROMPTS, StandIn
from benchmarks.workload import seconds
from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.evaluator import predict
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import threads_set
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods import PAPER_ORDER
from carryover.methods.base import METHODS, Method, Support
from carryover.methods.parts.schedule import epoch_steps

PARTS = ("peak", "features", "methods")
HOUR = 3600.0
LEAST_STEPS = 3  # measured of a fit, after one that is not


@dataclass(frozen=True)
class Row:
    """One method on one dataset, all seeds. ``fit`` and ``evaluation`` in seconds, both backbones; ``steps`` of one
    seed's fit, of which ``measured`` were run; ``share`` of the measured bf16 peak that training reached, of the
    operations it needs (NaN where not counted)."""

    dataset: str
    method: str
    seeds: int
    classes: int
    steps: int
    measured: int
    fit: float
    evaluation: float
    share: float


@dataclass
class Clock:
    """Seconds of one thing after another, on a device."""

    device: torch.device

    def __call__(self, run: Callable[[], object]) -> float:
        return seconds(run, self.device)


# -- methods -----------------------------------------------------------------------------------------------------------


def train(methods: Sequence[Method], support: Support, dataset: str, seeds: Sequence[int]) -> None:
    """The one place that trains: all seeds of one method on one dataset. The suite's trainer, one after the other."""
    for method, seed in zip(methods, seeds, strict=True):
        fit(method, support, generator("fit", dataset, type(method).__name__, seed))


def fit_seconds(
    methods: Sequence[Method], support: Support, one: StandIn, seeds: Sequence[int], fraction: float, clock: Clock
) -> tuple[float, int, int]:
    """(seconds of all seeds, steps of one fit, steps measured)."""
    config, count = methods[0].config, len(support.labels)
    total = table2.steps_of(config, count)
    run = min(total, max(LEAST_STEPS, round(fraction * total)))
    learns = any(p.requires_grad for p in methods[0].parameters())
    if run == total or not learns:
        return clock(lambda: train(methods, support, one.id, seeds)), total, total
    spent = clock(lambda: [method.start(support) for method in methods])
    for method in methods:
        method.start = method.finish = lambda support: None
    train(methods, part(methods, support, 1), one.id, seeds)  # the first step is slower: memory, kernels
    few = part(methods, support, run)
    spent += clock(lambda: train(methods, few, one.id, seeds)) * total / run
    for method in methods:
        del method.start, method.finish
        method.config = config
    return spent + clock(lambda: [method.finish(support) for method in methods]), total, run


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
    method: Method, backbone: Backbone, one: StandIn, tests: torch.Tensor, fraction: float, clock
) -> float:
    """One seed on one backbone. A part is measured at two sizes, since some of the work is done once."""

    def run(count: int) -> float:
        return clock(lambda: predict(method, backbone, one.classes, tests[:count]))

    some = max(1, round(fraction * one.tests))
    if 2 * some >= one.tests:
        return run(one.tests)
    run(1)
    once, twice = run(some), run(2 * some)
    return once + max(0.0, twice - once) / some * (one.tests - some)


def measure_methods(
    towers: dict[str, Backbone], chosen: argparse.Namespace, peak: float, say: Callable[[str], None]
) -> list[Row]:
    base, rows = towers["base"], []
    clock, sizes = Clock(base.device), Sizes.of(base)
    for one in table2.stand_ins(chosen.datasets, chosen.most_classes):
        support, tests = one.examples(base.dim, base.device), one.test_features(base.dim, base.device)
        for id in chosen.methods:
            config = table2.config_of(id, one.id)
            # Made and bound outside the clock: the zero-shot classifier, kept by the backbone, serves all methods.
            made = [workload.make(id, base, one.classes, seed, **asdict(config)) for seed in chosen.seeds]
            bind = clock(lambda made=made, one=one: [method.bind(base, one.classes) for method in made])
            spent, steps, run = fit_seconds(made, support, one, chosen.seeds, chosen.fraction, clock)
            work = table2.training_work(sizes, id, one, config).total * steps * len(made) if id in PROMPTS else 0.0
            evaluated = sum(
                evaluation_seconds(made[0], tower, one, tests, chosen.fraction, clock) for tower in towers.values()
            )
            share = work / spent / peak if work and peak else float("nan")
            row = (one.id, id, len(made), len(one.classes), steps, run, bind + spent, evaluated * len(made), share)
            rows.append(Row(*row))
            scaled = f" (of {run} of {steps} steps)" if run < steps else ""
            say(f"{one.id}, {id}: fit {bind + spent:.3g} s{scaled}, evaluation {evaluated * len(made):.3g} s")
            del made
    return rows


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


def as_markdown(head: str, facts: Sequence[str], rows: Sequence[Row], peak: float) -> str:
    parts = [head, "\n".join(f"- {fact}" for fact in facts)] if facts else [head]
    if rows:
        ids, methods = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("dataset", "method"))
        cell = {(row.dataset, row.method): row.fit + row.evaluation for row in rows}
        names = [METHODS[id].name for id in methods]
        table = [[id, *(cell[id, m] for m in methods), sum(cell[id, m] for m in methods)] for id in ids]
        table.append(["sum", *(sum(column) for column in list(zip(*table, strict=True))[1:])])
        total = table[-1][-1]
        parts.append(f"Seconds of fit and evaluation, {rows[0].seeds} seeds:")
        parts.append(tabulate(table, ["dataset", *names, "sum"], tablefmt="pipe", floatfmt=".1f"))
        scaled = sum(row.measured < row.steps for row in rows)
        note = f"; {scaled} of {len(rows)} fits were measured in part and scaled" if scaled else "; measured whole"
        parts.append(f"**{total:.0f} s = {total / HOUR:.2f} hours of this device**{note}.")
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
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of each fit's steps and each evaluation's pictures"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--budget", type=float, default=4.0, help="text budget in GB")
    parser.add_argument("--models", nargs=2, default=[workload.VIT_B16, "EVA02-B-16"], metavar=("BASE", "NEW"))
    parser.add_argument("--image-batch", type=int, default=128)
    parser.add_argument("--peak-size", type=int, help="rows of the matrices; default 8192, on the CPU 1024")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds for each measurement of the device")
    parser.add_argument("--most-classes", type=int, help="a trial with no more classes a dataset than this")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=Path("results/rehearsal"))
    chosen = parser.parse_args(argv)
    if not 0 < chosen.fraction <= 1:
        parser.error(f"--fraction is above 0 and at most 1; found {chosen.fraction}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    chosen = arguments(argv)
    with threads_set(chosen.threads):
        pair = zip(("base", "new"), chosen.models, strict=True)
        budget = int(chosen.budget * (1 << 30))
        towers = {
            role: workload.random_backbone(model, chosen.device, chosen.precision, budget, seed)
            for seed, (role, model) in enumerate(pair)
        }
        device = towers["base"].device
        trial = f"; TRIAL with at most {chosen.most_classes} classes" if chosen.most_classes else ""
        head = f"{workload.machine(towers['base'])}, fraction {chosen.fraction:g}{trial}"
        facts, rows, peak = [], [], 0.0

        def say(line: str) -> None:
            print(line, flush=True)

        def fact(line: str) -> None:
            facts.append(line)
            say(line)

        say(head)
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
        if "methods" in chosen.parts:
            rows = measure_methods(towers, chosen, peak, say)
            write_text(chosen.out / "rehearsal.csv", as_csv(rows))
        report = as_markdown(head, facts, rows, peak)
        write_text(chosen.out / "rehearsal.md", report)
        print(f"\n{report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
