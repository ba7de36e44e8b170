"""How much faster a training step is than the published one: both in one run, alternating, with the same numerics.

    python -m tests.benchmarks.ratios                      # from the checkout: about ten minutes on two cores
    python -m tests.benchmarks.ratios --pairs coop-text contcoop --rounds 5 --device cuda --out ratios.md

Prints a Markdown table: medians, their ratio, and the largest relative difference of loss and gradients. A pair whose
difference is above 1e-4 in fp32 ends the run: a ratio of unlike things says nothing. ViT-B/16 with random weights,
Caltech101's 100 class names, 16 context tokens, forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from references import relative
from tabulate import tabulate
from torch import Tensor

from benchmarks import workload
from benchmarks.published import PublishedStep
from carryover.bench.backbones.loading import Backbone
from carryover.bench.host.files import write_text
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import threads_set
from carryover.methods.base import Classes

TOLERANCE = 1e-4
CONTEXT = 16


@dataclass(frozen=True)
class Case:
    """What one pair compares. ``images``: of the batch; ``pixels``: the image encoder is in the published step, ours
    reads stored features; ``rounds``: how often each way is timed."""

    method: str
    images: int
    pixels: bool
    rounds: int
    text: str


CASES = {
    "coop-text": Case("coop", 32, False, 3, "CoOp, text side alone"),
    "kgcoop": Case("kgcoop", 32, False, 3, "KgCoOp, text side alone"),
    "contcoop": Case("contcoop", 32, False, 3, "ContCoOp, text side alone"),
    "cocoop": Case("cocoop", 8, False, 1, "CoCoOp, 8 images, text side alone"),
    "coop-step": Case("coop", 32, True, 3, "CoOp, whole step, 32 images, image encoder in the loop"),
}


class Pair:
    """One case, both ways, on the same method object, features and labels."""

    def __init__(self, case: Case, backbone: Backbone, classes: Classes, context: int = CONTEXT):
        self.case, self.device = case, backbone.device
        precision = backbone.text.precision
        self.method = workload.make(case.method, backbone, classes, context_length=context)
        self.step = PublishedStep(case.method, self.method, backbone, classes, precision)
        self.pixels, self.labels = workload.pictures(backbone, case.images, len(classes))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            self.features = backbone.encode_images(self.pixels).float()

    def published(self) -> None:
        self.method.zero_grad()
        if self.case.pixels:
            self.step.backward(self.pixels, self.labels)
        else:
            self.step.backward_text(self.features, self.labels)

    def ours(self) -> None:
        self.method.zero_grad()
        self.method.loss(self.features, self.labels).backward()

    def difference(self) -> float:
        """The largest of: relative difference of the loss, and of each gradient by its largest entry. Warms both ways
        up, too."""
        self.method.zero_grad()
        back = self.step.backward if self.case.pixels else self.step.backward_text
        expected = back(self.pixels if self.case.pixels else self.features, self.labels)
        gradients: dict[str, Tensor] = {name: p.grad.clone() for name, p in self.method.named_parameters()}
        self.method.zero_grad()
        loss = self.method.loss(self.features, self.labels)
        loss.backward()
        each = [relative(p.grad, gradients[name]) for name, p in self.method.named_parameters()]
        return max(abs(loss.item() / expected - 1), *each)


@dataclass
class Times:
    """Seconds of each round; the ratio is that of the medians."""

    published: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.published) / statistics.median(self.ours)

    def line(self, name: str) -> str:
        published, ours = statistics.median(self.published), statistics.median(self.ours)
        return f"{name}: published {published:.3f} s, ours {ours:.3f} s, {self.ratio:.1f} times as fast"


def measure(pair: Pair, rounds: int) -> Times:
    """The two ways alternate, so that what else the machine does meets both."""
    times = Times()
    for _ in range(rounds):
        times.published.append(workload.seconds(pair.published, pair.device))
        times.ours.append(workload.seconds(pair.ours, pair.device))
    return times


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ratios", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, help="of every pair; default 3, and 1 of CoCoOp")
    parser.add_argument("--model", default=workload.VIT_B16, help="open_clip model, random weights")
    parser.add_argument("--classes", type=int, default=100, help="at most 100")
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: both ways under autocast")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    chosen = arguments(argv)
    with threads_set(chosen.threads):
        backbone = workload.random_backbone(chosen.model, chosen.device, chosen.precision)
        classes = workload.caltech(chosen.classes)
        head = f"{workload.machine(backbone)}; {len(classes)} classes, {chosen.context} context tokens"
        print(head, flush=True)
        rows = []
        for name in chosen.pairs:
            case = CASES[name]
            pair = Pair(case, backbone, classes, chosen.context)
            difference = pair.difference()
            if difference > TOLERANCE and chosen.precision == "fp32":
                print(f"{name}: loss or gradients differ by {difference:.1e}, more than {TOLERANCE}", file=sys.stderr)
                return 1
            times = measure(pair, chosen.rounds or case.rounds)
            print(times.line(name), flush=True)
            medians = statistics.median(times.published), statistics.median(times.ours)
            rows.append((case.text, *medians, times.ratio, f"{difference:.0e}", len(times.ours)))
    headers = ("step", "published (s)", "ours (s)", "ratio", "difference", "rounds")
    table = tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".3f", ".3f", ".1f"), disable_numparse=[4])
    print(f"\n{table}")
    if chosen.out:
        write_text(chosen.out, f"{head}\n\n{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
