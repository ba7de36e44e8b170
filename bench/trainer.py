"""The one training loop every method shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.pixels import Pictures
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


def optimizer(config: TrainConfig, trained: Sequence[tuple[float, list[torch.nn.Parameter]]]) -> torch.optim.Optimizer:
    """Over (factor on the learning rate, parameters), as ``Method.trained`` gives them."""
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    for factor, parameters in trained:
        by_factor.setdefault(factor, []).extend(parameters)
    groups: list[dict] = [{"params": params, "factor": factor} for factor, params in by_factor.items() if params]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)
    return torch.optim.Adam(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)


def fit(method: Method, support: Support, generator: torch.Generator) -> list[dict]:
    """Start, train and finish a bound method on its support set; returns the learning curve, a row an epoch.

    Each epoch shuffles the N images and gives each one of its V views at random, or the epoch's own (``fresh``). Raises
    FitError when the loss is not finite.
    """
    (outcome,) = fit_together([method], [support], [generator])
    if isinstance(outcome, FitError):
        raise outcome
    return outcome


def fit_together(
    methods: Sequence[Method],
    supports: Sequence[Support],
    generators: Sequence[torch.Generator],
    resume: bool = False,
) -> list[list[dict] | FitError]:
    """``fit`` of several runs side by side: the step of all is one computation (``Method.losses``), while batches,
    gradients and updates stay each run's own. All have the same schedule, batch size and number of support images, and
    one ``Method.alike``. A run whose loss is not finite gives its FitError and does not touch the others.

    resume: the methods hold what was learned before, so ``start``, which would make it anew, is not called."""
    config: TrainConfig = methods[0].config
    for method, support in zip(methods, supports, strict=True):
        method.train()
        if not resume:
            method.start(support)
    curves: list[list[dict]] = [[] for _ in methods]
    failed: dict[int, FitError] = {}
    trained = [part for method in methods for part in method.trained()]
    if config.epochs and any(parameters for _, parameters in trained):
        count = len(supports[0].labels)
        batch = min(config.batch, count)
        steps = epoch_steps(config, count)
        schedule, solver = Schedule(config, steps), optimizer(config, trained)
        device = supports[0].labels.device
        for epoch in range(1, schedule.epochs + 1):
            drawn = [draw(epoch, *given, device) for given in zip(supports, generators, strict=True)]
            parts = [slice(step * batch, (step + 1) * batch) for step in range(steps)]
            for support, (order, view) in zip(supports, drawn, strict=True):
                if isinstance(support.views, Pictures):
                    support.views.expect([(view[order[part]], order[part]) for part in parts])
            losses = []
            for step, part in enumerate(parts):
                rate = schedule.rate(epoch, step)
                for group in solver.param_groups:
                    group["lr"] = rate * group["factor"]
                xs = [s.views[view[order[part]], order[part]] for s, (order, view) in zip(supports, drawn, strict=True)]
                ys = [s.labels[order[part]] for s, (order, _) in zip(supports, drawn, strict=True)]
                each = type(methods[0]).losses(methods, xs, ys)
                solver.zero_grad()
                (each[0] if len(each) == 1 else torch.stack(each).sum()).backward()
                solver.step()
                losses.append(torch.stack([loss.detach() for loss in each]))
            for i, mean in enumerate(torch.stack(losses, dim=1).mean(1).tolist()):
                if i in failed:
                    continue
                if not math.isfinite(mean):
                    failed[i] = FitError(f"loss is {mean} in epoch {epoch} (learning rate {rate:.3g})", curves[i])
                    continue
                curves[i].append({"epoch": epoch, "loss": mean, "lr": rate})
                methods[i].end_epoch(supports[i])
            if len(failed) == len(methods):
                break
    for i, (method, support) in enumerate(zip(methods, supports, strict=True)):
        if i not in failed:
            method.finish(support)
        method.eval()
    return [failed.get(i, curve) for i, curve in enumerate(curves)]


def draw(epoch: int, support: Support, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """The order of the N images in an epoch, from 1, and the view of each."""
    count, views = len(support.labels), len(support.views)
    order = torch.randperm(count, generator=generator).to(device)
    view = torch.randint(views, (count,), generator=generator).to(device)
    return order, torch.full_like(view, epoch - 1) if support.fresh else view
