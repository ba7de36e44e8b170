"""Linear probe (Radford et al. 2021; the few-shot recipe of KaiyangZhou/CoOp, lpclip): logistic regression by L-BFGS.

Features are not normalised and not augmented; the L2 strength is chosen on few-shot validation: a coarse grid of C,
then a binary search in log10 C around its best. The weight matrix is the plug-in and meets the new backbone's features
unchanged, which is why it cannot survive an update that re-initialises the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register


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
    LogisticRegression(C=c) does, in float64 on the device of ``x`` (N, D)."""
    device = x.device
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
        history_size=10,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), y) + weight.square().sum() / (2 * c * len(x))
        value.backward()
        return value

    solver.step(objective)
    return weight.detach().float().to(device), bias.detach().float().to(device)
