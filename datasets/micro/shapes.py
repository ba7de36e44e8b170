"""Outlines, fill tiles and horizons of the micro world, as lookup tables.

Every drawing step is a table lookup: an outline is a (96, 96) field of signed distances, a fill a (64, 64) periodic
tile, a horizon a 128-sample height profile. So all shapes cost the same and a batch may mix them freely. The tables are
computed once from polygons and closed forms; no picture file is shipped.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .hashing import uniforms

FIELD, REACH = 96, 1.3  # samples along a distance field; it spans [-REACH, REACH] object radii
TILE = 64  # samples along one period of a fill
PROFILE = 128  # samples along a horizon

Polygons = list[np.ndarray]  # closed outlines, even-odd: an outer one, and holes


def polar(radius, n: int = 120) -> np.ndarray:
    """A closed outline (n, 2) from a radius as a function of the angle (0 = up)."""
    angle = np.arange(n) * (2 * np.pi / n)
    r = radius(angle)
    return np.stack([r * np.sin(angle), -r * np.cos(angle)], 1)


def regular(n: int, turn: float = 0.0) -> Polygons:
    angle = np.arange(n) * (2 * np.pi / n) + turn
    return [np.stack([np.sin(angle), -np.cos(angle)], 1)]


def disc(r: float = 1.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return polar(lambda a: np.full_like(a, r), 60) + np.array([x, y])


def star(points: int, inner: float) -> Polygons:
    angle = np.arange(2 * points) * (np.pi / points)
    r = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return [np.stack([r * np.sin(angle), -r * np.cos(angle)], 1)]


def flower(petals: int, pointed: bool, depth: float, hole: float) -> Polygons:
    """Petals as lobes of a polar curve: round ones swell as |cos|, pointed ones as its square; ``hole`` is the eye."""

    def radius(angle):
        lobe = np.abs(np.cos(petals * angle / 2))
        return 1 - depth + depth * (lobe**2.2 if pointed else lobe**0.55)

    return [polar(radius, 180)] + ([disc(hole)] if hole else [])


def heart() -> Polygons:
    t = np.arange(90) * (2 * np.pi / 90)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([x, -y - 2.5], 1) / 16.5]


def moon() -> Polygons:
    outer, inner = np.linspace(0.62, 2 * np.pi - 0.62, 60), np.linspace(2 * np.pi - 0.95, 0.95, 50)
    arc = np.stack([np.cos(outer), np.sin(outer)], 1)
    bite = np.stack([0.72 * np.cos(inner) + 0.4, 0.72 * np.sin(inner)], 1)
    return [np.concatenate([arc, bite])]


def drop() -> Polygons:
    t = np.arange(80) * (2 * np.pi / 80)
    return [np.stack([0.95 * np.sin(t) * np.sin(t / 2) ** 1.6, -np.cos(t)], 1)]


def gear() -> Polygons:
    def radius(angle):
        return np.where(np.cos(8 * angle) > 0, 1.0, 0.74)

    return [polar(radius, 192), disc(0.34)]


def points(*xy: float) -> Polygons:
    return [np.array(xy, float).reshape(-1, 2)]


ARROW = (0, -1, 0.85, -0.1, 0.36, -0.1, 0.36, 0.95, -0.36, 0.95, -0.36, -0.1, -0.85, -0.1)
CROSS = (
    -0.34,
    -1,
    0.34,
    -1,
    0.34,
    -0.34,
    1,
    -0.34,
    1,
    0.34,
    0.34,
    0.34,
    0.34,
    1,
    -0.34,
    1,
    -0.34,
    0.34,
    -1,
    0.34,
    -1,
    -0.34,
    -0.34,
    -0.34,
)
HOUSE = (
    0,
    -1,
    1,
    -0.2,
    0.75,
    -0.2,
    0.75,
    0.95,
    0.25,
    0.95,
    0.25,
    0.35,
    -0.25,
    0.35,
    -0.25,
    0.95,
    -0.75,
    0.95,
    -0.75,
    -0.2,
    -1,
    -0.2,
)

FLOWERS = {  # petals, pointed, depth, eye
    "clover": (3, False, 0.55, 0),
    "orchid": (3, True, 0.7, 0.16),
    "poppy": (4, False, 0.3, 0.2),
    "iris": (4, True, 0.65, 0),
    "rose": (5, False, 0.25, 0.42),
    "violet": (5, False, 0.55, 0.16),
    "lily": (6, True, 0.65, 0.14),
    "daisy": (8, False, 0.5, 0.3),
    "lotus": (8, True, 0.45, 0),
    "sunflower": (13, True, 0.35, 0.45),
}
STARS = {
    (n, thick): star(n, (0.66 if n > 4 else 0.55) if thick else 0.36)
    for n in (4, 5, 6, 7, 8)
    for thick in (False, True)
}

# word -> the outlines it may be drawn with
SHAPES: dict[str, list[Polygons]] = {
    "circle": [[disc()]],
    "square": [points(-0.82, -0.82, 0.82, -0.82, 0.82, 0.82, -0.82, 0.82)],
    "triangle": [regular(3)],
    "diamond": [points(0, -1.05, 0.68, 0, 0, 1.05, -0.68, 0)],
    "pentagon": [regular(5)],
    "hexagon": [regular(6)],
    "star": list(STARS.values()),
    "heart": [heart()],
    "cross": [points(*CROSS)],
    "ring": [[disc(), disc(0.52)]],
    "moon": [moon()],
    "arrow": [points(*ARROW)],
    "flower": [flower(*f) for f in FLOWERS.values()],
    "drop": [drop()],
    "house": [points(*HOUSE)],
    "gear": [gear()],
}
SHAPE_NAMES = tuple(SHAPES)


def winding(half_width: float = 0.2) -> Polygons:
    """A band that snakes from top to bottom."""
    y = np.linspace(-1.25, 1.25, 40)
    middle = 0.17 * np.sin(2.6 * y)
    return [np.concatenate([np.stack([middle - half_width, y], 1), np.stack([middle + half_width, y], 1)[::-1]])]


# things seen from above (the satellite set): drawn large, never named in captions as shapes
LAND = {
    "river": winding(),
    "road": points(-0.11, -1.25, 0.11, -1.25, 0.11, 1.25, -0.11, 1.25),
    "lake": [polar(lambda a: 0.62 + 0.16 * np.sin(2 * a + 0.5) + 0.1 * np.sin(3 * a))],
    "coast": points(-1.28, -1.28, 0.05, -1.28, -0.12, -0.6, 0.12, 0.1, -0.05, 0.7, 0.1, 1.28, -1.28, 1.28),
}
OUTLINE_START = {name: sum(len(SHAPES[s]) for s in SHAPE_NAMES[:i]) for i, name in enumerate(SHAPE_NAMES)}
VARIANTS = tuple(len(v) for v in SHAPES.values())
LAND_START = sum(VARIANTS)


def signed_distance(polygons: Polygons, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the nearest edge, negative inside by the even-odd rule."""
    nearest, inside = np.full(x.shape, 1e9), np.zeros(x.shape, bool)
    for polygon in polygons:
        for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            ex, ey = bx - ax, by - ay
            t = np.clip(((x - ax) * ex + (y - ay) * ey) / max(ex * ex + ey * ey, 1e-12), 0, 1)
            nearest = np.minimum(nearest, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
            crosses = (ay > y) != (by > y)
            if by != ay:
                inside ^= crosses & (x < (y - ay) / (by - ay) * ex + ax)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


@cache
def fields() -> np.ndarray:
    """(K, FIELD, FIELD) float32 signed distances in object radii: all variants of all shapes, then the land forms."""
    axis = (np.arange(FIELD) + 0.5) / FIELD * 2 * REACH - REACH
    x, y = np.meshgrid(axis, axis)
    outlines = [variant for shape in SHAPES.values() for variant in shape] + list(LAND.values())
    return np.stack([signed_distance(o, x, y) for o in outlines]).astype(np.float32)


def soft(signed: np.ndarray, sharp: float = 7.0) -> np.ndarray:
    return np.clip(0.5 + sharp * signed, 0, 1)


TILES = ("plain", "striped", "dotted", "checkered", "plaid", "wavy", "speckled", "scaly", "woven", "bricked", "spiral")


@cache
def tiles() -> np.ndarray:
    """(T, TILE, TILE) float32 in [0, 1]: one period of each fill, 1 where the second colour shows."""
    axis = (np.arange(TILE) + 0.5) / TILE
    x, y = np.meshgrid(axis, axis)

    def bump(t, width):  # 1 inside |t mod 1 - .5| < width
        return soft(width - np.abs(np.mod(t, 1) - 0.5))

    def blob(cx, cy, r):  # a periodic disc
        dx, dy = np.mod(x - cx + 0.5, 1) - 0.5, np.mod(y - cy + 0.5, 1) - 0.5
        return soft(r - np.sqrt(dx * dx + dy * dy))

    specks = uniforms(np.arange(11, dtype=np.uint64), "specks-x"), uniforms(np.arange(11, dtype=np.uint64), "specks-y")
    row = np.floor(2 * y)
    over = (np.floor(2 * x) + np.floor(2 * y)) % 2
    radius = [np.hypot(x - cx, (y - cy) * 1.0) for cx, cy in ((0, 0.5), (0.5, 0.0), (1, 0.5), (0.5, 1.0))]
    scale = np.minimum.reduce([np.abs(r - 0.44) for r in radius])
    made = {
        "plain": np.zeros_like(x),
        "striped": bump(y, 0.25),
        "dotted": blob(0.5, 0.5, 0.29),
        "checkered": soft(np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y), 3),
        "plaid": np.maximum(bump(x, 0.17), bump(y, 0.17)),
        "wavy": bump(y + 0.22 * np.sin(2 * np.pi * x), 0.25),
        "speckled": np.maximum.reduce([blob(a, b, 0.085) for a, b in zip(*specks, strict=True)]),
        "scaly": soft(0.07 - scale),
        "woven": np.where(over > 0, bump(4 * x, 0.27), bump(4 * y, 0.27)),
        "bricked": np.maximum(bump(2 * y, 0.1), bump(x + row * 0.5, 0.05)),
        "spiral": soft(np.sin(4 * np.pi * 2 * np.hypot(x - 0.5, y - 0.5)), 1.5),
    }
    return np.stack([made[name] for name in TILES]).astype(np.float32)


