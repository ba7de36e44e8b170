"""Geometry to pixels: 64 x 64 RGB pictures, antialiased, several thousand a second on one core, in numpy alone.

All objects of a scene share one outline, so each pixel only asks its nearest copy: its place in that copy's frame is
looked up once in the table of distances and once in the table of fills. Every step is elementwise over pictures, so a
picture does not depend on the batch it is rendered in.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .hashing import uniforms
from .layout import PAPER, PENCIL, Backdrop, Layer, lay_out
from .shapes import FIELD, PROFILE, REACH, TILE, fields, profiles, tiles
from .world import SIZE, STYLES, Scenes

CHUNK = 16  # pictures at a time: their planes stay in cache
SKETCH, PAINTING, NOISY = (STYLES.index(name) for name in ("sketch", "painting", "noisy"))
GRAIN = 96  # side of the noise table


@cache
def pixel_axis() -> np.ndarray:
    return np.arange(SIZE, dtype=np.float32) + np.float32(0.5)


@cache
def grain() -> np.ndarray:
    """(GRAIN, GRAIN) zero-mean noise: a window of it, at a place of the picture's own, is a picture's noise."""
    places = np.arange(GRAIN * GRAIN, dtype=np.uint64)
    u = sum((uniforms(places, f"grain-{i}") for i in range(4)), np.zeros(GRAIN * GRAIN))
    return ((u - 2) * 1.7).astype(np.float32).reshape(GRAIN, GRAIN)


def column(values) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


def look_up_tile(tile, x, y, period) -> np.ndarray:
    """(N, S, S) in [0, 1]: the fill at pixel offsets x, y (N, S, S)."""
    scale = np.float32(TILE) / column(period)
    ix = np.floor(x * scale).astype(np.int32) & (TILE - 1)
    iy = np.floor(y * scale).astype(np.int32) & (TILE - 1)
    return tiles().reshape(-1)[(np.asarray(tile, np.int32)[:, None, None] * TILE + iy) * TILE + ix]


def turned(x, y, angle):
    cos, sin = column(np.cos(angle)), column(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def nearest_copy(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (N, S, S) of every pixel from the nearest of the layer's copies."""
    axis = pixel_axis()
    x = np.broadcast_to(axis[None, None, :] - column(layer.x[:, 0]), (len(layer.x), SIZE, SIZE))
    y = np.broadcast_to(axis[None, :, None] - column(layer.y[:, 0]), (len(layer.x), SIZE, SIZE))
    if layer.count.max(initial=1) == 1:
        return x, y
    x, y = x.copy(), y.copy()
    for k in range(1, int(layer.count.max())):
        rows = np.flatnonzero(layer.count > k)
        dx, dy = axis[None, None, :] - column(layer.x[rows, k]), axis[None, :, None] - column(layer.y[rows, k])
        closer = dx * dx + dy * dy < x[rows] ** 2 + y[rows] ** 2
        x[rows], y[rows] = np.where(closer, dx, x[rows]), np.where(closer, dy, y[rows])
    return x, y


def paint_layer(canvas: np.ndarray, layer: Layer, style: np.ndarray) -> None:
    """Composite one layer on ``canvas`` (N, 3, S, S) in place."""
    x, y = turned(*nearest_copy(layer), layer.turn)
    to_field = np.float32(FIELD / (2 * REACH)) / column(layer.radius)
    ix = np.clip(x * to_field + FIELD / 2, 0, FIELD - 1).astype(np.int32)
    iy = np.clip(y * to_field + FIELD / 2, 0, FIELD - 1).astype(np.int32)
    outline = np.asarray(layer.outline, np.int32)[:, None, None]
    distance = fields().reshape(-1)[(outline * FIELD + iy) * FIELD + ix] * column(layer.radius)  # pixels
    cover = np.clip(0.5 - distance, 0, 1)
    width = np.clip(column(layer.radius) * 0.16, 1.4, 3.4)
    rim = np.clip(distance + width + 0.5, 0, 1)  # 1 near the edge, inside
    pattern = look_up_tile(layer.tile, x, y, layer.period)
    hollow, sketch, painting = (column(a) for a in (layer.hollow, style == SKETCH, style == PAINTING))
    cover = cover * np.where(hollow > 0, rim, 1)
    # a sketch is pencil on paper: the edge and the fill's dark part; a painting has a thick dark edge
    pencil = np.maximum(np.maximum(rim * np.clip(distance + 2.2, 0, 1), pattern * 0.75), 0.25 * (1 - hollow))
    for c in range(3):
        ink, second = column(layer.ink[:, c]), column(layer.second[:, c])
        colour = ink + (second - ink) * pattern
        if sketch.any():
            colour = np.where(sketch > 0, PAPER[c] + (PENCIL[c] - PAPER[c]) * pencil, colour)
        if painting.any():
            colour = colour + (np.float32(20) - colour) * rim * painting * 0.8
        canvas[:, c] += (colour - canvas[:, c]) * cover


