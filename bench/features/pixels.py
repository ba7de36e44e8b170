"""Pixels for the methods that look at them: pictures and their augmented views as a tower reads them, made when asked.

A method on frozen features gets its views as a tensor (V, N, D). ``Pictures`` stands in its place as (V, N, 3, H, H):
it is indexed alike, by views and images of a batch, so that the trainer need not know which of the two it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from carryover.bench.features.store import FeatureStore
from carryover.bench.features.transforms import Plain, Recipe, View, look_up
from carryover.bench.host.device import send
from carryover.datasets.base import Split

KEEP = 1 << 28  # bytes of decoded pictures that are kept; of a larger set each batch is decoded as it is drawn


def views_of(store: FeatureStore, count: int, crop: tuple[float, float], seed: int) -> list[Recipe]:
    """The recipes of ``FeatureStore.views``: the same crops and flips of the same pictures."""
    if tuple(crop) == (1.0, 1.0):
        return [store.plain]
    return [View(store.size, (crop[0], crop[1]), seed, number) for number in range(count)]


class Pictures:
    """N pictures of a split by V recipes, for the tower of ``store``; the store itself, which also knows test features,
    is not held."""

    def __init__(self, store: FeatureStore, split: Split, recipes: Sequence[Plain | View]):
        self.pictures, self.recipes, self.batch = split, list(recipes), store.batch
        self.loader, self.values, self.device = store.loader, store.values, store.backbone.device
        height, width = store.size
        self.bytes = len(self.recipes) * len(split) * height * width * 3
        self._kept: Tensor | None = None  # (V, N, H, H, 3) bytes
        self._coming: Iterator[tuple[list[tuple[int, int]], Tensor]] = iter(())

    def __len__(self) -> int:
        """V"""
        return len(self.recipes)

    def __getitem__(self, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """View ``drawn[0][b]`` of picture ``drawn[1][b]`` for each b: pixels (B, 3, H, H), on the tower's device.
        ``drawn`` is on the CPU, as the pictures are."""
        views, images = drawn
        if self.bytes <= KEEP:
            return self._pixels(self._all()[views, images])
        wanted = pairs(views, images)
        found = next(self._coming, None)
        if found is None or found[0] != wanted:  # nobody said what would come
            self.expect([])
            return self._pixels(next(self._draw([wanted])))
        return self._pixels(found[1])

    def expect(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """The next batches that will be asked for, so that they are decoded ahead."""
        if self.bytes > KEEP:
            wanted = [pairs(views, images) for views, images in batches]
            self._coming = zip(wanted, self._draw(wanted), strict=False)

    def split(self, rows: int) -> Iterator[Tensor]:
        """The first view of all pictures, in order, ``rows`` at a time at most: pixels (b, 3, H, H)."""
        rows = min(rows, self.batch)
        if self.bytes <= KEEP:
            yield from (self._pixels(part) for part in self._all()[0].split(rows))
            return
        for parts in self.loader.load(self.pictures, self.recipes[:1], rows):
            yield self._pixels(torch.cat([part[0] for part in parts]))

    def _all(self) -> Tensor:
        if self._kept is None:
            batches = self.loader.load(self.pictures, self.recipes, self.batch)
            self._kept = torch.cat([part for parts in batches for part in parts], dim=1)
        return self._kept

    def _draw(self, wanted: Sequence[Sequence[tuple[int, int]]]) -> Iterator[Tensor]:
        batches = [[(image, self.recipes[view]) for view, image in batch] for batch in wanted]
        return self.loader.draw(self.pictures, batches)

    def _pixels(self, pictures: Tensor) -> Tensor:
        return look_up(send(pictures, self.device), self.values)


def pairs(views: Tensor, images: Tensor) -> list[tuple[int, int]]:
    return list(zip(views.tolist(), images.tolist(), strict=True))