GROUNDS = ("none", "sea", "desert", "forest", "mountains", "city", "field", "hills", "snow")


@cache
def profiles() -> np.ndarray:
    """(G, PROFILE) float32 heights in [0, 1] of each ground's skyline; periodic."""
    x = np.arange(PROFILE) / PROFILE
    saw = np.abs(np.mod(x * 9, 1) - 0.5) * 2
    peaks = np.maximum(1 - np.abs(np.mod(x * 2, 1) - 0.5) * 2.4, 0.75 - np.abs(np.mod(x * 3 + 0.3, 1) - 0.5) * 2.2)
    blocks = uniforms(np.floor(x * 12).astype(np.uint64), "city-blocks")
    made = {
        "none": 0 * x,
        "sea": 0 * x,
        "desert": 0.35 + 0.3 * np.sin(4 * np.pi * x),
        "forest": 0.35 + 0.6 * saw,
        "mountains": np.clip(peaks, 0.1, 1),
        "city": 0.15 + 0.85 * blocks,
        "field": 0 * x,
        "hills": 0.3 + 0.7 * np.abs(np.sin(3 * np.pi * x)),
        "snow": 0.3 + 0.5 * np.abs(np.sin(2 * np.pi * x + 0.4)),
    }
    return np.stack([made[name] for name in GROUNDS]).astype(np.float32)
