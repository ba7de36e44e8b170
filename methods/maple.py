"""MaPLe (Khattak et al. 2023, CVPR): prompts at the inputs of the first J blocks of both towers, coupled.

The text prompts are learned: the context at the token embeddings, and n rows that replace it at the input of each of
the next J - 1 blocks. A linear layer a block makes the image tower's prompts of them, as in
muzairkhattak/multimodal-prompt-learning (trainers/maple.py, clip/model.py). Prompts and layers are the plug-in.

Letters: n prompts a block, J blocks (depth), V width of the image tower.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carryover.bench.backbones.attention import added_tokens
from carryover.bench.backbones.class_tokens import ClassTokens
from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register
from carryover.methods.parts.inside import InsideMethod
from carryover.methods.parts.prompts import CONTEXT_STD


@dataclass(frozen=True)
class Config(TrainConfig):
    """``context_length``: n; ``depth``: J, at most the blocks of either tower; ``initial_words``: the context starts
    from the first n tokens, the others stay in front of each class name (empty: a random start and the name alone)."""

    lr: float = 3.5e-3
    batch: int = 4
    epochs: int = 5
    context_length: int = 2
    depth: int = 9
    initial_words: str = "a photo of a"

    def __post_init__(self):
        super().__post_init__()
        if self.context_length < 1 or self.depth < 1:
            raise UserError(
                f"maple: context_length and depth are 1 or more; found {self.context_length} and {self.depth}"
            )


@register("maple")
class MaPLe(InsideMethod):
    name = "MaPLe"
    paper = "Khattak et al. 2023, arXiv 2210.03117"
    Config = Config
    micro = {**Method.micro, "batch": 32, "lr": 0.01}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        n, width, there = config.context_length, shape.width, shape.image_width
        self.depth_here = min(config.depth, shape.text_layers, shape.image_layers or shape.text_layers)
        self.context = nn.Parameter(torch.randn(n, width) * CONTEXT_STD)
        self.deep = nn.Parameter(torch.randn(self.depth_here - 1, n, width) * CONTEXT_STD)
        if shape.image_layers:
            # nn.Linear's own initial values; those of the deeper blocks start as copies of one layer, as published.
            drawn = torch.empty(2, there, width + 1).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))
            drawn = drawn[[0] + [1] * (self.depth_here - 1)]
            self.coupling = nn.Parameter(drawn[:, :, :width].clone())  # (J, V, W)
            self.coupling_bias = nn.Parameter(drawn[:, :, width].clone())  # (J, V)

    def bind(self, backbone, classes):
        """Raises UserError where the words are fewer than n tokens."""
        super().bind(backbone, classes)
        words, n = self.config.initial_words, len(self.context)
        if words and len(backbone.text.embed([words])) < n:
            raise UserError(
                f"maple: initial_words '{words}' are fewer than {n} tokens: set context_length to fit, or "
                "initial_words= (empty) for a random start"
            )
        tokens = backbone.text.class_tokens([f"{words} {name}" if words else name for name in classes.names])
        self.tokens = ClassTokens(tuple(row[n if words else 0 :] for row in tokens.rows), tokens.device)

    def start(self, support):
        if self.config.initial_words:
            with torch.no_grad():
                self.context.copy_(self.backbone.text.embed([self.config.initial_words])[: len(self.context)])

    def changes(self, backbone):
        if not self.shape.image_layers:
            return contextlib.nullcontext()
        return added_tokens(backbone.image_stack, len(self.context), self.depth_here, self.image_prompts)

    def image_prompts(self, block: int) -> Tensor:
        """(n, V), at the input of that block."""
        prompts = self.deep[block - 1] if block else self.context
        return prompts @ self.coupling[block].T + self.coupling_bias[block]

    def class_features(self):
        return self.backbone.text.encode(self.context, self.tokens, deep=self.deep)
