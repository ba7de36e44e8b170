"""The one training loop every method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from methods.base import Method, Support, TrainConfig


class FitError(Exception):
    """Training went wrong (a loss that is not finite); ``curve`` holds what was recorded until then."""

    def __init__(self, message: str, curve: list[dict]):
        super().__init__(message)
        self.curve = curve


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

    def rate(self, epoch: int, step: int) -> float:
        """``epoch`` from 1, ``step`` from 0 within the epoch."""
        c = self.config
        if c.schedule == "iteration":
            done = ((epoch - 1) * self.steps_per_epoch + step) / (self.epochs * self.steps_per_epoch)
        elif epoch <= c.warmup_epochs < self.epochs:
            return c.warmup_lr
        else:
            done = (epoch - 1 - c.warmup_epochs * (self.epochs > c.warmup_epochs)) / self.epochs
        return c.lr * 0.5 * (1 + math.cos(math.pi * done))


def epoch_steps(config: TrainConfig, count: int) -> int:
    """Steps of an epoch over ``count`` support images."""
    batch = min(config.batch, count)
    return max(count // batch, 1) if config.drop_last else math.ceil(count / batch)


def optimizer(config: TrainConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.lr, eps=config.eps, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, config.lr, eps=config.eps, weight_decay=config.weight_decay)


def fit(method: Method, support: Support, generator: torch.Generator) -> list[dict]:
    """Start, train and finish a bound method on its support set; returns the learning curve, a row an epoch.

    Each epoch shuffles the N images and gives each one of its V views at random. Raises FitError when the loss is not
    finite.
    """
    config: TrainConfig = method.config
    method.train()
    method.start(support)
    curve: list[dict] = []
    parameters = [p for p in method.parameters() if p.requires_grad]
    if config.epochs and parameters:
        count, views = len(support.labels), len(support.views)
        batch = min(config.batch, count)
        steps = epoch_steps(config, count)
        schedule, solver = Schedule(config, steps), optimizer(config, parameters)
        device = support.labels.device
        for epoch in range(1, schedule.epochs + 1):
            order = torch.randperm(count, generator=generator).to(device)
            view = torch.randint(views, (count,), generator=generator).to(device)
            losses = []
            for step in range(steps):
                chosen = order[step * batch : (step + 1) * batch]
                rate = schedule.rate(epoch, step)
                for group in solver.param_groups:
                    group["lr"] = rate
                loss = method.loss(support.views[view[chosen], chosen], support.labels[chosen])
                solver.zero_grad()
                loss.backward()
                solver.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean().item()
            if not math.isfinite(mean):
                raise FitError(f"loss is {mean} in epoch {epoch} (learning rate {rate:.3g})", curve)
            curve.append({"epoch": epoch, "loss": mean, "lr": rate})
            method.end_epoch(support)
    method.finish(support)
    method.eval()
    return curve
