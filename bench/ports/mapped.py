"""A plug-in behind a map: new features go into the old space, where the old plug-in, kept as it was bound, answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports import frozen
from carryover.bench.ports.base import Ported
from carryover.bench.ports.frozen import Head
from carryover.bench.ports.maps import Map
from carryover.methods.base import Classes, Method


class Mapped(Ported):
    """``head((x - mean_new) @ matrix + mean_old)``: x (B, Dn), means (Dn,) and (Do,), matrix (Dn, Do) with scale."""

    kind = "mapped"
    fitted: Map | None = None  # as it was fitted, with its anchors; not in files
    matrix: Tensor
    mean_new: Tensor
    mean_old: Tensor

    def __init__(self, matrix: Tensor, mean_new: Tensor, mean_old: Tensor, head: Head, classes: Classes, home: str):
        super().__init__()
        for name, value in (("matrix", matrix), ("mean_new", mean_new), ("mean_old", mean_old)):
            self.register_buffer(name, value.detach().float().clone())
        self.head, self.classes, self.home = head, classes, home
        self.eval()

    @classmethod
    def through(cls, fitted: Map, head: Head, classes: Classes, home: str) -> Mapped:
        made = cls(fitted.matrix, fitted.mean_new, fitted.mean_old, head, classes, home)
        made.about, made.fitted = dict(fitted.about), fitted
        return made

    def old(self, x: Tensor) -> Tensor:
        """(B, Dn) -> (B, Do)."""
        if x.shape[-1] != len(self.mean_new):
            raise UserError(
                f"this port takes features of width {len(self.mean_new)}, found {x.shape[-1]}: are they of another "
                "backbone?"
            )
        return (x - self.mean_new) @ self.matrix + self.mean_old

    def logits(self, x: Tensor) -> Tensor:
        return self.head.logits(self.old(x))

    def inner(self) -> Method | None:
        return self.head.inner()

    def state(self):
        tensors, header = self.head.state()
        tensors = {f"head.{name}": value for name, value in tensors.items()}
        own = {"matrix": self.matrix, "mean_new": self.mean_new, "mean_old": self.mean_old}
        return {**own, **tensors}, {"head": header, **told(self)}

    @classmethod
    def restore(cls, tensors, header):
        made = cls(
            tensors["matrix"],
            tensors["mean_new"],
            tensors["mean_old"],
            frozen.restored(inside("head", tensors), header["head"]),
            classes_of(header),
            header["home"],
        )
        made.about = dict(header["about"])
        return made


def told(ported: Ported) -> dict[str, Any]:
    """What every header of a ported plug-in says."""
    return {"classes": asdict(ported.classes), "home": ported.home, "about": ported.about}


def classes_of(header: dict[str, Any]) -> Classes:
    own = header["classes"]
    return Classes(own["dataset"], tuple(own["names"]), tuple(own["templates"]))


def inside(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with it, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
