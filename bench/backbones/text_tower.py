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
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from carryover.bench.backbones.class_tokens import EOT, PLACEHOLDER, SOS, ClassTokens, pad
from carryover.bench.backbones.text_pass import Pass
from carryover.bench.errors import UserError

__all__ = ["EOT", "PLACEHOLDER", "SOS", "ClassTokens", "TextTower", "pad"]

# Float values that one token keeps for the backward pass in one block, as a multiple of W: residual 2, layer norms 2,
# qkv 3 twice, attention 2, MLP 4 + 4, and as much again for temporaries. Only the size of the chunks depends on it.
KEPT_PER_TOKEN = 36
CACHE_TOKENS = 4096  # without a backward pass, pieces of this size stay in a CPU's cache: a quarter faster


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
        self.text: Any = text  # open_clip's modules: their parts have no types of their own
        self.tokenizer, self.budget, self.precision = tokenizer, budget, precision
        self.causal = (
            text.attn_mask is not None
            and text.pool_type == "argmax"
            and text.cls_emb is None
            and not text.use_pad_mask
            and all(type(block).__name__ == "ResidualAttentionBlock" for block in self.blocks)
        )
        self.fast = fast and self.causal
        self.quick = Pass(text, torch.bfloat16 if precision == "bf16" else torch.float32) if self.fast else None

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

    @property
    def room(self) -> int:
        """Tokens of which the budget keeps all that a backward pass needs."""
        return self.budget // (KEPT_PER_TOKEN * self.width * len(self.blocks) * self.positions.element_size())

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
        return pad([row + [EOT] for row in self.tokens([f"{name}." for name in names])], self.device)

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
        return self.features(texts)

    def features(self, texts: Sequence[str]) -> Tensor:
        """``encode_texts`` that can be differentiated in the tower's own weights."""
        rows = self.tokens(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        shared = self.text.token_embedding.weight.new_zeros(0, self.width)
        features: list[Tensor] = [shared] * len(rows)
        for start in range(0, len(order), 256):
            chosen = order[start : start + 256]
            classes = pad([rows[i] + [EOT] for i in chosen], self.device)
            for i, feature in zip(chosen, self.encode(shared, classes), strict=True):
                features[i] = feature
        return torch.stack(features)

    def encode(
        self,
        context: Tensor,
        classes: ClassTokens,
        *,
        per: str = "shared",
        layer: int = 0,
        deep: Tensor | None = None,
    ) -> Tensor:
        """Features of the prompts ``[SOS, context, name, ".", EOT]``, not normalised; differentiable in ``context``.

        context  (n, W) with per="shared"; (C, n, W) with per="class"; (B, n, W) with per="image"; of S runs
                 (S, C, n, W) with per="class" (with per="shared" they are (S, n, W) and per="image")
        layer    the block at whose input the context stands: 0 replaces token embeddings (CoOp, Zhou et al. 2022);
                 l > 0 overwrites rows 1..n of block l's input, over CoOp's placeholder "X" (no position is added again)
        deep     (J - 1, n, W), of a shared context at layer 0: overwrites its rows at the input of blocks 1 to J - 1
        returns  (C, D), or (B, C, D) with per="image", (S, C, D) for runs side by side
        Raises ValueError for a shape or a layer that does not fit.
        """
        count, expected = len(classes), {"shared": (2,), "class": (3, 4), "image": (3,)}
        if per not in expected or context.dim() not in expected[per] or context.shape[-1] != self.width:
            raise ValueError(f"context of shape {tuple(context.shape)} does not fit per='{per}', W={self.width}")
        if per == "class" and context.shape[-3] != count:
            raise ValueError(f"{context.shape[-3]} class contexts for {count} classes")
        if not 0 <= layer < len(self.blocks):
            raise ValueError(f"layer {layer} is not one of the tower's {len(self.blocks)} blocks")
        n = context.shape[-2]
        if deep is not None:
            whole = deep.dim() == 3 and deep.shape[1:] == context.shape and len(deep) < len(self.blocks)
            if per != "shared" or layer or not whole:
                raise ValueError(
                    f"deep context of shape {tuple(deep.shape)} does not fit a context of {tuple(context.shape)}, "
                    f"per='{per}', layer {layer} in {len(self.blocks)} blocks"
                )
        if 1 + n + classes.longest > self.text.context_length:
            raise UserError(
                f"{n} context tokens and a name of {classes.longest - 2} do not fit "
                f"{self.text.context_length} tokens: use fewer context tokens"
            )
        return self._encode(context, classes, per, layer, deep)

    def _encode(
        self, context: Tensor, classes: ClassTokens, per: str, layer: int, deep: Tensor | None = None
    ) -> Tensor:
        one = context.dim() == (3 if per == "class" else 2)
        context = context[None] if one else context
        if self.quick is not None:
            run: Any = self.quick.own if per == "class" else self.quick.shared
            run = run if deep is None else partial(run, deep=deep)
            features = self._chunked(run, context, classes, layer)
        else:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                features = self._encode_full(context, classes, layer, deep).float()
        return features[0] if one else features

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _chunked(self, run, context: Tensor, classes: ClassTokens, layer: int) -> Tensor:
        """Split over prefixes (images, runs), then classes sorted by length, so that each piece keeps within the
        budget. Context (P, n, W), or (P, C, n, W) where each class has its own."""
        n, own = context.shape[-2], context.dim() == 4
        prefix, more = (1, n) if own else (1 + n, 0)
        room = max(self.room, prefix + more + classes.longest)
        if not torch.is_grad_enabled() and self.device.type == "cpu":
            room = min(room, max(CACHE_TOKENS, prefix + more + classes.longest))
        whole = classes.packed(prefix, more).tokens + prefix
        if whole * len(context) <= room:
            return run(context, classes, layer)
        images = max(1, min(len(context), room // whole))
        pieces: list[list[int]] = [[]]
        for i in classes.by_length if whole > room else ():  # the longest of a piece is its last
            longer = (len(pieces[-1]) + 1) * (len(classes.rows[i]) + more) + prefix
            if pieces[-1] and longer * images > room:
                pieces.append([])
            pieces[-1].append(i)
        chosen = [classes] if len(pieces) == 1 else [classes.take(piece) for piece in pieces]
        again = partial(checkpoint, use_reentrant=False) if torch.is_grad_enabled() else lambda f, *a: f(*a)

        def of_classes(part: Tensor, index: int) -> Tensor:
            return part[:, pieces[index]] if own and len(pieces) > 1 else part

        rows = [
            torch.cat([again(run, of_classes(part, i), some, layer) for i, some in enumerate(chosen)], dim=1)
            for part in context.split(images)
        ]
        found = torch.cat(rows)
        if len(pieces) == 1:
            return found
        return found[:, torch.argsort(torch.tensor([i for piece in pieces for i in piece], device=self.device))]

    # -- full length, for towers that are not causal and as the reference ----------------------------------------------

    def _encode_full(self, context: Tensor, classes: ClassTokens, layer: int, deep: Tensor | None = None) -> Tensor:
        """open_clip's own blocks over all 77 tokens; context (P, n, W) or (P, C, n, W) -> (P, C, D)."""
        if self.text.cls_emb is not None or self.text.use_pad_mask or self.text.pool_type != "argmax":
            raise UserError("this text tower pools or masks in a way that learned prompts are not defined for")
        count, n, total, images = len(classes), context.shape[-2], self.text.context_length, len(context)
        ids = torch.zeros(count, total, dtype=torch.long, device=self.device)
        ids[:, 0], ids[:, 1 : 1 + n] = SOS, PLACEHOLDER
        for i, row in enumerate(classes.rows):
            ids[i, 1 + n : 1 + n + len(row)] = torch.tensor(row, device=self.device)
        x = self.text.token_embedding(ids).expand(images, -1, -1, -1)
        rows = context if context.dim() == 4 else context[:, None].expand(-1, count, -1, -1)

        def place(x: Tensor, rows: Tensor = rows) -> Tensor:
            return torch.cat([x[:, :, :1], rows.to(x.dtype), x[:, :, 1 + n :]], dim=2)

        x = place(x) if layer == 0 else x
        x = x + self.positions
        for index, block in enumerate(self.blocks):
            x = place(x) if index == layer and layer > 0 else x
            if deep is not None and 0 < index <= len(deep):
                x = place(x, deep[index - 1].expand(images, count, -1, -1))
            x = block(x.flatten(0, 1), attn_mask=self.text.attn_mask).unflatten(0, (images, count))
        x = self.text.ln_final(x)[:, torch.arange(count, device=self.device), classes.eot + 1 + n]
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection
