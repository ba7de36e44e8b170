"""The exact text path: class prompts through a frozen text tower, computing nothing twice.

Most text towers (CLIP's, EVA-CLIP's, PE's, MetaCLIP 2's) are causal and read the class token at EOT. Hence, exactly:

* tokens after EOT never matter, so every batch ends at its longest EOT instead of at 77;
* tokens in front of the class name that all classes share (``[SOS, context]``) are computed once, and each class
  computes only its own suffix (name, ".", EOT), which attends to the prefix's keys and values;
* the last block needs the EOT row alone.

This is ``bench.backbones.text_pass``. Towers of other kinds (``bench.backbones.layout`` lists them) go through
``bench.backbones.whole_pass``, which computes a whole row for each class.

Letters as everywhere: B images, C classes, D joint width, W text-tower width, L tokens, n context tokens. Here P is
the number of prefixes: 1 for a context shared by all classes, B for one per image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from carryover.bench.backbones.class_tokens import EOT, SOS, ClassTokens, pad
from carryover.bench.backbones.layout import WORD, layout_of
from carryover.bench.backbones.text_parts import embedding, hosted, layers, width
from carryover.bench.backbones.text_pass import Pass
from carryover.bench.backbones.whole_pass import HostedPass, WholePass
from carryover.bench.errors import TooLong, UserError

__all__ = ["EOT", "SOS", "ClassTokens", "TextTower", "pad"]

# Float values that one token keeps for the backward pass in one block, as a multiple of W: residual 2, layer norms 2,
# qkv 3 twice, attention 2, MLP 4 + 4, and as much again for temporaries. Only the size of the chunks depends on it.
KEPT_PER_TOKEN = 36
KEPT_LISTS = 16  # of texts, whose tokens are kept: as many templates as a tower in training meets at every step
# The same without a backward pass, when one block's values are held at a time: residual 2, qkv 3, keys and values
# behind the prefix 3, attention 2, MLP 8, and its scores for 128 keys in heads of 64 values, twice in fp32.
HELD_PER_TOKEN = 26
# Without a backward pass, pieces of so many tokens stay in a CPU's cache (a quarter faster), and fill a GPU.
ENOUGH_TOKENS = {"cpu": 4096, "cuda": 1 << 17}


class TextTower(nn.Module):
    """The exact path over one text tower of open_clip's; holds no weights of its own.

    ``budget`` (bytes) bounds what a pass keeps for the backward: more classes or images than fit are computed in
    chunks, which recompute their forward in the backward pass (same numbers). ``fast=False`` takes open_clip's own
    blocks at full length. ``precision`` "bf16" runs the frozen tower under autocast; features come out in fp32 either
    way, and what is learned stays fp32.

    layout  how rows of tokens are laid out and read
    causal  whether no row sees what is behind it, and the feature is read at the end of the text
    fast    whether prefixes are shared and rows cut, which a causal tower alone allows
    """

    def __init__(self, text: nn.Module, tokenizer, budget: int = 4 << 30, fast: bool = True, precision: str = "fp32"):
        super().__init__()
        self.text: Any = text  # open_clip's modules: their parts have no types of their own
        self.tokenizer, self.budget, self.precision = tokenizer, budget, precision
        self.hosted, self.layout = hosted(text), layout_of(text, tokenizer)
        self.causal = (
            not self.hosted
            and self.text.attn_mask is not None
            and self.layout.read == "end"
            and bool(self.layout.start)
            and all(type(block).__name__ == "ResidualAttentionBlock" for block in self.blocks)
        )
        self.fast, half = fast and self.causal, precision == "bf16"
        self._asked: dict[tuple, list[tuple[list[int], ClassTokens]]] = {}
        self.passing: Pass | WholePass | HostedPass
        if self.fast:
            self.passing = Pass(text, self.layout, torch.bfloat16 if half else torch.float32)
        elif self.hosted:
            self.passing = HostedPass(text, self.layout, half)
        else:
            self.passing = WholePass(text, self.layout if fast else replace(self.layout, pads=None), half, fast)

    # -- shapes and tokens -------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> Sequence[Any]:
        """None of a Hugging Face tower, whose blocks differ from model to model."""
        return () if self.hosted else self.text.transformer.resblocks

    @property
    def width(self) -> int:
        return width(self.text)

    @property
    def embedding(self) -> Any:
        """The module that looks up token embeddings."""
        return embedding(self.text)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def room(self) -> int:
        """Tokens of which the budget keeps all that a backward pass needs."""
        return self.budget // (KEPT_PER_TOKEN * self.width * layers(self.text) * self.value_size)

    @property
    def value_size(self) -> int:
        """Bytes of a value that a pass keeps."""
        passing = self.passing
        if isinstance(passing, Pass) and passing.binned:
            return passing.dtype.itemsize
        return self.embedding.weight.element_size()

    def most_tokens(self, least: int) -> int:
        """Of one piece of a pass, which is of ``least`` tokens at the least."""
        room, device = max(self.room, least), self.device.type
        if torch.is_grad_enabled() or device not in ENOUGH_TOKENS:
            return room
        if device == "cuda":
            room = max(self.budget // (HELD_PER_TOKEN * self.width * self.value_size), least)
        return min(room, max(ENOUGH_TOKENS[device], least))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokenizer's ids of each text, without start and end. Raises UserError where a text exceeds the tower's
        length."""
        rows = []
        for text, row in zip(texts, self.tokenizer(list(texts)).tolist(), strict=True):
            body = self.layout.pieces(row)
            if not self.layout.fits(len(body)):
                raise TooLong(
                    f"text of {len(body)} tokens or more does not fit {self.layout.length} tokens "
                    f"with its start and end: '{text[:60]}…'; shorten it"
                )
            rows.append(body)
        return rows

    def behind(self, texts: Sequence[str]) -> list[list[int]]:
        """``tokens`` as the texts are cut where they stand behind other words."""
        if not self.layout.by_place:
            return self.tokens(texts)
        start = len(self.tokens([WORD])[0])
        return [row[start:] for row in self.tokens([f"{WORD} {text}" for text in texts])]

    def class_tokens(self, names: Sequence[str]) -> ClassTokens:
        """``name . EOT`` of each class, as CoOp's prompts end (the full stop belongs to the prompt, not the name)."""
        return pad([row + [self.layout.end] for row in self.behind([f"{name}." for name in names])], self.device)

    def name_embeddings(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """This tower's token embeddings of the bare names: (C, L, W), and (C, L) bool, True at real tokens."""
        rows = self.tokens(names)
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.device)
        real = torch.tensor([[i < len(row) for i in range(length)] for row in rows], device=self.device)
        return self.embedding(ids).detach() * real[..., None], real

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Fixed token embeddings of one text or texts of equal length, e.g. a context's initial words: (n, W)."""
        ids = torch.tensor(self.tokens(texts), device=self.device).flatten()
        return self.embedding(ids).detach().clone()

    @torch.no_grad()
    def placeholder_rows(self, n: int, layer: int) -> Tensor:
        """What a context of n tokens replaces at block ``layer``: (n, W), the placeholder's rows at that block's input
        (its token embedding at layer 0, where positions are added later). Where rows see what is behind them, those of
        a text of placeholders alone."""
        start = self.layout.start
        if layer == 0:
            return self.embedding(torch.tensor([self.layout.placeholder] * n, device=self.device)).float()
        self.check_layer(layer)
        if isinstance(self.passing, WholePass):
            return self.passing.rows_at(n, layer).float()
        ids = torch.tensor([[*start, *[self.layout.placeholder] * n]], device=self.device)
        x, rows = self.text.token_embedding(ids) + self.text.positional_embedding[: ids.shape[1]], ids.shape[1]
        for block in self.blocks[:layer]:
            x = block(x, attn_mask=self.text.attn_mask[:rows, :rows])
        return x[0, len(start) :].float()

    def batches(self, texts: tuple[str, ...]) -> list[tuple[list[int], ClassTokens]]:
        """Places of at most 256 texts of like length, and what is encoded of them. Those of the last few lists are
        kept: a tower that learns is asked for the same texts at every step."""
        key = texts, self.device
        if key not in self._asked:
            rows = self.tokens(texts)
            order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
            parts = [order[start : start + 256] for start in range(0, len(order), 256)]
            made = [(part, pad([rows[i] + [self.layout.end] for i in part], self.device)) for part in parts]
            if len(self._asked) == KEPT_LISTS:
                del self._asked[next(iter(self._asked))]
            self._asked[key] = made
        return self._asked[key]

    # -- the two public encoders -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Features (len(texts), D) of plain texts, as open_clip's ``encode_text`` gives them, not normalised."""
        return self.features(texts)

    def features(self, texts: Sequence[str]) -> Tensor:
        """``encode_texts`` that can be differentiated in the tower's own weights."""
        shared = self.embedding.weight.new_zeros(0, self.width)
        features: list[Tensor] = [shared] * len(texts)
        for chosen, classes in self.batches(tuple(texts)):
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
        deep: Tensor | Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Features of the prompts ``[SOS, context, name, ".", EOT]``, not normalised; differentiable in ``context``.

        context  (n, W) with per="shared"; (C, n, W) with per="class"; (B, n, W) with per="image"; of S runs
                 (S, C, n, W) with per="class" (with per="shared" they are (S, n, W) and per="image")
        layer    the block at whose input the context stands: 0 replaces token embeddings (CoOp, Zhou et al. 2022);
                 l > 0 overwrites rows 1..n of block l's input, over CoOp's placeholder "X" (no position is added again)
        deep     {block: rows} of a context at layer 0, not of per="image": overwrites its rows at that block's input
                 with others of its shape (TCP). Of a shared context also (J - 1, n, W), for blocks 1 to J - 1 (MaPLe)
        returns  (C, D), or (B, C, D) with per="image", (S, C, D) for runs side by side
        Raises ValueError for a shape or a layer that does not fit.
        """
        count, expected = len(classes), {"shared": (2,), "class": (3, 4), "image": (3,)}
        if per not in expected or context.dim() not in expected[per] or context.shape[-1] != self.width:
            raise ValueError(f"context of shape {tuple(context.shape)} does not fit per='{per}', W={self.width}")
        if per == "class" and context.shape[-3] != count:
            raise ValueError(f"{context.shape[-3]} class contexts for {count} classes")
        self.check_layer(layer)
        n = context.shape[-2]
        if isinstance(deep, Tensor):
            deep = {block + 1: deep[block] for block in range(len(deep))}
        deep = deep or {}
        if deep:
            self.check_layer(1)
            shapes, blocks = {tuple(rows.shape) for rows in deep.values()}, layers(self.text)
            whole = shapes == {tuple(context.shape)} and all(0 < block < blocks for block in deep)
            if per == "image" or layer or not whole:
                raise ValueError(
                    f"deep context of shape {sorted(shapes)} at blocks {sorted(deep)} does not fit a context of "
                    f"{tuple(context.shape)}, per='{per}', layer {layer} in {blocks} blocks"
                )
        if len(self.layout.start) + n + classes.longest > self.layout.length:
            raise TooLong(
                f"{n} context tokens and a name of {classes.longest - 2} do not fit "
                f"{self.layout.length} tokens: use fewer context tokens"
            )
        one = context.dim() == (3 if per == "class" else 2)
        run: Any = self.passing.own if per == "class" else self.passing.shared
        if one:
            context, deep = context[None], {block: rows[None] for block, rows in deep.items()}
        features = self._chunked(run, context, classes, layer, deep)
        return features[0] if one else features

    def check_layer(self, layer: int) -> None:
        """Raises ValueError for a block that is not there, UserError for one that cannot be reached."""
        if self.hosted and layer:
            raise UserError(
                "a context at an inner block is not defined for a text tower of Hugging Face's: only one at its token "
                "embeddings (layer 0) is; choose a backbone with open_clip's own text tower"
            )
        if not 0 <= layer < layers(self.text):
            raise ValueError(f"layer {layer} is not one of the tower's {layers(self.text)} blocks")

    def times_packed(self, classes: ClassTokens, n: int, own: bool) -> float:
        """How many times the tokens of packed classes behind a shared prefix it computes for contexts of n tokens, one
        for all classes or one for each: 1 where it packs them."""
        prefix, more = (1, n) if own else (1 + n, 0)  # as methods count, whose prompts begin with one token
        whole = self.passing.cost(classes, n, own).whole
        return 1.0 if self.fast else whole / (classes.packed(prefix, more).tokens + prefix)

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _chunked(self, run, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor]) -> Tensor:
        """Split over prefixes (images, runs), then classes sorted by length, so that each piece keeps within the
        budget. Context (P, n, W), or (P, C, n, W) where each class has its own; the rows of ``deep`` likewise."""
        own = context.dim() == 4
        cost = self.passing.cost(classes, context.shape[-2], own)
        least = cost.shared + max(cost.each)
        room = self.most_tokens(least)
        if cost.whole * len(context) <= room:
            return run(context, classes, layer, deep)
        images = max(1, min(len(context), room // cost.whole))
        pieces: list[list[int]] = [[]]
        for i in classes.by_length if cost.whole > room else ():  # the longest of a piece is its last
            longer = (len(pieces[-1]) + 1) * cost.each[i] + cost.shared
            if pieces[-1] and longer * images > room:
                pieces.append([])
            pieces[-1].append(i)
        back: Tensor | None = None
        chosen = [classes]
        if len(pieces) > 1:
            chosen, back = classes.pieces(tuple(map(tuple, pieces)))
        again = lambda f, *a: f(*a)  # noqa: E731
        if torch.is_grad_enabled():  # a frozen tower draws no random numbers, whose state is not asked for
            again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)

        def of_classes(part: Tensor, index: int) -> Tensor:
            return part[:, pieces[index]] if own and len(pieces) > 1 else part

        def of_piece(start: int, index: int) -> Tensor:
            first, *rows = (of_classes(x[start : start + images], index) for x in (context, *deep.values()))
            return again(run, first, chosen[index], layer, dict(zip(deep, rows, strict=True)))

        starts = range(0, len(context), images)
        found = torch.cat([torch.cat([of_piece(at, i) for i in range(len(chosen))], dim=1) for at in starts])
        return found if back is None else found[:, back]
