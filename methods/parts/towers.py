"""What the methods share that train both towers: the towers open while they learn, and shut as they were after it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carryover.methods.base import Method, TrainConfig

STAYS = (
    "both towers were trained too and stay with the backbone they were trained on: Base is measured with them, every "
    "other backbone with the plug-in alone"
)


@dataclass(frozen=True)
class TowersConfig(TrainConfig):
    """AdamW with WiSE-FT's decay and cosine (Wortsman et al. 2022; mlfoundations/wise-ft), at a rate and batch for few
    images (PROTOCOL.md, section 2)."""

    optimizer: str = "adamw"
    lr: float = 1e-5
    weight_decay: float = 0.1
    epochs: int = 10
    warmup_epochs: int = 0
    schedule: str = "iteration"


class TowersMethod(Method):
    """All weights of both towers learn, the temperature does not. ``home`` keeps what they became.

    Letters: B images, C classes, D joint width, H pixels a side.
    """

    depth = "towers"
    needs = "pixels"
    whole = False

    def bind(self, backbone, classes):
        self.backbone, self.classes, self._weights = backbone, classes, None

    @classmethod
    def marks(cls, config, base):
        return [STAYS]

    def towers(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.backbone.model.named_parameters() if name != "logit_scale"}

    @contextlib.contextmanager
    def attach(self, backbone):
        """The towers as this method left them there, or as they are; open if it is in training mode on entry."""
        towers, was, learning = self.towers(), {}, self.training
        kept = self.home.get(backbone.fingerprint, {})
        if kept or learning:
            was = {name: value.detach().clone() for name, value in towers.items()}
        self._weights = None
        try:
            with torch.no_grad():
                for name, value in kept.items():
                    towers[name].copy_(value)
            for value in towers.values():
                value.requires_grad_(learning)
            yield
            if learning:
                self.home = {backbone.fingerprint: {name: value.detach().clone() for name, value in towers.items()}}
        finally:
            self._weights = None
            with torch.no_grad():
                for name, value in towers.items():
                    value.requires_grad_(False).grad = None
                    if was:
                        value.copy_(was[name])

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, H) -> (B, D), not normalised."""
        return self.backbone.encode_images(pixels)

    def weights(self) -> Tensor:
        """The zero-shot classifier (C, D) of the text tower as it is now; kept while nothing learns."""
        if torch.is_grad_enabled():
            return self.backbone.classifier(self.classes)
        if self._weights is None:
            self._weights = self.backbone.classifier(self.classes)
        return self._weights
