"""What a port leaves where the outcome is an ordinary plug-in of the new backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports import frozen
from carryover.bench.ports.base import Ported
from carryover.methods.base import Classes, Method


class Carried(Ported):
    """A method that is bound to whatever backbone it is evaluated on."""

    kind = "plugin"

    def __init__(self, method: Method, classes: Classes):
        super().__init__()
        self.method, self.classes, self.needs = method, classes, type(method).needs

    def bind(self, backbone, classes):
        self.method.bind(backbone, classes)

    def attach(self, backbone):
        return self.method.attach(backbone)

    def logits(self, x: Tensor) -> Tensor:
        return self.method.logits(x)

    def predict(self, x: Tensor) -> Tensor:
        return self.method.predict(x)

    def inner(self) -> Method | None:
        return self.method

    def state(self):
        return self.method.learned(), {}

    @classmethod
    def restore(cls, tensors, header):
        raise UserError("what it carries is an ordinary plug-in, which a file of version 1 holds")


def copied(plugin: Any) -> Method:
    """The plug-in unbound, as its file would give it."""
    return frozen.rebuilt(type(plugin), plugin.config, plugin.shape, plugin.learned(), {})
