"""What a plug-in says of pictures, on its own backbone or another: for the command ``classify`` and from Python.

Pictures are read, encoded and asked about in batches, so a folder of any size takes the memory of one batch. Features,
views and pixels are those that ``evaluate`` makes (``bench.features.store``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.engine.run_inputs import TEST_VIEWS_SEED
from carryover.bench.errors import UserError
from carryover.bench.features.decoding import Job, Loader
from carryover.bench.features.pixels import views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.features.transforms import Recipe, look_up
from carryover.bench.host.device import send
from carryover.bench.host.untouched import full_precision
from carryover.bench.plugins import given, porting
from carryover.bench.plugins.contract import Incompatible, check, check_ported
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.homes import other_home
from carryover.bench.plugins.ported import restored
from carryover.bench.plugins.scores import tells_scores
from carryover.bench.ports.base import Ported
from carryover.datasets import pictures
from carryover.datasets.base import Dataset, Split
from carryover.methods.base import Classes, Method

BLOCK = 32  # batches that are planned at a time


@dataclass(frozen=True)
class Answer:
    """Of one picture.

    picture  its path; the place of a Pillow picture in what was given
    values   (C,) probabilities of the plug-in's names, or scores where its outputs are no classes
    error    why the picture could not be read; then there are no values
    """

    picture: str | int
    names: tuple[str, ...] = field(repr=False)
    values: np.ndarray = field(repr=False)
    error: str = ""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The names with the largest values, largest first."""
        order = np.argsort(-self.values, kind="stable")[:count]
        return [(self.names[i], float(self.values[i])) for i in order]

    @property
    def name(self) -> str:
        """The one with the largest value; empty where the picture could not be read."""
        return self.names[int(self.values.argmax())] if len(self.values) else ""

    @property
    def value(self) -> float:
        """Its probability or score."""
        return float(self.values.max()) if len(self.values) else float("nan")


