"""Layer drift (Figure 2 b, c): how far weights and features of class prompts moved between two backbones, by layer.

The paper plots "average absolute and relative changes" without a formula; `bench/backbones/drift_measures.py` gives
those of this suite. Features are read in the residual stream (`bench/backbones/drift_streams.py`); both towers get the
same texts, each by its own tokenizer. Towers of other widths have no difference of features: CKA and the correlation of
similarities compare them all the same (Kornblith et al. 2019), blocks of towers of other depths at equal parts of their
depth.

Layer "0" is embeddings plus positions, "1" .. "L" the blocks, then "ln_final" and "projected" (into the joint space).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from carryover.bench.backbones.drift_measures import (
    DriftRow,
    average,
    parameter_change,
    parameter_rows,
)
from carryover.bench.backbones.drift_names import POOLED
from carryover.bench.backbones.drift_streams import matched, residuals
from carryover.bench.backbones.loading import ACTIVATIONS, Backbone
from carryover.bench.errors import UserError

BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks)\.(\d+)\.(\w+)")
READ = {
    "end": "at the end of the text",
    "class": "at its class token",
    "last": "at its last position",
    "first": "first",
}
TEXT_PLACES = {
    "token_embedding": ("0", "tokens"),
    "positional_embedding": ("0", "positions"),
    "ln_final": ("ln_final", "layernorm"),
    "text_projection": ("projected", "projection"),
}


def measure(
    base: Backbone,
    other: Backbone,
    prompts: Mapping[str, Sequence[str]],
    pixels: tuple[Tensor, Tensor] | None = None,
) -> dict:
    """Every change from ``base`` to ``other``, as JSON can hold it.

    prompts  {dataset id: its class prompts}; features are averaged over each dataset's prompts, then over datasets
             (dataset "average"), and once more over all distinct prompts together ("pooled")
    pixels   (B, 3, H, H) of the same pictures through either backbone's own transform; without them no vision features
    returns  "text" and "vision", each with rows of "parameters" and "features", and "notes" that say what is left out
             and why; a value that is not defined is None
    """
    return {
        "base": {"label": base.label, "fingerprint": base.fingerprint},
        "other": {"label": other.label, "fingerprint": other.fingerprint},
        "prompts": {name: len(texts) for name, texts in prompts.items()},
        "text": _text(base, other, prompts),
        "vision": _vision(base, other, pixels),
    }


def other_activation(backbone: Backbone) -> Backbone:
    """The same weights, the text tower computing GELU for QuickGELU or the reverse; the vision tower is shared. Raises
    UserError for a tower of another activation."""
    found = {type(m) for block in backbone.text.blocks for m in block.mlp.children() if is_activation(m)}
    if not found or found != {ACTIVATIONS[backbone.tower.activation]}:
        raise UserError(f"{backbone.label}: its text tower computes neither plain GELU nor QuickGELU")
    name = next(name for name in ACTIVATIONS if name != backbone.tower.activation)
    model = copy.copy(backbone.model)
    model._modules = {**backbone.model._modules, "text": copy.deepcopy(backbone.model.text)}
    for block in model.text.transformer.resblocks:
        for child, module in block.mlp.named_children():
            if is_activation(module):
                setattr(block.mlp, child, ACTIVATIONS[name]())
    changed = Backbone(model, replace(backbone.tower, activation=name), backbone.text.tokenizer, backbone.text.budget)
    changed.label = f"{backbone.label} with {name}"
    return changed


def is_activation(module: nn.Module) -> bool:
    """GELU by its exact formula, or QuickGELU."""
    return isinstance(module, tuple(ACTIVATIONS.values())) and getattr(module, "approximate", "none") == "none"


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(base: Backbone, other: Backbone, prompts: Mapping[str, Sequence[str]]) -> dict:
    towers = base.text, other.text
    old, new = (_tensors(tower.text) for tower in towers)
    texts = [text for of in prompts.values() for text in of]
    ids, others = (tower.tokens(texts) for tower in towers)
    layouts = [tower.layout for tower in towers]
    same = ids == others and (layouts[0].start, layouts[0].end) == (layouts[1].start, layouts[1].end)
    tokens = "token_embedding.weight"
    if not same:
        new.pop(tokens, None)  # its rows are of other tokens
    parameters, notes = parameter_rows(old, new, _text_place, "text")
    if tokens in old and tokens in new and old[tokens].shape == new[tokens].shape:
        used = sorted({*layouts[0].start, layouts[0].end, *(token for row in ids for token in row)})
        row = {"layer": "0", "kind": "tokens used", **parameter_change([(old[tokens][used], new[tokens][used])])}
        parameters.insert(1, row)
    if not same:
        notes.append("text: the towers read the texts as other tokens")
    if any(tower.hosted for tower in towers):
        return _part(parameters, [], [*notes, "text features: a tower is not open_clip's own, its blocks are not seen"])
    if [layout.read for layout in layouts] != ["end", "end"]:
        read = " and ".join(
            f"{tower.label} {READ[lay.read]}" for tower, lay in zip((base, other), layouts, strict=True)
        )
        notes.append(f"text features are read where each tower reads them: {read}")
    place = iter(range(len(texts)))
    members = {name: [next(place) for _ in of] for name, of in prompts.items()}
    distinct = list({(tuple(a), tuple(b)): i for i, (a, b) in enumerate(zip(ids, others, strict=True))}.values())
    features = []
    for layer, was, now, compare in matched(residuals(base, ids), residuals(other, others), "text", notes):
        rows = [{"dataset": name, **compare(was[chosen], now[chosen])} for name, chosen in members.items()]
        rows += [average(rows), {"dataset": POOLED, **compare(was[distinct], now[distinct])}]
        features += [{"layer": layer, **row} for row in rows]
    return _part(parameters, features, notes)


def _text_place(name: str) -> tuple[str, str]:
    return TEXT_PLACES.get(name.split(".")[0]) or _place(name)


# ---- vision ----------------------------------------------------------------------------------------------------------


def _vision(base: Backbone, other: Backbone, pixels: tuple[Tensor, Tensor] | None) -> dict:
    visuals = base.model.visual, other.model.visual
    if visuals[0] is visuals[1]:
        return _part([], [], ["vision: the tower is the same"])
    parameters, notes = parameter_rows(_tensors(visuals[0]), _tensors(visuals[1]), _place, "vision")
    blocks = [vision_blocks(visual) for visual in visuals]
    if blocks[0] is None or blocks[1] is None:
        kinds = " and ".join(
            f"{type(visual).__name__} with {'no' if found is None else len(found)} blocks that read a class token"
            for visual, found in zip(visuals, blocks, strict=True)
        )
        return _part(parameters, [], [*notes, f"vision features: {kinds} cannot be compared layer by layer"])
    if pixels is None:
        return _part(parameters, [], [*notes, "vision features: no pictures were given"])
    was, now = (vision_residuals(backbone, seen) for backbone, seen in zip((base, other), pixels, strict=True))
    features = [
        {"layer": layer, "dataset": POOLED, **compare(old, new)}
        for layer, old, new, compare in matched(was, now, "vision", notes)
    ]
    return _part(parameters, features, notes)


def vision_blocks(visual: Any) -> Sequence[nn.Module] | None:
    """The residual blocks of a vision transformer whose first token is its class token; None for any other tower."""
    if getattr(visual, "class_embedding", None) is not None:
        return visual.transformer.resblocks
    trunk: Any = getattr(visual, "trunk", None)
    return trunk.blocks if getattr(trunk, "cls_token", None) is not None and hasattr(trunk, "blocks") else None


@torch.no_grad()
def vision_residuals(backbone: Backbone, pixels: Tensor) -> dict[str, Tensor]:
    """The class token before the first block ("0") and after each, (B, W), and "projected" (B, D)."""
    kept: dict[str, Tensor] = {}
    blocks = vision_blocks(backbone.model.visual) or ()
    with ExitStack() as hooks:

        def keep(layer: str, x: Tensor) -> None:
            kept[layer] = x[:, 0].float().cpu()

        first = blocks[0].register_forward_pre_hook(lambda module, given: keep("0", given[0]))
        hooks.callback(first.remove)
        for number, block in enumerate(blocks, 1):
            hook = block.register_forward_hook(lambda module, given, x, layer=str(number): keep(layer, x))
            hooks.callback(hook.remove)
        projected = backbone.encode_images(pixels)
    return {**kept, "projected": projected.float().cpu()}


# ---- names -----------------------------------------------------------------------------------------------------------


def _place(name: str) -> tuple[str, str]:
    """(layer, kind) of a tensor: its block's number and part, or the name of the layer outside the blocks."""
    found = BLOCK.search(name)
    if not found:
        return name.removeprefix("trunk.").split(".")[0], "all"
    part = found[2]
    kinds = {"attn": "attention", "mlp": "mlp", "ln": "layernorm", "norm": "layernorm"}
    return str(int(found[1]) + 1), kinds.get(re.split(r"[_\d]", part)[0], "other")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.named_parameters()}


def _part(parameters: list[DriftRow], features: list[DriftRow], notes: list[str]) -> dict:
    return {"parameters": parameters, "features": features, "notes": notes}
