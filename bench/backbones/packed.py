"""How class prompts lie on a CPU: classes of like length in groups behind one another, so that little padding is
computed, and attention that uses the prefix's keys where they lie. ``bench.backbones.bins`` lays them out for a GPU.

Letters as in ``bench.backbones.text_pass``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from carryover.bench.backbones.class_tokens import ClassTokens

MOST_GROUPS = 4  # of classes of like length: each group is a few more kernels in every block
ENOUGH, FEW = 1.1, 8  # padded tokens, as a multiple of the real ones or so many more, at which no group is added


class Group:
    """``count`` classes padded to ``length`` tokens (own context included), as they lie in the stream.

    ids   (count, length - own) token ids
    own   rows of the user's classes, for contexts of their own: (count,)
    eot   (count,) each class's EOT token within the group
    ends  (length, count) additive mask of the last block's keys, None where every class fills its row
    """

    def __init__(self, classes: ClassTokens, chosen: Sequence[int], own: int):
        taken = classes.take(chosen)
        self.count, self.length, self.ids = len(chosen), taken.longest + own, taken.ids
        self.rows = torch.tensor(chosen, device=classes.device)
        ends = taken.eot + own
        self.ends = None
        if len(set(map(len, taken.rows))) > 1:
            beyond = torch.arange(self.length, device=classes.device)[:, None] > ends
            self.ends = torch.zeros(beyond.shape, device=classes.device).masked_fill(beyond, float("-inf"))
        self.eot = torch.arange(self.count, device=classes.device) * self.length + ends

    @cached_property
    def causal(self) -> Tensor:
        """(length, count * length) additive mask, keys down, queries across: no query sees a later key of its class."""
        mask = torch.full((self.length, self.length), float("-inf"), device=self.ids.device).tril(-1)
        return mask.repeat(1, self.count)


class Packed:
    """Classes sorted by length, in few groups of like length behind one another in a stream of tokens.

    groups  see above; ``sizes`` are their numbers of tokens, padding included, ``tokens`` the sum
    eot     (C,) each class's EOT row in the stream, prefix included, in packed order
    back    (C,) where each class stands in packed order
    """

    def __init__(self, classes: ClassTokens, prefix: int, own: int):
        order = classes.by_length
        sizes = grouped(tuple(len(classes.rows[i]) + own for i in order))
        self.groups, rows, start, offset = [], [], 0, prefix
        for size in sizes:
            group = Group(classes, order[start : start + size], own)
            self.groups.append(group)
            rows.append(group.eot + offset)
            start, offset = start + size, offset + group.count * group.length
        self.sizes = [group.count * group.length for group in self.groups]
        self.tokens, self.eot = sum(self.sizes), torch.cat(rows)
        back = [0] * len(order)
        for place, original in enumerate(order):
            back[original] = place
        self.back = torch.tensor(back, device=classes.device)


@lru_cache(maxsize=256)
def grouped(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of consecutive groups of sorted lengths: as few as keep padding within ``ENOUGH`` or ``FEW``, at
    most ``MOST_GROUPS``, the cuts where they save most."""
    cuts = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]] + [len(lengths)]
    # Padded tokens of the first `end` classes, and the sizes of their groups.
    best: dict[int, tuple[int, tuple[int, ...]]] = {end: (end * lengths[end - 1], (end,)) for end in cuts}
    for _ in range(1, MOST_GROUPS):
        if best[len(lengths)][0] <= max(ENOUGH * sum(lengths), sum(lengths) + FEW):
            break
        longer = dict(best)
        for end in cuts:
            for before in cuts:
                if before < end:
                    tokens, sizes = best[before]
                    tokens += (end - before) * lengths[end - 1]
                    if tokens < longer[end][0]:
                        longer[end] = tokens, (*sizes, end - before)
        best = longer
    return best[len(lengths)][1]


def by_head(x: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(P, L, parts * W) -> ``parts`` tensors (G, L, d), contiguous."""
    count, length = x.shape[:2]
    x = x.reshape(count, length, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return x.reshape(parts, count * heads, length, -1).unbind(0)


def merge(x: Tensor, heads: int) -> Tensor:
    """(G, L, d) -> (P, L, W)"""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, head_k: Tensor, head_v: Tensor, count: int, mask: Tensor | None) -> Tensor:
    """Queries of ``count`` classes (G, count * Lq, d) over the prefix's keys (G, L', d) and their class's own
    (G, count * Lk, d) -> (G, count * Lq, d). Scores stand keys down, queries across: a softmax over so few keys is many
    times faster along the outer axis."""
    groups, own = len(q), k.shape[1] // count
    asked = q.shape[1] // count
    to_own = torch.bmm(k.reshape(groups * count, own, -1), q.reshape(groups * count, asked, -1).transpose(1, 2))
    to_own = to_own.view(groups, count, own, asked).transpose(1, 2).reshape(groups, own, count * asked)
    if mask is not None:
        to_own = to_own + mask
    scores = torch.cat([torch.bmm(head_k, q.transpose(1, 2)), to_own], dim=1)
    share = torch.softmax(scores, dim=1, dtype=torch.float32).to(q.dtype)
    of_head, of_own = share.split([head_k.shape[1], own], dim=1)
    of_own = of_own.reshape(groups, own, count, asked).transpose(1, 2).reshape(groups * count, own, asked)
    mixed = torch.bmm(of_own.transpose(1, 2), v.reshape(groups * count, own, -1)).view(groups, count * asked, -1)
    return mixed + torch.bmm(of_head.transpose(1, 2), head_v)
