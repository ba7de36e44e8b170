"""What follows the context in each class's prompt, and how classes are packed so that little padding is computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from carryover.bench.backbones.bins import Bins

if TYPE_CHECKING:
    from carryover.bench.backbones.layout import Layout

SOS, EOT, PLACEHOLDER = 49406, 49407, 343  # CLIP's BPE ids; 343 is "X</w>", the placeholder CoOp puts under its context

MOST_GROUPS = 4  # of classes of like length: each group is a few more kernels in every block
ENOUGH, FEW = 1.1, 8  # padded tokens, as a multiple of the real ones or so many more, at which no group is added


@dataclass(frozen=True)
class ClassTokens:
    """``name tokens . EOT`` of C classes (or what a tower has for EOT), kept as lists so that no shape is ever asked of
    a device.

    ids  (C, L) token ids, EOT repeated as padding
    eot  (C,) index of EOT within the suffix
    """

    rows: tuple[tuple[int, ...], ...]
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def longest(self) -> int:
        """L"""
        return max(map(len, self.rows))

    @cached_property
    def ids(self) -> Tensor:
        length = self.longest
        return torch.tensor([[*row, *row[-1:] * (length - len(row))] for row in self.rows], device=self.device)

    @cached_property
    def eot(self) -> Tensor:
        return torch.tensor([len(row) - 1 for row in self.rows], device=self.device)

    @cached_property
    def by_length(self) -> tuple[int, ...]:
        """Classes from the shortest to the longest."""
        return tuple(sorted(range(len(self.rows)), key=lambda i: len(self.rows[i])))

    def take(self, chosen: Sequence[int]) -> ClassTokens:
        return ClassTokens(tuple(self.rows[i] for i in chosen), self.device)

    def repeat(self, times: int) -> ClassTokens:
        return ClassTokens(self.rows * times, self.device)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is made of these classes alone, made at its first use: a training step then copies nothing."""
        known = self.__dict__.setdefault("_known", {})
        if key not in known:
            known[key] = make()
        return known[key]

    def packed(self, prefix: int, own: int = 0) -> Packed:
        """The layout behind a prefix of ``prefix`` shared tokens, each class with ``own`` context tokens of its own."""
        return self.once(("packed", prefix, own), lambda: Packed(self, prefix, own))

    def binned(self, layout: Layout, n: int, own: bool) -> Bins:
        """The same as a GPU has it, start and n context tokens included."""
        return self.once(("binned", layout, n, own), lambda: Bins(self, layout, n, own))

    def pieces(self, places: tuple[tuple[int, ...], ...]) -> tuple[list[ClassTokens], Tensor]:
        """The classes at these places, piece by piece, and (C,) where each class then stands."""

        def make() -> tuple[list[ClassTokens], Tensor]:
            order = torch.tensor([i for piece in places for i in piece])
            return [self.take(piece) for piece in places], order.argsort().to(self.device)

        return self.once(("pieces", places), make)


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


@dataclass(frozen=True)
class Cost:
    """Tokens of a pass over classes: those that all share, each class's own, and all that are computed, padding
    included."""

    shared: int
    each: Sequence[int]
    whole: int


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


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> ClassTokens:
    return ClassTokens(tuple(map(tuple, rows)), torch.device(device))
