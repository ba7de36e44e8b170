"""LoRA adapters that Hugging Face's peft saves of transformers' CLIP models, or of open_clip's: ``adapter_config.json``
and the tensors of ``adapter_model.safetensors``.

A low-rank pair is a change by itself. What peft saves whole (biases, ``modules_to_save``, DoRA's magnitudes) is what
the weights have become: it is taken less the base's own, for which the base's weights are read.

Letters: r rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.places import spot
from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import BACKBONE, CLASSES, TEMPLATES, Fact, Foreign, Format, register
from carryover.bench.imports.low_rank import LowRank, as_method, check_numbers, check_places, frame, stacks
from carryover.bench.imports.peft_config import check, compare, known, of_pattern, tower_of, where
from carryover.bench.imports.peft_places import STARTS, TOWERS, no_place, place_of, spread

FRONT = "base_model.model."
WITHIN = ".attn.base_layer.out_proj."
TWICE = 2  # there peft (0.17 to 0.21) adds the change of the output matrix twice, in training too
ENDS = (
    *("lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_magnitude_vector"),
    *("in_proj_weight", "in_proj_bias", "weight", "bias"),
)
FAR, NEAR = 1.0, 0.1  # how far copies may lie from the base's own weights, as parts of these
TOWER = Fact("tower", "which tower its layers are of: CLIPTextModel or CLIPVisionModel", default=None)


def read_tower(text: str) -> str:
    if text not in ("text", "image"):
        raise ValueError("text or image")
    return text


@dataclass
class Parts:
    """Of one module: its own tensors by the end of their names, its place without weight or bias, peft's name of it.
    ``within``: it is the output matrix of torch's own attention, and stands within peft's layer for that."""

    place: str
    name: str
    within: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)


@register("peft")
class PeftLora(Format):
    name = "peft LoRA"
    source = "huggingface/peft"

    @classmethod
    def recognises(cls, file):
        return isinstance(file.plain.get("adapter_config"), dict)

    @classmethod
    def facts(cls, file):
        config = check(file)
        named = config.get("base_model_name_or_path")
        tags = known(named)
        told = f"{BACKBONE.about}; adapter_config.json names {quoted(str(named))}" if named else BACKBONE.about
        told += f": --backbone {tags[0]}" if tags else ""
        backbone = Fact("backbone", told, flag=BACKBONE.flag)
        tower = (Fact("tower", TOWER.about, read_tower),) if flat(file) and not tower_of(config) else ()
        return (backbone, CLASSES, TEMPLATES, *tower)

    @classmethod
    def made(cls, file, facts):
        config = check(file)
        compare(file, config, facts)
        wanted = [fact for fact in cls.facts(file) if fact.name == "tower"]
        tower = tower_of(config) or (facts[wanted[0]] if wanted else "")
        parts, notes = modules(file, tower)
        model = frame(facts.tower)
        stacks(where(file), model, facts.tower)
        low, whole, copies = read(file, config, parts)
        sizes = {one.place: one.size for one in low} | {place: tuple(one.shape) for place, one in copies.items()}
        check_places(where(file), model, facts.tower, sizes | {place: tuple(one.shape) for place, one in whole.items()})
        proven, fingerprint = [], None
        if known(config.get("base_model_name_or_path")):
            proven.append(f"name of the backbone ({config['base_model_name_or_path']})")
        dora = {
            one.place: part for part in parts for one in low if is_dora(part) and one.place == f"{part.place}.weight"
        }
        if copies or dora:
            base, fingerprint = facts.backbone.model, facts.backbone.fingerprint
            far = distance(base, copies)
            if far > FAR:
                raise UserError(
                    f"{where(file)}: the weights that it holds whole ({len(copies)}) are not those of "
                    f"{facts.tower.label} trained further: they lie {far:.1f} times as far from these as these from 0; "
                    "name its own backbone by --backbone"
                )
            if copies and far < NEAR:
                proven.append("weights of the backbone (those that it holds whole lie beside them)")
            whole |= {place: add(whole.get(place), copy.float() - value(base, place)) for place, copy in copies.items()}
            whole |= {one.place: turned(dora[one.place], one, base) for one in low if one.place in dora}
            low = [one for one in low if one.place not in dora]
        notes += oddities(config, parts)
        if dora:
            notes.append(
                f"DoRA: the change of {len(dora)} matrices is kept whole, as it was on {facts.tower.label}; another "
                "backbone gets this change, not its own magnitudes"
            )
        whole = {place: change for place, change in whole.items() if change.count_nonzero()}
        return as_method(
            facts, model, low, whole, facts.templates, notes=tuple(notes), proven=tuple(proven), fingerprint=fingerprint
        )


# ---- names -----------------------------------------------------------------------------------------------------------


def flat(file: Foreign) -> bool:
    """Whether its layers do not say their tower, as those of one tower alone in transformers 5."""
    return any(".encoder.layers." in f".{name}" and not any(one in name for one in TOWERS) for name in file.tensors)


def modules(file: Foreign, tower: str) -> tuple[list[Parts], list[str]]:
    """Its modules, each at its place, and notes. Raises UserError for a tensor that has no place in CLIP's towers."""
    check_numbers(where(file), file.tensors)
    found: dict[str, Parts] = {}
    fronts: dict[str, None] = {}
    for key, value in file.tensors.items():
        name = key.removeprefix(FRONT)
        if ".original_module." in name:  # beside a copy, what it was before
            continue
        end = next((one for one in ENDS if name.endswith(f".{one}")), "")
        module = name[: -len(end) - 1].replace(".base_layer", "").removesuffix(".modules_to_save") if end else ""
        start = STARTS.search(module)
        place = place_of(module[start.start(1) :], tower) if start else ""
        if not place:
            raise UserError(f"{where(file)}: tensor {quoted(key)} {no_place(name)}")
        fronts[module[: start.start(1)] if start else ""] = None
        found.setdefault(module, Parts(place, module, WITHIN in name)).tensors[end.removeprefix("in_proj_")] = value
    if len(fronts) > 1:
        raise UserError(
            f"{where(file)}: its layers stand under {' and '.join(map(quoted, fronts))}; expected one model's"
        )
    if not found:
        raise UserError(f"{where(file)} holds no tensor")
    front = next(iter(fronts))
    return list(found.values()), [f"its CLIP stands under {quoted(front)} in a model of its own"] if front else []


