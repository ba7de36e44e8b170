"""From attributes to geometry: where the objects of a scene lie, how large, in which inks.

The result is what the renderer needs and nothing else; all arrays are float32 or int64 with N scenes in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields

import numpy as np

from .hashing import uniforms
from .shapes import GROUNDS, LAND, LAND_START, OUTLINE_START, SHAPE_NAMES, TILES
from .world import BACKDROPS, FILLS, LAND_KINDS, MAX_COUNT, SHADE_NAMES, SHADE_RGB, SIZE, Scenes

OUTLINES = np.array([OUTLINE_START[name] for name in SHAPE_NAMES])
FILL_TILE = np.array([0 if fill == "outlined" else TILES.index(fill) for fill in FILLS])
OUTLINED = FILLS.index("outlined")
RADII = np.array([11.0, 16.5, 23.0])  # small, medium, large, in pixels


@dataclass(frozen=True)
class Layer:
    """Up to MAX_COUNT copies of one outline: x, y (N, MAX_COUNT), the rest (N,) or (N, 3) colours in 0..255."""

    on: np.ndarray  # (N,) bool
    outline: np.ndarray  # (N,) row of shapes.fields()
    count: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    turn: np.ndarray  # radians
    hollow: np.ndarray  # (N,) bool: only the outline is inked
    tile: np.ndarray
    period: np.ndarray  # pixels a period of the tile
    ink: np.ndarray
    second: np.ndarray  # the tile's other colour

    def rows(self, index) -> Layer:
        return Layer(*(getattr(self, f.name)[index] for f in dataclass_fields(self)))


@dataclass(frozen=True)
class Backdrop:
    """Two colours mixed by a tile and a vertical gradient, and a ground below a skyline."""

    low: np.ndarray  # (N, 3)
    high: np.ndarray  # (N, 3)
    tile: np.ndarray
    period: np.ndarray
    turn: np.ndarray
    gradient: np.ndarray  # 0 = flat colour, 1 = low at the bottom to high at the top
    tint: np.ndarray  # how strongly the tile shows, 0..1
    ground: np.ndarray  # row of shapes.profiles(), 0 = none
    horizon: np.ndarray  # pixels from the top
    relief: np.ndarray  # pixels
    shift: np.ndarray  # the skyline's phase, 0..1
    earth: np.ndarray  # (N, 3)
    earth2: np.ndarray
    earth_tile: np.ndarray

    def rows(self, index) -> Backdrop:
        return Backdrop(*(getattr(self, f.name)[index] for f in dataclass_fields(self)))


SKY = np.array(
    [[[150, 205, 245], [225, 240, 250]], [[250, 150, 70], [250, 210, 140]], [[15, 15, 50], [45, 45, 95]]], np.float32
)
LIGHT = np.array([1.0, 0.8, 0.38], np.float32)
EARTH = {
    "none": (0, 0, 0),
    "sea": (40, 105, 190),
    "desert": (225, 190, 120),
    "forest": (35, 105, 50),
    "mountains": (120, 115, 120),
    "city": (95, 100, 115),
    "field": (150, 170, 60),
    "hills": (95, 175, 75),
    "snow": (240, 244, 250),
}
EARTH2 = {
    "none": (0, 0, 0),
    "sea": (90, 155, 220),
    "desert": (210, 170, 100),
    "forest": (25, 80, 40),
    "mountains": (145, 140, 145),
    "city": (225, 210, 130),
    "field": (110, 140, 40),
    "hills": (80, 155, 65),
    "snow": (215, 225, 240),
}
EARTH_TILE = {"sea": "wavy", "city": "dotted", "field": "striped", "forest": "speckled", "snow": "speckled"}
# satellite kinds: ground tile, its two colours, the form on top and its colour
SEEN_FROM_ABOVE = {
    "forest": ("speckled", (30, 75, 40), (20, 50, 30), None, None),
    "river": ("plain", (75, 120, 60), (60, 100, 50), "river", (50, 85, 140)),
    "road": ("plain", (150, 145, 95), (125, 130, 80), "road", (105, 105, 110)),
    "farm": ("striped", (150, 140, 70), (95, 130, 60), None, None),
    "town": ("checkered", (150, 145, 145), (165, 90, 75), "road", (90, 90, 95)),
    "lake": ("plain", (80, 115, 65), (65, 100, 55), "lake", (45, 80, 130)),
    "beach": ("plain", (215, 195, 145), (205, 185, 130), "coast", (50, 115, 160)),
    "orchard": ("dotted", (145, 135, 90), (50, 90, 45), None, None),
    "desert": ("wavy", (210, 180, 125), (190, 155, 100), None, None),
    "marsh": ("scaly", (95, 110, 75), (55, 75, 85), "river", (60, 80, 95)),
}


def table(rows, order) -> np.ndarray:
    return np.array([rows[name] for name in order], np.float32)


def jittered(keys, name: str, rgb: np.ndarray, amount: float) -> np.ndarray:
    """(N, 3) colours shifted a little, each channel by its own draw."""
    shift = np.stack([uniforms(keys, f"{name}-{c}") - 0.5 for c in "rgb"], 1) * 2 * amount
    return np.clip(rgb + shift, 0, 255).astype(np.float32)


def between(keys, name: str, low, high) -> np.ndarray:
    return (low + (high - low) * uniforms(keys, name)).astype(np.float32)


def second_ink(keys, name: str, ink: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The other colour of a fill: white or black (whichever shows), the ink darker or lighter, or the backdrop's."""
    u, bright = uniforms(keys, name)[:, None], ink.mean(1, keepdims=True)
    neutral = np.where(bright > 150, 25.0, 250.0)
    tone = np.where(bright > 110, ink * 0.45, ink * 0.5 + 127)
    return np.where(
        u < 0.55,
        neutral,
        np.where(u < 0.8, tone, np.where(np.abs(back - ink).max(1, keepdims=True) > 90, back, neutral)),
    )


