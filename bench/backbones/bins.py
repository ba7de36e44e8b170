"""How class prompts lie on a GPU: whole classes in bins of one size, so that one attention call serves them all.

A GPU takes as long to begin a small kernel as to do it, and fused attention reads queries, keys and values where they
lie. So the suffixes of C classes are packed into bins of S tokens with hardly any padding, whatever their lengths, and
a mask says who sees whom: a token sees the prefix and its own class's tokens up to itself. On a CPU, where nothing is
gained by it, ``bench.backbones.class_tokens.Packed`` lays them out.

Letters as in ``bench.backbones.text_pass``; N bins, S tokens of a bin, T = N S, L' tokens of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from carryover.bench.backbones.class_tokens import ClassTokens

KEYS = 128  # that a token is compared with, prefix included: one tile of the attention kernels
ALIGNED = 8  # rows of a mask begin at multiples of so many values


class Bins:
    """
    tokens  T
    ids     (T,) token ids of the names; where a class's own context or padding stands, any
    places  (T,) how far each token stands behind the prefix in its prompt
    own     (C * n,) rows of T where the context tokens of each class stand, class by class
    eot     (C,) each class's EOT row in the stream, prefix included
    asked   (N * M,) rows of the stream whose last block is computed: EOT rows bin by bin, up to M in each
    answer  (C,) where each class is among these
    back    None: features come out in the classes' order
    """

    back = None

    def __init__(self, classes: ClassTokens, prefix: int, n: int = 0):
        lengths = [len(row) + n for row in classes.rows]
        bins = fitted(lengths, max(KEYS - prefix, max(lengths)))
        fullest = max(sum(lengths[i] for i in one) for one in bins)
        size = -(-(prefix + fullest) // ALIGNED) * ALIGNED - prefix
        self.prefix, self.count, self.size, self.tokens = prefix, len(bins), size, len(bins) * size
        ids, places, whose = [0] * self.tokens, [0] * self.tokens, [-1] * self.tokens
        starts = [0] * len(lengths)
        most = max(map(len, bins))
        asked, answer = [prefix] * (len(bins) * most), [0] * len(lengths)
        for number, one in enumerate(bins):
            at = number * size
            for place, i in enumerate(one):
                starts[i], row = at, classes.rows[i]
                ids[at + n : at + lengths[i]] = row
                places[at : at + lengths[i]] = range(lengths[i])
                whose[at : at + lengths[i]] = [i] * lengths[i]
                at += lengths[i]
                answer[i] = number * most + place
                asked[answer[i]] = prefix + at - 1
        eot = [prefix + start + length - 1 for start, length in zip(starts, lengths, strict=True)]
        own = [start + j for start in starts for j in range(n)]
        lists = (ids, places, own, eot, asked, answer)
        made = [torch.tensor(one, dtype=torch.long).to(classes.device) for one in lists]
        self.ids, self.places, self.own, self.eot, self.asked, self.answer = made
        self.seen = seen(torch.tensor(whose).view(len(bins), size), prefix).to(classes.device)
        self._masks: dict[tuple[bool, torch.dtype], Tensor] = {}

    def mask(self, copies: int, dtype: torch.dtype, last: bool = False) -> Tensor:
        """Additive, (copies * N, 1, S, L' + S); ``last``: of the rows asked for, (copies * N, 1, M, L' + S). The last
        number of copies is kept."""
        kept = self._masks.get((last, dtype))
        if kept is None or len(kept) != copies * self.count:
            shown = self.seen
            if last:
                shown = shown.flatten(0, 1)[self.asked - self.prefix].unflatten(0, (self.count, -1))
            kept = torch.zeros(shown.shape, dtype=dtype, device=shown.device).masked_fill_(~shown, float("-inf"))
            kept = self._masks[last, dtype] = kept[:, None].repeat(copies, 1, 1, 1)
        return kept

    def in_context(self, names: Tensor, context: Tensor) -> Tensor:
        """The classes' own contexts (P, C, n, W) in their rows of (P or 1, T, W)."""
        return names.expand(len(context), -1, -1).index_copy(1, self.own, context.flatten(1, 2).to(names.dtype))

    def mix(self, head: Tensor, tail: Tensor, heads: int) -> Tensor:
        """Attention of the prefix to itself, and of the bins to it and themselves. Queries, keys and values of each,
        (P, L', 3 W) and (P or 1, T, 3 W) -> (P, L' + T, W)."""
        first, keys, values = head.chunk(3, dim=-1)
        q, k, v = self.by_bin(tail).chunk(3, dim=-1)
        asked, seen_k, seen_v = (split(part, heads) for part in (first, keys, values))
        itself = F.scaled_dot_product_attention(asked, seen_k, seen_v, is_causal=True, scale=1.0)
        return torch.cat([merged(itself), self.ask(q, (keys, values), (k, v), heads)], dim=1)

    def mix_last(self, q: Tensor, head: Tensor, tail: Tensor, heads: int) -> Tensor:
        """Queries of the rows asked for (P, N * M, W), keys and values (P, L', 2 W) and (P, T, 2 W) -> (P, C, W)."""
        both = head.chunk(2, dim=-1), self.by_bin(tail).chunk(2, dim=-1)
        return self.ask(self.by_bin(q), *both, heads, last=True).index_select(1, self.answer)

    def by_bin(self, x: Tensor) -> Tensor:
        """(P, T, W) -> (P, N, S, W)"""
        return x.unflatten(1, (self.count, -1))

    def ask(self, q: Tensor, head: Sequence[Tensor], tail: Sequence[Tensor], heads: int, last: bool = False) -> Tensor:
        """Queries (P or 1, N, S, W), or with ``last`` (P, N, M, W), to the prefix's keys and values (P, L', W) and the
        bins' (P or 1, N, S, W) -> (P, N * S, W), or of M."""
        count = len(head[0])

        def behind(own: Tensor, every: Tensor) -> Tensor:
            """The prefix in front of each bin: (P * N, heads, L' + S, d)."""
            first = own[:, None].expand(-1, self.count, -1, -1)
            return split(torch.cat([first, every.expand(count, -1, -1, -1)], dim=2).flatten(0, 1), heads)

        rows = split(q.expand(count, -1, -1, -1).flatten(0, 1), heads)
        k, v = map(behind, head, tail)
        mask = self.mask(count, q.dtype, last)
        found = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=1.0)
        return merged(found).view(count, -1, q.shape[-1])


def split(x: Tensor, heads: int) -> Tensor:
    """(B, L, W) -> (B, heads, L, d), where it lies."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """(B, heads, L, d) -> (B, L, W)"""
    return x.transpose(1, 2).flatten(2)


def fitted(lengths: list[int], room: int) -> list[list[int]]:
    """Which classes lie in which bin: the longest first, each into the first bin that has room for it."""
    bins: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((at for at, free in enumerate(left) if free >= lengths[i]), len(bins))
        if at == len(bins):
            bins.append([])
            left.append(room)
        bins[at].append(i)
        left[at] -= lengths[i]
    return bins


def seen(whose: Tensor, prefix: int) -> Tensor:
    """(N, S, L' + S): whether a token of a bin sees a key, for the class of each token (N, S), -1 for padding."""
    size = whose.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    own = (whose[:, :, None] == whose[:, None]) & earlier
    return torch.cat([own.new_ones(*whose.shape, prefix), own], dim=2)
