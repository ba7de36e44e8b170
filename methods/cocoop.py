"""CoCoOp (Zhou et al. 2022, CVPR): CoOp whose context each image shifts through a small meta-net.

``context_b = context + meta_net(f_b / |f_b|)``, the same shift for each of the n tokens; every image thus has its own
C prompts. They are encoded together, one prefix an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, register
from carryover.methods.parts.prompts import PromptConfig, PromptMethod, start_from_words

PREDICTED_VALUES = 1 << 26  # class features (B, C, D) held at a time in prediction: a quarter of a gigabyte


@dataclass(frozen=True)
class Config(PromptConfig):
    """``reduction``: the meta-net has D / reduction hidden units; ``initial_words`` as in KgCoOp."""

    batch: int = 1
    epochs: int = 10
    context_length: int = 4
    initial_words: str = "a photo of a"
    reduction: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.reduction < 1:
            raise UserError(f"cocoop.reduction is 1 or more, found {self.reduction}")


@register("cocoop")
class CoCoOp(PromptMethod):
    name = "CoCoOp"
    paper = "Zhou et al. 2022, arXiv 2203.05557"
    per = "image"
    Config = Config
    micro = {**Method.micro, "steps": 100, "batch": 8, "lr": 0.02}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        hidden = max(shape.dim // config.reduction, 1)
        self.meta_net = nn.Sequential(nn.Linear(shape.dim, hidden), nn.ReLU(), nn.Linear(hidden, shape.width))

    def start(self, support):
        if self.config.initial_words:
            start_from_words(self.context, self.backbone, self.config.initial_words)

    @torch.no_grad()
    def predict(self, x):
        rows = max(1, PREDICTED_VALUES // (len(self.tokens) * x.shape[1]))
        return torch.cat([self.logits(part) for part in x.split(rows)])

    def contexts(self, x):
        return self.context + self.meta_net(F.normalize(x, dim=-1))[:, None]
