"""What files of low-rank adapters share: places, sizes, and the method that becomes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.attention import Stack, image_stack, text_stack
from carryover.bench.backbones.places import spot
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import Facts, Imported
from carryover.methods.base import Shape
from carryover.methods.elsewhere.lora import Change

NAMED = 3  # places that a message lists
LETTERS = "qkv"


@dataclass(frozen=True)
class LowRank:
    """``scale B A`` at a place: down A (r, in), up B (out, r)."""

    place: str
    down: Tensor
    up: Tensor
    scale: float

    @property
    def size(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def delta(self) -> Tensor:
        return self.scale * self.up.float() @ self.down.float()


def frame(tower: Tower) -> Any:
    """A model of the tower's architecture, for names and sizes alone: it takes no memory where it can be made so."""
    try:
        return loading.build(tower.model, "meta")
    except (NotImplementedError, RuntimeError):
        return loading.build(tower.model)


def stacks(where: str, model: Any, tower: Tower) -> dict[str, Stack]:
    """By tower. Raises UserError for a text tower without attention blocks of CLIP's kind."""
    found = {"text": text_stack(model.text), "image": image_stack(model.visual)}
    if found["text"] is None:
        raise UserError(f"{where}: {tower.label} has a text tower without attention blocks, which LoRA needs")
    return {name: stack for name, stack in found.items() if stack is not None}


def check_places(where: str, model: Any, tower: Tower, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError where the named backbone has no such weights, or of other sizes."""
    wrong = []
    for place, size in sizes.items():
        there = spot(model, place)
        own = tuple(there.value.shape) if there else None
        if own != size:
            wrong.append(f"{place} is {written(size)}, {tower.label} has {written(own) if own else 'no such weight'}")
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UserError(
            f"{where} was not trained on {tower.label}: {'; '.join(wrong[:NAMED])}{more}. Name the model that it was "
            "trained on by --backbone"
        )


def written(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def check_numbers(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError for tensors that hold no finite floating-point numbers."""
    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value.float()).all():
            raise UserError(
                f"{where}: tensor {quoted(name)} holds NaN, infinity or no floating-point numbers; expected weights"
            )


def as_method(
    facts: Facts,
    model: Any,
    low: Sequence[LowRank],
    whole: Mapping[str, Tensor],
    templates: Sequence[str],
    **more: Any,
) -> Imported:
    """CLIP-LoRA where the file is what that learns (each query, key and value of a tower, one rank and scale), else
    LoRA of any places."""
    own = stacks("import", model, facts.tower)
    image = [place for place in [*(one.place for one in low), *whole] if place.startswith("image.")]
    blocks = own.get("image") if image else None
    shape = Shape(
        facts.tower.width,
        facts.tower.dim,
        tuple(facts.classes),
        0,
        len(own["text"]),
        len(blocks) if blocks else 0,
        blocks.width if blocks else 0,
    )
    common = {"shape": shape, "templates": tuple(templates), **more}
    if not whole and len(templates) == 1 and (found := as_clip_lora(shape, low)):
        return Imported("clip-lora", *found, **common)
    changes = [Change(one.place, one.size, one.rank) for one in low]
    changes += [Change(place, tuple(value.shape)) for place, value in whole.items()]
    tensors: dict[str, Tensor] = {}
    for one in low:
        key = one.place.replace(".", "_")
        tensors |= {f"down.{key}": one.down.float().clone(), f"up.{key}": one.scale * one.up.float()}
    tensors |= {f"full.{place.replace('.', '_')}": value.float() for place, value in whole.items()}
    return Imported("lora", {"changes": [str(change) for change in changes]}, tensors, **common)


def as_clip_lora(shape: Shape, low: Sequence[LowRank]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """(config, tensors); None where it is another change than CLIP-LoRA's."""
    parts = {one.place: one for one in low}
    towers = {"text": shape.text_layers, **({"image": shape.image_layers} if shape.image_layers else {})}
    places = {
        tower: [[f"{tower}.{block}.{letter}.weight" for letter in LETTERS] for block in range(layers)]
        for tower, layers in towers.items()
    }
    wanted = {place for blocks in places.values() for block in blocks for place in block}
    if set(parts) != wanted or len({(one.rank, one.scale) for one in low}) != 1 or low[0].scale < 0:
        return None
    rank, alpha = low[0].rank, low[0].scale * math.sqrt(low[0].rank)
    tensors = {}
    for tower, blocks in places.items():
        for name in ("down", "up"):
            rows = [torch.stack([getattr(parts[place], name).float() for place in block]) for block in blocks]
            tensors[f"{tower}.{name}"] = torch.stack(rows)
    return {"rank": rank, "alpha": round(alpha, 12)}, tensors
