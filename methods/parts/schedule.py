"""Learning rates and steps of an epoch, as a ``TrainConfig`` says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from carryover.methods.train_config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Learning rates. "epoch" is Dassl's: warm-up epochs at a constant rate, then a cosine over all E epochs, stepped
    once an epoch (epoch k, from 1, after w warm-up epochs: ``lr (1 + cos(pi (k - w - 1) / E)) / 2``); "iteration" is a
    cosine over all steps, as Tip-Adapter's."""

    config: TrainConfig
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        return math.ceil(self.config.steps / self.steps_per_epoch) if self.config.steps else self.config.epochs

    def rate(self, epoch: int, step: int, peak: float | None = None) -> float:
        """``epoch`` from 1, ``step`` from 0 within the epoch; ``peak`` instead of the config's ``lr``."""
        c = self.config
        if c.schedule == "iteration":
            done = ((epoch - 1) * self.steps_per_epoch + step) / (self.epochs * self.steps_per_epoch)
        elif epoch <= c.warmup_epochs < self.epochs:
            return c.warmup_lr
        else:
            done = (epoch - 1 - c.warmup_epochs * (self.epochs > c.warmup_epochs)) / self.epochs
        return (c.lr if peak is None else peak) * 0.5 * (1 + math.cos(math.pi * done))


def epoch_steps(config: TrainConfig, count: int) -> int:
    """Steps of an epoch over ``count`` support images."""
    batch = min(config.batch, count)
    return max(count // batch, 1) if config.drop_last else math.ceil(count / batch)