# ---- numbers ---------------------------------------------------------------------------------------------------------


def read(
    file: Foreign, config: dict[str, Any], parts: list[Parts]
) -> tuple[list[LowRank], dict[str, Tensor], dict[str, Tensor]]:
    """Low-rank changes, whole changes, and copies of what weights have become, by place. Raises UserError for a pair
    that is none, or has another rank than the configuration says."""
    low: list[LowRank] = []
    whole: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    for part in parts:
        own = part.tensors
        down, up = own.get("lora_A.weight"), own.get("lora_B.weight")
        if (down is None) != (up is None):
            raise UserError(
                f"{where(file)}: {quoted(part.name)} has lora_{'A' if up is None else 'B'} alone; expected a pair"
            )
        if down is not None and up is not None:
            scale = scale_of(file, config, part, down, up)
            low += [LowRank(place, down, rows, scale) for place, rows in spread(part.place, "weight", up).items()]
            if "lora_B.bias" in own:
                whole |= spread(part.place, "bias", scale * own["lora_B.bias"].float())
        elif {"lora_B.bias", "lora_magnitude_vector"} & set(own):
            raise UserError(f"{where(file)}: {quoted(part.name)} has no lora_A and lora_B")
        for kind in ("weight", "bias"):
            copies |= spread(part.place, kind, own[kind]) if kind in own else {}
    return low, whole, copies


def scale_of(file: Foreign, config: dict[str, Any], part: Parts, down: Tensor, up: Tensor) -> float:
    name = part.name.removesuffix(".out_proj") if part.within else part.name  # it has what its attention has
    rank = of_pattern(config.get("rank_pattern") or {}, name, config["r"])
    alpha = of_pattern(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
    if rank < 1 or down.dim() != 2 or up.dim() != 2 or down.shape[0] != rank or up.shape[1] != rank:
        raise UserError(
            f"{where(file)}: lora_A and lora_B of {quoted(part.name)} have shapes {tuple(down.shape)} and "
            f"{tuple(up.shape)}, expected those of rank {rank}, as adapter_config.json says"
        )
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return TWICE * scale if part.within else scale


def oddities(config: dict[str, Any], parts: list[Parts]) -> list[str]:
    """What peft does with such a file that is not to be expected; what the configuration says was trained and is not in
    the file, so that peft would not load it either."""
    found = []
    if any(part.within and "lora_A.weight" in part.tensors for part in parts):
        found.append(
            "in torch's own attention peft adds the change of the output matrix twice (0.17 to 0.21, where it was "
            "tried); so it is taken"
        )
    if config.get("bias") in ("all", "lora_only") and not any("bias" in part.tensors for part in parts):
        found.append(
            f"bias is '{config['bias']}', and the file holds no bias: those that were trained are lost (peft 0.17 "
            "saves none for 'lora_only')"
        )
    saved = config.get("modules_to_save")
    for name in saved if isinstance(saved, list) else []:
        if not any(f".{part.name}".endswith(f".{name}") and "weight" in part.tensors for part in parts):
            found.append(f"modules_to_save names {quoted(str(name))}, and the file holds no weights of it")
    return found


def is_dora(part: Parts) -> bool:
    return "lora_magnitude_vector" in part.tensors


def turned(part: Parts, low: LowRank, base: Any) -> Tensor:
    """DoRA's change of a matrix (Liu et al. 2024): ``m (W + s B A) / |W + s B A|`` by rows, less W."""
    own = value(base, low.place)
    moved = own + low.delta
    magnitude = part.tensors["lora_magnitude_vector"].float().flatten()[:, None]
    return magnitude / torch.linalg.norm(moved, dim=1, keepdim=True) * moved - own


def value(base: Any, place: str) -> Tensor:
    found = spot(base, place)
    assert found is not None  # `check_places` has seen it
    return found.value.detach().float().cpu()


def distance(base: Any, copies: Mapping[str, Tensor]) -> float:
    """Between copies and the base's own, as parts of the base's length, all together; 0 without a copy."""
    apart = [(copy.float() - value(base, place)).square().sum() for place, copy in copies.items()]
    length = [value(base, place).square().sum() for place in copies]
    return float((torch.stack(apart).sum() / torch.stack(length).sum()).sqrt()) if apart else 0.0


def add(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more
