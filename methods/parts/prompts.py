"""What the methods that learn a context share: prompts through the fast text path, of one run or of several at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, cosine_logits

CONTEXT_STD = 0.02  # CoOp's random initialisation, the standard deviation of CLIP's token embeddings at their start


@dataclass(frozen=True)
class PromptConfig(TrainConfig):
    """``context_length``: n context tokens in front of the class name."""

    context_length: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.context_length < 1:
            raise UserError(f"context_length is 1 or more; found {self.context_length}")


class PromptMethod(Method):
    """Learned context (n, W) in front of each class name; ``class_context`` may shift it per image or per class.

    per     what has a context of its own: "shared" (nothing: one for all), "class" or "image"
    layer   the block at whose input the context stands (``TextTower.encode``)
    """

    depth = "input"
    per = "shared"
    layer = 0

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.context = nn.Parameter(torch.randn(config.context_length, shape.width) * CONTEXT_STD)

    def bind(self, backbone, classes):
        self.backbone, self.tokens = backbone, backbone.text.class_tokens(classes.names)

    def contexts(self, x: Tensor) -> Tensor:
        """(n, W), or (C, n, W) per class, or (B, n, W) per image, for image features x (B, D)."""
        return self.context

    def objective(self, features: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss, from class features (C, D), or (B, C, D) per image, as they come from the text tower."""
        return F.cross_entropy(cosine_logits(self.backbone.scale, x, features), y)

    def class_features(self, x: Tensor) -> Tensor:
        """(C, D), or (B, C, D) per image, not normalised."""
        return self.backbone.text.encode(self.contexts(x), self.tokens, per=self.per, layer=self.layer)

    def logits(self, x):
        return cosine_logits(self.backbone.scale, x, self.class_features(x))

    def loss(self, x, y):
        return self.objective(self.class_features(x), x, y)

    # -- several runs at once ------------------------------------------------------------------------------------------

    @classmethod
    def alike(cls, config) -> Hashable | None:
        """None for a method that computes its loss in a way of its own, which ``losses`` would pass by."""
        if cls.loss is not PromptMethod.loss or cls.class_features is not PromptMethod.class_features:
            return None
        return cls.per, getattr(config, "layer", cls.layer), config.context_length

    def tokens_a_step(self, batch: int) -> int:
        n = len(self.context)
        if self.per == "class":
            return self.tokens.packed(1, n).tokens + 1
        return (self.tokens.packed(1 + n).tokens + 1 + n) * (batch if self.per == "image" else 1)

    @classmethod
    def losses(cls, methods: Sequence[Any], xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
        """All contexts go through the text tower together; what each run makes of its features is its own."""
        first = methods[0]
        if len(methods) == 1 or any((m.tokens.rows, m.layer) != (first.tokens.rows, first.layer) for m in methods):
            return [method.loss(x, y) for method, x, y in zip(methods, xs, ys, strict=True)]
        contexts = [method.contexts(x) for method, x in zip(methods, xs, strict=True)]
        text = first.backbone.text
        if first.per == "image":
            made = text.encode(torch.cat(contexts), first.tokens, per="image", layer=first.layer)
            made = made.split([len(context) for context in contexts])
        else:
            per = "class" if first.per == "class" else "image"
            made = text.encode(torch.stack(contexts), first.tokens, per=per, layer=first.layer).unbind(0)
        return [m.objective(features, x, y) for m, features, x, y in zip(methods, made, xs, ys, strict=True)]


def start_from_words(context: nn.Parameter, backbone, words: str) -> None:
    """Fill the context (n, W) with the embeddings of n words. Raises UserError when the words are not n tokens."""
    rows = backbone.text.embed([words])
    if len(rows) != len(context):
        raise UserError(
            f"initial_words '{words}' are {len(rows)} tokens, context_length is {len(context)}: set one to fit the "
            "other, or initial_words= (empty) for a random start"
        )
    with torch.no_grad():
        context.copy_(rows)


def coop_epochs(dataset: str, shots: int) -> int:
    """CoOp's schedule: 50 epochs for 1 shot and for ImageNet, 100 for 2 and 4, 200 beyond."""
    return 50 if shots == 1 or dataset == "imagenet" else 100 if shots <= 4 else 200
