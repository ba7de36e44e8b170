"""WiSE-FT (Wortsman et al. 2022; mlfoundations/wise-ft): half-way between zero-shot and fine-tuned weights.

The image tower learns, and a linear head on its normalised features, which starts at the zero-shot classifier times the
temperature, with a bias from 0; the text tower does not. All that learned is then taken half: ``theta_0 + share
(theta_1 - theta_0)``, the head too. The differences are the plug-in; on another backbone they are added to its own
weights as a task vector's are, and to its own zero-shot head.

Letters: B images, C classes, D joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from carryover.methods import task_vector
from carryover.methods.base import register
from carryover.methods.task_vector import DifferencesMethod


@dataclass(frozen=True)
class Config(task_vector.Config):
    """``share``: the released code's default; it is not chosen, for few-shot validation holds no pictures."""

    share: float = 0.5


@register("wise-ft")
class WiseFT(DifferencesMethod):
    name = "WiSE-FT"
    paper = "Wortsman et al. 2022, arXiv 2109.01903"
    Config = Config
    cost_free = ("share",)
    micro = {"steps": 100, "epochs": 1, "crop": (0.7, 1.0), "lr": 1e-3}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.head = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))  # less the zero-shot one
        self.bias = nn.Parameter(torch.zeros(len(shape.classnames)))

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.zero_shot, self.rows = backbone.zero_shot(classes), self.class_rows(classes).to(backbone.device)

    def towers(self):
        return {name: value for name, value in super().towers().items() if name.startswith("visual.")}

    def trained(self):
        return [(1.0, [*self.towers().values(), self.head, self.bias])]

    def logits(self, x):
        share = 1.0 if self.training else self.config.share
        head = self.backbone.scale * self.zero_shot + share * self.head[self.rows]
        return F.linear(F.normalize(self.features(x), dim=-1), head, share * self.bias[self.rows])
