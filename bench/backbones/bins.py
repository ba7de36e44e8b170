"""How class prompts lie on a GPU: whole classes in bins of one size, the prefix in front of each, so that every matrix
product and one attention call serve them all where they lie.

A GPU takes as long to begin a small kernel as to do it. So nothing is cut or joined within a block: the suffixes of C
classes are packed into bins with hardly any padding, whatever their lengths, the shared prefix is computed once a bin,
and a mask says who sees whom: a token sees the prefix and its own class's tokens up to itself. On a CPU, where nothing
is gained by it, ``bench.backbones.packed`` lays them out.

Letters as in ``bench.backbones.text_pass``; N bins, S tokens of a bin, of which L' are the prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from carryover.bench.backbones.class_tokens import ClassTokens
    from carryover.bench.backbones.layout import Layout

KEYS = 128  # that a token is compared with, prefix included: one tile of the attention kernels
ALIGNED = 8  # rows of a mask begin at multiples of so many values
PREFIX, PADDING = -2, -1  # in place of a token's class


class Bins:
    """Behind a start and n context tokens that all classes share, or with ``own`` n of each class's own behind it.

    ids     (N, S) token ids; where a context or padding stands, any
    places  (N, S) how far into its prompt each token stands
    rows    (C * n,) where the context tokens of each class stand among all N S rows, class by class; with ``own`` alone
    eot     (C,) each class's EOT among all rows
    asked   (N * M,) rows whose last block is computed: EOT rows bin by bin, up to M in each
    answer  (C,) where each class is among these
    each    tokens of a class in its bin, a share of the prefix included
    """

    def __init__(self, classes: ClassTokens, layout: Layout, n: int, own: bool):
        begin = [*layout.start] if own else [*layout.start, *[layout.placeholder] * n]
        more = [layout.placeholder] * n if own else []
        prefix, suffixes = len(begin), [[*more, *row] for row in classes.rows]
        lengths = [len(row) for row in suffixes]
        bins = fitted(lengths, max(KEYS - prefix, max(lengths)))
        size = -(-(prefix + max(sum(lengths[i] for i in one) for one in bins)) // ALIGNED) * ALIGNED
        self.first, self.n, self.count, self.size = len(layout.start), n, len(bins), size
        self.tokens = len(bins) * size
        self.each = [-(-length * size // (size - prefix)) for length in lengths]
        most = max(map(len, bins))
        ids, places, whose = ([[value] * size for _ in bins] for value in (0, 0, PADDING))
        starts, asked, answer = [0] * len(lengths), [0] * (len(bins) * most), [0] * len(lengths)
        for number, one in enumerate(bins):
            ids[number][:prefix], places[number][:prefix] = begin, range(prefix)
            whose[number][:prefix] = [PREFIX] * prefix
            at = prefix
            for place, i in enumerate(one):
                here = slice(at, at + lengths[i])
                ids[number][here], whose[number][here] = suffixes[i], [i] * lengths[i]
                places[number][here] = range(prefix, prefix + lengths[i])
                starts[i], at = number * size + at, here.stop
                answer[i] = number * most + place
                asked[answer[i]] = number * size + at - 1
        eot = [start + length - 1 for start, length in zip(starts, lengths, strict=True)]
        rows = [start + j for start in starts for j in range(n)] if own else []
        made = [torch.tensor(one, dtype=torch.long) for one in (ids, places, rows, eot, asked, answer)]
        seen = sees(torch.tensor(whose), prefix)
        last = seen.flatten(0, 1)[made[4]].unflatten(0, (len(bins), -1))
        self.ids, self.places, self.rows, self.eot, self.asked, self.answer = (x.to(classes.device) for x in made)
        self.own, self.seen, self.last = own, seen.to(classes.device), last.to(classes.device)

    def placed(self, x: Tensor, context: Tensor) -> Tensor:
        """Contexts (P, n, W), or (P, C, n, W) of the classes' own, in their rows of (P or 1, N, S, W)."""
        x, context = x.expand(len(context), -1, -1, -1), context.to(x.dtype)
        if self.own:
            return x.flatten(1, 2).index_copy(1, self.rows, context.flatten(1, 2)).view_as(x)
        behind = self.first + self.n
        shared = context[:, None].expand(-1, self.count, -1, -1)
        return torch.cat([x[:, :, : self.first], shared, x[:, :, behind:]], dim=2)

    def mask(self, copies: int, dtype: torch.dtype, last: bool = False) -> Tensor:
        """Additive, (copies * N, 1, S, S); ``last``: of the rows asked for, (copies * N, 1, M, S)."""
        shown = self.last if last else self.seen
        made = torch.zeros(shown.shape, dtype=dtype, device=shown.device).masked_fill_(~shown, float("-inf"))
        return made[:, None].repeat(copies, 1, 1, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Queries (P, N, R, W) to keys and values (P, N, S, W) -> (P, N, R, W); the scale is in the queries."""
    asked, keys, values = (split(x, heads) for x in (q, k, v))
    found = F.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=1.0)
    return found.transpose(1, 2).flatten(2).view_as(q)


def split(x: Tensor, heads: int) -> Tensor:
    """(P, N, L, W) -> (P * N, heads, L, d), where it lies."""
    return x.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)


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


def sees(whose: Tensor, prefix: int) -> Tensor:
    """(N, S, S): whether a token of a bin sees a key, for the class of each token (N, S)."""
    size = whose.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    shared = torch.arange(size) < prefix
    return earlier & (shared | (whose[:, :, None] == whose[:, None]))
