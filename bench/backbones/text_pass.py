"""One pass of the fast text path: prefix and suffixes as one stream of tokens through a frozen causal text tower.

On a CPU a stream is (P, L' + T, W): L' tokens of the prefix, then the T tokens of all classes' suffixes, group by group
(``bench.backbones.packed``). Everything but attention works on the stream as a whole. In attention a suffix sees the
prefix's keys and its own earlier tokens, and the keys of the prefix are used by all classes where they lie. On a GPU a
stream is (P, N, S, W), N bins of S tokens with the prefix in each (``bench.backbones.bins``).

Letters as in ``bench.backbones.text_tower``; G = P * heads, d = W / heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from carryover.bench.backbones import bins
from carryover.bench.backbones.class_tokens import ClassTokens, Cost
from carryover.bench.backbones.layout import Layout
from carryover.bench.backbones.packed import Packed, attend, by_head, merge
from carryover.bench.backbones.products import Product
from carryover.bench.backbones.text_parts import project

QUICK = 1.702  # QuickGELU is x * sigmoid(1.702 x) = silu(1.702 x) / 1.702


@dataclass(frozen=True)
class Weights:
    """One block as the pass multiplies it: the softmax scale is in the query rows, QuickGELU's constant in the MLP,
    which is then a SiLU (one kernel forward and one backward in place of three and five). ``query`` and ``rest`` are
    the rows of ``qkv``, for the last block, which asks for few rows alone."""

    heads: int
    ln_1: nn.LayerNorm
    ln_2: nn.LayerNorm
    qkv: Product
    query: Product
    rest: Product
    out: Product
    fc: Product
    proj: Product
    activation: Callable[[Tensor], Tensor]


def fold(block: Any, dtype: torch.dtype) -> Weights:
    attention, (fc, activation, proj) = block.attn, block.mlp
    width = attention.embed_dim
    scale = torch.ones(3 * width, 1, device=fc.weight.device)
    scale[:width] = (width // attention.num_heads) ** -0.5
    quick = QUICK if isinstance(activation, QuickGELU) else 1.0

    def cast(weight: Tensor, bias: Tensor, by: Tensor | float = 1.0, bias_by: Tensor | float = 1.0):
        return Product((weight * by).to(dtype), (bias * bias_by).to(dtype))

    def layer_scale(module: nn.Module) -> Tensor | float:
        return getattr(module, "gamma", 1.0)

    def rows(by: Tensor | float) -> Tensor | float:
        return by[:, None] if isinstance(by, Tensor) else by

    first, second = layer_scale(block.ls_1), layer_scale(block.ls_2)
    qkv = cast(attention.in_proj_weight, attention.in_proj_bias, scale, scale[:, 0])
    return Weights(
        attention.num_heads,
        block.ln_1,
        block.ln_2,
        qkv,
        Product(qkv.weight[:width], qkv.bias[:width]),
        Product(qkv.weight[width:], qkv.bias[width:]),
        cast(attention.out_proj.weight, attention.out_proj.bias, rows(first), first),
        cast(fc.weight, fc.bias, quick, quick),
        cast(proj.weight, proj.bias, rows(second) / quick, second),
        F.silu if quick != 1.0 else activation,
    )


class Pass:
    """The pass over one open_clip ``TextTransformer``. The folded weights are kept until one of the tower's changes.

    dtype   of matrix products; the stream between the blocks is fp32
    binned  whether it is laid out for a GPU
    """

    def __init__(self, text: Any, layout: Layout, dtype: torch.dtype):  # open_clip's modules have no types of their own
        self.text, self.layout, self.dtype = text, layout, dtype
        self._folded: tuple[list, list[Weights]] | None = None

    @property
    def binned(self) -> bool:
        return self.text.token_embedding.weight.device.type == "cuda"

    def weights(self) -> list[Weights]:
        blocks = self.text.transformer.resblocks
        tensors = [value for block in blocks for value in block.parameters()]
        if torch.is_grad_enabled() and any(value.requires_grad for value in tensors):
            return [fold(block, self.dtype) for block in blocks]  # the tower itself learns
        # The tensors themselves are held: one that replaces another could be given its address.
        state = [(value, value._version, value.device) for value in tensors]
        if self._folded is None or not same(self._folded[0], state):
            with torch.no_grad():
                self._folded = state, [fold(block, self.dtype) for block in blocks]
        return self._folded[1]

    def cost(self, classes: ClassTokens, n: int, own: bool) -> Cost:
        """Of a pass over contexts of n tokens, one for all classes or one for each."""
        if self.binned:
            laid_out = classes.binned(self.layout, n, own)
            return Cost(0, laid_out.each, laid_out.tokens)
        start = len(self.layout.start)
        prefix, more = (start, n) if own else (start + n, 0)
        each = [len(row) + more for row in classes.rows]
        return Cost(prefix, each, prefix + classes.packed(prefix, more).tokens)

    def start(self) -> Tensor:
        """The embeddings in front of every context (s, W); s is 1 in all towers that are known."""
        return torch.cat([self.text.token_embedding.weight[id : id + 1] for id in self.layout.start])

    def shared(
        self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """P prefixes ``[SOS, context]`` of (P, n, W) against C suffixes -> (P, C, D); ``deep``, by block, overwrites
        the context's rows at its input, in the context's shape."""
        if self.binned:
            return self.in_bins(context, classes, layer, deep)
        first = len(self.layout.start)
        begin = first + context.shape[1]
        n, packed = context.shape[1], classes.packed(begin)
        embedding, positions = self.text.token_embedding, self.text.positional_embedding
        enter = context
        if layer > 0:  # up to block `layer` the prompt is the fixed placeholder, one for all prefixes
            context = embedding.weight[self.layout.placeholder].expand(1, n, -1)
        head = torch.cat([self.start().expand(len(context), -1, -1), context], dim=1) + positions[:begin]
        names = [embedding(group.ids) + positions[begin : begin + group.length] for group in packed.groups]
        tail = torch.cat([part.flatten(0, 1) for part in names])[None]

        def place(head: Tensor) -> Tensor:
            return torch.cat([head[:, :first].expand(len(enter), -1, -1), enter.to(head.dtype)], dim=1)

        def over(x: Tensor, rows: Tensor) -> Tensor:
            return torch.cat([x[:, :first], rows.to(x.dtype).expand(len(x), -1, -1), x[:, begin:]], dim=1)

        return self._run(head, tail, packed, layer, place if layer > 0 else None, None, deep, over)

    def own(
        self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Contexts (P, C, n, W), one a class, behind a shared SOS -> (P, C, D); ``deep`` as in ``shared``."""
        if self.binned:
            return self.in_bins(context, classes, layer, deep)
        n, begin = context.shape[2], len(self.layout.start)
        packed = classes.packed(begin, n)
        embedding, positions = self.text.token_embedding, self.text.positional_embedding
        head = (self.start() + positions[:begin])[None].expand(len(context), -1, -1)
        first = context
        if layer > 0:  # up to block `layer` the prompt is the fixed placeholder, one for all contexts
            head, first = head[:1], embedding.weight[self.layout.placeholder].expand(1, len(classes), n, -1)
        parts = []
        for group in packed.groups:
            names = embedding(group.ids).expand(len(first), -1, -1, -1)
            rows = torch.cat([first[:, group.rows], names], dim=2) + positions[begin : begin + group.length]
            parts.append(rows.flatten(1, 2))
        tail = torch.cat(parts, dim=1)

        def place(tail: Tensor, context: Tensor = context) -> Tensor:
            parts = []
            for group, part in zip(packed.groups, tail.split(packed.sizes, dim=1), strict=True):
                names = part.unflatten(1, (group.count, group.length))[:, :, n:].expand(len(context), -1, -1, -1)
                parts.append(torch.cat([context[:, group.rows].to(names.dtype), names], dim=2).flatten(1, 2))
            return torch.cat(parts, dim=1)

        def widen(head: Tensor) -> Tensor:
            return head.expand(len(context), -1, -1)

        def over(x: Tensor, rows: Tensor) -> Tensor:
            return torch.cat([x[:, :begin], place(x[:, begin:], rows)], dim=1)

        inner = layer > 0
        return self._run(head, tail, packed, layer, widen if inner else None, place if inner else None, deep, over)

    def in_bins(
        self, context: Tensor, classes: ClassTokens, layer: int, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """``shared`` and ``own`` as a GPU has them."""
        laid_out = classes.binned(self.layout, context.shape[-2], context.dim() == 4)
        x = self.text.token_embedding(laid_out.ids)[None]
        if layer == 0:  # else the fixed placeholder stands there, one for all contexts
            x = laid_out.placed(x, context)
        x = x + self.text.positional_embedding[laid_out.places]
        weights, masks = self.weights(), {}
        for index, w in enumerate(weights):
            if index == layer > 0:
                x = laid_out.placed(x, context)
            if deep and index in deep:
                x = laid_out.placed(x, deep[index])
            last, y = index == len(weights) - 1, self._norm(w.ln_1, x)
            if (len(x), last) not in masks:
                masks[len(x), last] = laid_out.mask(len(x), self.dtype, last)
            if last:
                q = w.query(y.flatten(1, 2).index_select(1, laid_out.asked)).unflatten(1, (laid_out.count, -1))
                k, v = w.rest(y).chunk(2, dim=-1)
            else:
                q, k, v = w.qkv(y).chunk(3, dim=-1)
            mixed = bins.attend(q, k, v, masks[len(x), last], w.heads)
            if last:
                mixed = mixed.flatten(1, 2).index_select(1, laid_out.answer)
                x = x.flatten(1, 2).index_select(1, laid_out.eot)
            x = x + w.out(mixed)
            x = x + w.proj(w.activation(w.fc(self._norm(w.ln_2, x))))
        return project(self.text, self._norm(self.text.ln_final, x))

    def _run(
        self,
        head: Tensor,
        tail: Tensor,
        packed: Packed,
        layer: int,
        place_head: Callable[[Tensor], Tensor] | None,
        place_tail: Callable[[Tensor], Tensor] | None = None,
        deep: Mapping[int, Tensor] | None = None,
        over: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``place_…`` puts the context into the rows of the prefix or of the suffixes at block ``layer``, ``over`` what
        is in ``deep`` into those of the stream."""
        weights, length = self.weights(), head.shape[1]
        x: Tensor | None = None
        for index, w in enumerate(weights):
            last = index == len(weights) - 1
            if x is not None and index == layer and (place_head or place_tail):
                head, tail = x[:, :length], x[:, length:]
                head, tail, x = place_head(head) if place_head else head, place_tail(tail) if place_tail else tail, None
            if x is not None and over and deep and index in deep:
                x = over(x, deep[index])
            normed: Sequence[Tensor] = ()
            if x is None:
                if len(head) != len(tail) and not last:  # the suffixes are still one copy for all prefixes
                    normed = [self._norm(w.ln_1, part) for part in (head, tail)]
                x = torch.cat([head, tail.expand(len(head), -1, -1)], dim=1)
            if last:
                mixed = self._mix_last(self._norm(w.ln_1, x), w, packed, length)
                x = x[:, packed.eot]
            else:
                mixed = self._mix(normed or (self._norm(w.ln_1, x),), w, packed, length)
            x = x + w.out(mixed)
            x = x + w.proj(w.activation(w.fc(self._norm(w.ln_2, x))))
        assert x is not None  # a tower has blocks
        return project(self.text, self._norm(self.text.ln_final, x))[:, packed.back]

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(self.dtype)

    def _mix(self, normed: Sequence[Tensor], w: Weights, packed: Packed, length: int) -> Tensor:
        """Attention over the normed stream (P, L' + T, W), in one or as prefix and suffixes -> (P, L' + T, W)."""
        parts = [w.qkv(part) for part in normed]
        qkv = parts[0]
        if len(parts) == 2:
            qkv = torch.cat([parts[0], parts[1].expand(len(parts[0]), -1, -1)], dim=1)
        head, *tails = qkv.split([length, *packed.sizes], dim=1)
        q, k, v = by_head(head, w.heads)
        mixed = [F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=1.0)[0]]
        for group, part in zip(packed.groups, tails, strict=True):
            own_q, own_k, own_v = by_head(part, w.heads)
            mixed.append(attend(own_q, own_k, own_v, k, v, group.count, group.causal))
        return merge(torch.cat(mixed, dim=1), w.heads)

    def _mix_last(self, y: Tensor, w: Weights, packed: Packed, length: int) -> Tensor:
        """The same for the EOT rows alone: normed stream (P, L' + T, W) -> (P, C, W)."""
        kv, q = w.rest(y), w.query(y[:, packed.eot])
        head, *tails = kv.split([length, *packed.sizes], dim=1)
        head_k, head_v = by_head(head, w.heads, 2)
        queries = q.split([group.count for group in packed.groups], dim=1)
        mixed = []
        for group, part, asked in zip(packed.groups, tails, queries, strict=True):
            (q_group,), (k, v) = by_head(asked, w.heads, 1), by_head(part, w.heads, 2)
            mixed.append(attend(q_group, k, v, head_k, head_v, group.count, group.ends))
        return merge(torch.cat(mixed, dim=1), w.heads)


def same(before: list[tuple], now: list[tuple]) -> bool:
    """Whether these are the same tensors, unchanged: (tensor, version, device) each."""
    pairs = zip(before, now, strict=False)
    return len(before) == len(now) and all(a[0] is b[0] and a[1:] == b[1:] for a, b in pairs)
