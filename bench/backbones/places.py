"""Single weights of both towers by what they do, whatever the towers' implementation, for plug-ins that add to them.

A place is ``text.0.q.weight`` or ``image.ln_post.bias``: the tower; the block, if it is in one; the part; weight or
bias. Parts of a block are q, k, v and out of its attention, fc1 and fc2 of its MLP, the norms ln_1 and ln_2; of a tower
the norms ln_pre and ln_post, and projection, its last matrix. Matrices are (out, in), however a tower keeps them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from carryover.bench.backbones.attention import image_stack, matrices, text_stack

PLACE = re.compile(
    r"(?P<tower>text|image)\.(?:(?P<block>\d{1,4})\.(?P<part>q|k|v|out|fc1|fc2|ln_1|ln_2)|"
    r"(?P<end>ln_pre|ln_post|projection))\.(?P<kind>weight|bias)"
)
IN_BLOCK = {  # open_clip's name of a part, and timm's
    "out": ("attn.out_proj", "attn.proj"),
    "fc1": ("mlp.c_fc", "mlp.fc1"),
    "fc2": ("mlp.c_proj", "mlp.fc2"),
    "ln_1": ("ln_1", "norm1"),
    "ln_2": ("ln_2", "norm2"),
}
OF_TOWER = {
    ("text", "ln_post"): ("text.ln_final",),
    ("image", "ln_pre"): ("visual.ln_pre", "visual.trunk.norm_pre"),
    ("image", "ln_post"): ("visual.ln_post", "visual.trunk.norm"),
    ("text", "projection"): ("text.text_projection",),
    ("image", "projection"): ("visual.proj", "visual.head.proj", "visual.trunk.head", "visual.attnpool.c_proj"),
}


@dataclass(frozen=True)
class Spot:
    """Where a place is: a parameter of a module, or ``rows`` of it. ``turned``: it is kept as (in, out)."""

    module: Any
    name: str
    rows: tuple[int, int] | None = None
    turned: bool = False

    @property
    def value(self) -> Tensor:
        whole = self.module._parameters[self.name]
        part = whole if self.rows is None else whole[slice(*self.rows)]
        return part.T if self.turned else part


def spot(model: Any, place: str) -> Spot | None:
    """Of an open_clip model with a text tower by itself. None where it has no such weight."""
    found = PLACE.fullmatch(place)
    if found is None:
        return None
    tower, part, kind = found["tower"], found["part"] or found["end"], found["kind"]
    if found["block"] is None:
        return at_end(model, tower, part, kind)
    stack = text_stack(model.text) if tower == "text" else image_stack(model.visual)
    if stack is None or int(found["block"]) >= len(stack):
        return None
    block = stack.blocks[int(found["block"])]
    if part in IN_BLOCK:
        return first_of(block, IN_BLOCK[part], kind)
    return of_letter(block, "qkv".index(part), stack.width, kind)


def of_letter(block: Any, number: int, width: int, kind: str) -> Spot | None:
    """Of the query, the key or the value: rows of one matrix, or a matrix by itself."""
    own = matrices(block)
    module, name = own[number if len(own) > 1 else 0]
    rows = (number * width, (number + 1) * width) if len(own) == 1 else None
    name = name.replace("weight", kind)
    return Spot(module, name, rows) if module._parameters.get(name) is not None else None


def at_end(model: Any, tower: str, part: str, kind: str) -> Spot | None:
    for path in OF_TOWER.get((tower, part), ()):
        owner, _, name = path.rpartition(".")
        parent = reached(model, owner)
        held = parent._parameters.get(name) if isinstance(parent, nn.Module) else None
        if held is not None and part == "projection":
            return Spot(parent, name, turned=True) if kind == "weight" else None
    return first_of(model, OF_TOWER.get((tower, part), ()), kind)


def first_of(owner: Any, paths: Sequence[str], kind: str) -> Spot | None:
    for path in paths:
        module = reached(owner, path)
        if isinstance(module, nn.Module) and module._parameters.get(kind) is not None:
            return Spot(module, kind)
    return None


def reached(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner


def bias_of(place: Spot) -> Tensor | float:
    """(out,) what a tower adds behind its last matrix; 0 where it adds nothing."""
    found = place.module._parameters.get("bias")
    return 0.0 if found is None else found.detach()


@contextlib.contextmanager
def unprojected(place: Spot) -> Iterator[None]:
    """Inside, a tower ends before its last matrix, which is at that place."""
    held, width = place.module._parameters, place.value.shape[1]
    kept = {name: held[name] for name in (place.name, "bias") if held.get(name) is not None}
    try:
        held[place.name] = kept[place.name].new_zeros(width, width).fill_diagonal_(1)
        if "bias" in kept:
            held["bias"] = kept["bias"].new_zeros(width)
        yield
    finally:
        held.update(kept)


@contextlib.contextmanager
def open_spots(spots: Sequence[Spot]) -> Iterator[Callable[[Sequence[Tensor]], None]]:
    """Inside, the given function adds a change to each spot, in place of what it added before, and so that gradients
    reach what was added. On exit the parameters themselves are back where they were."""
    frozen = {(id(one.module), one.name): (one.module, one.module._parameters[one.name]) for one in spots}

    def add(changes: Sequence[Tensor]) -> None:
        made = {key: weight for key, (_, weight) in frozen.items()}
        for one, change in zip(spots, changes, strict=True):
            key = id(one.module), one.name
            weight = made[key]
            more = (change.T if one.turned else change).to(weight.dtype)
            if one.rows is None:
                made[key] = weight + more
            else:
                made[key] = weight.clone()
                made[key][slice(*one.rows)] += more
        for (_, name), (module, _), weight in zip(frozen, frozen.values(), made.values(), strict=True):
            module._parameters[name] = weight

    try:
        yield add
    finally:
        for (_, name), (module, weight) in frozen.items():
            module._parameters[name] = weight
