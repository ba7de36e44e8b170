"""What makes the classes of each micro dataset: rules from labels (N,) and keys (N,) to attributes.

A rule fixes what tells the classes apart and the kind of picture the set is about; the world leaves the rest open. Sets
are meant to survive random crops and mirroring, so no class is told by left and right or by a place near the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .hashing import uniforms
from .shapes import GROUNDS, SHAPE_NAMES
from .world import BACKDROPS, COLOURS, FILLS, LAND_KINDS, RELATIONS, SHADE_COLOUR, SHADE_NAMES, STYLES, choose

PHOTO, SKETCH, PAINTING, NOISY = range(len(STYLES))
BACK = {name: i for i, name in enumerate(BACKDROPS)}


def plain_scene(
    keys: np.ndarray, odds: Sequence[float] = (0.5, 0.25, 0.25, 0, 0, 0), style: int | None = PHOTO
) -> dict[str, Any]:
    """One object, on a backdrop that is no landscape."""
    fixed: dict[str, Any] = dict(present=1, relation=0, count=1, backdrop=choose(uniforms(keys, "set-backdrop"), odds))
    return fixed if style is None else {**fixed, "style": style}


# ---- generic: the ImageNet of this world ----
GENERIC_FILLS = ("plain", "striped", "dotted", "checkered", "outlined", "plaid")
GENERIC = tuple(
    (shape, GENERIC_FILLS[(i + j * 2 + (i // 6) % 2) % 6]) for i, shape in enumerate(SHAPE_NAMES) for j in range(3)
)
GENERIC_NAMES = tuple(f"{fill} {shape}" for shape, fill in GENERIC)
SUBSET = tuple(sorted({*range(1, 48, 5), *range(4, 48, 5), 47}))  # classes of the noisy and the painted variant


def generic(labels, keys, classes=GENERIC, style=PHOTO, odds=(0.3, 0.2, 0.2, 0.3, 0, 0), **more):
    shape = np.array([SHAPE_NAMES.index(s) for s, _ in classes])[labels]
    fill = np.array([FILLS.index(f) for _, f in classes])[labels]
    return dict(plain_scene(keys, odds, style), shape=shape, fill=fill, **more)


def some(indices):
    return tuple(GENERIC[i] for i in indices)


# ---- the others ----
def shapes(labels, keys):
    return dict(
        plain_scene(keys, (0.6, 0.4, 0, 0, 0, 0), None),
        shape=labels,
        style=choose(uniforms(keys, "set-style"), (0, 0.5, 0.5, 0)),
        size=1 + (uniforms(keys, "set-size") < 0.5),
        fill=choose(uniforms(keys, "set-fill"), (0.5, 0.15, 0, 0, 0.35)),
    )


def stars(labels, keys):
    return dict(
        plain_scene(keys),
        shape=SHAPE_NAMES.index("star"),
        variant=labels,
        size=1 + (uniforms(keys, "set-size") < 0.6),
        fill=choose(uniforms(keys, "set-fill"), (0.5, 0.2, 0.15, 0.15)),
    )


def flowers(labels, keys):
    return dict(
        plain_scene(keys),
        shape=SHAPE_NAMES.index("flower"),
        variant=labels,
        size=1 + (uniforms(keys, "set-size") < 0.5),
        fill=choose(uniforms(keys, "set-fill"), (0.5, 0.15, 0.15, 0, 0.2)),
    )


SHADES = (
    "crimson",
    "maroon",
    "coral",
    "amber",
    "gold",
    "lemon",
    "lime",
    "olive",
    "mint",
    "navy",
    "sky",
    "teal",
    "violet",
    "plum",
    "rose",
    "chocolate",
    "tan",
    "silver",
)


def shades(labels, keys):
    shade = np.array([SHADE_NAMES.index(name) for name in SHADES])[labels]
    back = (SHADE_COLOUR[shade] + 2 + (uniforms(keys, "set-back") * (len(COLOURS) - 4)).astype(int)) % len(COLOURS)
    return dict(
        plain_scene(keys, (0.7, 0.3, 0, 0, 0, 0)),
        shade=shade,
        back_colour=back,
        size=2,
        fill=choose(uniforms(keys, "set-fill"), (0.75, 0.25)),
    )


TEXTURES = tuple(f for f in FILLS if f != "outlined")
TEXTURE_NAMES = ("plain", "stripes", "dots", "checks", "plaid", "waves", "speckles", "scales", "weave", "bricks")


def textures(labels, keys):
    return dict(
        style=choose(uniforms(keys, "set-style"), (0.9, 0, 0.1, 0)),
        backdrop=BACK["surface"],
        present=0,
        relation=0,
        count=1,
        fill=np.array([FILLS.index(f) for f in TEXTURES])[labels],
    )


def counting(labels, keys):
    return dict(
        style=PHOTO,
        present=1,
        relation=0,
        count=labels + 1,
        size=(uniforms(keys, "set-size") * 2).astype(int),
        fill=choose(uniforms(keys, "set-fill"), (0.6, 0.2, 0, 0, 0.2)),
        backdrop=choose(uniforms(keys, "set-backdrop"), (0.7, 0.3, 0, 0, 0, 0)),
    )


SCENES = tuple((ground, time) for ground in GROUNDS[1:] for time in (0, 2))


def scenes(labels, keys):
    return dict(
        style=choose(uniforms(keys, "set-style"), (0.8, 0, 0.1, 0.1)),
        backdrop=BACK["scene"],
        relation=0,
        ground=np.array([GROUNDS.index(g) for g, _ in SCENES])[labels],
        time=np.array([t for _, t in SCENES])[labels],
    )


SCENE_WORDS = {"sea": "ocean", "mountains": "mountains", "snow": "snow", "hills": "hills"}
PAIRS = (("circle", "square"), ("heart", "star"), ("moon", "triangle"))
ACTIONS = tuple(
    (a, r, b) for a, b in PAIRS for a, r, b in ((a, "above", b), (b, "above", a), (a, "inside", b), (a, "beside", b))
)


def actions(labels, keys):
    a, r, b = (
        np.array([names.index(x) for x in column])[labels]
        for column, names in zip(zip(*ACTIONS, strict=True), (SHAPE_NAMES, RELATIONS, SHAPE_NAMES), strict=True)
    )
    return dict(plain_scene(keys, (0.5, 0.25, 0.1, 0.15, 0, 0)), shape=a, relation=r, shape2=b)


LANDS = {
    "forest": "forest",
    "river": "river",
    "road": "highway",
    "farm": "crops",
    "town": "buildings",
    "lake": "pool",
    "beach": "bay",
    "orchard": "orchard",
    "desert": "sand",
    "marsh": "bog",
}


def lands(labels, keys):
    return dict(
        style=choose(uniforms(keys, "set-style"), (0.75, 0, 0, 0.25)),
        backdrop=BACK["land"],
        present=0,
        relation=0,
        count=1,
        land=np.array([LAND_KINDS.index(k) for k in LANDS])[labels],
    )


BACKS = COLOURS[:10]


def backs(labels, keys):
    return dict(
        plain_scene(keys, (1, 0, 0, 0, 0, 0)), back_colour=labels, size=(uniforms(keys, "set-size") * 3).astype(int)
    )
