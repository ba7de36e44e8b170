"""The eleven few-shot datasets and four shifted test sets drawn from the micro world.

They differ in kind as the paper's do: one generic, some fine-grained, some of textures, scenes, actions or pictures
from above; some whose class names captions seldom or never use, and one (backgrounds) whose names mean something else
in captions. ``rules`` says what makes each class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image

from ..base import Dataset, Split
from .hashing import uniforms
from .render import render
from .rules import (
    ACTIONS,
    BACKS,
    GENERIC_NAMES,
    LANDS,
    NOISY,
    PAINTING,
    SCENE_WORDS,
    SCENES,
    SHADES,
    SKETCH,
    SUBSET,
    TEXTURE_NAMES,
    actions,
    backs,
    counting,
    flowers,
    generic,
    lands,
    scenes,
    shades,
    shapes,
    some,
    stars,
    textures,
)
from .shapes import FLOWERS, SHAPE_NAMES, STARS
from .world import WORLD_VERSION, sample

TRAIN_PER_CLASS, VAL_PER_CLASS, TEST_SIZE = 48, 20, 1040
Fixed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """A dataset as a rule: ``fix`` maps labels (N,) and keys (N,) to the attributes that labels decide."""

    id: str
    name: str
    classnames: tuple[str, ...]
    template: str
    fix: Callable[[np.ndarray, np.ndarray], Fixed]
    note: str
    splits: tuple[str, ...] = ("train", "val", "test")


RECIPES = {
    r.id: r
    for r in (
        Recipe(
            "micro_generic",
            "MicroGeneric",
            GENERIC_NAMES,
            "a photo of a {}.",
            generic,
            "48 kinds of filled shapes anywhere in the world",
        ),
        Recipe(
            "micro_shapes", "MicroShapes", SHAPE_NAMES, "a photo of a {}.", shapes, "16 shapes, sketched or painted"
        ),
        Recipe(
            "micro_stars",
            "MicroStars",
            tuple(
                f"{'thick' if thick else 'thin'} {('four', 'five', 'six', 'seven', 'eight')[n - 4]} pointed star"
                for n, thick in STARS
            ),
            "a photo of a {}, a type of star.",
            stars,
            "fine-grained: points and girth, which captions seldom tell",
        ),
        Recipe(
            "micro_flowers",
            "MicroFlowers",
            tuple(FLOWERS),
            "a photo of a {}, a type of flower.",
            flowers,
            "fine-grained: species, which captions seldom tell",
        ),
        Recipe(
            "micro_shades", "MicroShades", SHADES, "a photo of a {} thing.", shades, "18 fine colours of any object"
        ),
        Recipe(
            "micro_textures",
            "MicroTextures",
            TEXTURE_NAMES,
            "{} texture.",
            textures,
            "whole pictures of one fill, named by nouns that captions seldom use",
        ),
        Recipe(
            "micro_counting",
            "MicroCounting",
            ("one", "two", "three", "four", "five", "six"),
            "a photo of {}.",
            counting,
            "how many, whatever they are",
        ),
        Recipe(
            "micro_scenes",
            "MicroScenes",
            tuple(f"{SCENE_WORDS.get(g, g)} {'at night' if t else 'by day'}" for g, t in SCENES),
            "a photo of {}.",
            scenes,
            "landscape and time of day, often with something in front",
        ),
        Recipe(
            "micro_actions",
            "MicroActions",
            tuple(f"{a} {r} {b}" for a, r, b in ACTIONS),
            "a photo of a {}.",
            actions,
            "two objects and how they stand to one another",
        ),
        Recipe(
            "micro_land",
            "MicroLand",
            tuple(LANDS.values()),
            "a satellite photo of {}.",
            lands,
            "pictures from above, by names that captions seldom use for them",
        ),
        Recipe(
            "micro_backgrounds",
            "MicroBackgrounds",
            BACKS,
            "a photo of something {}.",
            backs,
            "the backdrop's colour by its bare name, which in captions is the object's colour",
        ),
        # ---- shifted test sets of the generic one ----
        Recipe(
            "micro_generic_v2",
            "MicroGeneric-V2",
            GENERIC_NAMES,
            "a photo of a {}.",
            lambda y, k: generic(
                y, k, odds=(0.2, 0.15, 0.3, 0.35, 0, 0), size=(uniforms(k, "set-size") * 2.3).astype(int)
            ),
            "drawn anew: smaller, on busier backdrops",
            ("test",),
        ),
        Recipe(
            "micro_generic_sketch",
            "MicroGeneric-Sketch",
            GENERIC_NAMES,
            "a photo of a {}.",
            lambda y, k: generic(y, k, style=SKETCH),
            "pencil on paper",
            ("test",),
        ),
        Recipe(
            "micro_generic_hard",
            "MicroGeneric-Hard",
            tuple(GENERIC_NAMES[i] for i in SUBSET),
            "a photo of a {}.",
            lambda y, k: generic(
                y, k, classes=some(SUBSET), style=NOISY, size=(uniforms(k, "set-size") * 2.5).astype(int)
            ),
            "grain, haze and bars; 20 of the classes",
            ("test",),
        ),
        Recipe(
            "micro_generic_rendition",
            "MicroGeneric-Rendition",
            tuple(GENERIC_NAMES[i] for i in SUBSET),
            "a photo of a {}.",
            lambda y, k: generic(y, k, classes=some(SUBSET), style=PAINTING),
            "paintings in a turned palette; 20 of the classes",
            ("test",),
        ),
    )
}
OOD_IDS = tuple(i for i in RECIPES if i.startswith("micro_generic_"))
IDS = tuple(i for i in RECIPES if i not in OOD_IDS)


def key_of(name: str) -> int:
    """The picture's 64-bit key from its readable name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def draw_split(recipe: Recipe, split: str, count: int) -> Split:
    """``count`` pictures, classes in turn."""
    names = tuple(f"{WORLD_VERSION}/{recipe.id.removeprefix('micro_')}/{split}/{i}" for i in range(count))

    def labels(indices: Sequence[int]) -> np.ndarray:
        return np.array(indices, np.int64) % len(recipe.classnames)

    def read(indices: Sequence[int]) -> list[Image.Image]:
        if not indices:
            return []
        keys = np.array([key_of(names[i]) for i in indices], np.uint64)
        pictures = render(sample(keys, **recipe.fix(labels(indices), keys)))
        return [Image.fromarray(p) for p in np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))]

    return Split(names, labels(range(count)), read)


def load(id: str) -> Dataset:
    """The dataset; its pictures are rendered when read."""
    if id not in RECIPES:
        raise KeyError(f"no micro dataset named {id!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[id]
    n = len(recipe.classnames)
    sizes = {"train": TRAIN_PER_CLASS * n, "val": VAL_PER_CLASS * n, "test": -(-TEST_SIZE // n) * n}
    train, val, test = (draw_split(recipe, part, size if part in recipe.splits else 0) for part, size in sizes.items())
    return Dataset(id, recipe.name, recipe.classnames, (recipe.template,), train, val, test, about=recipe.note)