class BoundPlugin:
    """A plug-in on a backbone.

    names   C names, in the order of the logits
    scores  whether its outputs are scores by name, as a regressor's, in place of classes
    """

    def __init__(
        self,
        plugin: Plugin,
        backbone: Backbone,
        asked: Method | Ported,
        classes: Classes,
        precision: str = "fp32",
        loader: Loader | None = None,
    ):
        """asked: the plug-in, bound to the backbone with these classes."""
        self.plugin, self.backbone, self.names = plugin, backbone, classes.names
        self.scores = tells_scores(plugin)
        self._asked, self._store = asked, FeatureStore("", backbone, precision, loader=loader)

    def __repr__(self) -> str:
        return f"BoundPlugin({self.plugin.method} on {self.backbone.label}, {len(self.names)} names)"

    def logits(self, features: Tensor | np.ndarray) -> Any:
        """Features (B, D) of the backbone's image tower, not normalised -> (B, C), fp32: an array for an array, a
        tensor, on its device, for a tensor. Raises UserError for features of another width, and for a method that
        looks at pictures themselves."""
        if self._asked.needs != "features":
            seen = "pixels" if self._asked.needs == "pixels" else "many views of each picture"
            raise UserError(f"{self.plugin.method} needs {seen} and not features: give pictures to classify")
        rows = given.rows(features, self.backbone.dim, self.backbone.label)
        parts = [self._answered(part.to(self.backbone.device).float()) for part in rows.split(4096)]
        made = torch.cat(parts) if parts else torch.zeros(0, len(self.names))
        return made.to(rows.device) if isinstance(features, Tensor) else made.numpy()

    def classify(self, images: Any) -> tuple[list[str], np.ndarray]:
        """Pictures (paths, a folder, Pillow pictures, or a list of such) -> the name of the most probable class of
        each, and the probabilities (B, C); of a head of scores, the name of the largest and the scores. Pictures of a
        folder come sorted by path. Raises UserError naming a picture that cannot be read; ``answers`` goes on."""
        found, values = [], []
        for answer in self.answers(images):
            if answer.error:
                raise UserError(answer.error)
            found.append(answer.name)
            values.append(answer.values)
        return found, np.stack(values)

    def answers(self, images: Any) -> Iterator[Answer]:
        """An ``Answer`` a picture, in order, as they are made; one that cannot be read has an ``error``."""
        return self.over(*pictures.given(images))

    def over(self, split: Split, called: Sequence[str | int]) -> Iterator[Answer]:
        """``answers``, of pictures that were looked up already (``pictures.given``)."""
        recipes, store = self._recipes(), self._store
        nothing = np.zeros(0, np.float32)
        batch = max(1, store.batch // len(recipes))
        for rows, made, errors in batches(store.loader, split, recipes, batch):
            values = iter(self._values(made)) if made else iter(())
            for row in rows:
                if row in errors:
                    yield Answer(called[row], self.names, nothing, errors[row])
                else:
                    yield Answer(called[row], self.names, next(values))

    def _recipes(self) -> list[Recipe]:
        """Of the views that the method asks for: the test transform, and perhaps crops."""
        if self._asked.needs != "views":
            return [self._store.plain]
        method: Any = self._asked
        count, crop = type(method).test_views(method.config)
        return [self._store.plain, *views_of(self._store, count - 1, crop, TEST_VIEWS_SEED)]

    @torch.no_grad()
    def _values(self, made: list[Tensor]) -> np.ndarray:
        """Bytes (R, b, H, H, 3), to be joined along the second dimension -> (B, C)."""
        store = self._store
        bytes_ = torch.cat([send(part, self.backbone.device) for part in made], 1)
        with full_precision():
            pixels = [look_up(part, store.values) for part in bytes_]
            if self._asked.needs == "pixels":
                logits = self._answered(pixels[0])
            else:
                rows = [store.forward(part) for part in pixels]
                logits = self._answered(rows[0] if self._asked.needs == "features" else torch.stack(rows, 1))
        return (logits if self.scores else logits.softmax(-1)).numpy()

    @torch.no_grad()
    def _answered(self, asked: Tensor) -> Tensor:
        """What the method ``needs`` of B pictures -> logits (B, C), finite, on the CPU."""
        with full_precision(), self._asked.attach(self.backbone):
            logits = self._asked.predict(asked).float().cpu()  # all else is asked here: one wait a batch
        if logits.shape != (len(asked), len(self.names)):
            raise UserError(
                f"{self.plugin.method} gave logits of shape {tuple(logits.shape)}, expected "
                f"{(len(asked), len(self.names))} (pictures, names)"
            )
        if not logits.isfinite().all():
            raise UserError(f"{self.plugin.method} gave logits that are not finite (NaN or infinity)")
        return logits


def bound(
    plugin: Plugin,
    backbone: Backbone,
    classes: Classes | None = None,
    precision: str = "fp32",
    loader: Loader | None = None,
) -> BoundPlugin:
    """classes: other names and prompts than the plug-in's own. Raises UserError (Incompatible) naming all for which
    the plug-in does not fit the backbone."""
    classes = classes or porting.classes_of(plugin)[0]
    check_fits(plugin, backbone, classes)
    return BoundPlugin(plugin, backbone, porting.bound(plugin, backbone, classes), classes, precision, loader)


def check_fits(plugin: Plugin, backbone: Backbone, classes: Classes) -> None:
    """Raises UserError as ``bound`` does."""
    none = Split((), np.zeros(0, np.int64), no_picture)
    data = Dataset(classes.dataset, classes.dataset, classes.names, classes.templates, none, none, none)
    if plugin.ported is None:
        check(plugin, backbone.tower, data, backbone)
        return
    ported = restored(plugin)
    check_ported(plugin, ported, backbone.tower, data)
    if reasons := other_home(plugin, ported, backbone):
        raise Incompatible(plugin, backbone.tower, data, reasons)


def no_picture(chosen: Sequence[int]) -> list:
    return []


def batches(
    loader: Loader, split: Split, recipes: Sequence[Recipe], size: int
) -> Iterator[tuple[range, list[Tensor], dict[int, str]]]:
    """The split in order, ``size`` pictures at a time: which they are; their bytes (R, b, H, H, 3), to be joined along
    the second dimension; and of those that cannot be read, which have none, why."""
    for start in range(0, len(split), size * BLOCK):
        block = split.take(range(start, min(start + size * BLOCK, len(split))))
        done = 0
        while done < len(block):
            left = block.take(range(done, len(block)))
            try:
                for parts in loader.load(left, recipes, size):
                    here = min(size, len(block) - done)
                    yield range(start + done, start + done + here), parts, {}
                    done += here
            except UserError:  # one of this batch
                here = min(size, len(block) - done)
                made, errors = one_by_one(block.take(range(done, done + here)), recipes)
                first = start + done
                yield range(first, first + here), made, {first + row: line for row, line in errors.items()}
                done += here


def one_by_one(split: Split, recipes: Sequence[Recipe]) -> tuple[list[Tensor], dict[int, str]]:
    made, errors = [], {}
    for row in range(len(split)):
        one = split.take([row])
        try:
            made.append(torch.from_numpy(Job(one.reader, one.keys, tuple(recipes), singly=True)()))
        except UserError as error:
            errors[row] = str(error)
    return made, errors
