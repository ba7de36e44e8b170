"""What follows the context in each class's prompt: its tokens, and what is made of them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from carryover.bench.backbones.bins import Bins
from carryover.bench.backbones.packed import Packed

if TYPE_CHECKING:
    from carryover.bench.backbones.layout import Layout

SOS, EOT, PLACEHOLDER = 49406, 49407, 343  # CLIP's BPE ids; 343 is "X</w>", the placeholder CoOp puts under its context


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


@dataclass(frozen=True)
class Cost:
    """Tokens of a pass over classes: those that all share, each class's own, and all that are computed, padding
    included."""

    shared: int
    each: Sequence[int]
    whole: int


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> ClassTokens:
    return ClassTokens(tuple(map(tuple, rows)), torch.device(device))
