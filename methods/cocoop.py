"""CoCoOp (Zhou et al. 2022, CVPR): CoOp whose context each image shifts through a small meta-net.

``context_b = context + meta_net(f_b / |f_b|)``, the same shift for each of the n tokens; every image thus has its own
C prompts. They are encoded together, one prefix an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bench.errors import UserError
from methods.base import Method, TrainConfig, cosine_logits, register
from methods.coop import CONTEXT_STD, start_from_words

PREDICTED_VALUES = 1 << 26  # class features (B, C, D) held at a time in prediction: a quarter of a gigabyte


@dataclass(frozen=True)
class Config(TrainConfig):
    """``reduction``: the meta-net has D / reduction hidden units; ``initial_words`` as in KgCoOp."""

    batch: int = 1
    epochs: int = 10
    context_length: int = 4
    initial_words: str = "a photo of a"
    reduction: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.reduction < 1 or self.context_length < 1:
            raise UserError(
                f"cocoop.reduction and cocoop.context_length are 1 or more, found {self.reduction} and "
                f"{self.context_length}"
            )


@register("cocoop")
class CoCoOp(Method):
    name = "CoCoOp"
    paper = "Zhou et al. 2022, arXiv 2203.05557"
    depth = "shallow"
    Config = Config
    micro = {**Method.micro, "steps": 100, "batch": 8, "lr": 0.02}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.context = nn.Parameter(torch.randn(config.context_length, shape.width) * CONTEXT_STD)
        hidden = max(shape.dim // config.reduction, 1)
        self.meta_net = nn.Sequential(nn.Linear(shape.dim, hidden), nn.ReLU(), nn.Linear(hidden, shape.width))

    def bind(self, backbone, classes):
        self.backbone, self.tokens = backbone, backbone.text.class_tokens(classes.names)

    def start(self, support):
        if self.config.initial_words:
            start_from_words(self.context, self.backbone, self.config.initial_words)

    @torch.no_grad()
    def predict(self, x):
        rows = max(1, PREDICTED_VALUES // (len(self.tokens.ids) * x.shape[1]))
        return torch.cat([self.logits(part) for part in x.split(rows)])

    def logits(self, x):
        shift = self.meta_net(F.normalize(x, dim=-1))
        features = self.backbone.text.encode(self.context + shift[:, None], self.tokens, per="image")
        return cosine_logits(self.backbone.scale, x, features)
