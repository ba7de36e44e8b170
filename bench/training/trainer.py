"""The one training loop every method shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from carryover.bench.features.pixels import Pictures
from carryover.bench.host.device import send
from carryover.bench.training import chosen
from carryover.bench.training.resident import Resident, possible
from carryover.methods.base import Method, Support, TrainConfig
from carryover.methods.parts.optimizer import optimizer
from carryover.methods.parts.schedule import Schedule, epoch_steps


class FitError(Exception):
    """Training went wrong (a loss that is not finite); ``curve`` holds what was recorded until then."""

    def __init__(self, message: str, curve: list[dict]):
        super().__init__(message)
        self.curve = curve


def fit(method: Method, support: Support, generator: torch.Generator) -> list[dict]:
    """Start, train and finish a bound method on its support set; returns the learning curve, a row an epoch.

    Each epoch shuffles the N images and gives each one of its V views at random, or the epoch's own (``fresh``). A
    method on pixels that says ``pairs`` is given two views of each image (2, B, 3, H, H). Raises FitError when the loss
    is not finite.
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
    one ``Method.alike``. A run whose loss is not finite gives its FitError and does not touch the others. A run with
    several candidates (``Method.candidates``) has as many places, all with its batches, and the curve of the one kept.

    resume: the methods hold what was learned before, so ``start``, which would make it anew, is not called."""
    config: TrainConfig = methods[0].config
    for method, support in zip(methods, supports, strict=True):
        method.train()
        if not resume:
            method.start(support)
    places = [(run, one) for run, method in enumerate(methods) for one in chosen.spread(method)]
    fitted = [one for _, one in places]
    curves: list[list[dict]] = [[] for _ in places]
    failed: dict[int, FitError] = {}
    trained = [(one.config.lr, *part) for one in fitted for part in one.trained()]
    if config.epochs and any(parameters for *_, parameters in trained):
        count, pairs = len(supports[0].labels), getattr(methods[0], "pairs", False)
        batch = min(config.batch, count)
        steps = epoch_steps(config, count)
        schedule, solver = Schedule(config, steps), optimizer(config, trained)
        parts = [slice(step * batch, min((step + 1) * batch, count)) for step in range(steps)]

        def update(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
            """A step of all fits on the batches of the runs; their losses."""
            each = type(methods[0]).losses(fitted, [xs[run] for run, _ in places], [ys[run] for run, _ in places])
            solver.zero_grad()
            (each[0] if len(each) == 1 else torch.stack(each).sum()).backward()
            solver.step()
            return torch.stack([loss.detach() for loss in each])

        resident = None
        if possible(supports) and not pairs:  # which pictures come in, decoded as they are asked for
            sizes = [part.stop - part.start for part in parts]
            resident = Resident(update, fitted, supports, solver, sizes, schedule.epochs)
        for epoch in range(1, schedule.epochs + 1):
            drawn = [draw(epoch, *given, pairs) for given in zip(supports, generators, strict=True)]
            rates = [
                [schedule.rate(epoch, step, group["peak"]) * group["factor"] for group in solver.param_groups]
                for step in range(steps)
            ]
            if resident:
                found = resident.epoch(torch.stack(drawn), torch.tensor(rates))
            else:
                found = stepped(update, supports, drawn, parts, solver, rates)
            for i, mean in enumerate(found.mean(1).tolist()):
                if i in failed:
                    continue
                (run, one), rate = places[i], schedule.rate(epoch, steps - 1, fitted[i].config.lr)
                if not math.isfinite(mean):
                    failed[i] = FitError(f"loss is {mean} in epoch {epoch} (learning rate {rate:.3g})", curves[i])
                    continue
                curves[i].append({"epoch": epoch, "loss": mean, "lr": rate})
                one.end_epoch(supports[run])
            if len(failed) == len(places):
                break
    outcomes: list[list[dict] | FitError] = []
    for run, (method, support) in enumerate(zip(methods, supports, strict=True)):
        own = [i for i, (other, _) in enumerate(places) if other == run]
        alive = [i not in failed for i in own]
        best = own[0]
        if fitted[best] is not method and any(alive):
            best = own[chosen.keep_best(method, [fitted[i] for i in own], alive, support)]
        if any(alive):
            method.finish(support)
        method.eval()
        outcomes.append(failed.get(best, curves[best]))
    return outcomes


def stepped(
    update: Callable[[list[Tensor], list[Tensor]], Tensor],
    supports: Sequence[Support],
    drawn: Sequence[Tensor],
    parts: Sequence[slice],
    solver: torch.optim.Optimizer,
    rates: Sequence[Sequence[float]],
) -> Tensor:
    """An epoch, step by step: (fits, steps) losses. ``drawn`` as ``draw`` gives it, of each run; ``rates`` of each step
    and group."""
    asked = list(send(torch.stack(list(drawn)), supports[0].labels.device))  # one copy an epoch
    labels = [support.labels[rows[1]] for support, rows in zip(supports, asked, strict=True)]
    for run, (support, here) in enumerate(zip(supports, drawn, strict=True)):
        if isinstance(support.views, Pictures):  # which are in this machine's memory
            asked[run] = here
            support.views.expect([(view[part], here[1, part]) for part in parts for view in (here[0], *here[2:])])
    losses = []
    for part, own in zip(parts, rates, strict=True):
        for group, rate in zip(solver.param_groups, own, strict=True):
            group["lr"] = rate
        xs = [seen(support.views, rows[:, part]) for support, rows in zip(supports, asked, strict=True)]
        losses.append(update(xs, [true[part] for true in labels]))
    return torch.stack(losses, dim=1)


def seen(views: Tensor | Pictures, rows: Tensor) -> Tensor:
    """What a step is given of the rows of ``draw``: one view of each image, or two, one below the other."""
    view, image, *other = rows
    return torch.stack([views[one, image] for one in (view, *other)]) if other else views[view, image]


def draw(epoch: int, support: Support, generator: torch.Generator, pairs: bool = False) -> Tensor:
    """(2, N) on the CPU: the N images in the order of an epoch, from 1, as the view of each and which it is. With
    ``pairs`` (3, N), below them a second view of each, at random."""
    count, views = len(support.labels), len(support.views)
    order = torch.randperm(count, generator=generator)
    view = torch.randint(views, (count,), generator=generator)
    view = torch.full_like(view, epoch - 1) if support.fresh else view
    other = [torch.randint(views, (count,), generator=generator)] if pairs else []
    return torch.stack([view[order], order, *other])
