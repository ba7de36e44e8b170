"""Where modules that a peft adapter names stand in CLIP's towers (``bench.backbones.places``): by the names that
transformers has for them, and by open_clip's."""

from __future__ import annotations

import re

from torch import Tensor

from carryover.bench.imports.peft_config import MERGE

TOWERS = {"text_model.": "text", "vision_model.": "image"}  # transformers' names
IN_BLOCK = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "out",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}
OF_TOWER = {
    ("text", "final_layer_norm"): "ln_post",
    ("image", "pre_layrnorm"): "ln_pre",  # spelt so there
    ("image", "post_layernorm"): "ln_post",
}
PROJECTIONS = {"text_projection": "text", "visual_projection": "image"}
LAYER = re.compile(r"encoder\.layers\.(\d{1,4})\.(.+)")
RESBLOCK = re.compile(r"(text\.|visual\.)?transformer\.resblocks\.(\d{1,4})\.(.+)")  # open_clip's and OpenAI's names
QKV = "qkv"  # of an attention's input matrix, as these keep it: three places
IN_RESBLOCK = {
    "attn": QKV,
    "attn.out_proj": "out",
    "mlp.c_fc": "fc1",
    "mlp.c_proj": "fc2",
    "ln_1": "ln_1",
    "ln_2": "ln_2",
}
OF_OPEN_CLIP = {
    "ln_final": "text.ln_post",
    "text.ln_final": "text.ln_post",
    "visual.ln_pre": "image.ln_pre",
    "visual.ln_post": "image.ln_post",
}
STARTS = re.compile(  # where CLIP begins in the name of a module
    r"(?:^|\.)(text_model\.|vision_model\.|text_projection|visual_projection|encoder\.layers\.|final_layer_norm|"
    r"pre_layrnorm|post_layernorm|text\.transformer\.|text\.ln_final|visual\.|transformer\.resblocks\.|ln_final)"
)


def place_of(module: str, tower: str) -> str:
    """Without weight or bias; empty where there is none. ``tower``: of layers that do not say theirs."""
    if module in PROJECTIONS:
        return f"{PROJECTIONS[module]}.projection"
    if block := RESBLOCK.fullmatch(module):
        part = IN_RESBLOCK.get(block[3])
        return f"{'image' if block[1] == 'visual.' else 'text'}.{int(block[2])}.{part}" if part else ""
    if module in OF_OPEN_CLIP:
        return OF_OPEN_CLIP[module]
    side = next((side for start, side in TOWERS.items() if module.startswith(start)), tower)
    inner = module.removeprefix("text_model.").removeprefix("vision_model.")
    layer = LAYER.fullmatch(inner)
    if side and layer and layer[2] in IN_BLOCK:
        return f"{side}.{int(layer[1])}.{IN_BLOCK[layer[2]]}"
    return f"{side}.{OF_TOWER[side, inner]}" if (side, inner) in OF_TOWER else ""


def no_place(name: str) -> str:
    if "lora_embedding" in name or "embed" in name:
        return f"changes an embedding, which is not read; {MERGE}"
    if any(word in name for word in ("classifier", "score", "head")):
        return "is of a head of its own; what is read is an adapter of CLIP itself, whose classes are texts"
    return f"is of no layer of CLIP's towers that is read (attention, MLP, norms, projections); {MERGE}"


def spread(place: str, kind: str, rows: Tensor) -> dict[str, Tensor]:
    """By place: a third of the rows each, where they are those of queries, keys and values."""
    start = place.removesuffix(QKV)
    if start == place:
        return {f"{place}.{kind}": rows}
    return {f"{start}{letter}.{kind}": part for letter, part in zip(QKV, rows.chunk(3), strict=False)}