def paint_backdrop(b: Backdrop, style: np.ndarray) -> np.ndarray:
    """(N, 3, S, S) float32 in 0..255."""
    n, axis = len(b.tile), pixel_axis()
    mixed = np.broadcast_to(column(b.gradient) * (1 - axis[None, :, None] / SIZE), (n, SIZE, SIZE)).copy()
    rows = np.flatnonzero(b.tint > 0)
    if len(rows):
        x, y = turned(
            axis[None, None, :] + column(b.shift[rows] * 40),
            axis[None, :, None] + column(b.horizon[rows]),
            b.turn[rows],
        )
        mixed[rows] = look_up_tile(b.tile[rows], x, y, b.period[rows]) * column(b.tint[rows])
    canvas = np.stack([column(b.low[:, c]) + column(b.high[:, c] - b.low[:, c]) * mixed for c in range(3)], 1)
    rows = np.flatnonzero(b.ground > 0)
    if len(rows):
        index = (np.floor(axis[None] / SIZE * 0.8 * PROFILE + b.shift[rows, None] * PROFILE).astype(np.int64)) % PROFILE
        skyline = b.horizon[rows, None] - b.relief[rows, None] * profiles()[b.ground[rows, None], index]  # (n, S)
        below = np.clip(axis[None, :, None] - skyline.astype(np.float32)[:, None, :] + 0.5, 0, 1)
        full = np.broadcast_to(axis[None, None, :], below.shape), np.broadcast_to(axis[None, :, None], below.shape)
        pattern = look_up_tile(b.earth_tile[rows], *full, np.full(len(rows), 9.0))
        for c in range(3):
            earth = column(b.earth[rows, c]) + column(b.earth2[rows, c] - b.earth[rows, c]) * pattern
            canvas[rows, c] += (earth - canvas[rows, c]) * below
    sketch = column(style == SKETCH)[:, None]
    if sketch.any():
        gray = canvas.mean(1, keepdims=True)
        canvas = np.where(sketch > 0, PAPER[None, :, None, None] - (255 - gray) * 0.12, canvas)
    return canvas


def finish(canvas: np.ndarray, s: Scenes) -> np.ndarray:
    """What the medium does to a picture: a painting's turned palette, a noisy picture's grain, haze and bars."""
    u = {
        name: uniforms(s.keys, name)
        for name in ("grain-x", "grain-y", "bar", "bar-place", "haze", "grain-amount", "palette")
    }
    ox, oy = ((u[name] * (GRAIN - SIZE)).astype(int) for name in ("grain-x", "grain-y"))
    noise = np.stack([grain()[j : j + SIZE, i : i + SIZE] for i, j in zip(ox, oy, strict=True)])[:, None]
    noisy = s.style == NOISY
    painting = np.flatnonzero(s.style == PAINTING)
    if len(painting):
        part = np.round(canvas[painting] / 51) * 51  # few tones
        order = (u["palette"][painting] * 3).astype(int)
        canvas[painting] = np.stack(
            [255 - p if o == 2 else p[[1, 2, 0]] if o == 1 else p[[2, 0, 1]] for o, p in zip(order, part, strict=True)]
        )
    rows = np.flatnonzero(noisy)
    if len(rows):
        haze = column(0.35 + 0.4 * u["haze"][rows])[:, None]
        canvas[rows] = 128 + (canvas[rows] - 128) * haze
        across = pixel_axis()[None, None, :] - column(10 + 44 * u["bar-place"][rows])
        across = np.where(column(u["bar"][rows] < 0.5) > 0, across, np.swapaxes(across, 1, 2))
        bar = np.clip(4 - np.abs(across), 0, 1)[:, None]
        canvas[rows] += (90 - canvas[rows]) * bar
    amount = np.where(noisy, 14 + 18 * u["grain-amount"], 3 + 5 * u["grain-amount"]).astype(np.float32)
    canvas += noise * amount[:, None, None, None]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def render(scenes: Scenes) -> np.ndarray:
    """(N, 3, SIZE, SIZE) uint8 pictures of N scenes."""
    out = np.empty((len(scenes), 3, SIZE, SIZE), np.uint8)
    ground, layers = lay_out(scenes)
    for start in range(0, len(scenes), CHUNK):
        part = slice(start, start + CHUNK)
        style = scenes.style[part]
        canvas = paint_backdrop(ground.rows(part), style)
        for layer in layers:
            on = np.flatnonzero(layer.on[part]) + start
            if len(on):
                some = canvas[on - start]
                paint_layer(some, layer.rows(on), scenes.style[on])
                canvas[on - start] = some
        out[part] = finish(canvas, scenes.rows(part))
    return out
