"""The port interface: what connects two backbones is fitted, and a plug-in for the new one comes of it.

Letters: N anchors, Do and Dn joint widths of the old and the new backbone, B images, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.plan.port_specs import KINDS, NEEDS, PORT_SPECS, PortSpec
from carryover.bench.ports.anchors import Anchors
from carryover.bench.registry import Registry
from carryover.methods.base import METHODS, Classes, Method


class Ported(nn.Module):
    """A plug-in for the new backbone, enough by itself: the old tower is not needed to predict. The evaluator and the
    trainer take it as they take a `Method`.

    needs    what ``predict`` is given: "features" (B, Dn) of the new image tower, not normalised, or "pixels"
    classes  those it answers with
    home     fingerprint of the new backbone; "" where it may be any of that width
    about    what was fitted, as plain values: goes into records and file headers
    """

    needs = "features"
    kind: ClassVar[str]  # names the class in a file's header
    classes: Classes
    home: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.about: dict[str, Any] = {}

    def logits(self, x: Tensor) -> Tensor:
        """(B, Dn) -> (B, C)."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def bind(self, backbone: Backbone, classes: Classes) -> None:
        """Raises UserError for another backbone than it was made for, or other class names."""
        if self.home and backbone.fingerprint != self.home:
            raise UserError(
                f"this plug-in was ported to a backbone of fingerprint {self.home[:12]}; {backbone.label} has "
                f"{backbone.fingerprint[:12]}: port it to that one"
            )
        if classes.names != self.classes.names:
            known = set(self.classes.names)
            strange = next((name for name in classes.names if name not in known), "")
            what = f"'{strange}' is none of them" if strange else f"found {len(classes)} in another order or number"
            raise UserError(
                f"this plug-in was ported with its own {len(known)} classes: {what}; port it anew for others"
            )
        self.to(backbone.device)

    def attach(self, backbone: Backbone) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    # -- refreshed by the trainer --------------------------------------------------------------------------------------

    def old(self, x: Tensor) -> Tensor:
        """New features (B, Dn) as `inner` reads them."""
        return x

    def inner(self) -> Method | None:
        """The method whose learned tensors a refresh trains, behind what the port has fitted; None: there is none."""
        return None

    # -- as a file -----------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and the rest as JSON."""
        raise NotImplementedError

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Ported:
        raise NotImplementedError


class Port:
    """One way to carry a plug-in over. Registered by its id; ``fit`` is all that a port must have.

    name, source  as tables show it; where it is published
    needs         what one must have to fit it: of "images" (unlabelled), "texts" (class names and common nouns),
                  "labels" (of the support pictures), "old_model" (the old backbone, to encode the anchors). ``anchors``
                  refuses all else
    anchors       the kinds of anchors that it can use (``bench.ports.anchors``)
    closed_form   whether a fit is a formula that takes well under a second
    place         where it stands in tables; a user's come last
    """

    name: str = ""
    source: str = ""
    needs: Iterable[str] = ()
    anchors: tuple[str, ...] = ("support", "other", "foreign")
    closed_form = False
    place = 100.0

    @classmethod
    def works_on(cls, method: type[Method]) -> str | None:
        """Why it carries nothing of a method; None where it does. Asked before anything is loaded."""
        return None

    @classmethod
    def trains_on(cls, method: type[Method]) -> bool:
        """Whether what it carries of a method can be trained on: it keeps the method itself, which trains by steps."""
        return method.Config().epochs > 0 and not hasattr(method, "class_features")

    def fits(self, plugin: Any, old: Backbone, new: Backbone) -> str | None:
        """Why it cannot serve this very pair of backbones; None where it can."""
        return None

    def fit(self, plugin: Any, old: Backbone, new: Backbone, classes: Classes, anchors: Anchors) -> Ported:
        """plugin: the method in eval mode, bound to ``old`` with ``classes``. Raises UserError where it cannot."""
        raise NotImplementedError


PORTS: Registry[type[Port]] = Registry("port", Port)


def register(id: str) -> Callable[[type[Port]], type[Port]]:
    """Decorator: enters the port, and what plans and tables must know of it. Raises UserError for needs or anchors that
    are not known, and for an id that is taken."""

    def add(kind: type[Port]) -> type[Port]:
        kind.needs = frozenset(kind.needs)
        for what, given, known in (("needs", kind.needs, NEEDS), ("anchors", kind.anchors, KINDS)):
            if strange := [one for one in given if one not in known]:
                raise UserError(f"port '{id}': {what} names '{strange[0]}'; known are {', '.join(known)}")
        if "labels" in kind.needs and set(kind.anchors) != {"support"}:
            raise UserError(f"port '{id}' needs labels, which few-shot pictures alone have: anchors = (\"support\",)")
        PORTS.register(id)(kind)
        needs = tuple(one for one in NEEDS if one in kind.needs)
        told = kind.name or id, kind.source, needs, tuple(kind.anchors), kind.closed_form, kind.place
        asked = (lambda method: kind.works_on(METHODS[method])), (lambda method: kind.trains_on(METHODS[method]))
        PORT_SPECS.register(id)(PortSpec(id, *told, *asked))
        return kind

    return add


def on_features(method: type[Method]) -> str | None:
    """``works_on`` of ports that need the plug-in's logits as a function of the old image feature alone."""
    if method.depth == "none" or method.needs == "views":
        return "nothing is learned that could be carried"
    if method.needs != "features":
        return "it works inside the towers, so a map of features cannot carry it"
    if getattr(method, "per", "") == "image":
        return "its prompts depend on each picture, so the old text tower would be needed to predict"
    return None
