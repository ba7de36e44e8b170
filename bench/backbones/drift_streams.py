"""The residual streams of two towers, layer by layer, and which layers of them are compared.

Texts are read at the row that the tower itself reads: EOT, CoCa's class token, SigLIP's last position. What is read is
the stream before ``ln_final``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from carryover.bench.backbones.drift_measures import DriftRow, feature_change, similarities
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.text_parts import project
from carryover.bench.backbones.text_tower import ClassTokens, TextTower, pad
from carryover.bench.backbones.whole_pass import WholePass

TEXTS_AT_ONCE = 256
ALONE = "by similarities alone (CKA, correlation of similarities)"


def matched(
    was: Mapping[str, Tensor], now: Mapping[str, Tensor], tower: str, notes: list[str]
) -> Iterator[tuple[str, Tensor, Tensor, Callable[[Tensor, Tensor], DriftRow]]]:
    """Layer of the base's, its features, those of the other tower at that part of its depth, and what compares them.
    ``notes`` are told where depths or widths differ."""
    depths = [sum(layer.isdigit() for layer in of) - 1 for of in (was, now)]
    if depths[0] != depths[1]:
        notes.append(
            f"{tower} features: towers of {depths[0]} and {depths[1]} blocks are compared at equal parts of their "
            f"depth, {ALONE}"
        )
    unlike: dict[tuple[int, int], list[str]] = {}
    for layer, features in was.items():
        there = str(at_depth(int(layer), *depths)) if layer.isdigit() else layer
        if there not in now:
            continue
        widths = features.shape[1], now[there].shape[1]
        if widths[0] != widths[1]:
            unlike.setdefault(widths, []).append(layer)
        differ = widths[0] != widths[1] or (layer.isdigit() and depths[0] != depths[1])
        yield layer, features, now[there], similarities if differ else feature_change
    for (left, right), layers in unlike.items():
        named = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
        notes.append(
            f"{tower} features: {named} {'has' if len(layers) == 1 else 'have'} widths {left} and {right}, {ALONE}"
        )


def at_depth(block: int, own: int, other: int) -> int:
    """The block of a tower of ``other`` blocks at the same part of its depth; 0 is what enters the first, and only
    that."""
    return 0 if not block else max(1, round(block * other / own))


@torch.no_grad()
def residuals(backbone: Backbone, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The stream after every layer at the row that the tower reads: "0" .. "L" and "ln_final" (N, W), "projected"
    (N, D), fp32 on the CPU.

    ids  N rows of the tokenizer's ids without start and end. open_clip's own blocks; of a causal tower that reads at
         EOT each batch is cut at its longest EOT, for what follows cannot reach it.
    """
    tower, text, device = backbone.text, backbone.model.text, backbone.device
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    kept: dict[str, list[Tensor]] = {}
    for start in range(0, len(order), TEXTS_AT_ONCE):
        x, mask, read = entered(
            tower, pad([[*ids[i], tower.layout.end] for i in order[start : start + TEXTS_AT_ONCE]], device)
        )
        everyone = torch.arange(len(x))

        def keep(layer: str, x: Tensor, everyone: Tensor = everyone, read: Tensor = read) -> None:
            kept.setdefault(layer, []).append((x if x.dim() == 2 else x[everyone, read]).float().cpu())

        keep("0", x)
        for number, block in enumerate(tower.blocks, 1):
            x = block(x, attn_mask=mask)
            keep(str(number), x)
        x = text.ln_final(x[everyone, read])
        keep("ln_final", x)
        if text.text_projection is not None:
            keep("projected", project(text, x))
    back = torch.tensor(order).argsort()
    return {layer: torch.cat(parts)[back] for layer, parts in kept.items()}


def entered(tower: TextTower, classes: ClassTokens) -> tuple[Tensor, Tensor | None, Tensor]:
    """What enters the first block (N, T, W), the mask of attention, and the row of each text that is read (N,)."""
    text, layout = tower.text, tower.layout
    if not tower.causal:
        whole = WholePass(text, layout)
        ids = whole.ids(classes, 0)
        x = whole.positioned(text.token_embedding(ids)[None])[0]
        return x, whole.mask(ids, 1), whole.read(classes, 0, x.shape[1])
    ends = torch.tensor([len(layout.start) + len(row) - 1 for row in classes.rows])
    length = int(ends.max()) + 1
    rows = [[*layout.start, *row, *[layout.end] * (length - len(layout.start) - len(row))] for row in classes.rows]
    x = text.token_embedding(torch.tensor(rows, device=tower.device)) + text.positional_embedding[:length]
    return x, text.attn_mask[:length, :length], ends
