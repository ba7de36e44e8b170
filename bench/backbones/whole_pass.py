"""One pass over rows that cannot be cut at the end of the text: towers without a causal mask, CoCa, Hugging Face's.

Each class has a row of its own, so nothing is shared between classes. What is exact and saved:

* the last block is computed at the one row that is read;
* CoCa's rows end after the first pad, and Hugging Face's at the longest text, as what follows is masked;
* up to the block at whose input a context enters, all contexts have the same rows.

Called as ``bench.backbones.text_pass.Pass`` is; letters as in ``bench.backbones.text_tower``, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.class_tokens import ClassTokens, Cost, pad
from carryover.bench.backbones.layout import Layout
from carryover.bench.backbones.text_parts import embedding, project


class Rows:
    """What the two passes below share: rows of ids, with a context where its placeholder stands."""

    def __init__(self, text: Any, layout: Layout, half: bool):
        self.text, self.layout, self.half = text, layout, half

    def cost(self, classes: ClassTokens, n: int, own: bool) -> Cost:
        span = self.layout.span(len(self.layout.start) + n + classes.longest)
        return Cost(0, [span] * len(classes), span * len(classes))

    def shared(
        self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Contexts (P, n, W), each for all classes -> (P, C, D); ``deep``, by block, overwrites their rows at its
        input, in the context's shape."""
        every = {block: rows[:, None].expand(-1, len(classes), -1, -1) for block, rows in (deep or {}).items()}
        return self.own(context[:, None].expand(-1, len(classes), -1, -1), classes, layer, every)

    def own(
        self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Contexts (P, C, n, W), one a class -> (P, C, D)."""
        device = context.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.half):
            return self.run(context, classes, layer, deep or {}).float()

    def run(self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor]) -> Tensor:
        raise NotImplementedError

    def ids(self, classes: ClassTokens, n: int) -> Tensor:
        """The class tokens behind n placeholders: (C, T), on their device."""
        layout = self.layout

        def make() -> Tensor:
            begun = [[*layout.start, *[layout.placeholder] * n, *row] for row in classes.rows]
            span = layout.span(max(map(len, begun)))
            return torch.tensor([layout.filled(row, span) for row in begun], device=classes.device)

        return classes.once(("ids", layout, n), make)

    def placed(self, x: Tensor, context: Tensor) -> Tensor:
        """The context (P, C, n, W) in its rows of (P or 1, C, T, W)."""
        first, n = len(self.layout.start), context.shape[2]
        x = x.expand(len(context), -1, -1, -1)
        return torch.cat([x[:, :, :first], context.to(x.dtype), x[:, :, first + n :]], dim=2)


class WholePass(Rows):
    """By open_clip's own blocks. ``short=False`` takes every row through every block, as a reference."""

    def __init__(self, text: Any, layout: Layout, half: bool = False, short: bool = True):
        super().__init__(text, layout, half)
        plain = type(text.transformer.resblocks[-1]).__name__ == "ResidualAttentionBlock"
        self.short = short and plain and (text.attn_mask is None or layout.read == "class")

    def run(self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor]) -> Tensor:
        text, count, blocks = self.text, len(classes), self.text.transformer.resblocks
        ids = self.ids(classes, context.shape[2])
        x = text.token_embedding(ids)[None]
        x = self.positioned(self.placed(x, context) if layer == 0 else x)
        read = self.read(classes, context.shape[2], x.shape[2])
        mask: Tensor | None = None
        for index, block in enumerate(blocks):
            x = self.placed(x, context) if index == layer and layer > 0 else x
            if index in deep:
                x = self.placed(x, deep[index])
            if index == 0 or index == layer:  # from here on there are as many rows as contexts
                mask = self.mask(ids, len(x))
            if self.short and index == len(blocks) - 1:
                x = last_block(block, x.flatten(0, 1), mask, read.repeat(len(x))).unflatten(0, (-1, count))
            else:
                x = block(x.flatten(0, 1), attn_mask=mask).unflatten(0, (-1, count))
        if not self.short:
            x = x[:, torch.arange(count, device=x.device), read]
        return project(text, text.ln_final(x))

    def positioned(self, x: Tensor) -> Tensor:
        """(P, C, T, W) with positions added, and CoCa's class token behind: its position is the row's last."""
        positions, token = self.text.positional_embedding, self.text.cls_emb
        at = positions[: x.shape[2]]
        if token is not None:
            x = torch.cat([x, token.expand(*x.shape[:2], 1, -1).to(x.dtype)], dim=2)
            at = torch.cat([at, positions[self.layout.length :]])
        return x + at

    def read(self, classes: ClassTokens, n: int, rows: int) -> Tensor:
        """The row of each class that is its feature (C,), of T and CoCa's class token."""
        if self.layout.read == "end":
            return classes.eot + len(self.layout.start) + n
        at = 0 if self.layout.read == "first" else rows - 1
        return torch.full((len(classes),), at, device=classes.device)

    def mask(self, ids: Tensor, contexts: int) -> Tensor | None:
        """What ``TextTransformer._build_additive_mask`` gives: additive, (T, T), or (P * C * heads, T, T) where padding
        is masked, which CoCa's weights were trained to see shifted by one row."""
        text, (count, length) = self.text, ids.shape
        causal, token = text.attn_mask, text.cls_emb is not None
        rows = length + token
        causal = None if causal is None else causal[:rows, :rows]
        if not token and not text.use_pad_mask:
            return causal
        seen = ids != text.pad_id
        if token:
            itself = seen.new_ones(count, 1)
            seen = torch.cat([seen, itself] if text.correct_cls_mask else [itself, seen], dim=1)
        hidden = torch.zeros(count, rows, rows, device=ids.device).masked_fill(~seen[:, None], float("-inf"))
        hidden = hidden if causal is None else hidden + causal
        return hidden.repeat(contexts, 1, 1).repeat_interleave(text.heads, dim=0)

    def rows_at(self, n: int, layer: int) -> Tensor:
        """The rows of n placeholders at the input of block ``layer`` (n, W), in a text of these alone."""
        text = self.text
        ids = self.ids(pad([[self.layout.end]], text.token_embedding.weight.device), n)
        x, mask = self.positioned(text.token_embedding(ids)[None])[0], self.mask(ids, 1)
        for block in text.transformer.resblocks[:layer]:
            x = block(x, attn_mask=mask)
        return x[0, len(self.layout.start) :][:n]


def last_block(block: Any, x: Tensor, mask: Tensor | None, read: Tensor) -> Tensor:
    """An open_clip block at one row of each of (N, T, W): (N, W). Keys and values are those of all rows."""
    every = torch.arange(len(x), device=x.device)
    y, x = block.ln_1(x), x[every, read][:, None]
    mask = None if mask is None else mask[:, -1:]  # masked towers are read at their last row
    x = x + block.ls_1(block.attention(y[every, read][:, None], y, y, attn_mask=mask))
    return (x + block.ls_2(block.mlp(block.ln_2(x))))[:, 0]


class HostedPass(Rows):
    """Through a Hugging Face model, which takes embeddings in place of ids, adds positions and masks padding itself."""

    def run(self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor]) -> Tensor:
        """``TextTower.check_layer`` refuses a context inside the tower, whose blocks differ from model to model."""
        ids = self.ids(classes, context.shape[2])
        x = self.placed(embedding(self.text)(ids)[None], context)
        seen = (ids != self.layout.pad).long().repeat(len(x), 1)
        found = self.text.transformer(inputs_embeds=x.flatten(0, 1), attention_mask=seen)
        return self.text.proj(self.text.pooler(found, seen)).unflatten(0, (-1, len(classes)))
