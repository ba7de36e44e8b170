"""2SFS (Farina et al. 2025, CVPR; FarinaMatteo/rethinking_fewshot_vlms, fs/twostage.py): norms, then a classifier.

The first stage is LayerNorm tuning, three fifths of the steps. In the second the towers stay as they are then, and a
classifier w (C, D) learns that starts at the tuned text features, with an optimiser and a cosine of its own; logits are
scaled cosines. The norms travel as LayerNorm tuning's do, w as it is.

Letters: C classes, D joint width, N support images, V views, E epochs of the second stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.bench.host.device import send
from carryover.datasets.templates import TEMPLATES
from carryover.methods.base import cosine_logits, register
from carryover.methods.layer_norm import Config as LayerNormConfig
from carryover.methods.layer_norm import LayerNormTuning
from carryover.methods.parts.optimizer import optimizer
from carryover.methods.parts.schedule import Schedule, epoch_steps

FIRST = 180  # published steps of the first stage, for each shot: 0.6 of 300


@dataclass(frozen=True)
class Config(LayerNormConfig):
    """``second``: steps of the second stage for each of the first, which ``steps`` and ``epochs`` tell."""

    second: float = 2 / 3

    def __post_init__(self):
        super().__post_init__()
        if self.second < 0:
            raise UserError(f"2sfs: second is not negative; found {self.second}")


@register("2sfs")
class TwoStage(LayerNormTuning):
    name = "2SFS"
    Config = Config
    micro = {**LayerNormTuning.micro, "lr": 0.004}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.classifier = nn.Parameter(torch.zeros(len(shape.classnames), shape.dim))
        self.draw = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))  # of the second stage
        self.anew = False  # whether it is to be started; a refresh goes on with its own

    @classmethod
    def published(cls, dataset, shots):
        return {"steps": FIRST * shots, "single_template": dataset in TEMPLATES}

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.rows = self.class_rows(classes).to(backbone.device)

    def start(self, support):
        super().start(support)
        self.anew = True

    def loss(self, x, y):
        """The first stage's."""
        self.renew()
        texts = super().class_features()
        return F.cross_entropy(cosine_logits(self.backbone.scale, self.backbone.encode_images(x), texts), y)

    def class_features(self):
        return self.classifier[self.rows]

    def finish(self, support):
        """The second stage, on features that are encoded once."""
        config, count = self.config, len(support.labels)
        steps = epoch_steps(config, count)
        total = round(config.second * steps * Schedule(config, steps).epochs)
        schedule = Schedule(replace(config, steps=total, epochs=0), steps)
        with torch.no_grad():
            self.renew()
            if self.anew:
                self.classifier.copy_(super().class_features())
        if not total:
            return
        order = torch.stack([torch.randperm(count, generator=self.draw) for _ in range(schedule.epochs)])  # (E, N)
        view = torch.randint(len(support.views), order.shape, generator=self.draw)
        drawn, where = torch.unique(view * count + order, return_inverse=True)
        features = self.features(support.views, drawn // count, drawn % count)
        where, order = send(where, features.device), send(order, features.device)
        solver = optimizer(config, [(config.lr, 1.0, [self.classifier])])
        for epoch in range(schedule.epochs):
            for step in range(steps):
                solver.param_groups[0]["lr"] = schedule.rate(epoch + 1, step)
                part = slice(step * config.batch, (step + 1) * config.batch)
                logits = cosine_logits(self.backbone.scale, features[where[epoch, part]], self.classifier)
                solver.zero_grad()
                F.cross_entropy(logits, support.labels[order[epoch, part]]).backward()
                solver.step()

    @torch.no_grad()
    def features(self, views, *drawn: Tensor) -> Tensor:
        """(M, D), for the views and images (M,), (M,) that were drawn."""
        batches = list(zip(*[part.split(self.config.batch) for part in drawn], strict=True))
        if isinstance(views, Tensor):
            batches = [tuple(send(part, views.device) for part in pair) for pair in batches]
        elif hasattr(views, "expect"):  # pictures, decoded ahead
            views.expect(batches)
        return torch.cat([self.backbone.encode_images(views[pair]) for pair in batches])
