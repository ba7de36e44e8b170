"""CoCoOp (Zhou et al. 2022, CVPR): CoOp whose context each image shifts through a small meta-net.

``context_b = context + meta_net(f_b / |f_b|)``, the same shift for each of the n tokens; every image thus has its own
C prompts. They are encoded together, one prefix an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from methods.base import Method, TrainConfig, cosine_logits, register
from methods.coop import CONTEXT_STD, start_from_words


@dataclass(frozen=True)
class Config(TrainConfig):
    """``reduction``: the meta-net has D / reduction hidden units; ``initial_words`` as in KgCoOp."""

    batch: int = 1
    epochs: int = 10
    context_length: int = 4
    initial_words: str = "a photo of a"
    reduction: int = 16


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

    def logits(self, x):
        shift = self.meta_net(F.normalize(x, dim=-1))
        features = self.backbone.text.encode(self.context + shift[:, None], self.tokens, per="image")
        return cosine_logits(self.backbone.scale, x, features)
