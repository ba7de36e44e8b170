"""TaskRes (Yu et al. 2023, CVPR): a learned residual for each class, added to the frozen zero-shot classifier.

``w_k = t_k + alpha x_k`` with x at zero to start; t, the mean of the text tower's features over the templates, is not
normalised (geekyutao/TaskRes, trainers/taskres.py), and is the current backbone's. Only x travels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from carryover.datasets.templates import PHOTO
from carryover.methods.base import Method, TrainConfig, cosine_logits, register


@dataclass(frozen=True)
class Config(TrainConfig):
    """``scale``: alpha."""

    optimizer: str = "adam"
    batch: int = 256
    scale: float = 0.5


@register("taskres")
class TaskRes(Method):
    name = "TaskRes"
    paper = "Yu et al. 2023, arXiv 2211.10277"
    depth = "output"
    Config = Config
    micro = {**Method.micro, "batch": 32, "lr": 0.05}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.residual = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))

    @classmethod
    def published(cls, dataset, shots):
        return {
            "lr": 2e-4 if dataset == "imagenet" else 2e-3,
            "epochs": 100 if shots <= 4 else 200,
            "scale": 1.0 if dataset == "flowers102" else 0.5,
        }

    def bind(self, backbone, classes):
        templates = classes.templates + (PHOTO if classes.dataset == "imagenet" else ())  # eight, as released
        texts = [[template.format(name) for name in classes.names] for template in templates]
        self.classifier = torch.stack([backbone.text.encode_texts(part) for part in texts]).mean(0)
        self.scale, self.rows = backbone.scale, self.class_rows(classes).to(backbone.device)

    def logits(self, x):
        return cosine_logits(self.scale, x, self.classifier + self.config.scale * self.residual[self.rows])
