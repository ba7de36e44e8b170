"""The pictures of one few-shot draw, and what a run takes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from carryover.bench.errors import quoted
from carryover.bench.plan.runs import FRESH_VIEWS, Run
from carryover.datasets import manifests
from carryover.datasets.base import Dataset, Split
from carryover.methods.base import METHODS
from carryover.methods.parts.schedule import Schedule, epoch_steps


@dataclass(frozen=True)
class FewShot:
    """The pictures of one (dataset, shots, seed, limit)."""

    data: Dataset
    support: Split
    val: Split
    test: Split
    given: dict[str, str] = field(default_factory=dict)  # `manifests.digests` of the user's folder

    @cached_property
    def contents(self) -> list[str]:
        """Of the pictures themselves, so that a replaced file is another run."""
        return [s.content_sha256(self.data.classnames) for s in (self.support, self.val, self.test)]

    @cached_property
    def manifests(self) -> dict[str, str]:
        """The files' texts; made once, for every picture is read for them."""
        names = self.data.classnames
        return {"train": manifests.text_of(self.support, names), "val": manifests.text_of(self.val, names)}

    @cached_property
    def counts(self) -> list[int]:
        """Support images of each class."""
        return np.bincount(self.support.labels, minlength=len(self.data.classnames)).tolist()

    def too_few(self, shots: int) -> list[str]:
        """A line where a class has fewer support images than the run asks for; empty where none has."""
        short = [label for label, count in enumerate(self.counts) if count < shots]
        if not short:
            return []
        least = min(short, key=self.counts.__getitem__)
        return [
            f"fewer than {shots} images a class were there: for {len(short)} of {len(self.counts)} classes, the fewest "
            f"{self.counts[least]} ({quoted(self.data.classnames[least])})"
        ]

    @cached_property
    def hashes(self) -> dict[str, str]:
        names = self.data.classnames
        return {
            "train_sha256": self.support.sha256(names),
            "val_sha256": self.val.sha256(names),
            "test_sha256": self.test.sha256(names),
        }


def augments(run: Run) -> bool:
    """Whether the run trains on views; a crop of (1, 1) leaves the test transform alone."""
    return tuple(run.config.crop) != (1.0, 1.0)


def view_count(run: Run, support: int) -> int:
    """V of a run on so many support images; with fresh views as many as its method has epochs."""
    if run.views != FRESH_VIEWS:
        return run.views
    config = run.training
    epochs = Schedule(config, epoch_steps(config, support)).epochs if config.epochs else 0
    return max(epochs, METHODS[run.method].least_views)


def at_most(split: Split, limit: int | None) -> Split:
    """The first ``limit`` pictures of each class."""
    if not limit:
        return split
    seen: dict[int, int] = {}
    chosen = []
    for index, label in enumerate(split.labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= limit:
            chosen.append(index)
    return split.take(chosen)


def as_labels(split: Split, device) -> torch.Tensor:
    return torch.from_numpy(np.array(split.labels)).to(device)
