"""The exact fast text path: class prompts through a frozen causal text tower, computing nothing twice.

Both text towers (CLIP's and EVA-CLIP's) are causal and read the class token at EOT. Hence, exactly:

* tokens after EOT never matter, so every batch ends at its longest EOT instead of at 77;
* tokens in front of the class name that all classes share (``[SOS, context]``) are computed once, and each class
  computes only its own suffix (name, ".", EOT), which attends to the prefix's keys and values;
* the last block needs the EOT row alone.

Letters as everywhere: B images, C classes, D joint width, W text-tower width, L tokens, n context tokens. Here P is
the number of prefixes: 1 for a context shared by all classes, B for one per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.errors import UserError

SOS, EOT, PLACEHOLDER = 49406, 49407, 343  # CLIP's BPE ids; 343 is "X</w>", the placeholder CoOp puts under its context

# Float values that one token keeps for the backward pass in one block, as a multiple of W: layer norms 2, qkv 3,
# attention 2, MLP 4 + 4 + 1, residuals 2, and as much again for temporaries. Only the size of the chunks depends on it.
KEPT_PER_TOKEN = 36
CACHE_TOKENS = 4096  # without a backward pass, pieces of this size stay in a CPU's cache: a quarter faster


@dataclass(frozen=True)
class ClassTokens:
    """What follows the context in each class's prompt, padded: ``name tokens . EOT``.

    ids     (C, L) token ids, EOT repeated as padding
    eot     (C,) index of EOT within the suffix
    """

    ids: Tensor
    eot: Tensor

    def to(self, device) -> ClassTokens:
        return ClassTokens(self.ids.to(device), self.eot.to(device))


def pad(rows: Sequence[Sequence[int]]) -> ClassTokens:
    length = max(map(len, rows))
    ids = torch.tensor([list(row) + [EOT] * (length - len(row)) for row in rows])
    return ClassTokens(ids, torch.tensor([len(row) - 1 for row in rows]))


class TextTower(nn.Module):
    """The fast path over one open_clip ``TextTransformer``; holds no weights of its own.

    ``budget`` (bytes) bounds what a pass keeps for the backward: more classes or images than fit are computed in
    chunks, which recompute their forward in the backward pass (same numbers). ``fast=False``, or a tower that is not
    causal, takes open_clip's own blocks at full length. ``precision`` "bf16" runs the frozen tower under autocast;
    features come out in fp32 either way, and what is learned stays fp32.
    """

    def __init__(self, text: nn.Module, tokenizer, budget: int = 4 << 30, fast: bool = True, precision: str = "fp32"):
        super().__init__()
        for need in ("token_embedding", "positional_embedding", "transformer", "ln_final", "pool_type"):
            if not hasattr(text, need):
                raise UserError(
                    f"text tower {type(text).__name__} has no '{need}': learned prompts need open_clip's "
                    "TextTransformer; choose a backbone with CLIP's text tower"
                )
        self.text, self.tokenizer, self.budget, self.precision = text, tokenizer, budget, precision
        self.causal = (
            text.attn_mask is not None
            and text.pool_type == "argmax"
            and text.cls_emb is None
            and not text.use_pad_mask
            and all(type(block).__name__ == "ResidualAttentionBlock" for block in self.blocks)
        )
        self.fast = fast and self.causal

    # -- shapes and tokens -------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> nn.ModuleList:
        return self.text.transformer.resblocks

    @property
    def width(self) -> int:
        return self.text.positional_embedding.shape[1]

    @property
    def positions(self) -> Tensor:
        return self.text.positional_embedding

    @property
    def device(self) -> torch.device:
        return self.positions.device

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """BPE ids of each text, without SOS and EOT. Raises UserError where a text exceeds the tower's length."""
        rows = []
        for text, row in zip(texts, self.tokenizer(list(texts)).tolist(), strict=True):
            body = row[1 : row.index(EOT)]
            if len(body) + 2 >= self.text.context_length:
                raise UserError(
                    f"text of {len(body)} tokens or more does not fit {self.text.context_length} tokens "
                    f"with its start and end: '{text[:60]}…'; shorten it"
                )
            rows.append(body)
        return rows

    def class_tokens(self, names: Sequence[str]) -> ClassTokens:
        """``name . EOT`` of each class, as CoOp's prompts end (the full stop belongs to the prompt, not the name)."""
        return pad([row + [EOT] for row in self.tokens([f"{name}." for name in names])]).to(self.device)

    def name_embeddings(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """This tower's token embeddings of the bare names: (C, L, W), and (C, L) bool, True at real tokens."""
        rows = self.tokens(names)
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.device)
        real = torch.tensor([[i < len(row) for i in range(length)] for row in rows], device=self.device)
        return self.text.token_embedding(ids).detach() * real[..., None], real

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Fixed token embeddings of one text or texts of equal length, e.g. a context's initial words: (n, W)."""
        ids = torch.tensor(self.tokens(texts), device=self.device).flatten()
        return self.text.token_embedding(ids).detach().clone()

    @torch.no_grad()
    def placeholder_rows(self, n: int, layer: int) -> Tensor:
        """What a context of n tokens replaces at block ``layer``: (n, W), the placeholder's rows at that block's input
        (its token embedding at layer 0, where positions are added later)."""
        ids = torch.tensor([[SOS] + [PLACEHOLDER] * n], device=self.device)
        x = self.text.token_embedding(ids)
        if layer > 0:
            x = x + self.positions[: 1 + n]
            mask = self.text.attn_mask[: 1 + n, : 1 + n] if self.text.attn_mask is not None else None
            for block in self.blocks[:layer]:
                x = block(x, attn_mask=mask)
        return x[0, 1:].float()

    # -- the two public encoders -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Features (len(texts), D) of plain texts, as open_clip's ``encode_text`` gives them, not normalised."""
        rows = self.tokens(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        shared = self.text.token_embedding.weight.new_zeros(0, self.width)
        features = [None] * len(rows)
        for start in range(0, len(order), 256):
            chosen = order[start : start + 256]
            classes = pad([rows[i] + [EOT] for i in chosen]).to(self.device)
            for i, feature in zip(chosen, self.encode(shared, classes), strict=True):
                features[i] = feature
        return torch.stack(features)

    def encode(self, context: Tensor, classes: ClassTokens, *, per: str = "shared", layer: int = 0) -> Tensor:
        """Features of the prompts ``[SOS, context, name, ".", EOT]``, not normalised; differentiable in ``context``.

        context  (n, W) with per="shared"; (C, n, W) with per="class"; (B, n, W) with per="image"
        layer    the block at whose input the context stands: 0 replaces token embeddings (CoOp, Zhou et al. 2022);
                 l > 0 overwrites rows 1..n of block l's input, over CoOp's placeholder "X" (no position is added again)
        returns  (C, D), or (B, C, D) with per="image"
        Raises ValueError for a shape or a layer that does not fit.
        """
        count, expected = len(classes.ids), {"shared": 2, "class": 3, "image": 3}
        if per not in expected or context.dim() != expected[per] or context.shape[-1] != self.width:
            raise ValueError(f"context of shape {tuple(context.shape)} does not fit per='{per}', W={self.width}")
        if per == "class" and len(context) != count:
            raise ValueError(f"{len(context)} class contexts for {count} classes")
        if not 0 <= layer < len(self.blocks):
            raise ValueError(f"layer {layer} is not one of the tower's {len(self.blocks)} blocks")
        n = context.shape[-2]
        if 1 + n + classes.ids.shape[1] > self.text.context_length:
            raise UserError(
                f"{n} context tokens and a name of {classes.ids.shape[1] - 2} do not fit "
                f"{self.text.context_length} tokens: use fewer context tokens"
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._encode(context, classes, per, layer).float()

    def _encode(self, context: Tensor, classes: ClassTokens, per: str, layer: int) -> Tensor:
        n = context.shape[-2]
        if not self.fast:
            return self._encode_full(context, classes, per, layer)
        if per == "class":
            return self._chunked(
                lambda part, tokens: self._shared_prefix(context.new_zeros(1, 0, self.width), tokens, layer, own=part)[
                    0
                ],
                classes,
                n,
                own=context,
            )
        prefix = context[None] if per == "shared" else context
        features = self._chunked(
            lambda part, tokens: self._shared_prefix(part, tokens, layer), classes, n, prefix=prefix
        )
        return features[0] if per == "shared" else features

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _chunked(
        self, run, classes: ClassTokens, n: int, prefix: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        """Split over prefixes (images), then classes sorted by length, so that each piece keeps within the budget."""
        count, length = classes.ids.shape
        token_bytes = KEPT_PER_TOKEN * self.width * len(self.blocks) * self.positions.element_size()
        room = max(self.budget // token_bytes, length + n + 1)
        if not torch.is_grad_enabled() and self.device.type == "cpu":
            room = min(room, max(CACHE_TOKENS, length + n + 1))
        suffix = length + (n if own is not None else 0)
        needed = (count * suffix + n + 1) * (1 if prefix is None else len(prefix))
        if needed <= room:
            return run(own if prefix is None else prefix, classes)
        again = partial(checkpoint, use_reentrant=False) if torch.is_grad_enabled() else lambda f, *a: f(*a)
        images = 1 if prefix is None else max(1, min(len(prefix), room // (count * suffix + n + 1)))
        order = torch.argsort(classes.eot, stable=True)
        lengths = classes.eot[order] + 1 + (suffix - length)
        pieces, start = [], 0
        while start < count:  # the longest of a chunk is its last, for the names are sorted
            stop = start + 1
            while stop < count and (stop + 1 - start) * int(lengths[stop]) * images + images * (n + 1) <= room:
                stop += 1
            pieces.append(order[start:stop])
            start = stop
        back = torch.argsort(order)

        def one(index: Tensor, part: Tensor) -> Tensor:
            cut = int(classes.eot[index].max()) + 1
            return run(part, ClassTokens(classes.ids[index, :cut], classes.eot[index]))

        if prefix is None:
            return torch.cat([again(one, index, own[index]) for index in pieces])[back]
        rows = [
            torch.cat([again(one, index, part) for index in pieces], dim=1)[:, back] for part in prefix.split(images)
        ]
        return torch.cat(rows)

    # -- the pass itself ---------------------------------------------------------------------------------------------

    def _shared_prefix(self, context: Tensor, classes: ClassTokens, layer: int, own: Tensor | None = None) -> Tensor:
        """P prefixes ``[SOS, context]`` against C suffixes: (P, n, W) and C names -> (P, C, D).

        ``own`` (C, n, W) puts a context into each class's suffix instead (then the shared prefix is SOS alone).
        """
        embedding, n = self.text.token_embedding, context.shape[1] if own is None else own.shape[1]
        sos = embedding(torch.tensor([SOS], device=self.device))
        names = embedding(classes.ids)
        fixed = own if own is not None else context
        if layer > 0:  # up to block `layer` the prompt is the fixed placeholder, one for all images
            fixed = embedding(torch.full((1, n), PLACEHOLDER, device=self.device))
        if own is None:
            head = torch.cat([sos.expand(len(fixed), 1, -1), fixed], dim=1) + self.positions[: 1 + n]
            tail = (names + self.positions[1 + n : 1 + n + names.shape[1]])[None]
            eot = classes.eot
        else:
            head = (sos + self.positions[:1])[None]
            tail = torch.cat([fixed.expand(len(names), n, -1), names], dim=1)
            tail = (tail + self.positions[1 : 1 + tail.shape[1]])[None]
            eot = classes.eot + n
        for index, block in enumerate(self.blocks):
            if index == layer and layer > 0:
                if own is None:
                    head = torch.cat([head[:, :1].expand(len(context), -1, -1), context.to(head.dtype)], dim=1)
                else:
                    tail = torch.cat([own[None].to(tail.dtype), tail[:, :, n:]], dim=2)
            last = index == len(self.blocks) - 1
            head, tail = self._block(block, head, tail, eot if last else None)
        features = self.text.ln_final(tail[:, :, 0])
        return self._project(features)

    def _block(self, block: nn.Module, head: Tensor, tail: Tensor, eot: Tensor | None) -> tuple[Tensor, Tensor]:
        """One residual block over prefixes (P, L', W) and suffixes (P or 1, C, L, W); ``eot`` leaves only that row.

        While head and tail hold one copy for all prefixes (before the context enters), they stay so.
        """
        heads, attention = block.attn.num_heads, block.attn
        width = self.width
        scale = (width // heads) ** -0.5
        weight, bias = attention.in_proj_weight, attention.in_proj_bias

        def split(x: Tensor) -> Tensor:  # (..., L, W) -> (..., heads, L, W/heads)
            return x.unflatten(-1, (heads, -1)).transpose(-3, -2)

        q, k, v = F.linear(block.ln_1(head), weight, bias).chunk(3, dim=-1)
        head_k, head_v = split(k), split(v)  # (P, h, L', d)
        if eot is None:
            mixed = F.scaled_dot_product_attention(split(q), head_k, head_v, is_causal=True)
            head_next = head + block.ls_1(attention.out_proj(mixed.transpose(-3, -2).flatten(-2)))
            head_next = head_next + block.ls_2(block.mlp(block.ln_2(head_next)))
        else:
            head_next = head

        normed = block.ln_1(tail)
        row = torch.arange(tail.shape[1], device=tail.device)
        if eot is None:
            q, k, v = F.linear(normed, weight, bias).chunk(3, dim=-1)
        else:
            k, v = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
            q = F.linear(normed[:, row, eot][:, :, None], weight[:width], bias[:width])
            tail = tail[:, row, eot][:, :, None]
        q, k, v = split(q) * scale, split(k), split(v)  # (P, C, h, L, d)
        images, count, _, queries, depth = q.shape
        # The prefix's keys are shared by all classes: one (C*L, d) x (d, L') product a head and prefix, nothing copied.
        flat = q.permute(0, 2, 1, 3, 4).reshape(images, heads, count * queries, depth)
        to_head = (flat @ head_k.transpose(-1, -2)).unflatten(2, (count, queries)).transpose(1, 2)
        to_tail = q @ k.transpose(-1, -2)
        position = torch.arange(k.shape[-2], device=tail.device)
        allowed = position <= (position[:queries, None] if eot is None else eot[:, None, None, None])
        to_tail = to_tail.masked_fill(~allowed, float("-inf"))
        if len(to_head) != len(
            to_tail
        ):  # many prefixes, suffixes still in one copy (first block, or where context enters)
            to_tail = to_tail.expand(len(to_head), -1, -1, -1, -1)
        share = torch.cat([to_head, to_tail], dim=-1).softmax(dim=-1)
        share_head, share_tail = share.split([head_k.shape[-2], k.shape[-2]], dim=-1)
        flat = share_head.transpose(1, 2).flatten(2, 3)
        mixed = (flat @ head_v).unflatten(2, (count, queries)).transpose(1, 2) + share_tail @ v
        tail = tail + block.ls_1(attention.out_proj(mixed.transpose(-3, -2).flatten(-2)))
        return head_next, tail + block.ls_2(block.mlp(block.ln_2(tail)))

    def _project(self, features: Tensor) -> Tensor:
        projection = self.text.text_projection
        if projection is None:
            return features
        return projection(features) if isinstance(projection, nn.Linear) else features @ projection

    # -- full length, for towers that are not causal and as the reference ----------------------------------------------

    def _encode_full(self, context: Tensor, classes: ClassTokens, per: str, layer: int) -> Tensor:
        """open_clip's own blocks over all 77 tokens; same arguments and result as ``encode``."""
        if self.text.cls_emb is not None or self.text.use_pad_mask or self.text.pool_type != "argmax":
            raise UserError("this text tower pools or masks in a way that learned prompts are not defined for")
        count, n, total = len(classes.ids), context.shape[-2], self.text.context_length
        images = len(context) if per == "image" else 1
        ids = torch.zeros(count, total, dtype=torch.long, device=self.device)
        ids[:, 0], ids[:, 1 : 1 + n] = SOS, PLACEHOLDER
        for i, (row, end) in enumerate(zip(classes.ids, classes.eot.tolist(), strict=True)):
            ids[i, 1 + n : 2 + n + end] = row[: end + 1]
        x = self.text.token_embedding(ids).expand(images, -1, -1, -1)
        context = {
            "shared": lambda: context[None, None],
            "class": lambda: context[None],
            "image": lambda: context[:, None],
        }[per]().expand(images, count, -1, -1)

        def place(x: Tensor) -> Tensor:
            return torch.cat([x[:, :, :1], context.to(x.dtype), x[:, :, 1 + n :]], dim=2)

        x = place(x) if layer == 0 else x
        x = x + self.positions
        for index, block in enumerate(self.blocks):
            x = place(x) if index == layer and layer > 0 else x
            x = block(x.flatten(0, 1), attn_mask=self.text.attn_mask).unflatten(0, (images, count))
        x = self.text.ln_final(x)[:, torch.arange(count, device=self.device), classes.eot + 1 + n]
        features = self._project(x)
        return features if per == "image" else features[0]
