"""RAda at test time (Chen et al. 2025): each test image learns a mask of its own from its views, without its label.

The mask starts at 1, exactly zero-shot (``methods.rada``), and its last projection takes one step down the entropy of
what confident views agree on (``methods.parts.test_time``). As it starts at zero, none of the other projections has a
gradient at first: they stay as drawn. The plug-in is this random start; nothing in it is learned. Each image has a last
projection of its own, and the module is never written to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from carryover.methods import rada
from carryover.methods.base import cosine_logits, register
from carryover.methods.parts.test_time import (
    TestTimeConfig,
    TestTimeMethod,
    adapted,
    confident_views,
    marginal_entropy,
    take,
)


@dataclass(frozen=True)
class Config(TestTimeConfig, rada.Config):
    """``alpha`` of RAda's smoothness term: it has no gradient at the start, so that one update does not feel it."""

    alpha: float = 0.0


@register("rada-tt")
class RAdaTestTime(TestTimeMethod, rada.RAda):
    name = "RAda (test time)"
    Config = Config

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.out.requires_grad_(False)  # zero wherever it is made: it need not travel

    @torch.no_grad()
    def predict(self, x):
        logits = cosine_logits(self.scale, x[:, 0].contiguous(), self.classifier)
        return logits + self.scale * torch.cat([self.of_images(part) for part in x.split(self.adapted_at_once())])

    def of_images(self, x: Tensor) -> Tensor:
        """Views (B, V, D) -> what the mask adapted to its image adds to the first's cosines (B, C)."""
        plain, kept = cosine_logits(self.scale, x, self.classifier), self.config.kept
        chosen = confident_views(plain, kept)
        shown = torch.cat([take(x, chosen), x[:, :1]], dim=1)
        parts = [self.read(part) for part in shown.flatten(0, 1).split(self.images_at_once())]
        both, read = (torch.cat(made).unflatten(0, shown.shape[:2]) for made in zip(*parts, strict=True))
        plain = take(plain, chosen)

        def objective(weight: Tensor, bias: Tensor) -> Tensor:
            added, farthest = self.added(project(read[:, :kept], weight, bias), both[:, :kept])
            return marginal_entropy(plain + self.scale * added) + self.config.alpha * farthest.mean(1)

        start = [value.expand(len(x), *value.shape) for value in (self.out.weight, self.out.bias)]
        weight, bias = adapted(self.config, start, objective)
        return self.added(project(read[:, kept:], weight, bias), both[:, kept:])[0][:, 0]

    def adapted_at_once(self) -> int:
        count, dim = self.classifier.shape
        return max(1, self.values_at_once // (10 * (self.config.kept + 1) * count * dim + 8 * dim**2))


def project(read: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each image's own projection (B, D, D), (B, D) of what its views read (B, K, C, D)."""
    return torch.baddbmm(bias[:, None], read.flatten(1, 2), weight.transpose(1, 2)).view_as(read)
