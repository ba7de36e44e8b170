"""What a plug-in asks of a backbone: derived from the shapes of what it learns, declared where they do not tell.

A size counts where learned tensors would be others for another one. Beside these, a context needs room in the prompt
and a block to stand at, and what stands inside the towers needs towers of the same blocks (``InsideMethod.bind``). A
method that learns nothing asks nothing.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Protocol

import torch

from carryover.bench.host.untouched import OwnDraws
from carryover.datasets.withheld import no_labels
from carryover.methods.base import Method, Shape, TrainConfig
from carryover.methods.catalogue import ANY_SHAPE
from carryover.methods.parts.inside import InsideMethod

WORDS = {
    "width": "a text width W of {}",
    "dim": "a joint width D of {}",
    "text_layers": "a text tower of {} blocks",
    "image_layers": "an image tower of {} blocks",
    "image_width": "an image tower of width {}",
}
_asked: dict[tuple[Any, TrainConfig], dict[str, list[str]]] = {}
AROUND = 3  # tokens of a prompt beside the context, at least: start, one of the name, end


class Sized(Protocol):
    """A backbone's sizes (``bench.backbones.sizes.Sizes``)."""

    @property
    def label(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def positions(self) -> int: ...
    @property
    def text_layers(self) -> int: ...
    @property
    def image_layers(self) -> int: ...
    @property
    def image_width(self) -> int: ...


def fits(kind: type[Method], config: TrainConfig, own: Shape | Sized, there: Sized) -> str | None:
    """Why a plug-in cannot be plugged into a backbone as it is: what it needs and what is there. None where it can.

    own  the shape that it was learned with, or the sizes of the backbone it is learned on
    """
    for name, tensors in asked(kind, config).items():
        wanted, found = getattr(own, name), getattr(there, name)
        if wanted in (0, found):  # 0: the half for such a tower was left out where it was learned, and is everywhere
            continue
        what = f" (its '{tensors[0]}'{f' and {len(tensors) - 1} more' * (len(tensors) > 1)})" if tensors else ""
        return f"it needs {WORDS[name].format(wanted)}{what}; {there.label} has {found or 'none'}"
    return begins(kind, config, there)


def begins(kind: type[Method], config: TrainConfig, there: Sized) -> str | None:
    """Why a method cannot be trained on a backbone, as its text tower has no place for it; None where it can."""
    n, layer = getattr(config, "context_length", 0), getattr(config, "layer", 0)
    if n and n + AROUND > there.positions:
        need = f"it needs room for {n} tokens of context and a name, {n + AROUND} or more"
        return f"{need}; {there.label} has {there.positions}"
    if layer and layer >= there.text_layers:
        return f"it needs block {layer} of a text tower; {there.label} has {there.text_layers or 'none'}"
    if issubclass(kind, InsideMethod) and not there.text_layers:
        return f"it needs the blocks of open_clip's own text tower; {there.label} has another one's"
    if getattr(config, "block", 0) and there.text_layers < 2:
        return f"it needs an inner block of a text tower; {there.label} has none"
    return None


def asked(kind: type[Method], config: TrainConfig) -> dict[str, list[str]]:
    """The sizes that must agree, each with the tensors that depend on it, by name; of all that stands inside the towers
    every one."""
    if (kind, config) not in _asked:
        _asked[kind, config] = found_out(kind, config)
    return _asked[kind, config]


def found_out(kind: type[Method], config: TrainConfig) -> dict[str, list[str]]:
    usual = learned(kind, config, ANY_SHAPE)
    found: dict[str, list[str]] = {}
    for field in fields(Shape):
        if field.name not in WORDS or usual is None:
            continue
        other = learned(kind, config, replace(ANY_SHAPE, **{field.name: 2 * getattr(ANY_SHAPE, field.name)}))
        changed = [] if other is None else [name for name in {**usual, **other} if usual.get(name) != other.get(name)]
        if changed or (issubclass(kind, InsideMethod) and field.name != "dim"):
            found[field.name] = changed
    # What no tensor of a fresh one tells.
    found |= {name: [] for name in getattr(kind, "asks", ()) if name not in found}
    return found


def learned(kind: type[Method], config: TrainConfig, shape: Shape) -> dict[str, tuple[int, ...]] | None:
    """Shapes of what it learns, by name; None where it cannot be made of that shape."""
    for device in ("meta", "cpu"):  # not every method of a user's can be made without values
        try:
            with torch.device(device), OwnDraws(), no_labels():
                return {name: tuple(value.shape) for name, value in kind(config, shape).learned().items()}
        except (NotImplementedError, RuntimeError):
            continue
        except Exception:  # a method of anyone's raises what it likes
            return None
    return None
