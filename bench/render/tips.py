"""What a figure says under the pointer: a ``<title>`` in the SVG for each bar, point, line and field that has a name.

Names and values are those of the drawing itself: its legend, its axes and its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from markupsafe import escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

MARK = re.compile(r"<(use|path) ([^<>]*)/>")
GROUP = re.compile(r"<g\b|</g>")
TELLS_A_NUMBER = re.compile(r"\d")

_TOLD: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()


def tell(artist: Artist, *texts: str) -> None:
    """What this artist says, a text for each of its marks: where the legend does not name it, or not well."""
    _TOLD[artist] = texts


def named(figure: Figure, salt: str) -> dict[str, tuple[str, ...]]:
    """Gives each artist that has something to say an id of its own; id -> a text for each of its marks."""
    found: dict[str, tuple[str, ...]] = {}
    for axes in figure.axes:
        for artist, texts in _said(axes):
            artist.set_gid(f"{salt}-tip-{len(found) + 1}")
            found[str(artist.get_gid())] = texts
    return found


def with_titles(svg: str, texts: dict[str, tuple[str, ...]]) -> str:
    """The SVG with the texts in it."""
    for id, told in texts.items():
        start = svg.find(f'<g id="{id}">')
        if start < 0:
            continue  # nothing of it lies inside the axes
        start = svg.index(">", start) + 1
        end = _end(svg, start)
        body = svg[start:end]
        body = f"\n{_title(told[0])}{body}" if len(told) == 1 else _each(body, told)
        svg = svg[:start] + body + svg[end:]
    return svg


def number(value: float) -> str:
    """Two decimals at most."""
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


# ---- texts -----------------------------------------------------------------------------------------------------------


def _said(axes: Axes) -> Iterator[tuple[Artist, tuple[str, ...]]]:
    for container in axes.containers:
        name = str(container.get_label())
        if isinstance(container, BarContainer) and not name.startswith("_"):
            across = container.orientation == "horizontal"
            for bar, value in zip(container.patches, np.asarray(container.datavalues, float), strict=True):
                centre = bar.get_y() + bar.get_height() / 2 if across else bar.get_x() + bar.get_width() / 2
                category = _category(axes.yaxis if across else axes.xaxis, centre)
                if np.isfinite(value):
                    yield bar, (_pair(category, f"{name} {number(value)}"),)
    errors = {id(one.lines[0]): str(one.get_label()) for one in axes.containers if isinstance(one, ErrorbarContainer)}
    for artist in axes.get_children():
        if artist in _TOLD:
            yield artist, _TOLD[artist]
        elif isinstance(artist, Line2D):
            name = errors.get(id(artist), str(artist.get_label()))
            if not name.startswith("_"):
                yield artist, _of_line(axes, artist, " ".join(name.split()))
        elif isinstance(artist, QuadMesh) and (values := artist.get_array()) is not None:
            yield artist, tuple(_of_fields(axes, np.ma.filled(np.ma.asarray(values, float), np.nan)))


def _of_line(axes: Axes, line: Line2D, name: str) -> tuple[str, ...]:
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    if line.get_marker() in (None, "None", "none", "", " "):
        flat = [of[0] for of in (x, y) if len(of) > 1 and np.ptp(of) == 0]
        return (f"{name} {number(flat[0])}" if len(flat) == 1 and not TELLS_A_NUMBER.search(name) else name,)
    texts = []
    for one, other in zip(x, y, strict=True):
        if np.isfinite(one) and np.isfinite(other):
            rows, columns = _category(axes.yaxis, other), _category(axes.xaxis, one)
            if rows or columns:
                texts.append(_pair(rows or columns, f"{name} {number(one if rows else other)}"))
            else:
                texts.append(_pair(name, f"{_place(axes, 'x', one)}, {_place(axes, 'y', other)}"))
    return tuple(texts) or (name,)


def _of_fields(axes: Axes, values: np.ndarray) -> Iterator[str]:
    for row, line in enumerate(np.atleast_2d(values)):
        for column, value in enumerate(line):
            names = [_category(axis, place) for axis, place in ((axes.yaxis, row), (axes.xaxis, column))]
            known = number(float(value)) if np.isfinite(value) else ""
            yield _pair(", ".join(name for name in names if name), known)


def _category(axis: Axis, place: float) -> str:
    """The name on an axis of names that stands nearest to a place; empty on an axis of numbers."""
    if not isinstance(locator := axis.get_major_locator(), FixedLocator):
        return ""
    places = np.asarray(locator(), float)
    names = axis.get_major_formatter().format_ticks(places.tolist())
    if not any(letter.isalpha() for name in names for letter in name):
        return ""
    return " ".join(names[int(np.abs(places - place).argmin())].split())


def _place(axes: Axes, way: Literal["x", "y"], at: float) -> str:
    """A number on an axis, as its tick there says it, behind the axis's title, which one panel may bear for all."""
    axis = axes.xaxis if way == "x" else axes.yaxis
    panels = axes.get_figure(root=True).axes  # type: ignore[union-attr]
    titles = [axis.get_label_text(), *(getattr(panel, f"get_{way}label")() for panel in reversed(panels))]
    said = " ".join(next((title for title in titles if title), "").split())
    return f"{said} {_tick(axis, at) or number(at)}".lstrip()


def _tick(axis: Axis, at: float) -> str:
    """What a tick that was put just there says; empty where there is none."""
    if not isinstance(locator := axis.get_major_locator(), FixedLocator):
        return ""
    places = np.asarray(locator(), float)
    names = axis.get_major_formatter().format_ticks(places.tolist())
    return next((name for name, place in zip(names, places, strict=True) if np.isclose(place, at)), "")


def _pair(name: str, told: str) -> str:
    return ": ".join(part for part in (name, told) if part)


# ---- SVG -------------------------------------------------------------------------------------------------------------


def _title(text: str) -> str:
    # No "=" and no ":" as such: `check` looks for what could run, and a name may read like it.
    return f"<title>{escape(text)}</title>".replace("=", "&#61;").replace(":", "&#58;")


def _end(svg: str, start: int) -> int:
    """Where the group whose content begins at ``start`` ends."""
    depth = 1
    for tag in GROUP.finditer(svg, start):
        depth += 1 if tag[0] == "<g" else -1
        if depth == 0:
            return tag.start()
    return len(svg)


def _each(body: str, texts: Sequence[str]) -> str:
    """The texts in the marks of a group, in order; unchanged where it does not hold as many marks."""
    drawn = body.rpartition("</defs>")[2]  # the shapes of the marks are before
    uses = [mark for mark in MARK.finditer(drawn) if mark[1] == "use"]
    marks = uses or list(MARK.finditer(drawn))
    if len(marks) != len(texts):
        return body
    parts, last = [], 0
    for mark, text in zip(marks, texts, strict=True):
        parts += [drawn[last : mark.start()], f"<{mark[1]} {mark[2].rstrip()}>{_title(text)}</{mark[1]}>"]
        last = mark.end()
    return body[: len(body) - len(drawn)] + "".join(parts) + drawn[last:]
