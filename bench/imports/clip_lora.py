"""Files that CLIP-LoRA's own code saves (MaxZanella/CLIP-LoRA, loralib/utils.py): low-rank matrices by layers, counted
over the blocks that were changed, those of the text tower first; what was changed stands in their metadata."""

from __future__ import annotations

import math
import re
from typing import Any

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.attention import Stack
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import BACKBONE, CLASSES, TEMPLATES, Foreign, Format, is_number, register, shown
from carryover.bench.imports.low_rank import (
    LowRank,
    as_method,
    check_numbers,
    check_places,
    frame,
    stacks,
)

LAYER = re.compile(r"layer_(\d+)\.(.+)")
FACTOR = re.compile(r"(q_proj|k_proj|v_proj|proj)\.(w_lora_A|w_lora_B)")
METADATA = ("r", "alpha", "encoder", "params", "position")
MODULES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}
PARTS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "proj": "out"}
ENCODERS = {"text": ("text",), "vision": ("image",), "both": ("text", "image")}
FEWEST, MOST = 12, 24  # blocks of the towers that its positions are written for
POSITIONS = {  # the first and the last but one of 12 blocks
    "all": (0, 12),
    "bottom": (0, 4),
    "mid": (4, 8),
    "up": (8, 12),
    "half-bottom": (0, 6),
    "half-up": (6, 12),
    "top": (11, 12),
    "top1": (11, 12),
    "top2": (10, 12),
    "top3": (9, 12),
}
OF_24 = ("all", "half-bottom", "half-up")  # what an image tower of 24 blocks has: the same parts of them


def where(file: Foreign) -> str:
    return f"import: '{file.path}' (CLIP-LoRA)"


@register("clip-lora")
class ClipLoraFile(Format):
    name = "CLIP-LoRA"
    source = "MaxZanella/CLIP-LoRA"

    @classmethod
    def recognises(cls, file):
        own = isinstance(file.plain.get("metadata"), dict) and all(LAYER.fullmatch(name) for name in file.tensors)
        return own and any(name.endswith(".w_lora_A") for name in file.tensors)

    @classmethod
    def facts(cls, file):
        check(file)
        return (BACKBONE, CLASSES, TEMPLATES)

    @classmethod
    def made(cls, file, facts):
        told = check(file)
        model, tower = frame(facts.tower), facts.tower
        layers = placed(file, told, stacks(where(file), model, tower), tower)
        low = []
        for number, (side, block) in enumerate(layers):
            for param in told["params"]:
                module = MODULES[param]
                down, up = (file.tensors[f"layer_{number}.{module}.w_lora_{factor}"] for factor in "AB")
                place = f"{side}.{block}.{PARTS[module]}.weight"
                low.append(LowRank(place, down, up, told["alpha"] / math.sqrt(told["r"])))
        check_places(where(file), model, tower, {one.place: one.size for one in low})
        notes = []
        if len(facts.templates) > 1:
            notes.append(f"CLIP-LoRA reads one prompt; of {len(facts.templates)} the first is taken")
        return as_method(facts, model, low, {}, facts.templates[:1], notes=tuple(notes), proven=proven(told, layers))


def check(file: Foreign) -> dict[str, Any]:
    """The metadata. Raises UserError for a file that CLIP-LoRA's own code does not write."""
    given = file.plain.get("metadata")
    told: dict[str, Any] = given if isinstance(given, dict) else {}
    if strange := [name for name in told if name not in METADATA]:
        raise UserError(
            f"{where(file)}: its metadata names {', '.join(map(quoted, map(str, strange)))}, which CLIP-LoRA's own "
            f"code does not write ({', '.join(METADATA)}): it is another method's, as a mixture of experts', and "
            "is not read"
        )
    if missing := [name for name in METADATA if name not in told]:
        raise UserError(f"{where(file)}: its metadata lacks {', '.join(missing)}; expected what save_lora writes")
    rank, alpha, encoder, params, position = (told[name] for name in METADATA)
    for right, name, expected in (
        (type(rank) is int and is_number(rank) and rank > 0, "r", "a whole number of at least 1"),
        (is_number(alpha), "alpha", "a number"),
        (isinstance(encoder, str) and encoder in ENCODERS, "encoder", " or ".join(ENCODERS)),
        (is_params(params), "params", f"some of {', '.join(MODULES)}"),
        (isinstance(position, str) and position in POSITIONS, "position", ", ".join(POSITIONS)),
    ):
        if not right:
            raise UserError(f"{where(file)}: {name} of its metadata is {shown(told[name], repr)}, expected {expected}")
    check_tensors(file, told)
    return {**told, "params": [param for param in MODULES if param in params]}


