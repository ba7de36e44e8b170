"""CLIP-Adapter (Gao et al. 2021): a bottleneck MLP on the image feature, blended with it.

``f' = r A(f) + (1 - r) f`` with ``A(f) = ReLU(W2 ReLU(W1 f))``, no biases, f not normalised; the visual adapter, as
gaopengcuhk/CLIP-Adapter has it. The text classifier is the current backbone's. The authors released neither learning
rate nor the ratios of their datasets, so both are chosen by few-shot validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.parts.prompts import coop_epochs
from carryover.methods.parts.templates import TemplateConfig

COOP_RATE, RELEASED_RATIO = 2e-3, 0.2


@dataclass(frozen=True)
class Config(TemplateConfig):
    """``ratio`` r of the adapter's output in the blend; ``reduction``: D / reduction hidden units. ``lr`` and ``ratio``
    are fixed where they are not 0, else chosen among ``rates`` (CoOp's, ten and a hundred times it) and ``ratios``
    (jusiro/CLAP's grid for this method). ``search`` False: CoOp's rate and the released ratio instead."""

    lr: float = 0.0
    ratio: float = 0.0
    reduction: int = 4
    search: bool = True
    rates: tuple[float, ...] = (COOP_RATE, 10 * COOP_RATE, 100 * COOP_RATE)
    ratios: tuple[float, ...] = (RELEASED_RATIO, 0.4, 0.6, 0.8)

    def __post_init__(self):
        super().__post_init__()
        if self.reduction < 1 or not 0 <= self.ratio <= 1:
            raise UserError(
                f"clip-adapter: reduction is 1 or more, ratio between 0 and 1; found {self.reduction} and {self.ratio}"
            )
        if not all(rate > 0 for rate in self.rates) or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise UserError(
                f"clip-adapter: rates are above 0, ratios above 0 and at most 1; found {self.rates} and {self.ratios}"
            )


@register("clip-adapter")
class CLIPAdapter(Method):
    name = "CLIP-Adapter"
    paper = "Gao et al. 2021, arXiv 2110.04544"
    depth = "output"
    Config = Config
    micro = {**Method.micro, "steps": 400}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        hidden = shape.dim // config.reduction
        self.adapter = nn.Sequential(
            nn.Linear(shape.dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, shape.dim, bias=False), nn.ReLU()
        )

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": coop_epochs(dataset, shots), "single_template": dataset == "imagenet"}

    def candidates(self):
        c = self.config
        rates = (c.lr,) if c.lr else c.rates if c.search else (COOP_RATE,)
        ratios = (c.ratio,) if c.ratio else c.ratios if c.search else (RELEASED_RATIO,)
        return [{"lr": rate, "ratio": ratio} for rate, ratio in product(rates, ratios)]

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(self.config.worded(classes))

    def logits(self, x):
        return cosine_logits(self.scale, blended(x, self.adapter(x), self.config.ratio), self.classifier)

    @classmethod
    def losses(cls, methods, xs, ys):
        """All candidates in one pass: their adapters, stacked, on inputs (G, B, D)."""
        down, up = (torch.stack([method.adapter[i].weight for method in methods]) for i in (0, 2))
        x, first = torch.stack(list(xs)), methods[0]
        ratios = torch.stack([x.new_full((1, 1), method.config.ratio) for method in methods])  # no copy to the device
        adapted = F.relu(F.relu(x @ down.mT) @ up.mT)
        logits = cosine_logits(first.scale, blended(x, adapted, ratios).flatten(0, 1), first.classifier)
        each = F.cross_entropy(logits, torch.cat(list(ys)), reduction="none")
        return list(each.unflatten(0, x.shape[:2]).mean(1))


def blended(x: Tensor, adapted: Tensor, ratio: Tensor | float) -> Tensor:
    return ratio * adapted + (1 - ratio) * x
