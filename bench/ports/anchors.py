"""Anchors: what a port may see. What its ``needs`` do not name is not handed to it, so no slip can read a label. A
port that wants to cheat can: it runs in this process.

Kinds: ``support`` the few-shot pictures, ``other`` training pictures of the dataset outside the few-shot draw,
``foreign`` training pictures of other datasets, ``texts`` no picture at all. None holds a test picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from carryover.bench.errors import UserError

Made = TypeVar("Made")
FOLD_SEED = 0


@dataclass(frozen=True)
class Anchors:
    """N anchors for a port with these ``needs``; what they do not name raises UserError.

    old, new      (N, Do) and (N, Dn) image features of the same pictures, not normalised, on the backbones' device
    labels        (N,), of the few-shot pictures alone
    nouns         common nouns for texts; the class names are in ``classes`` of ``Port.fit``
    pixels_old(), pixels_new()   (N, 3, H, H), preprocessed for each tower
    """

    kind: str
    needs: frozenset[str]
    _old: Tensor | None = field(default=None, repr=False)
    _new: Tensor | None = field(default=None, repr=False)
    _labels: Tensor | None = field(default=None, repr=False)
    _nouns: tuple[str, ...] = field(default=(), repr=False)
    _pixels: tuple[Callable[[], Tensor], Callable[[], Tensor]] | None = field(default=None, repr=False)
    _kept: dict = field(default_factory=dict, repr=False, compare=False)
    #: "saved": seconds that ``once`` took before for what it gave again
    clock: dict[str, float] = field(default_factory=lambda: {"saved": 0.0}, repr=False, compare=False)

    def __len__(self) -> int:
        """N"""
        return 0 if self._old is None else len(self._old)

    @property
    def bytes_a_row(self) -> int:
        """Of both features of one picture."""
        sides = [side for side in (self._old, self._new) if side is not None]
        return sum(side.shape[1] * side.element_size() for side in sides)

    @property
    def old(self) -> Tensor:
        """A copy, as all features are: what a port does to it no other port sees."""
        self._given("old_model", self._old, "features of the old model")
        return self._given("images", self._old, "image features").clone()

    @property
    def new(self) -> Tensor:
        return self._given("images", self._new, "image features").clone()

    @property
    def labels(self) -> Tensor:
        return self._given("labels", self._labels, "labels")

    @property
    def nouns(self) -> tuple[str, ...]:
        return self._given("texts", self._nouns or None, "nouns")

    def pixels_old(self) -> Tensor:
        self._given("old_model", self._pixels, "pixels for the old model")
        return self._given("images", self._pixels, "pixels")[0]()

    def pixels_new(self) -> Tensor:
        return self._given("images", self._pixels, "pixels")[1]()

    def take(self, indices: Sequence[int]) -> Anchors:
        """These anchors alone, in this order."""
        rows = torch.as_tensor(list(indices))

        def part(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows.to(value.device)]

        pixels = self._pixels and tuple(lambda read=read: read()[rows] for read in self._pixels)
        return replace(
            self,
            _kept={},
            _old=part(self._old),
            _new=part(self._new),
            _labels=part(self._labels),
            _pixels=pixels,  # type: ignore[arg-type]
        )

    def once(self, what: str, make: Callable[[], Made]) -> Made:
        """What ``make`` makes of these anchors, made once for all plug-ins that this port carries over them. What one
        port leaves no other one finds: the name is of the function that makes it, too."""
        key = what, getattr(make, "__module__", ""), getattr(make, "__qualname__", "")
        if key in self._kept:
            made, seconds = self._kept[key]
            self.clock["saved"] += seconds
            return made
        start = time.perf_counter()
        made = make()
        self._kept[key] = made, time.perf_counter() - start
        return made

    def folds(self, count: int) -> list[tuple[list[int], Anchors]]:
        """(rows left out, the others) of each of so many parts, always the same ones; of fewer anchors as many."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(FOLD_SEED)).tolist()
        parts = [sorted(order[start::count]) for start in range(min(count, len(self)))]
        return self.once(
            f"folds {count}",
            lambda: [(p, self.take(sorted(set(order) - set(p)))) for p in parts if len(p) < len(order)],
        )

    def _given(self, need: str, value, what: str):
        if need not in self.needs:
            raise UserError(
                f"this port asks for {what}, which its needs ({listed(self.needs)}) do not name '{need}' for"
            )
        if value is None:
            raise UserError(f"anchors of kind '{self.kind}' have no {what}")
        return value


def listed(needs: Collection[str]) -> str:
    return ", ".join(sorted(needs)) or "none"
