"""RAda while both towers are updated (Chen et al. 2025, the setting whose code is not released).

The mask of ``methods/rada.py`` stands behind towers that learn with it. The plug-in that travels is the mask alone:
another backbone meets a mask that was fitted to towers it does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.methods import rada
from carryover.methods.base import register
from carryover.methods.parts.towers import TowersConfig, TowersMethod


@dataclass(frozen=True)
class Config(TowersConfig, rada.Config):
    """``mask_factor``: the mask's learning rate as a multiple of the towers'."""

    optimizer: str = "adamw"
    lr: float = 1e-5
    epochs: int = 10
    mask_factor: float = 5.0  # 5e-5, the released rate on frozen towers

    def __post_init__(self):
        super().__post_init__()
        if self.mask_factor < 0:
            raise UserError(f"rada-towers: mask_factor is 0 or more; found {self.mask_factor}")


@register("rada-towers")
class RAdaTowers(TowersMethod, rada.RAda):
    name = "RAda + towers"
    Config = Config
    micro = {"steps": 100, "epochs": 1, "crop": (0.7, 1.0), "lr": 1e-4, "mask_factor": 100.0}

    def bind(self, backbone, classes):
        TowersMethod.bind(self, backbone, self.config.worded(classes))
        self.scale = backbone.scale

    def trained(self):
        return [(1.0, list(self.towers().values())), (self.config.mask_factor, list(self.parameters()))]

    def masked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As RAda's, from pixels (B, 3, H, H)."""
        self.classifier = self.weights()
        return super().masked(self.features(x))
