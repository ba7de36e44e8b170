"""CoOp (Zhou et al. 2022, IJCV): n context vectors shared by all classes, in front of the class name.

The context replaces token embeddings, so it is the shallowest of plug-ins: the new backbone supplies its own SOS,
class-name and EOT embeddings, positions and towers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import UserError
from methods.base import Method, TrainConfig, cosine_logits, register

CONTEXT_STD = 0.02  # CoOp's random initialisation, the standard deviation of CLIP's token embeddings at their start


@dataclass(frozen=True)
class Config(TrainConfig):
    """``context_length``: n, 16 in CoOp's best version; ``layer``: the block whose input the context replaces;
    ``start``: "fixed" draws N(0, 0.02^2) at every layer, "rows" as large (root mean square) as the rows it replaces,
    which grow with depth."""

    context_length: int = 16
    layer: int = 0
    start: str = "fixed"

    def __post_init__(self):
        super().__post_init__()
        if self.start not in ("fixed", "rows"):
            raise UserError(f"start is 'fixed' or 'rows'; found '{self.start}'")
        if self.context_length < 1 or self.layer < 0:
            raise UserError(
                f"context_length is 1 or more, layer 0 or more; found {self.context_length} and {self.layer}"
            )


@register("coop")
class CoOp(Method):
    name = "CoOp"
    paper = "Zhou et al. 2022, arXiv 2109.01134"
    depth = "shallow"
    Config = Config
    micro = {**Method.micro, "lr": 0.01}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.context = nn.Parameter(torch.randn(config.context_length, shape.width) * CONTEXT_STD)

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": coop_epochs(dataset, shots)}

    def bind(self, backbone, classes):
        self.backbone, self.tokens = backbone, backbone.text.class_tokens(classes.names)

    def start(self, support):
        if self.config.start == "rows":
            rows = self.backbone.text.placeholder_rows(len(self.context), self.config.layer)
            with torch.no_grad():
                self.context.mul_(rows.square().mean().sqrt() / CONTEXT_STD)

    def class_features(self) -> Tensor:
        """(C, D), not normalised."""
        return self.backbone.text.encode(self.context, self.tokens, layer=self.config.layer)

    def logits(self, x):
        return cosine_logits(self.backbone.scale, x, self.class_features())


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
