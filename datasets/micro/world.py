"""What can be in a picture of the micro world, and how often: the semantic attributes of a scene, sampled by key.

A scene is a row of a structure of arrays. ``sample`` draws every attribute from the picture's key alone and lets a
dataset's recipe fix some of them, so pictures of a class differ in all that the class leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields

import numpy as np

from .hashing import uniforms
from .shapes import GROUNDS, LAND, SHAPE_NAMES, TILES, VARIANTS

WORLD_VERSION = "micro-1"  # change it whenever any picture of the world changes
SIZE = 64  # pixels a side

FILLS = (
    "plain",
    "striped",
    "dotted",
    "checkered",
    "outlined",
    "plaid",
    "wavy",
    "speckled",
    "scaly",
    "woven",
    "bricked",
)
FILL_ODDS = (0.15, 0.13, 0.13, 0.13, 0.13, 0.11, 0.08, 0.08, 0.02, 0.02, 0.02)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "turquoise", "gray", "black", "white")
SHADES = {  # name -> (coarse colour, RGB); a coarse colour's own name comes first
    "red": ("red", (215, 35, 35)),
    "crimson": ("red", (160, 10, 60)),
    "maroon": ("red", (105, 10, 25)),
    "orange": ("orange", (245, 130, 20)),
    "coral": ("orange", (250, 120, 95)),
    "amber": ("orange", (250, 175, 60)),
    "yellow": ("yellow", (250, 225, 40)),
    "gold": ("yellow", (205, 165, 30)),
    "lemon": ("yellow", (250, 245, 140)),
    "green": ("green", (40, 155, 60)),
    "lime": ("green", (150, 225, 50)),
    "olive": ("green", (110, 120, 35)),
    "mint": ("green", (150, 235, 180)),
    "blue": ("blue", (40, 85, 215)),
    "navy": ("blue", (20, 30, 100)),
    "sky": ("blue", (120, 190, 245)),
    "purple": ("purple", (125, 45, 170)),
    "violet": ("purple", (155, 95, 235)),
    "plum": ("purple", (90, 30, 85)),
    "pink": ("pink", (245, 130, 185)),
    "rose": ("pink", (225, 60, 130)),
    "brown": ("brown", (125, 80, 45)),
    "chocolate": ("brown", (75, 40, 20)),
    "tan": ("brown", (205, 170, 125)),
    "turquoise": ("turquoise", (55, 205, 200)),
    "teal": ("turquoise", (15, 120, 125)),
    "gray": ("gray", (130, 130, 130)),
    "silver": ("gray", (190, 192, 198)),
    "black": ("black", (18, 18, 18)),
    "white": ("white", (246, 246, 246)),
}
SHADE_NAMES = tuple(SHADES)
SHADE_RGB = np.array([rgb for _, rgb in SHADES.values()], np.float32)
SHADE_COLOUR = np.array([COLOURS.index(colour) for colour, _ in SHADES.values()])
COLOUR_START = np.array([int(np.argmax(SHADE_COLOUR == c)) for c in range(len(COLOURS))])
COLOUR_SHADES = np.array([int(np.sum(SHADE_COLOUR == c)) for c in range(len(COLOURS))])

SIZES = ("small", "medium", "large")
PLACES = ("center", "top", "bottom", "corner")
ARRANGEMENTS = ("scattered", "row", "column", "circle")
RELATIONS = ("none", "above", "below", "inside", "around", "beside")
BACKDROPS = ("plain", "gradient", "textured", "scene", "land", "surface")
TIMES = ("day", "sunset", "night")
STYLES = ("photo", "sketch", "painting", "noisy")
LAND_KINDS = ("forest", "river", "road", "farm", "town", "lake", "beach", "orchard", "desert", "marsh")
MAX_COUNT = 6


@dataclass(frozen=True)
class Scenes:
    """N scenes; every field an (N,) int array of indices into the tuples above, ``keys`` their uint64 keys.

    shape/variant/fill/shade/size/place/count/arrangement describe the main object; relation says how a second object
    (shape2, shade2, fill2) stands to it: "above" = the main object is above the second.
    """

    keys: np.ndarray
    style: np.ndarray
    backdrop: np.ndarray
    back_shade: np.ndarray
    back_tile: np.ndarray
    ground: np.ndarray
    time: np.ndarray
    land: np.ndarray
    present: np.ndarray
    shape: np.ndarray
    variant: np.ndarray
    fill: np.ndarray
    shade: np.ndarray
    size: np.ndarray
    place: np.ndarray
    count: np.ndarray
    arrangement: np.ndarray
    relation: np.ndarray
    shape2: np.ndarray
    variant2: np.ndarray
    fill2: np.ndarray
    shade2: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, index) -> Scenes:
        return Scenes(*(getattr(self, f.name)[index] for f in dataclass_fields(self)))


def choose(u: np.ndarray, odds) -> np.ndarray:
    """(N,) indices drawn with the given odds from (N,) uniforms."""
    edges = np.cumsum(np.asarray(odds, np.float64))
    return np.minimum(np.searchsorted(edges / edges[-1], u, side="right"), len(odds) - 1)


def shade_of(keys: np.ndarray, name: str, colour: np.ndarray) -> np.ndarray:
    """(N,) shades of (N,) coarse colours: the plain one half of the time."""
    u = uniforms(keys, name)
    n = COLOUR_SHADES[colour]
    return COLOUR_START[colour] + np.where(u < 0.5, 0, np.minimum(((u - 0.5) * 2 * n).astype(int), n - 1))


def sample(keys: np.ndarray, **fixed) -> Scenes:
    """Scenes of (N,) uint64 keys; ``fixed`` maps a field (or "colour", "back_colour", "colour2") to a value or (N,)."""
    keys = np.asarray(keys, np.uint64)
    have: dict[str, np.ndarray] = {k: np.broadcast_to(np.asarray(v, np.int64), keys.shape) for k, v in fixed.items()}

    def draw(name, odds):
        if name not in have:
            odds = np.ones(odds) if isinstance(odds, int) else odds
            have[name] = choose(uniforms(keys, name), odds)
        return have[name]

    def variant(name, shape):
        if name not in have:
            n = np.asarray(VARIANTS)[shape]
            have[name] = np.minimum((uniforms(keys, name) * n).astype(int), n - 1)

    def other(name, n, taken, low=1):
        """An index different from ``taken``: a colour that shows against another one."""
        if name not in have:
            step = low + np.minimum((uniforms(keys, name) * (n - 2 * low + 1)).astype(int), n - 2 * low)
            have[name] = (taken + step) % n
        return have[name]

    draw("style", (0.76, 0.08, 0.08, 0.08))
    draw("backdrop", (0.38, 0.16, 0.12, 0.24, 0.05, 0.05))
    draw("time", (0.4, 0.25, 0.35))
    draw("land", len(LAND_KINDS))
    scene = have["backdrop"] == BACKDROPS.index("scene")
    draw("ground", (0,) + (1,) * (len(GROUNDS) - 1))
    have["ground"] = np.where(scene, have["ground"], 0)
    empty = (have["backdrop"] >= BACKDROPS.index("land")) | (scene & (uniforms(keys, "empty") < 0.35))
    if "present" not in have:
        have["present"] = np.where(empty, 0, 1)
    draw("shape", len(SHAPE_NAMES))
    variant("variant", have["shape"])
    draw("fill", FILL_ODDS)
    draw("size", (0.25, 0.35, 0.4))
    draw("place", (0.5, 0.18, 0.18, 0.14))
    draw("relation", (0.8, 0.04, 0.04, 0.04, 0.04, 0.04))
    have["relation"] = np.where(have["present"] > 0, have["relation"], 0)
    draw("count", (0.72, 0.1, 0.06, 0.05, 0.04, 0.03, 0)[:MAX_COUNT])
    if "count" not in fixed:  # index to number; two kinds of objects come one each
        have["count"] = np.where(have["relation"] > 0, 1, have["count"] + 1)
    draw("arrangement", (0.4, 0.25, 0.15, 0.2))
    if "back_shade" not in have:
        back = draw("back_colour", (1, 1, 1.3, 1.2, 1.2, 1, 1, 1.2, 1, 1.5, 1.4, 3))
        have["back_shade"] = shade_of(keys, "back_shade", back)
    back = SHADE_COLOUR[have["back_shade"]]
    if "shade" not in have:
        have["shade"] = shade_of(keys, "shade", other("colour", len(COLOURS), back))
    front = SHADE_COLOUR[have["shade"]]
    if "shape2" not in have:
        other("shape2", len(SHAPE_NAMES), have["shape"])
    variant("variant2", have["shape2"])
    draw("fill2", (0.5, 0.1, 0.1, 0.1, 0.1, 0.1) + (0,) * (len(FILLS) - 6))
    if "shade2" not in have:
        second = other("colour2", len(COLOURS), front)
        second = np.where(second == back, (second + 1) % len(COLOURS), second)
        have["shade2"] = shade_of(keys, "shade2", np.where(second == front, (second + 1) % len(COLOURS), second))
    draw("back_tile", (0,) + (1,) * (len(TILES) - 1))
    for name in ("colour", "back_colour", "colour2"):
        have.pop(name, None)
    return Scenes(keys=keys, **have)


assert set(LAND) <= set(LAND_KINDS) | {"coast"}