def positions(s: Scenes, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (N, MAX_COUNT) twice and the radii (N,) shrunk so that copies do not hide one another."""
    n, mid = len(s), SIZE / 2
    reach = np.maximum(mid - 0.92 * radius - 1, 0)
    jx, jy = between(s.keys, "jitter-x", -1, 1), between(s.keys, "jitter-y", -1, 1)
    down = np.choose(s.place, [0.0, -1.0, 1.0, 0.0])
    corner = s.place == 3
    down = np.where(corner, np.where(uniforms(s.keys, "corner-y") < 0.5, -1, 1), down)
    across = np.where(corner, np.where(uniforms(s.keys, "corner-x") < 0.5, -1, 1), 0)
    x, y = np.zeros((n, MAX_COUNT)), np.zeros((n, MAX_COUNT))
    x[:, 0] = mid + np.where(across != 0, across * reach, jx * np.minimum(reach * 0.5, 4))
    y[:, 0] = mid + np.where(down != 0, down * reach, jy * np.minimum(reach * 0.35, 3))
    several = np.flatnonzero(s.count > 1)
    k, count, kind = np.arange(MAX_COUNT)[None], s.count[several, None], s.arrangement[several, None]
    step = (SIZE - 4) / count
    line = 2 + step * (k + 0.5)
    swing = (jx[several, None] * 12, jy[several, None] * 12)
    ring = np.where(count > 2, 19.5, 15)
    angle = (k / count + uniforms(s.keys[several], "ring-turn")[:, None]) * 2 * np.pi
    order = np.argsort(
        np.stack([uniforms(s.keys[several], f"cell-{i}") for i in range(6)], 1), 1
    )  # cells of a 3 x 2 grid
    wobble = np.stack([uniforms(s.keys[several], f"wobble-{i}") - 0.5 for i in range(12)], 1)
    wide = uniforms(s.keys[several], "grid-wide")[:, None] < 0.5
    a, b = 11.3 + 20.7 * (order % 3) + 2 * wobble[:, :6], 17 + 30 * (order // 3) + 8 * wobble[:, 6:]
    x[several] = np.choose(kind, [np.where(wide, a, b), line, mid + swing[0], mid + ring * np.cos(angle)])
    y[several] = np.choose(kind, [np.where(wide, b, a), mid + swing[1], line, mid + ring * np.sin(angle)])
    room = np.choose(kind, [np.full(step.shape, 9.6), step * 0.5, step * 0.5, ring * np.sin(np.pi / count) * 0.94])[
        :, 0
    ]
    radius = radius.copy()
    radius[several] = np.minimum(np.clip(room, 4.5, 12), 5 + radius[several] * 0.5)
    return x, y, radius


def main_layer(s: Scenes, back: np.ndarray) -> Layer:
    radius = RADII[s.size] * between(s.keys, "radius", 0.9, 1.1)
    x, y, radius = positions(s, radius)
    paired = s.relation > 0
    along = between(s.keys, "pair-gap", 13, 16)
    dy = np.choose(s.relation, [0, -1, 1, 0, 0, 0]) * along
    dx = np.where(s.relation == 5, np.where(uniforms(s.keys, "pair-side") < 0.5, -1, 1) * along, 0)
    radius = np.where(
        paired, np.choose(s.relation, [0, 13, 13, 11, 27, 13]) * between(s.keys, "pair-size", 0.9, 1.08), radius
    )
    x[:, 0] = np.where(paired, SIZE / 2 + dx + between(s.keys, "pair-x", -3, 3), x[:, 0])
    y[:, 0] = np.where(paired, SIZE / 2 + dy + between(s.keys, "pair-y", -2, 2), y[:, 0])
    ink = jittered(s.keys, "ink", SHADE_RGB[s.shade], 9)
    return Layer(
        on=s.present > 0,
        outline=OUTLINES[s.shape] + s.variant,
        count=s.count,
        x=x,
        y=y,
        radius=radius,
        turn=between(s.keys, "turn", -0.22, 0.22),
        hollow=s.fill == OUTLINED,
        tile=FILL_TILE[s.fill],
        period=np.clip(radius * 0.55, 5.5, 10) * between(s.keys, "period", 0.85, 1.2),
        ink=ink,
        second=second_ink(s.keys, "second", ink, back),
    )


def second_layer(s: Scenes, first: Layer, back: np.ndarray) -> Layer:
    """The second object mirrors the first one's place, or encloses it, or lies within it."""
    radius = np.choose(s.relation, [0, 13, 13, 27, 11, 13]) * between(s.keys, "pair-size2", 0.9, 1.08)
    nested = (s.relation == 3) | (s.relation == 4)
    x, y = np.zeros_like(first.x), np.zeros_like(first.y)
    x[:, 0] = np.where(nested, first.x[:, 0], SIZE - first.x[:, 0])
    y[:, 0] = np.where(nested, first.y[:, 0], SIZE - first.y[:, 0])
    ink = jittered(s.keys, "ink2", SHADE_RGB[s.shade2], 9)
    return Layer(
        on=s.relation > 0,
        outline=OUTLINES[s.shape2] + s.variant2,
        count=np.ones(len(s), int),
        x=x,
        y=y,
        radius=radius,
        turn=between(s.keys, "turn2", -0.22, 0.22),
        hollow=s.fill2 == OUTLINED,
        tile=FILL_TILE[s.fill2],
        period=np.clip(radius * 0.55, 5.5, 10),
        ink=ink,
        second=second_ink(s.keys, "second2", ink, back),
    )


def land_layer(s: Scenes) -> Layer:
    """The form on the ground of a picture from above, at any turn."""
    forms = [SEEN_FROM_ABOVE[k][3] for k in LAND_KINDS]
    outline = np.array([LAND_START + list(LAND).index(f) if f else 0 for f in forms])[s.land]
    ink = np.array([SEEN_FROM_ABOVE[k][4] or (0, 0, 0) for k in LAND_KINDS], np.float32)[s.land]
    n, zero = len(s), np.zeros(len(s), int)
    x, y = np.zeros((n, MAX_COUNT)), np.zeros((n, MAX_COUNT))
    x[:, 0], y[:, 0] = SIZE / 2 + between(s.keys, "land-x", -8, 8), SIZE / 2 + between(s.keys, "land-y", -8, 8)
    on = (s.backdrop == BACKDROPS.index("land")) & np.array([f is not None for f in forms])[s.land]
    ink = jittered(s.keys, "land-ink", ink, 16)
    return Layer(
        on=on,
        outline=outline,
        count=zero + 1,
        x=x,
        y=y,
        radius=between(s.keys, "land-size", 38, 44) * np.where(s.land == LAND_KINDS.index("lake"), 0.6, 1),
        turn=between(s.keys, "land-turn", 0, 6.2832),
        hollow=zero > 0,
        tile=zero,
        period=zero + 8.0,
        ink=ink,
        second=ink,
    )


def backdrop(s: Scenes) -> Backdrop:
    kind = {name: s.backdrop == i for i, name in enumerate(BACKDROPS)}
    paint = jittered(s.keys, "paint", SHADE_RGB[s.back_shade], 9)
    tone = np.where(paint.mean(1, keepdims=True) > 120, paint * 0.72, paint * 0.72 + 71)
    low, high = paint, np.where(kind["gradient"][:, None], np.clip(paint * 0.5 + 127, 0, 255), tone)
    scene, land, surface = kind["scene"][:, None], kind["land"][:, None], kind["surface"][:, None]
    sky = SKY[s.time]
    low, high = np.where(scene, sky[:, 1], low), np.where(scene, sky[:, 0], high)
    over = [SEEN_FROM_ABOVE[k] for k in LAND_KINDS]
    low = np.where(land, jittered(s.keys, "land-a", np.array([o[1] for o in over], np.float32)[s.land], 18), low)
    high = np.where(land, jittered(s.keys, "land-b", np.array([o[2] for o in over], np.float32)[s.land], 18), high)
    low = np.where(surface, jittered(s.keys, "ink", SHADE_RGB[s.shade], 9), low)
    high = np.where(surface, second_ink(s.keys, "second", low, paint), high)
    tile = np.where(kind["land"], np.array([TILES.index(o[0]) for o in over])[s.land], s.back_tile)
    tile = np.where(kind["surface"], FILL_TILE[s.fill], tile)
    light = LIGHT[s.time][:, None]
    earth = jittered(s.keys, "earth", table(EARTH, GROUNDS)[s.ground], 14) * light
    earth2 = table(EARTH2, GROUNDS)[s.ground] * np.where(s.ground[:, None] == GROUNDS.index("city"), 1, light)
    return Backdrop(
        low=low,
        high=high,
        tile=tile,
        turn=between(s.keys, "tile-turn", -0.3, 0.3) + np.where(kind["land"], between(s.keys, "land-tile", 0, 6), 0),
        period=np.where(
            kind["surface"], between(s.keys, "surface-period", 7, 17), between(s.keys, "tile-period", 7, 12)
        ),
        gradient=np.where(kind["gradient"] | kind["scene"], 1.0, 0.0),
        tint=np.where(kind["textured"] | kind["surface"] | kind["land"], 1.0, 0.0),
        ground=s.ground,
        horizon=between(s.keys, "horizon", 38, 48),
        relief=between(s.keys, "relief", 14, 20),
        shift=between(s.keys, "shift", 0, 1),
        earth=earth,
        earth2=earth2,
        earth_tile=np.array([TILES.index(EARTH_TILE.get(g, "plain")) for g in GROUNDS])[s.ground],
    )


PAPER, PENCIL = SHADE_RGB[SHADE_NAMES.index("white")], np.array([55.0, 55.0, 60.0], np.float32)


def lay_out(s: Scenes) -> tuple[Backdrop, list[Layer]]:
    """Everything the renderer draws, back to front."""
    ground = backdrop(s)
    back = ground.low
    first = main_layer(s, back)
    other = second_layer(s, first, back)
    # of two nested objects the small one is drawn last
    around = s.relation == 4
    merged = [
        Layer(*(np.where(around.reshape(-1, *[1] * (np.ndim(a) - 1)), a, b) for a, b in pairs))
        for pairs in (
            zip(vars(first).values(), vars(other).values(), strict=True),
            zip(vars(other).values(), vars(first).values(), strict=True),
        )
    ]
    return ground, [land_layer(s), *merged]
