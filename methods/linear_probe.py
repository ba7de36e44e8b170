"""Linear probe (Radford et al. 2021; the few-shot recipe of KaiyangZhou/CoOp, lpclip): logistic regression by L-BFGS.

Features are not normalised and not augmented; the L2 strength is chosen on few-shot validation: a coarse grid of C,
then a binary search in log10 C around its best. The weight matrix is the plug-in and meets the new backbone's features
unchanged, which is why it cannot survive an update that re-initialises the joint space.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register

HISTORY = 10  # pairs of steps that L-BFGS keeps
SMALL_GRADIENT, SMALL_CHANGE = 1e-6, 1e-10  # of the mean objective: where a fit on a CPU stops
SMALLER_GRADIENT = 1e-8  # on a GPU, above the rounding of float32: of separable classes 1e-6 ends twice as high
TRIALS = 2  # steps tried along a direction: with one half as many iterations more, with three as many
BETWEEN = 10  # iterations between two questions to the device; a fit takes about a hundred


@dataclass(frozen=True)
class Config(TrainConfig):
    """``coarse``: the grid of C; ``search_steps``: halvings of the interval; ``max_iter``: of L-BFGS for each fit."""

    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)
    coarse: tuple[float, ...] = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
    search_steps: int = 8
    max_iter: int = 1000

    def __post_init__(self):
        super().__post_init__()
        if min(self.coarse) <= 0 or self.search_steps < 0 or self.max_iter < 1:
            raise UserError(
                "linear-probe: values of coarse are above 0, search_steps 0 or more, max_iter 1 or more; found "
                f"{self.coarse}, {self.search_steps}, {self.max_iter}"
            )


@register("linear-probe")
class LinearProbe(Method):
    name = "Linear Probe"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    depth = "output"
    Config = Config
    micro = {"max_iter": 100, "search_steps": 4}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))
        self.bias = nn.Parameter(torch.zeros(len(shape.classnames)))

    def bind(self, backbone, classes):
        self.rows = self.class_rows(classes).to(backbone.device)

    def logits(self, x):
        return F.linear(x, self.weight[self.rows], self.bias[self.rows])

    def start(self, support):
        tried: dict[float, tuple[float, Tensor, Tensor]] = {}

        def score(c: float) -> float:
            if c not in tried:
                near = min(tried, key=lambda other: abs(torch.log10(torch.tensor(other / c))), default=None)
                initial = None if near is None else tried[near][1:]
                weight, bias = logistic_regression(
                    support.features, support.labels, len(self.weight), c, self.config.max_iter, initial
                )
                right = (F.linear(support.val_features, weight, bias).argmax(1) == support.val_labels).float().mean()
                tried[c] = (float(right), weight, bias)
            return tried[c][0]

        best = max(self.config.coarse, key=score)
        low, high = 0.1 * best, 10 * best
        for _ in range(self.config.search_steps):
            middle = (low * high) ** 0.5
            if score(low) >= score(high):  # ties go to the stronger regularisation, as in lpclip
                best, high = low, middle
            else:
                best, low = high, middle
        with torch.no_grad():
            self.weight.copy_(tried[best][1])
            self.bias.copy_(tried[best][2])


def logistic_regression(
    x: Tensor, y: Tensor, classes: int, c: float, max_iter: int, initial: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Minimise ``c * sum cross-entropy + ||W||^2 / 2`` over W (C, D) and an unpenalised bias (C,), as scikit-learn's
    LogisticRegression(C=c) does, on the device of ``x`` (N, D): on a CPU in float64."""
    device = x.device
    if device.type == "cuda":
        return without_waiting(x, y, classes, c, max_iter, initial)
    if device.type == "mps":  # which has no float64
        x, y = x.cpu(), y.cpu()
        initial = None if initial is None else (initial[0].cpu(), initial[1].cpu())
    x = x.double()
    weight = x.new_zeros(classes, x.shape[1]) if initial is None else initial[0].double().clone()
    bias = x.new_zeros(classes) if initial is None else initial[1].double().clone()
    weight.requires_grad_(), bias.requires_grad_()
    # Dividing by c * N keeps the objective near 1 for every c, so one set of tolerances serves the whole grid.
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        history_size=HISTORY,
        tolerance_grad=SMALL_GRADIENT,
        tolerance_change=SMALL_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), y) + weight.square().sum() / (2 * c * len(x))
        value.backward()
        return value

    solver.step(objective)
    return weight.detach().float().to(device), bias.detach().float().to(device)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def without_waiting(
    x: Tensor, y: Tensor, classes: int, c: float, max_iter: int, initial: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The same minimum by the same L-BFGS, in float32 and without a branch: the device is asked only every `BETWEEN`
    iterations whether it is done. What comes between moves nothing.

    Logits change in proportion to the step, so steps are tried on logits (N, C) alone: an iteration is three matrix
    products, one more than an evaluation with its gradient, whatever the number of trials.
    """
    x = F.pad(x.float(), (0, 1), value=1.0)  # the bias is the last column of w (C, D + 1)
    w = x.new_zeros(classes, x.shape[1]) if initial is None else torch.cat([initial[0], initial[1][:, None]], 1).float()
    true = (y[:, None] == torch.arange(classes, device=x.device)).to(x.dtype)
    decay = x.new_full((x.shape[1],), 1 / (c * len(x)))
    decay[-1] = 0
    zero, one = x.new_zeros(()), x.new_ones(())

    def at(w: Tensor) -> tuple[Tensor, Tensor]:
        """(log-probabilities (N, C), gradient (C, D + 1))"""
        logs = F.linear(x, w).log_softmax(1)
        return logs, (logs.exp() - true).T @ x / len(x) + decay * w

    logs, gradient = at(w)
    done, short = gradient.abs().max() <= SMALLER_GRADIENT, zero > 0
    scale, first = torch.minimum(one, 1 / gradient.abs().sum()), one
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    for iteration in range(max_iter):
        if iteration % BETWEEN == 0 and bool(done):
            break
        direction = -times_inverse(gradient.flatten(), pairs, scale).view_as(w)
        along = F.linear(x, direction)
        along = along - (along * true).sum(1, keepdim=True)
        linear, square = (decay * w * direction).sum(), (decay * direction * direction).sum()
        slope = (gradient * direction).sum()
        step, end, following = found_step(logs, along, linear, square, slope, first)
        moved = step > 0  # else the search goes on where it stopped
        first = torch.where(moved, one, following)
        change = torch.where(done, zero, step) * direction
        w, before = w + change, gradient
        logs, gradient = at(w)
        bend = gradient - before
        curvature = (change * bend).sum()
        sound = curvature > 0
        pairs.append((change.flatten(), bend.flatten(), torch.where(sound, 1 / curvature, zero)))
        scale = torch.where(sound, curvature / bend.square().sum(), scale)
        fell = -step * (slope + end) / 2  # the mean slope: a difference of two values would be rounding alone
        short, was_short = moved & (fell < SMALL_CHANGE), short  # once may be chance
        done = done | (gradient.abs().max() <= SMALLER_GRADIENT) | (short & was_short)
    return w[:, :-1].contiguous(), w[:, -1].contiguous()


def times_inverse(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """The two loops of L-BFGS (Nocedal and Wright, algorithm 7.4). pairs: change of w, change of the gradient, one over
    their product, or 0 for a pair that is left out; oldest first."""
    found, parts = gradient, []
    for change, bend, rho in reversed(pairs):
        parts.append(rho * change.dot(found))
        found = torch.addcmul(found, parts[-1], bend, value=-1)
    found = found * scale
    for (change, bend, rho), part in zip(pairs, reversed(parts), strict=True):
        found = torch.addcmul(found, part - rho * bend.dot(found), change)
    return found


def found_step(
    logs: Tensor, along: Tensor, linear: Tensor, square: Tensor, slope: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How far to go in a direction: (step, slope there, where to try next). The step is 0 where no trial is flatter
    than the start without being higher.

    The objective is convex along a line, so Newton's method on its slope, kept between a point that falls and one that
    rises, needs no value. ``first`` is the first trial; ``logs`` (N, C) log-probabilities, ``along`` (N, C) what a step
    of one adds to the logits, that of the true class taken off; ``linear`` and ``square`` are the penalty's terms.
    """
    rounding = torch.finfo(logs.dtype).eps
    step, end, trial = torch.zeros_like(first), slope, first
    low, falls, high, rises = step, slope, torch.full_like(first, math.inf), -slope
    for _ in range(TRIALS):
        moved = logs + trial * along
        shares = moved.softmax(1)
        mean = (shares * along).sum(1, keepdim=True)
        here = mean.mean() + linear + trial * square
        curve = (shares * (along - mean).square()).sum(1).mean() + square
        higher = moved.logsumexp(1).mean() + trial * linear + trial.square() * square / 2
        better = (here.abs() <= end.abs()) & (higher <= rounding)
        step, end = torch.where(better, trial, step), torch.where(better, here, end)
        before = here < 0
        low, falls = torch.where(before, trial, low), torch.where(before, here, falls)
        high, rises = torch.where(before, high, trial), torch.where(before, rises, here)
        newton, chord = trial - here / curve, low + (high - low) * falls / (falls - rises)
        chord = torch.where(high.isinf(), 10 * trial, chord)
        trial = torch.where((newton > low) & (newton < high), torch.minimum(newton, 10 * trial), chord)
    return step, end, trial
