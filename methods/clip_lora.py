"""CLIP-LoRA (Zanella & Ben Ayed 2024, CVPRW): low-rank updates of queries, keys and values in every attention block.

Each of these matrices of both towers becomes ``W + s B A`` with A (r, W) random, B (W, r) zero to start and
``s = alpha / sqrt(r)``, as MaxZanella/CLIP-LoRA has it (loralib/layers.py), so the start is zero-shot to the last bit.
A and B are the plug-in; the new backbone supplies W.

Letters: L blocks, r rank, W the tower's own width.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from carryover.bench.backbones.attention import Add, open_projections
from carryover.bench.errors import UserError
from carryover.bench.host.device import send
from carryover.datasets.templates import TEMPLATES
from carryover.methods.base import Method, register
from carryover.methods.parts.inside import InsideMethod
from carryover.methods.parts.templates import TemplateConfig

ITERATIONS = 500  # published, for each shot


@dataclass(frozen=True)
class Config(TemplateConfig):
    """``rank``, ``alpha``: of the updates; ``dropout``: share of the input values that a step's update does not see."""

    optimizer: str = "adamw"
    lr: float = 2e-4
    weight_decay: float = 0.01
    schedule: str = "iteration"
    drop_last: bool = False
    rank: int = 2
    alpha: float = 1.0
    dropout: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        if self.rank < 1 or self.alpha < 0 or not 0 <= self.dropout < 1:
            raise UserError(
                "clip-lora: rank is 1 or more, alpha not negative, dropout from 0 to less than 1; found "
                f"{self.rank}, {self.alpha}, {self.dropout}"
            )


class Updates(nn.Module):
    """A (L, 3, r, W) and B (L, 3, W, r) of one tower's queries, keys and values."""

    def __init__(self, layers: int, width: int, rank: int):
        super().__init__()
        bound = 1 / math.sqrt(width)  # nn.Linear's own, as published
        self.down = nn.Parameter(torch.empty(layers, 3, rank, width).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(layers, 3, width, rank))

    def forward(self, scale: float, seen: Tensor | None) -> Tensor:
        """(L, 3 W, W), for ``seen`` (L, 3, 1, W): what is left of each input value."""
        down = self.down if seen is None else self.down * seen
        return (scale * self.up @ down).flatten(1, 2)


@register("clip-lora")
class ClipLora(InsideMethod):
    name = "CLIP-LoRA"
    paper = "Zanella & Ben Ayed 2024, arXiv 2405.18541"
    Config = Config
    micro = {**Method.micro, "lr": 0.01}
    cost_free = ("alpha", "dropout")

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.text = Updates(shape.text_layers, shape.width, config.rank)
        self.image = Updates(shape.image_layers, shape.image_width, config.rank) if shape.image_layers else None
        self.draw = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))  # of the dropout
        self.opened: list[tuple[Updates, Add]] = []

    @classmethod
    def published(cls, dataset, shots):
        return {"steps": ITERATIONS * shots, "single_template": dataset in TEMPLATES}

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.classes = replace(classes, templates=self.config.worded(classes).templates[:1])

    @contextlib.contextmanager
    def changes(self, backbone):
        stacks = [(self.text, backbone.text_stack), (self.image, backbone.image_stack)]
        with contextlib.ExitStack() as opened:
            self.opened = [(part, opened.enter_context(open_projections(s))) for part, s in stacks if part is not None]
            opened.callback(self.opened.clear)
            yield

    def renew(self):
        for part, add in self.opened:
            add(part(self.config.alpha / math.sqrt(self.config.rank), self.seen(part)))

    def seen(self, part: Updates) -> Tensor | None:
        """A step's dropout: one draw for all tokens, as the text tower multiplies by whole matrices."""
        if not self.training or not self.config.dropout:
            return None
        layers, three, _, width = part.down.shape
        left = torch.rand(layers, three, 1, width, generator=self.draw) >= self.config.dropout
        return send(left / (1 - self.config.dropout), part.down.device).to(part.down.dtype)

    def class_features(self):
        return self.backbone.classifier(self.classes)
