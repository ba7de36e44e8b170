"""TPT (Shu et al. 2022, NeurIPS): the prompt is tuned to each test image, without its label.

The context starts at "a photo of a" for every image and takes one step down the entropy of what confident views of the
image agree on (``methods.parts.test_time``). Nothing is learned before and nothing is kept: no plug-in travels, the new
backbone supplies all. As azshue/TPT releases it (tpt_classification.py), but for its colour augmentations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.methods.base import cosine_logits, register
from carryover.methods.parts.test_time import (
    TestTimeConfig,
    TestTimeMethod,
    adapted,
    confident_views,
    cosines,
    marginal_entropy,
    take,
)


@dataclass(frozen=True)
class Config(TestTimeConfig):
    """``words``: the context that each image starts from."""

    words: str = "a photo of a"

    def __post_init__(self):
        super().__post_init__()
        if not self.words.strip():
            raise UserError("tpt.words is at least one word")


@register("tpt")
class TPT(TestTimeMethod):
    name = "TPT"
    paper = "Shu et al. 2022, arXiv 2209.07511"
    depth = "input"
    Config = Config

    @torch.no_grad()
    def bind(self, backbone, classes):
        self.backbone, text = backbone, backbone.text
        self.tokens, self.context = text.class_tokens(classes.names), text.embed([self.config.words])
        self.classifier = text.encode(self.context, self.tokens)

    def logits(self, x):
        return cosine_logits(self.backbone.scale, x, self.classifier)

    @torch.no_grad()
    def predict(self, x):
        """Of many images the first step is taken by the class features' tangent: they all start at one context, where
        it has the features' values and gradients, and costs D passes instead of one an image."""
        slopes = self.slopes() if self.config.updates == 1 and self.tangent_pays(len(x)) else None
        return torch.cat([self.of_images(part, slopes) for part in x.split(self.images_at_once())])

    def of_images(self, x: Tensor, slopes: Tensor | None) -> Tensor:
        """Views (B, V, D) -> logits (B, C) of the first, each by the context adapted to its image."""
        seen = take(x, confident_views(self.logits(x), self.config.kept))

        def objective(context: Tensor) -> Tensor:
            classes = self.classes(context) if slopes is None else self.near(context, slopes)
            return marginal_entropy(self.backbone.scale * cosines(seen, classes))

        (context,) = adapted(self.config, [self.context.expand(len(x), -1, -1)], objective)
        return cosine_logits(self.backbone.scale, x[:, 0], self.classes(context))

    def classes(self, context: Tensor) -> Tensor:
        """Contexts (B, n, W) -> class features (B, C, D)."""
        return self.backbone.text.encode(context, self.tokens, per="image")

    # -- the tangent at the start --------------------------------------------------------------------------------------

    def near(self, context: Tensor, slopes: Tensor) -> Tensor:
        """``classes`` to first order."""
        moved = (context - self.context).flatten(1) @ slopes.flatten(0, 1).T
        return self.classifier + moved.unflatten(1, slopes.shape[:2]).transpose(1, 2)

    def slopes(self) -> Tensor:
        """Derivatives of the class features by the context (D, C, n W). Each class gets a context of its own, so that a
        backward pass gives one row of all of them; the passes of D rows go side by side."""
        (count, dim), text = self.classifier.shape, self.backbone.text
        found = []
        for rows in torch.arange(dim, device=text.device).split(max(1, text.room // self.tokens_of_a_row)):
            with torch.enable_grad():
                context = self.context.expand(len(rows), count, -1, -1).clone().requires_grad_()
                features = text.encode(context, self.tokens, per="class")
                (slope,) = torch.autograd.grad(
                    features.gather(2, rows[:, None, None].expand(-1, count, 1)).sum(), context
                )
            found.append(slope.flatten(2))
        return torch.cat(found)

    def tangent_pays(self, images: int) -> bool:
        """Whether it takes fewer tokens than a pass an image, and fits what text passes may keep."""
        size = self.classifier.numel() * self.context.numel() * self.context.element_size()
        fewer = self.classifier.shape[1] * self.tokens_of_a_row < images * self.tokens_of_an_image
        return fewer and size <= self.backbone.text.budget

    @property
    def tokens_of_a_row(self) -> int:
        return self.tokens.packed(1, len(self.context)).tokens + 1

    @property
    def tokens_of_an_image(self) -> int:
        prefix = 1 + len(self.context)
        return self.tokens.packed(prefix).tokens + prefix

    def images_at_once(self) -> int:
        """As many as one backward pass may keep."""
        return max(1, self.backbone.text.room // self.tokens_of_an_image)
