"""GDA (Wang et al. 2024, ICLR; mrflogs/ICLR24, main_few_shots.py): Gaussian discriminant analysis beside zero-shot.

Normalised features of a class are taken as Gaussian, with a mean a class and one covariance for all. Their likelihoods
give a linear classifier in closed form, which is added to the zero-shot logits:
``100 fbar t^T + alpha (fbar W + b)``. W, b and alpha travel; t, the text classifier, is the current backbone's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.methods.base import Method, TrainConfig, register

LOGIT_SCALE = 100.0  # the published code writes it out instead of reading the backbone's
VIEWS = 10  # augmented views of each image, each a sample of its own
ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Config(TrainConfig):
    """``alpha``: weight of the Gaussians' logits, chosen of `ALPHAS`; 0: chosen by few-shot validation."""

    epochs: int = 0
    crop: tuple[float, float] = (0.5, 1.0)
    alpha: float = 0.0


@register("gda")
class GDA(Method):
    name = "GDA"
    paper = "Wang et al. 2024, arXiv 2402.04087"
    depth = "output"
    usual = False
    least_views = VIEWS
    Config = Config
    micro = {"crop": (0.7, 1.0)}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))
        self.bias = nn.Parameter(torch.zeros(len(shape.classnames)))

    @classmethod
    def published(cls, dataset, shots):
        return {"crop": (0.08, 1.0)} if dataset == "imagenet" else {}

    def candidates(self):
        return [{"alpha": value} for value in ALPHAS] if self.config.alpha == 0 else [{}]

    def bind(self, backbone, classes):
        self.classifier, self.rows = backbone.zero_shot(classes), self.class_rows(classes).to(backbone.device)

    def logits(self, x):
        x = F.normalize(x, dim=-1)
        gaussian = F.linear(x, self.weight[self.rows], self.bias[self.rows])
        return LOGIT_SCALE * x @ self.classifier.T + self.config.alpha * gaussian

    @torch.no_grad()
    def start(self, support):
        views = support.views[:VIEWS]
        x, y = F.normalize(views, dim=-1).flatten(0, 1), support.labels.repeat(len(views))
        weight, bias = discriminant(x, y, len(self.weight))
        self.weight.copy_(weight)
        self.bias.copy_(bias)


def discriminant(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """W (C, D) and b (C,) of Gaussians with one covariance and equal priors, from samples x (N, D) with labels y (N,).

    With S the covariance within classes, its inverse is estimated as ``D ((N - 1) S + tr(S) I)^-1`` (Kubokawa and
    Srivastava 2008). Where all samples of each class are equal, S tells nothing, and both are the pseudo-inverse's."""
    count, dim = x.shape
    sums = x.new_zeros(classes, dim).index_add(0, y, x)
    means = sums / torch.bincount(y, minlength=classes).clamp(min=1)[:, None]
    centred = x - means[y]
    scatter = (centred.T @ centred).cpu().double()  # (N - 1) S; the inverse of D x D on the CPU, which has float64
    ridge = scatter.trace() / max(count - 1, 1)
    inverse = dim * torch.linalg.pinv(scatter + ridge * torch.eye(dim, dtype=scatter.dtype), hermitian=True)
    means = means.cpu().double()
    weight = means @ inverse
    return weight, -math.log(classes) - (weight * means).sum(1) / 2
