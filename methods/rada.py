"""RAda (Chen et al. 2025): an attention layer behind both towers learns a mask on what image and class share.

Image b and class k meet in ``IT_bk = fbar_b * tbar_k`` (elementwise, D values), whose sum is their cosine. Attention
over the C classes gives a mask M, ``logits_bk = s sum_D M_bk IT_bk`` with ``M = ReLU(1 + out)``. The last projection
starts at zero, so the start is exactly zero-shot. Frozen towers, as khufia/RAda releases it (eft/trainers/rada.py). The
projections are the plug-in; features, classifier and s are the current backbone's.

Letters: h heads of d = D / h, R query rows at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from carryover.bench.errors import UserError
from carryover.datasets.templates import TEMPLATES
from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.parts.templates import TemplateConfig


@dataclass(frozen=True)
class Config(TemplateConfig):
    """Optimiser, rate and epochs of the released config file; ``alpha``: weight of the smoothness term; ``temperature``
    of the joint softmax; ``heads``: a divisor of D. What was run to publish is not released
    (PROTOCOL.md, section 2)."""

    optimizer: str = "adam"
    lr: float = 5e-5
    epochs: int = 5
    alpha: float = 0.01
    temperature: float = 1.0
    heads: int = 8

    def __post_init__(self):
        super().__post_init__()
        if self.alpha < 0 or self.temperature <= 0 or self.heads < 1:
            raise UserError(
                "rada: alpha is 0 or more, temperature above 0, heads 1 or more; found "
                f"{self.alpha}, {self.temperature}, {self.heads}"
            )


@register("rada")
class RAda(Method):
    name = "RAda"
    paper = "Chen et al. 2025, arXiv 2507.15480"
    depth = "output"
    Config = Config
    micro = {**Method.micro, "lr": 0.01}
    query_image: nn.Linear
    query_class: nn.Linear
    query_both: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    values_at_once = 1 << 27  # float32 values that a chunk of images may hold: 0.5 GiB

    def __init__(self, config, shape):
        super().__init__(config, shape)
        if shape.dim % config.heads:
            raise UserError(f"rada.heads must divide the features' width {shape.dim}; found {config.heads}")
        for name in ("query_image", "query_class", "query_both", "key", "value", "out"):
            self.add_module(name, nn.Linear(shape.dim, shape.dim))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @classmethod
    def published(cls, dataset, shots):
        """One prompt for all that the authors ran on; other datasets keep their own."""
        return {"single_template": dataset in TEMPLATES}

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(self.config.worded(classes))

    def logits(self, x):
        return self.masked(x)[0]

    def loss(self, x, y):
        logits, farthest = self.masked(x)
        return F.cross_entropy(logits, y) + self.config.alpha * farthest.mean()

    def masked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C), and for each image (B,) how far the mask is from 1 at most. The images go in chunks whose
        forward pass is made again in the backward pass. What the mask adds to the cosine is added to zero-shot's own
        logits, so that a mask of 1 gives these to the last bit."""
        found = []
        for part in x.split(self.images_at_once()):
            again = torch.is_grad_enabled() and len(part) < len(x)
            found.append(checkpoint(self.shift, part, use_reentrant=False) if again else self.shift(part))
        added, farthest = map(torch.cat, zip(*found, strict=True))
        return cosine_logits(self.scale, x, self.classifier) + self.scale * added, farthest

    def shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_D (M - 1) IT`` (B, C) and ``max_CD |M - 1|`` (B,)."""
        both, read = self.read(x)
        return self.added(self.out(read), both)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """IT and what the attention reads of it, both (B, C, D)."""
        both = F.normalize(x, dim=-1)[:, None] * self.classifier
        return both, self.attention(x, both)

    @staticmethod
    def added(out: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        """``shift`` of the last projection's output and IT, both (..., C, D)."""
        away = out.clamp(min=-1)  # ReLU(1 + out) - 1
        return (away * both).sum(-1), away.abs().flatten(-2).amax(-1)

    def attention(self, x: Tensor, both: Tensor) -> Tensor:
        """(B, C, D): the mean of three maps over the classes, times the values. Each map is a softmax over all C x C
        scores of an image and head together, times C."""
        root = self.scale.sqrt()
        keys, values = self.heads(self.key(self.scale * both)), self.heads(self.value(self.scale * both))
        # The image is the same query in every row, hence C equal rows, each with a plain softmax.
        image, _ = self.rows(self.heads(self.query_image(root * F.normalize(x, dim=-1))[:, None]), keys, values)
        of_class = self.heads(self.query_class(root * self.classifier)[None]).expand_as(keys)
        of_both = self.heads(self.query_both(self.scale * both))
        total = image + self.jointly(of_class, keys, values) + self.jointly(of_both, keys, values)
        return (total / 3).transpose(1, 2).flatten(2)

    def jointly(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """A softmax over all rows is a softmax within each row, weighted by the row's share of the whole."""
        parts, found = queries.split(self.rows_at_once(keys), dim=2), []
        for part in parts:
            again = torch.is_grad_enabled() and len(parts) > 1
            found.append(
                checkpoint(self.rows, part, keys, values, use_reentrant=False)
                if again
                else self.rows(part, keys, values)
            )
        mixed, total = (torch.cat(made, dim=2) for made in zip(*found, strict=True))
        return mixed * (total.softmax(dim=2) * total.shape[2])[..., None]

    def rows(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of R rows (B, h, R, d), and the logarithm of the sum of each row's exponentials (B, h, R)."""
        scores = queries @ keys.transpose(-2, -1) / (math.sqrt(keys.shape[-1]) * self.config.temperature)
        return scores.softmax(-1) @ values, scores.logsumexp(-1)

    def heads(self, x: Tensor) -> Tensor:
        """(B, C, D) -> (B, h, C, d)."""
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    # -- memory --------------------------------------------------------------------------------------------------------

    def images_at_once(self) -> int:
        count, dim = self.classifier.shape
        return max(1, self.values_at_once // (2 * self.config.heads * count**2 + 10 * count * dim))

    def rows_at_once(self, keys: Tensor) -> int:
        return max(1, self.values_at_once // (2 * keys.shape[0] * self.config.heads * keys.shape[2]))
