"""Layer drift (Figure 2 b, c): how far weights and features of class prompts moved between two backbones, by layer.

The paper plots "average absolute and relative changes" without a formula; `bench/backbones/drift_measures.py` gives
those of this
suite. Features are read at EOT in the residual stream, that is before ``ln_final``; both towers get the same token ids.

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
    feature_change,
    parameter_change,
    parameter_rows,
)
from carryover.bench.backbones.drift_names import POOLED
from carryover.bench.backbones.loading import ACTIVATIONS, Backbone
from carryover.bench.backbones.text_tower import EOT, SOS

TEXTS_AT_ONCE = 256
BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks)\.(\d+)\.(\w+)")
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
    ids = base.text.tokens([text for texts in prompts.values() for text in texts])
    used = sorted({SOS, EOT, *(token for row in ids for token in row)})
    return {
        "base": {"label": base.label, "fingerprint": base.fingerprint},
        "other": {"label": other.label, "fingerprint": other.fingerprint},
        "prompts": {name: len(texts) for name, texts in prompts.items()},
        "text": _text(base, other, prompts, ids, used),
        "vision": _vision(base, other, pixels),
    }


def other_activation(backbone: Backbone) -> Backbone:
    """The same weights, the text tower computing GELU for QuickGELU or the reverse; the vision tower is shared."""
    name = next(name for name in ACTIVATIONS if name != backbone.tower.activation)
    model = copy.copy(backbone.model)
    model._modules = {**backbone.model._modules, "text": copy.deepcopy(backbone.model.text)}
    kinds = tuple(ACTIVATIONS.values())
    for block in model.text.transformer.resblocks:
        for child, module in block.mlp.named_children():
            if isinstance(module, kinds):
                setattr(block.mlp, child, ACTIVATIONS[name]())
    changed = Backbone(model, replace(backbone.tower, activation=name), backbone.text.tokenizer, backbone.text.budget)
    changed.label = f"{backbone.label} with {name}"
    return changed


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(base: Backbone, other: Backbone, prompts: Mapping, ids: list[list[int]], used: list[int]) -> dict:
    old, new = (_tensors(backbone.model.text) for backbone in (base, other))
    parameters, notes = parameter_rows(old, new, _text_place, "text")
    tokens = "token_embedding.weight"
    if old[tokens].shape == new[tokens].shape:
        row = {"layer": "0", "kind": "tokens used", **parameter_change([(old[tokens][used], new[tokens][used])])}
        parameters.insert(1, row)
    blocks = [len(backbone.text.blocks) for backbone in (base, other)]
    if not (base.text.causal and other.text.causal):
        return _part(parameters, [], [*notes, "text features: a tower is not causal or does not read at EOT"])
    if blocks[0] != blocks[1] or base.width != other.width:
        shapes = " and ".join(f"{n} blocks of width {b.width}" for n, b in zip(blocks, (base, other), strict=True))
        return _part(parameters, [], [*notes, f"text features: {shapes} cannot be compared layer by layer"])
    place = iter(range(len(ids)))
    members = {name: [next(place) for _ in texts] for name, texts in prompts.items()}
    distinct = list({tuple(row): i for i, row in enumerate(ids)}.values())
    features = []
    streams = residuals(base, ids), residuals(other, ids)
    for layer, was in streams[0].items():
        now = streams[1][layer]
        if was.shape != now.shape:
            notes.append(f"text features: {layer} has width {was.shape[1]} and {now.shape[1]}")
            continue
        rows = [{"dataset": name, **feature_change(was[chosen], now[chosen])} for name, chosen in members.items()]
        rows += [average(rows), {"dataset": POOLED, **feature_change(was[distinct], now[distinct])}]
        features += [{"layer": layer, **row} for row in rows]
    return _part(parameters, features, notes)


@torch.no_grad()
def residuals(backbone: Backbone, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The stream at EOT after every layer: "0" .. "L" and "ln_final" (N, W), "projected" (N, D), fp32 on the CPU.

    ids  N rows of BPE ids without SOS and EOT. open_clip's own blocks, each batch cut at its longest EOT: what follows
         cannot reach EOT in a causal tower.
    """
    text, device = backbone.model.text, backbone.device
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    kept: dict[str, list[Tensor]] = {}
    for start in range(0, len(order), TEXTS_AT_ONCE):
        rows = [ids[i] for i in order[start : start + TEXTS_AT_ONCE]]
        ends = torch.tensor([len(row) + 1 for row in rows])
        length = int(ends.max()) + 1
        padded = torch.tensor([[SOS, *row, *[EOT] * (length - 1 - len(row))] for row in rows], device=device)
        everyone = torch.arange(len(rows))

        def keep(layer: str, x: Tensor, everyone: Tensor = everyone, ends: Tensor = ends) -> None:
            kept.setdefault(layer, []).append((x if x.dim() == 2 else x[everyone, ends]).float().cpu())

        x = text.token_embedding(padded) + text.positional_embedding[:length]
        keep("0", x)
        for number, block in enumerate(backbone.text.blocks, 1):
            x = block(x, attn_mask=text.attn_mask[:length, :length])
            keep(str(number), x)
        x = text.ln_final(x[everyone, ends])
        keep("ln_final", x)
        projection = text.text_projection
        if projection is not None:
            keep("projected", projection(x) if isinstance(projection, nn.Linear) else x @ projection)
    back = torch.tensor(order).argsort()
    return {layer: torch.cat(parts)[back] for layer, parts in kept.items()}


def _text_place(name: str) -> tuple[str, str]:
    return TEXT_PLACES.get(name.split(".")[0]) or _place(name)


# ---- vision ----------------------------------------------------------------------------------------------------------


def _vision(base: Backbone, other: Backbone, pixels: tuple[Tensor, Tensor] | None) -> dict:
    visuals = base.model.visual, other.model.visual
    if visuals[0] is visuals[1]:
        return _part([], [], ["vision: the tower is the same"])
    parameters, notes = parameter_rows(_tensors(visuals[0]), _tensors(visuals[1]), _place, "vision")
    blocks = [vision_blocks(visual) for visual in visuals]
    if blocks[0] is None or blocks[1] is None or len(blocks[0]) != len(blocks[1]):
        kinds = " and ".join(
            f"{type(visual).__name__} with {'no' if found is None else len(found)} blocks that read a class token"
            for visual, found in zip(visuals, blocks, strict=True)
        )
        return _part(parameters, [], [*notes, f"vision features: {kinds} cannot be compared layer by layer"])
    if pixels is None:
        return _part(parameters, [], [*notes, "vision features: no pictures were given"])
    features = []
    was, now = (vision_residuals(backbone, seen) for backbone, seen in zip((base, other), pixels, strict=True))
    for layer in was:
        if was[layer].shape != now[layer].shape:
            notes.append(f"vision features: {layer} has width {was[layer].shape[1]} and {now[layer].shape[1]}")
        else:
            features.append({"layer": layer, "dataset": POOLED, **feature_change(was[layer], now[layer])})
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
