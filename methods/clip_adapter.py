"""CLIP-Adapter (Gao et al. 2021): a bottleneck MLP on the image feature, blended with it.

``f' = r A(f) + (1 - r) f`` with ``A(f) = ReLU(W2 ReLU(W1 f))``, no biases, f not normalised; the visual adapter with
r = 0.2, as gaopengcuhk/CLIP-Adapter has it. The text classifier is the current backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, cosine_logits, register
from carryover.methods.parts.prompts import coop_epochs


@dataclass(frozen=True)
class Config(TrainConfig):
    """``ratio`` r of the adapter's output in the blend; ``reduction``: D / reduction hidden units."""

    ratio: float = 0.2
    reduction: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.reduction < 1 or not 0 <= self.ratio <= 1:
            raise UserError(
                f"clip-adapter: reduction is 1 or more, ratio between 0 and 1; found {self.reduction} and {self.ratio}"
            )


@register("clip-adapter")
class CLIPAdapter(Method):
    name = "CLIP-Adapter"
    paper = "Gao et al. 2021, arXiv 2110.04544"
    depth = "output"
    Config = Config
    micro = {**Method.micro, "steps": 400, "lr": 0.2}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        hidden = shape.dim // config.reduction
        self.adapter = nn.Sequential(
            nn.Linear(shape.dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, shape.dim, bias=False), nn.ReLU()
        )

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": coop_epochs(dataset, shots)}

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):
        blended = self.config.ratio * self.adapter(x) + (1 - self.config.ratio) * x
        return cosine_logits(self.scale, blended, self.classifier)
