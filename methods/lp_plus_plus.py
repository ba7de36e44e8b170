"""LP++ (Huang et al. 2024, CVPR; FereshteShakeri/FewShot-CLIP-Strong-Baseline): a probe beside the zero-shot one.

``logits = W fbar + b + alpha * (fbar t^T)`` with one multiplier alpha a class and no scale. Step sizes follow from
bounds on the curvature of the loss in W and in alpha, so nothing is tuned; the step that is best on few-shot validation
is kept. W, b and alpha travel; t, the text classifier, is the current backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register

START = 250.0  # alpha starts at this times the mean cosine of images with their own class
BOUND = 4.0  # of curvature: rates are 4 N over that of W's bound, N over 4 times that of alpha's


@dataclass(frozen=True)
class Config(TrainConfig):
    """``iterations``: steps on all support images at once; ``alpha_every``: of which every so many moves alpha too."""

    epochs: int = 0
    crop: tuple[float, float] = (0.5, 1.0)
    iterations: int = 300
    alpha_every: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.iterations < 1 or self.alpha_every < 1:
            raise UserError(
                "lp-plus-plus: iterations and alpha_every are 1 or more; found "
                f"{self.iterations} and {self.alpha_every}"
            )


@register("lp-plus-plus")
class LPPlusPlus(Method):
    name = "LP++"
    paper = "Huang et al. 2024, arXiv 2404.02285"
    depth = "output"
    usual = False
    Config = Config
    micro = {"crop": (0.7, 1.0)}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        probe = nn.Linear(shape.dim, len(shape.classnames))  # whose bias starts at random, as published
        self.weight = nn.Parameter(torch.zeros_like(probe.weight))
        self.bias = nn.Parameter(probe.bias.detach().clone())
        self.alpha = nn.Parameter(torch.zeros(len(shape.classnames)))

    def bind(self, backbone, classes):
        self.classifier, self.rows = backbone.zero_shot(classes), self.class_rows(classes).to(backbone.device)

    def logits(self, x):
        x = F.normalize(x, dim=-1)
        probe = F.linear(x, self.weight[self.rows], self.bias[self.rows])
        return probe + self.alpha[self.rows] * (x @ self.classifier.T)

    @torch.no_grad()
    def start(self, support):
        x, held = F.normalize(support.views[0], dim=-1), F.normalize(support.val_features, dim=-1)
        text, held_text = x @ self.classifier.T, held @ self.classifier.T
        true = (support.labels[:, None] == torch.arange(len(self.bias), device=x.device)).to(x.dtype)
        count = len(x)
        weight, bias, alpha = true.T @ x, self.bias.detach().clone(), self.start_of_alpha(text, true)
        rate, alpha_rate = BOUND * count / largest_eigenvalue(x), count / (BOUND * text.square().sum(0).max())
        speed, bias_speed, pull = torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(alpha)
        best, kept = torch.zeros((), dtype=torch.long, device=x.device), [weight, bias, alpha]
        for step in range(1, self.config.iterations + 1):
            error = ((torch.addmm(bias, x, weight.T) + alpha * text).softmax(1) - true) / count
            speed = self.config.momentum * speed + error.T @ x
            bias_speed = self.config.momentum * bias_speed + error.sum(0)
            weight, bias = weight - rate * speed, bias - rate * bias_speed
            pull = pull + (error * text).sum(0)  # the published code never sets alpha's gradient back
            if step % self.config.alpha_every == 0:
                alpha = alpha - alpha_rate * pull
            right = (torch.addmm(bias, held, weight.T) + alpha * held_text).argmax(1).eq(support.val_labels).sum()
            better = right >= best  # of equal steps the last
            best = torch.maximum(best, right)
            kept = [torch.where(better, *pair) for pair in zip((weight, bias, alpha), kept, strict=True)]
        for parameter, value in zip((self.weight, self.bias, self.alpha), kept, strict=True):
            parameter.copy_(value)

    @staticmethod
    def start_of_alpha(text: Tensor, true: Tensor) -> Tensor:
        """(C,), all equal. text: cosines (N, C); true: one-hot labels (N, C)."""
        of_class = (text * true).sum(0) / true.sum(0).clamp(min=1)
        return torch.full_like(of_class, START) * of_class.mean()


def largest_eigenvalue(x: Tensor) -> float:
    """Of ``x^T x``, x (N, D), on the CPU."""
    return float(torch.linalg.eigvalsh((x.T @ x).cpu().double())[-1])
