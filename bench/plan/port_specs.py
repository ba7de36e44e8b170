"""What plans and tables know of ports: data alone, without torch. `bench.ports` enters each port here when it is
imported, as analyses enter their suites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from carryover.bench.registry import Registry

KINDS = ("support", "other", "foreign", "texts")  # of anchors (`bench.ports.anchors`)
NEEDS = ("images", "texts", "labels", "old_model")


@dataclass(frozen=True)
class PortSpec:
    """A port as plans and tables see it.

    needs        what one must have to fit it: of `NEEDS`
    anchors      kinds of anchors that it can use: of `KINDS`
    closed_form  whether a fit is a formula, and so belongs to the first command's report
    refuses      method id -> why it carries nothing of it; None where it does
    trains_on    method id -> whether what it carries of it can be trained on
    """

    id: str
    name: str
    source: str
    needs: tuple[str, ...]
    anchors: tuple[str, ...]
    closed_form: bool
    place: float
    refuses: Callable[[str], str | None] = field(repr=False, compare=False)
    trains_on: Callable[[str], bool] = field(repr=False, compare=False)

    def reason(self, method: str) -> str | None:
        return self.refuses(method)


PORT_SPECS: Registry[PortSpec] = Registry("port")


def ported_by() -> Iterator[PortSpec]:
    """In the order of tables, without plain reuse, which is what the main suite runs."""
    specs = (PORT_SPECS[id] for id in PORT_SPECS if id != "reuse")
    return iter(sorted(specs, key=lambda one: (one.place, one.id)))


def carriers(method: str) -> list[PortSpec]:
    """The ports that carry something of a method, in the order of tables."""
    return [one for one in ported_by() if one.reason(method) is None]
