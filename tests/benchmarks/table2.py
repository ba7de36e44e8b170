"""Table 2 at its true size without a picture: class counts, names, test counts, schedules, and stand-in features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice

import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks import workload
from benchmarks.operations import Sizes, Work, floor_seconds, image_forward, needed, published_step
from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.plan.settings import configure
from carryover.bench.preflight.made_up import made_up
from carryover.bench.training.generators import generator
from carryover.datasets.fewshot import VAL_SHOTS
from carryover.datasets.layouts import LAYOUTS
from carryover.datasets.templates import TEMPLATES
from carryover.methods import PAPER_ORDER, Registered, discover
from carryover.methods.base import Classes, Support, TrainConfig
from carryover.methods.parts.schedule import Schedule, epoch_steps

SHOTS, SEEDS, VIEWS, BACKBONES = 16, 3, 16, 2
PROMPTS = ("coop", "cocoop", "kgcoop", "contcoop")

# Classes by tokens of their name, counted from the published split files.
COUNTED = {
    "oxford_pets": {1: 9, 2: 16, 3: 9, 4: 3},
    "dtd": {1: 13, 2: 23, 3: 11},
    "eurosat": {1: 2, 2: 3, 3: 4, 4: 1},
}
# Tokens of a few names of each set, taken in turn for all its classes: an assumption, for no list was at hand.
ASSUMED = {
    "stanford_cars": (7, 9, 9, 10, 12, 13),
    "flowers102": (1, 2, 2, 2, 2, 2, 3, 3, 3, 6),
    "food101": (1, 2, 2, 2, 3, 3, 3, 4, 4),
    "fgvc_aircraft": (1, 4, 4, 4, 4, 7, 7, 7, 8),
    "sun397": (1, 1, 2, 2, 2, 2, 2, 2, 3),
    "ucf101": (1, 2, 2, 2, 2, 2, 2, 3, 3, 5),
}


@dataclass(frozen=True)
class StandIn:
    """One dataset: its class names (or names of as many tokens) and how many test pictures it has."""

    classes: Classes
    tests: int

    @property
    def id(self) -> str:
        return self.classes.dataset

    @property
    def support(self) -> int:
        return SHOTS * len(self.classes)

    def examples(self, dim: int, device) -> Support:
        """Made-up features of the true counts; all views of a picture are the same, in one copy."""
        return made_up(dim, len(self.classes), SHOTS, VIEWS, device)

    def test_features(self, dim: int, device) -> Tensor:
        features = torch.randn(self.tests, dim, generator=generator("benchmark", "tests", self.id))
        return features.to(device)


def stand_ins(ids: Sequence[str] = (), most: int | None = None) -> Iterator[StandIn]:
    """The paper's eleven, or those named; ``most``: no more classes and ten times as many test pictures (trials)."""
    for id in ids or datasets.default("paper"):
        layout = LAYOUTS[id]
        names, tests = names_of(id), layout.test
        if most:
            names, tests = names[:most], min(tests, 10 * most)
        yield StandIn(Classes(id, names, TEMPLATES[id]), tests)


def names_of(id: str) -> tuple[str, ...]:
    if id == "imagenet":
        return workload.imagenet().names
    if id == "caltech101":
        return workload.CALTECH
    lengths = [n for n, count in COUNTED[id].items() for _ in range(count)] if id in COUNTED else ASSUMED[id]
    return tuple(" ".join(["word"] * n) for n in islice(cycle(lengths), LAYOUTS[id].classes))


@cache
def name_lengths(names: tuple[str, ...]) -> list[int]:
    """Tokens of each bare name."""
    return [int(row.argmax()) - 1 for row in loading.tokenizer(workload.VIT_B16)(list(names))]


def config_of(method: str, dataset: str) -> TrainConfig:
    discover()
    return configure(Registered(), method, dataset, SHOTS, "published", {})


def steps_of(config: TrainConfig, support: int) -> int:
    """Training steps of one fit; 0 where the trainer has nothing to do."""
    an_epoch = epoch_steps(config, support)
    return Schedule(config, an_epoch).epochs * an_epoch if config.epochs else 0


def pictures() -> dict[str, int]:
    """Passes of each image tower: test pictures on both; on the base also support, few-shot validation and views."""
    sets = list(stand_ins())
    tests = sum(one.tests for one in sets)
    crops = {tuple(config_of(method, "dtd").crop) for method in PAPER_ORDER} - {(1.0, 1.0)}
    few = SEEDS * sum(len(one.classes) for one in sets)
    return {"base": tests + few * (SHOTS + VAL_SHOTS + SHOTS * VIEWS * len(crops)), "new": tests}


def training_work(sizes: Sizes, method: str, one: StandIn, config: TrainConfig | None = None) -> Work:
    """The text side of one step, as far as it is needed."""
    config = config or config_of(method, one.id)
    images = min(config.batch, one.support)
    return needed(sizes, method, name_lengths(one.classes.names), config.context_length, images)


def evaluation_work(sizes: Sizes, method: str, one: StandIn) -> Work:
    """Class features on one backbone, forward alone: once, or in CoCoOp once a test picture."""
    config = config_of(method, one.id)
    images = one.tests if method == "cocoop" else 1
    work = needed(sizes, method, name_lengths(one.classes.names), config.context_length, images)
    return Work(work.forward, 0.0, work.rows)


def floor_table(sizes: Sizes, peak: float, bandwidth: float, element: int) -> str:
    """A row a prompt method, over the eleven datasets; seeds side by side, so that a step reads the weights once."""
    rows = []
    for method in PROMPTS:
        count, plain, least, seconds = 0, 0.0, 0.0, 0.0
        for one in stand_ins():
            config = config_of(method, one.id)
            steps = steps_of(config, one.support)
            batch = min(config.batch, one.support)
            step = training_work(sizes, method, one, config).times(SEEDS)
            evaluation = evaluation_work(sizes, method, one).times(SEEDS * BACKBONES)
            text = published_step(sizes, method, len(one.classes), batch).total
            count += steps * SEEDS
            plain += SEEDS * steps * (text + batch * image_forward()) / 1e15
            least += (steps * step.total + evaluation.forward) / 1e15
            seconds += steps * floor_seconds(step.total, step.bytes(sizes, element), peak, bandwidth)
            seconds += floor_seconds(evaluation.forward, evaluation.bytes(sizes, element, False), peak, bandwidth)
        rows.append((method, count, plain, least, seconds))
    rows.append(("sum", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    headers = ("method", "steps", "published, training (Pop)", "needed, with evaluation (Pop)", "floor (s)")
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".0f", ",.0f", ",.1f", ".0f"))
