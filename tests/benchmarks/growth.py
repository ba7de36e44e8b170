"""How a training step's cost grows: time against classes, shots and context length, memory against the text budget.

    python -m tests.benchmarks.growth                                    # CPU, fp32: the better part of an hour
    python -m tests.benchmarks.growth --device cuda --precision bf16     # minutes
    python -m tests.benchmarks.growth --axes memory --budgets 4 2 1

ViT-B/16 with random weights, ImageNet's names. Ours on stored features; the published way (text side alone) beside it
up to --published classes. Writes growth.csv and growth.svg to --out. Axes:

    classes  seconds of a step, context as published (16, CoCoOp 4)
    shots    seconds of an epoch on 32 classes, so that one shot is one batch of CoOp's 32
    context  seconds of a step on --context-classes classes
    memory   the most memory of a step at --memory-classes classes, above what the loaded model takes, each in a process
             of its own: resident size on the CPU, allocated memory on a GPU
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks import workload
from benchmarks.published import PublishedStep
from benchmarks.workload import seconds
from carryover.bench.backbones.loading import Backbone
from carryover.bench.host.device import device_name, peak_memory, reset_peak
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import made_up, threads_set
from carryover.bench.render import figures
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods import discover
from carryover.methods.base import METHODS
from carryover.methods.parts.schedule import epoch_steps

ROOT = Path(__file__).resolve().parent.parent.parent
GB = 1 << 30
SHOT_CLASSES = 32
BATCHES = {"coop": (32,), "cocoop": (1, 8), "contcoop": (32,)}
AXES = {"classes": "Classes", "shots": "Shots", "context": "Context tokens", "memory": "Text budget (GB)"}
# Okabe and Ito's palette, a mark each.
LOOKS = {
    ("coop", 32): ("CoOp", "#0072B2", "o"),
    ("cocoop", 1): ("CoCoOp, 1 image", "#E69F00", "s"),
    ("cocoop", 8): ("CoCoOp, 8 images", "#D55E00", "D"),
    ("contcoop", 32): ("ContCoOp", "#009E73", "^"),
}


@dataclass(frozen=True)
class Point:
    """One measurement. ``value`` on its axis (memory: the budget in GB); ``way`` ours or published; ``seconds`` the
    median of ``rounds``; ``bytes`` the peak above the loaded model, ``process_bytes`` that of the whole process."""

    axis: str
    method: str
    batch: int
    way: str
    value: float
    classes: int
    context: int
    rounds: int
    seconds: float
    bytes: int = 0
    process_bytes: int = 0


def step_seconds(
    backbone: Backbone, id: str, batch: int, classes: int, rounds: int, way: str, context: int | None = None
) -> tuple[float, int]:
    """(median seconds of a step's forward and backward, context tokens), after one that is not counted."""
    changes = {} if context is None else {"context_length": context}
    names = workload.imagenet(classes)
    method = workload.make(id, backbone, names, **changes)
    draw = generator("benchmark", "growth", batch)
    x = torch.randn(batch, backbone.dim, generator=draw).to(backbone.device)
    y = torch.arange(batch, device=backbone.device) % classes
    if way == "published":
        plain = PublishedStep(id, method, backbone, names, backbone.text.precision)

    def step() -> None:
        method.zero_grad()
        if way == "published":
            plain.backward_text(x, y)
        else:
            method.loss(x, y).backward()

    step()
    times = [seconds(step, backbone.device) for _ in range(rounds)]
    return statistics.median(times), len(method.context)


def epoch_seconds(backbone: Backbone, id: str, batch: int, classes: int, shots: int) -> tuple[float, int]:
    """(seconds of one epoch of the suite's trainer, context tokens), after an epoch of one shot."""
    method = workload.make(id, backbone, workload.imagenet(classes))
    method.config = replace(method.config, batch=batch, epochs=1, warmup_epochs=0, drop_last=False)

    method.start = lambda support: None

    def epoch(shots: int) -> float:
        support = made_up(backbone.dim, classes, shots, 1, backbone.device)
        assert epoch_steps(method.config, len(support.labels)) == -(-classes * shots // min(batch, classes * shots))
        return seconds(lambda: fit(method, support, generator("benchmark", "growth")), backbone.device)

    epoch(1)
    return epoch(shots), len(method.context)


def measure_times(backbone: Backbone, chosen: argparse.Namespace) -> Iterator[Point]:
    for id in chosen.methods:
        for batch in BATCHES[id]:
            ways = ["ours"] + ["published"] * (batch != 8 and chosen.published > 0)  # 8 images are 8 times one
            for way in ways:
                rounds = chosen.rounds if way == "ours" else 1
                few = [count for count in chosen.classes if way == "ours" or count <= chosen.published]
                for count in few if "classes" in chosen.axes else ():
                    time, n = step_seconds(backbone, id, batch, count, rounds, way)
                    yield Point("classes", id, batch, way, count, count, n, rounds, time)
                count = chosen.context_classes
                affordable = "context" in chosen.axes and (way == "ours" or count <= chosen.published)
                for context in chosen.context if affordable else ():
                    time, n = step_seconds(backbone, id, batch, count, rounds, way, context)
                    yield Point("context", id, batch, way, context, count, n, rounds, time)
            for shots in chosen.shots if "shots" in chosen.axes else ():
                time, n = epoch_seconds(backbone, id, batch, chosen.shot_classes, shots)
                yield Point("shots", id, batch, "ours", shots, chosen.shot_classes, n, 1, time)


# -- memory ------------------------------------------------------------------------------------------------------------


def measure_memory(chosen: argparse.Namespace) -> Iterator[Point]:
    """Each in a process of its own: what one step took must not hide the next one's."""
    for id in chosen.methods:
        for budget in chosen.budgets:
            command = [sys.executable, "-m", "tests.benchmarks.growth", "--one", id, str(BATCHES[id][-1]), str(budget)]
            for name in ("model", "device", "precision", "threads", "memory_classes"):
                command += [f"--{name.replace('_', '-')}", str(getattr(chosen, name))]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"measuring the memory of {id} failed: {done.stderr[-500:]}")
            yield Point(**json.loads(done.stdout.splitlines()[-1]))


def memory_of_one(chosen: argparse.Namespace) -> Point:
    """One step in this process, which has done nothing before."""
    id, batch, budget = chosen.one[0], int(chosen.one[1]), float(chosen.one[2])
    backbone = workload.random_backbone(chosen.model, chosen.device, chosen.precision, int(budget * GB))
    method = workload.make(id, backbone, workload.imagenet(chosen.memory_classes))
    x = torch.randn(batch, backbone.dim, device=backbone.device)
    y = torch.arange(batch, device=backbone.device) % chosen.memory_classes
    reset_peak(backbone.device)
    before = current_bytes(backbone.device)
    time = seconds(lambda: method.loss(x, y).backward(), backbone.device)
    peak = peak_memory(backbone.device)
    classes, context = chosen.memory_classes, len(method.context)
    return Point("memory", id, batch, "ours", budget, classes, context, 1, time, max(0, peak - before), peak)


def current_bytes(device: torch.device) -> int:
    """What is held now; off Linux and without CUDA the peak so far, so that the difference is then a lower bound."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory(device)
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


# -- what is written ---------------------------------------------------------------------------------------------------


def as_csv(points: Sequence[Point], device: str, precision: str) -> str:
    text = io.StringIO()
    fields = [*Point.__dataclass_fields__, "device", "precision"]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for point in points:
        row = {**asdict(point), "device": device, "precision": precision}
        row.update(value=f"{point.value:g}", seconds=f"{point.seconds:.4g}")
        if point.axis != "memory":
            row.update(bytes="", process_bytes="")
        writer.writerow(row)
    return text.getvalue()


def draw(points: Sequence[Point], machine: str) -> Figure:
    """A panel an axis that was measured: dashed and hollow is the published way."""
    axes_used = [axis for axis in AXES if any(point.axis == axis for point in points)]
    with matplotlib.rc_context(figures.STYLE):
        size = (figures.WIDTH_INCHES, 0.9 + 2.3 * len(axes_used))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(axes_used), 1, squeeze=False)[:, 0]
        for axes, axis in zip(panels, axes_used, strict=True):
            draw_panel(axes, axis, [point for point in points if point.axis == axis])
        figure.suptitle(machine, fontsize=7)
        pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
        keys = {label: handle for pair in pairs for handle, label in pair}
        figure.legend(keys.values(), keys, loc="outside lower center", ncols=2, frameon=False, columnspacing=1.1)
    return figure


def draw_panel(axes, axis: str, points: Sequence[Point]) -> None:
    for (id, batch), (label, colour, mark) in LOOKS.items():
        for way in ("ours", "published"):
            own = sorted(
                (p for p in points if (p.method, p.batch, p.way) == (id, batch, way)), key=lambda point: point.value
            )
            if not own:
                continue
            look = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.2}
            if way == "published":
                look.update(linestyle=(0, (4, 2)), markerfacecolor=figures.PAPER)
            heights = [p.bytes / GB if axis == "memory" else p.seconds for p in own]
            axes.plot([p.value for p in own], heights, label=label + " (published way)" * (way == "published"), **look)
    classes, values = points[0].classes, sorted({point.value for point in points})
    what = {
        "classes": "Seconds of a step",
        "shots": f"Seconds of an epoch,\n{classes} classes",
        "context": f"Seconds of a step,\n{classes} classes",
        "memory": f"Peak memory of a step\n(GB), {classes} classes",
    }[axis]
    axes.set_ylabel(what)
    axes.set_xlabel(AXES[axis])
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    if axis == "memory":
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plainly)
        axes.yaxis.set_minor_formatter(plainly)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=figures.INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


def plainly(value: float, place: int | None = None) -> str:
    """Of a logarithmic axis: 1, 2 and 5 times a power of ten."""
    text = f"{value:g}"
    return text if text.replace(".", "").strip("0") in ("1", "2", "5") else ""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--methods", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 30, 100, 300, 1000])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--shot-classes", type=int, default=SHOT_CLASSES)
    parser.add_argument("--context", nargs="+", type=int, default=[1, 4, 8, 16, 32])
    parser.add_argument("--context-classes", type=int, default=100)
    parser.add_argument("--budgets", nargs="+", type=float, default=[4, 2, 1], help="text budgets in GB, for memory")
    parser.add_argument("--memory-classes", type=int, default=1000)
    parser.add_argument("--published", type=int, default=100, help="most classes of the published way; 0: leave it out")
    parser.add_argument("--rounds", type=int, default=3, help="of our steps; the published way and epochs: one")
    parser.add_argument("--model", default=workload.VIT_B16, help="open_clip model, random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--budget", type=float, default=4, help="text budget in GB of what is timed")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # method, batch, budget: `measure_memory`'s processes
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    chosen = arguments(argv)
    discover()
    with threads_set(chosen.threads):
        if chosen.one:
            print(json.dumps(asdict(memory_of_one(chosen))))
            return 0
        points: list[Point] = []

        def keep(found: Iterator[Point]) -> None:
            for point in found:
                points.append(point)
                name = METHODS[point.method].name
                memory = f", {point.bytes / GB:.2f} GB" if point.axis == "memory" else ""
                where = f"{point.axis} {point.value:g}, {name}, batch {point.batch}, {point.way}"
                print(f"{where}: {point.seconds:.3g} s{memory}", flush=True)

        if "memory" in chosen.axes:  # before anything is loaded here: a process starts with its parent's peak
            keep(measure_memory(chosen))
        backbone = workload.random_backbone(chosen.model, chosen.device, chosen.precision, int(chosen.budget * GB))
        machine, device = workload.machine(backbone), device_name(backbone.device)
        print(machine, flush=True)
        keep(measure_times(backbone, chosen))
        write_text(chosen.out / "growth.csv", as_csv(points, device, chosen.precision))
        with TemporaryDirectory() as folder:  # the SVG alone goes to the documentation
            svg, _ = figures.save(draw(points, machine), Path(folder) / "growth")
            write_text(chosen.out / "growth.svg", svg.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
