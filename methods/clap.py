"""CLAP (Silva-Rodriguez et al. 2024, CVPR; jusiro/CLAP): a linear probe kept near the text classifier it starts from.

``w_c`` starts at t_c, the mean of the text tower's features over the templates, not normalised; logits are scaled
cosines. The loss is ``CE + mean_c a_c |w_c - t_c|^2``, with a_c how probable zero-shot finds class c on c's own images:
where zero-shot does well, the probe stays. W travels, and with it a, by which a refresh goes on; t is the current
backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.datasets.templates import PHOTO
from carryover.methods.base import Method, TrainConfig, cosine_logits, register

VIEWS = 20  # augmented passes over the support images


@dataclass(frozen=True)
class Config(TrainConfig):
    """``constraint``: factor on the distance to the text classifier; 0 is the authors' ZS-LP."""

    lr: float = 0.1
    weight_decay: float = 0.0
    batch: int = 256
    epochs: int = 300
    constraint: float = 1.0


@register("clap")
class CLAP(Method):
    name = "CLAP"
    paper = "Silva-Rodriguez et al. 2024, arXiv 2312.12730"
    depth = "output"
    usual = False
    least_views = VIEWS
    cost_free = ("constraint",)
    learned_buffers = ("pull",)
    pull: Tensor
    Config = Config
    micro = {"crop": (0.7, 1.0)}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.weight = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))
        self.register_buffer("pull", torch.zeros(len(shape.classnames)))

    def bind(self, backbone, classes):
        templates = classes.templates + (PHOTO if classes.dataset == "imagenet" else ())  # eight, as released
        texts = [[template.format(name) for name in classes.names] for template in templates]
        self.classifier = torch.stack([backbone.text.encode_texts(part) for part in texts]).mean(0)
        self.scale, self.rows = backbone.scale, self.class_rows(classes).to(backbone.device)

    @torch.no_grad()
    def start(self, support):
        self.weight.copy_(self.classifier)
        sums, counts = torch.zeros_like(self.pull), torch.bincount(support.labels, minlength=len(self.pull))
        for view in support.views[:VIEWS]:
            shares = cosine_logits(self.scale, view, self.classifier).softmax(1)
            sums.index_add_(0, support.labels, shares.gather(1, support.labels[:, None])[:, 0])
        self.pull.copy_(sums / (len(support.views[:VIEWS]) * counts.clamp(min=1)))

    def logits(self, x):
        return cosine_logits(self.scale, x, self.weight[self.rows])

    def loss(self, x, y):
        distance = (self.weight[self.rows] - self.classifier).square().sum(1)
        return F.cross_entropy(self.logits(x), y) + self.config.constraint * (self.pull[self.rows] * distance).mean()
