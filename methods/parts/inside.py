"""What the methods inside both towers share: they read pixels, and fit towers of the same blocks as their base's.

The image half exists where the base's image tower is a transformer. Where it is none (a ResNet), it is left out on the
base and on every target alike, and every table says so.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.methods.base import Method, Shape, cosine_logits

TEXT_ALONE = "in the text tower alone, as the base's image tower is no transformer"


class InsideMethod(Method):
    """A method says how the towers are changed (``changes``) and what its class features are then (C, D)."""

    needs = "pixels"
    depth = "towers"

    def __init__(self, config, shape):
        super().__init__(config, shape)
        if not shape.text_layers:
            raise UserError(f"{self.name} needs a text tower of attention blocks, as open_clip's; this one has none")
        self.kept: tuple[list[int], Tensor] | None = None  # class features of prediction, and of which parameters

    @classmethod
    def marks(cls, config, base):
        return [] if base.image_stack else [f"{cls.name} {TEXT_ALONE}"]

    def bind(self, backbone, classes):
        """Raises UserError for towers of other sizes than the base's."""
        found, own = Shape.of(backbone, (), 0), self.shape
        text = (found.text_layers, found.width), (own.text_layers, own.width)
        image = (found.image_layers, found.image_width), (own.image_layers, own.image_width)
        for tower, (here, learned) in {"text": text, "image": image}.items():
            if learned[0] and here != learned:
                has = f"{here[0]} attention blocks of width {here[1]}" if here[0] else "no attention blocks"
                raise UserError(
                    f"{self.name}: the {tower} tower of {backbone.label} has {has}, the plug-in was learned in "
                    f"{learned[0]} of width {learned[1]}: it can only be carried over to a tower like it"
                )
        self.backbone, self.kept = backbone, None

    def changes(self, backbone) -> contextlib.AbstractContextManager:
        """Undone on exit to the last bit."""
        raise NotImplementedError

    def renew(self) -> None:
        """Called inside ``changes`` before each step, for what is computed from the parameters once a step."""

    def class_features(self) -> Tensor:
        raise NotImplementedError

    @contextlib.contextmanager
    def attach(self, backbone):
        self.kept = None
        try:
            with self.changes(backbone):
                yield
        finally:
            self.kept = None

    def logits(self, x):
        self.renew()
        return cosine_logits(self.backbone.scale, self.backbone.encode_images(x), self.class_features())

    @torch.no_grad()
    def predict(self, x):
        state = [value._version for value in self.parameters()]
        if self.kept is None or self.kept[0] != state:
            self.renew()
            self.kept = state, self.class_features()
        return cosine_logits(self.backbone.scale, self.backbone.encode_images(x), self.kept[1])