def is_params(params: Any) -> bool:
    known = isinstance(params, (list, tuple)) and all(isinstance(one, str) and one in MODULES for one in params)
    return known and bool(params)


def check_tensors(file: Foreign, told: dict[str, Any]) -> None:
    """Raises UserError for tensors that are not what the metadata say."""
    wanted = {f"{MODULES[param]}.w_lora_{factor}" for param in told["params"] for factor in "AB"}
    found: dict[int, set[str]] = {}
    for name, value in file.tensors.items():
        layer = LAYER.fullmatch(name)
        if layer is None or FACTOR.fullmatch(layer[2]) is None:
            raise UserError(f"{where(file)}: tensor {quoted(name)} is none that CLIP-LoRA's own code writes")
        found.setdefault(int(layer[1]), set()).add(layer[2])
        rank = value.shape[0 if name.endswith("A") else 1] if value.dim() == 2 else None
        if rank != told["r"]:
            raise UserError(
                f"{where(file)}: tensor {quoted(name)} has shape {tuple(value.shape)}, which is not of rank "
                f"{told['r']}, as its metadata say"
            )
    if sorted(found) != list(range(len(found))):
        raise UserError(f"{where(file)}: its {len(found)} layers are not numbered from 0 to {len(found) - 1}")
    for number, names in sorted(found.items()):
        if names != wanted:
            one = sorted(names ^ wanted)[0]
            raise UserError(
                f"{where(file)}: layer_{number} {'lacks' if one in wanted else 'also holds'} {one}, and params of its "
                f"metadata are {', '.join(told['params'])}"
            )
    check_numbers(where(file), file.tensors)


def placed(file: Foreign, told: dict[str, Any], own: dict[str, Stack], tower: Tower) -> list[tuple[str, int]]:
    """(tower, block) of each layer of the file. Raises UserError where their number or width is not the backbone's."""
    layers: list[tuple[str, int]] = []
    counts = []
    for side in ENCODERS[told["encoder"]]:
        if side not in own:
            raise UserError(
                f"{where(file)} changes the image tower, and that of {tower.label} has no attention blocks; name the "
                "model that it was trained on by --backbone"
            )
        blocks = blocks_at(told["position"], side, len(own[side]))
        counts.append(f"{len(blocks)} of {side}")
        layers += [(side, block) for block in blocks]
    count = len({name.split(".")[0] for name in file.tensors})
    if count != len(layers):
        raise UserError(
            f"{where(file)} was not trained on {tower.label}: it holds {count} layers, and position "
            f"'{told['position']}' of encoder '{told['encoder']}' there is {' + '.join(counts)}. Name the model that "
            "it was trained on by --backbone"
        )
    return layers


def blocks_at(position: str, side: str, count: int) -> list[int]:
    """The blocks of a position in a tower of so many: as its tables have it, blocks by their numbers."""
    size = MOST if side == "image" and count >= MOST else FEWEST
    if size == MOST and position not in OF_24:
        return []
    first, end = (size // FEWEST * edge for edge in POSITIONS[position])
    return [block for block in range(first, end) if block < count]


def proven(told: dict[str, Any], layers: list[tuple[str, int]]) -> tuple[str, ...]:
    sides = [side for side in ("text", "image") if any(side == one for one, _ in layers)]
    return (f"rank {told['r']}, alpha {told['alpha']:g}", f"blocks of the {' and the '.join(sides)} tower")
