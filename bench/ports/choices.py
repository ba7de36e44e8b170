"""What can be done with a plug-in on another backbone: plugged in as it is, or carried over, by which ports. Told by
sizes alone, before any weights are there.

A port says itself what it carries of a method (``works_on``) and of a pair (``fits``); it is asked with a plug-in that
is not trained, and with backbones of those sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import Any

from carryover.bench.backbones.attention import Stack
from carryover.bench.backbones.sizes import Sizes
from carryover.bench.host.untouched import OwnDraws
from carryover.bench.plan.port_specs import ported_by
from carryover.bench.ports.base import PORTS, Port
from carryover.methods import Registered, asks
from carryover.methods.base import METHODS, Classes, Method, Shape

SHORT = {"width": "W", "dim": "D", "text_layers": "text blocks", "image_layers": "image blocks", "image_width": "V"}


@dataclass(frozen=True)
class Choice:
    """Of one method on one target. ``reason`` why it cannot be plugged in as it is, ``short`` the same in a word or
    two; "" where it can. ``ports`` that carry it over, in the order of tables; ``reuse`` is none of them."""

    method: str
    reason: str
    short: str
    ports: tuple[str, ...]


def choices(base: Sizes, target: Sizes, methods: Iterable[str] = ()) -> list[Choice]:
    """Of all methods that leave a plug-in of the base, or of those named."""
    return [choice(id, base, target) for id in methods or carried(base)]


def carried(base: Sizes) -> list[str]:
    """The methods that leave a plug-in, and can be trained on that base."""
    registered = Registered()
    kinds = {id: METHODS[id] for id in registered if registered.learns(id)}
    return [id for id, kind in kinds.items() if not asks.begins(kind, kind.Config(), base)]


def choice(id: str, base: Sizes, target: Sizes) -> Choice:
    kind = METHODS[id]
    reason = asks.fits(kind, kind.Config(), base, target) or ""
    found = tuple(one for one in ported_ids() if not refused(PORTS[one], kind, base, target))
    return Choice(id, reason, in_short(kind, base, target) if reason else "", found)


def ported_ids() -> list[str]:
    """In the order of tables, without plain reuse."""
    return [one.id for one in ported_by()]


def in_short(kind: type[Method], base: Sizes, target: Sizes) -> str:
    """The first size that differs; "room" where none does, but the text tower has no place for it."""
    asked = asks.asked(kind, kind.Config())
    return next((SHORT[name] for name in asked if getattr(base, name) not in (0, getattr(target, name))), "room")


def refused(port: type[Port], kind: type[Method], base: Sizes, target: Sizes) -> str | None:
    """Why a port carries nothing of a method from one backbone to the other; None where it does."""
    if why := port.works_on(kind):
        return why
    if port.fits is Port.fits:
        return None
    return port().fits(untrained(kind, base), OfSizes(base), OfSizes(target))  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def untrained(kind: type[Method], base: Sizes) -> Method:
    """A plug-in of that base, of two classes."""
    shape = Shape(base.width, base.dim, ("one", "two"), 2, base.text_layers, base.image_layers, base.image_width)
    with OwnDraws():
        method: Any = kind(kind.Config(), shape)
    method.classes = Classes("", shape.classnames, ("{}",))
    return method


class OfSizes:
    """A backbone as ``Port.fits`` sees it, without weights."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.label, self.width, self.dim = sizes, sizes.label, sizes.width, sizes.dim
        # towers of one vocabulary read the same tokens
        layout = SimpleNamespace(start=sizes.vocabulary, end="", length=sizes.positions)
        self.text = SimpleNamespace(layout=layout, tokens=lambda texts: texts)

    @property
    def text_stack(self) -> Stack | None:
        return stack(self.sizes.text_layers, self.width)

    @cached_property
    def image_stack(self) -> Stack | None:
        return stack(self.sizes.image_layers, self.sizes.image_width)


def stack(layers: int, width: int) -> Stack | None:
    return Stack((None,) * layers, width) if layers else None
