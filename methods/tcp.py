"""TCP (Yao et al. 2024, CVPR; htyao89/Textual-based_Class-aware_prompt_tuning): CoOp whose context becomes the class's.

A context shared by all classes stands at the token embeddings. At the input of block 8 of the text tower a meta-net's
rows replace it, ``Linear - QuickGELU - Linear`` of the class's zero-shot text feature: n rows a class. The loss is
``CE + weight * (1 - mean_c cos(w_c, t_c))``, t the zero-shot features. Context and meta-net travel; t is the current
backbone's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from carryover.bench.backbones.class_tokens import pad
from carryover.bench.errors import UserError
from carryover.datasets.templates import PHOTO
from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.parts.prompts import PromptConfig, PromptMethod

# What follows the context, where it is not "{}.": Cars' line has no full stop, as released.
BEHIND = {
    "oxford_pets": "{}, a type of pet.",
    "flowers102": "{}, a type of flower.",
    "fgvc_aircraft": "{}, a type of aircraft.",
    "dtd": "{} texture.",
    "stanford_cars": "{}, a type of car",
    "food101": "{}, a type of food.",
    "ucf101": "person doing {}.",
}
# The zero-shot texts where they are not the dataset's own.
TEACHER = {
    "fgvc_aircraft": ("a photo of an aircraft {}.",),
    "dtd": ("a photo of a {}, a type of texture.",),
    "food101": ("a photo of a {}, a type of food.",),
    "imagenet": PHOTO,
}


@dataclass(frozen=True)
class Config(PromptConfig):
    """``block``: at whose input the class's rows stand; in a tower that has no such block, two thirds of its depth.
    ``weight`` of the distance term; ``reduction``: the meta-net has D / reduction hidden units. ``eps`` is Adam's, as
    the released README sets it."""

    optimizer: str = "adam"
    eps: float = 1e-3
    epochs: int = 50
    context_length: int = 4
    block: int = 8
    weight: float = 8.0
    reduction: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.block < 1 or self.reduction < 1 or self.weight < 0:
            raise UserError(
                "tcp: block and reduction are 1 or more, weight is not negative; found "
                f"{self.block}, {self.reduction}, {self.weight}"
            )


@register("tcp")
class TCP(PromptMethod):
    name = "TCP"
    paper = "Yao et al. 2024, arXiv 2311.18231"
    per = "class"
    usual = False
    Config = Config
    micro = Method.micro
    cost_free = ("context_length", "block", "weight", "reduction")  # the length by ``own_tokens``

    def __init__(self, config, shape):
        super().__init__(config, shape)
        hidden, rows = max(shape.dim // config.reduction, 1), config.context_length * shape.width
        self.meta_net = nn.Sequential(nn.Linear(shape.dim, hidden), QuickGELU(), nn.Linear(hidden, rows))

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": 25 if dataset in ("imagenet", "sun397") else 50}

    @classmethod
    def own_tokens(cls, config):
        return config.context_length

    def bind(self, backbone, classes):
        """Raises UserError where the text tower has no inner block."""
        self.backbone, text, blocks = backbone, backbone.text, len(backbone.text.blocks)
        if blocks < 2:
            raise UserError(
                "tcp: its class tokens stand at an inner block of a text tower, which needs open_clip's own of two "
                f"blocks or more; {backbone.label} has {blocks or 'none'}: choose another backbone"
            )
        self.block = self.config.block if self.config.block < blocks else max(2 * blocks // 3, 1)
        behind = text.behind([BEHIND.get(classes.dataset, "{}.").format(name) for name in classes.names])
        self.tokens = pad([[*row, text.layout.end] for row in behind], text.device)
        self.teacher = backbone.zero_shot(replace(classes, templates=TEACHER.get(classes.dataset, classes.templates)))

    def contexts(self, x):
        return self.context.expand(len(self.teacher), -1, -1)

    def class_rows_within(self) -> Tensor:
        """(C, n, W), at the input of the block."""
        return self.meta_net(self.teacher).unflatten(1, self.context.shape)

    def class_features(self, x):
        deep = {self.block: self.class_rows_within()}
        return self.backbone.text.encode(self.contexts(x), self.tokens, per="class", deep=deep)

    def objective(self, features, x, y):
        features = F.normalize(features, dim=-1)
        distance = 1 - (features * self.teacher).sum(-1).mean()
        return F.cross_entropy(cosine_logits(self.backbone.scale, x, features), y) + self.config.weight * distance

    @classmethod
    def alike(cls, config):
        return config.context_length, config.block

    @classmethod
    def losses(cls, methods: Sequence[Any], xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
        """The prompts of all runs go through the text tower together."""
        first = methods[0]
        if len(methods) == 1 or any(method.tokens.rows != first.tokens.rows for method in methods):
            return [method.loss(x, y) for method, x, y in zip(methods, xs, ys, strict=True)]
        contexts = torch.stack([method.contexts(x) for method, x in zip(methods, xs, strict=True)])
        deep = {first.block: torch.stack([method.class_rows_within() for method in methods])}
        made = first.backbone.text.encode(contexts, first.tokens, per="class", deep=deep)
        return [m.objective(features, x, y) for m, features, x, y in zip(methods, made, xs, ys, strict=True)]
