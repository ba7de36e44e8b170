"""What the methods share that add a change to single weights inside both towers (``bench.backbones.places``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor

from carryover.bench.backbones.places import Spot, open_spots
from carryover.methods.base import Classes
from carryover.methods.parts.inside import InsideMethod


class SpotsMethod(InsideMethod):
    """A method sets ``spots`` and ``classes`` in ``bind``, and says what is added to each spot (``deltas``). Class
    features are the zero-shot classifier of the changed text tower."""

    spots: list[Spot]
    classes: Classes

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.add: Callable[[Sequence[Tensor]], None] | None = None  # inside ``changes``

    def deltas(self) -> Sequence[Tensor]:
        """One of each spot, in its shape."""
        raise NotImplementedError

    @contextlib.contextmanager
    def changes(self, backbone):
        with open_spots(self.spots) as self.add:
            try:
                yield
            finally:
                self.add = None

    def renew(self):
        if self.add is not None:
            self.add(self.deltas())

    def class_features(self):
        return self.backbone.classifier(self.classes)
