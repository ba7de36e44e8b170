"""The rows of ``ls targets`` and ``ls archs NAME``: backbones, and what can be done with plug-ins of a base on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import open_clip

from carryover.bench.backbones.archs import Arch, Tower
from carryover.bench.backbones.sizes import Sizes, sizes_of
from carryover.bench.plan.port_specs import carriers
from carryover.bench.ports.choices import Choice, carried, choices, ported_ids
from carryover.methods.base import METHODS

FEW = 2  # names that are shorter than "all others"
QUICK = "-quickgelu"
ASTERISK = "*"
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """Backbones for which all is the same.

    names, tags  as they are shown, and how many tags that are
    size, text   "W / D"; kind of text tower, tokens that it reads, whether they are CLIP's
    plugged      the methods whose plug-ins go in as they are
    ported       those that a port alone carries, and which ports do so elsewhere and not here
    why, others  by size that differs, the methods that do not go in as they are; how many these are
    """

    names: str
    tags: int
    size: str
    text: str
    plugged: str
    ported: str
    why: str
    others: int

    @property
    def possible(self) -> bool:
        return self.plugged != "none" or bool(self.ported)


def of_arch(arch: Arch, cache_dir: str | None = None) -> Iterator[Row]:
    """A row a target, named by its role."""
    base = sizes_of(arch.base, cache_dir)
    for role, tower in arch.towers.items():
        if role != "base":
            yield row(base, sizes_of(tower, cache_dir), f"{role}: {tower.label}", 1)


def of_open_clip(base: Sizes) -> Iterator[Row]:
    """All tags whose name is right (`other_names`), alike ones as one row; those that take most come first."""
    models: dict[str, list[str]] = {}
    for model, tag in open_clip.list_pretrained():
        if not wrong_name(model, tag):
            models.setdefault(model, []).append(tag)
    alike: dict[Row, dict[str, int]] = {}
    for model, tags in models.items():
        alike.setdefault(row(base, sizes_of(Tower(model)), "", 0), {})[model] = len(tags)
    order = sorted(alike, key=lambda one: (one.others, *map(int, one.size.split(" / "))))
    for one in order:
        names = ", ".join(f"{model} ({count})" if count > 1 else model for model, count in alike[one].items())
        yield replace(one, names=names, tags=sum(alike[one].values()))


def other_names() -> list[str]:
    """The tags that are read right under another name alone, for their activation."""
    return [f"{model}/{tag}" for model, tag in open_clip.list_pretrained() if wrong_name(model, tag)]


def wrong_name(model: str, tag: str) -> bool:
    """Whether weights trained with QuickGELU stand under a name without it, and under the right one too."""
    quick = bool((open_clip.get_pretrained_cfg(model, tag) or {}).get("quick_gelu"))
    there = tag in open_clip.list_pretrained_tags_by_model(model + QUICK)
    return quick and there and not (open_clip.get_model_config(model) or {}).get("quick_gelu")


def row(base: Sizes, target: Sizes, names: str, tags: int) -> Row:
    found = choices(base, target, carried(base))
    plugged, others = [one for one in found if not one.reason], [one for one in found if one.reason]
    ported = [one for one in others if one.ports]
    vocabulary = {"CLIP": "", "own": ", own tokens"}.get(target.vocabulary, f", own tokens{ASTERISK}")
    return Row(
        names,
        tags,
        f"{target.width} / {target.dim}",
        f"{target.text}, {target.positions}{vocabulary}",
        among(plugged, found) if plugged else "none",
        "; ".join([among(ported, others, "all others" if plugged else "all"), *less(ported)]) if ported else "",
        "; ".join(f"{short}: {among(those, found)}" for short, those in grouped(others, lambda one: one.short)),
        len(others),
    )


def among(some: list[Choice], of: list[Choice], every: str = "all") -> str:
    """Names of methods, in the shorter of two ways."""
    here, rest = named(some), named(one for one in of if one not in some)
    if len(here) <= max(FEW, len(rest)):
        return ", ".join(here)
    return f"{every} but {', '.join(rest)}" if rest else every


def less(some: Iterable[Choice]) -> Iterator[str]:
    """The ports that carry a method elsewhere, but not to this target."""
    missing = [(one, tuple(port for port in carries(one.method) if port not in one.ports)) for one in some]
    for ports, those in grouped((pair for pair in missing if pair[1]), lambda pair: pair[1]):
        yield f"{', '.join(named(one for one, _ in those))} not by {', '.join(ports)}"


def named(some: Iterable[Choice]) -> list[str]:
    return [METHODS[one.method].name for one in some]


def of_ports(base: Sizes) -> list[str]:
    """Which methods each port carries, where the pair of backbones allows it."""
    found = choices(base, base, carried(base))
    by = grouped(ported_ids(), lambda id: tuple(one.method for one in found if id in carries(one.method)))
    return [f"{', '.join(ids)}: {among([one for one in found if one.method in those], found)}" for those, ids in by]


def carries(method: str) -> tuple[str, ...]:
    """The ports that carry a method."""
    return tuple(one.id for one in carriers(method))


def grouped(some: Iterable[T], by: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """The largest group first."""
    found: dict[K, list[T]] = {}
    for one in some:
        found.setdefault(by(one), []).append(one)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))
