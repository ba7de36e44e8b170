"""CoOp (Zhou et al. 2022, IJCV): n context vectors shared by all classes, in front of the class name.

The context replaces token embeddings, so it is the shallowest of plug-ins: the new backbone supplies its own SOS,
class-name and EOT embeddings, positions and towers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from carryover.bench.errors import UserError
from carryover.methods.base import Method, register
from carryover.methods.parts.prompts import CONTEXT_STD, PromptConfig, PromptMethod, coop_epochs


@dataclass(frozen=True)
class Config(PromptConfig):
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
        if self.layer < 0:
            raise UserError(f"layer is 0 or more; found {self.layer}")


@register("coop")
class CoOp(PromptMethod):
    name = "CoOp"
    paper = "Zhou et al. 2022, arXiv 2109.01134"
    Config = Config
    micro = {**Method.micro, "lr": 0.01}
    cost_free = ("layer", "start")

    @property
    def layer(self) -> int:  # type: ignore[override]  # of the class elsewhere, here of the config
        return self.config.layer

    @classmethod
    def published(cls, dataset, shots):
        return {"epochs": coop_epochs(dataset, shots)}

    def start(self, support):
        if self.config.start == "rows":
            rows = self.backbone.text.placeholder_rows(len(self.context), self.config.layer)
            with torch.no_grad():
                self.context.mul_(rows.square().mean().sqrt() / CONTEXT_STD)
