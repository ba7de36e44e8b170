"""Figures made from records alone, as SVG and PNG whose bytes depend on the records and the matplotlib version only."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure  # no pyplot: it would keep every figure alive and choose a screen backend

from carryover.bench import places
from carryover.bench.host.files import whole, write_text
from carryover.bench.render import tips

MARKERS = {"base": "o", "new": "s", "h": "^"}  # told apart without colour
PANEL_INCHES, LEGEND_INCHES = 2.5, 0.5

# Okabe and Ito's palette, told apart by readers with any of the common colour deficiencies; black text reads on all.
COLOURS = {"base": "#56B4E9", "new": "#E69F00", "h": "#009E73"}
LABELS = {"base": "Base", "new": "New", "h": "H"}
INK = "#222222"  # axes and text, exchanged for the page's own text colour where a figure is put into HTML
WHISKER = "#5a5a5a"  # seen on every bar and on a light or dark page
PAPER = "#ffffff"
WIDTH_INCHES = 5.0  # narrow: its text must still be read on a phone
LONGEST_NAME = 24
PNG_DPI = 200
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "svg.fonttype": "path", "text.parse_math": False,
}  # fmt: skip


def inline_svg(svg: str, name: str, description: str = "") -> Markup:
    """A figure's `svg_text` as an <svg> element of an HTML page: no prologue, no fixed size, ink in its text colour."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return Markup(f'{head} role="img" aria-label="{escape(description or name)}">{body}')


def short_label(name: str, depth: str) -> str:
    """A method's name on an axis, cut where it is long, with the mark of its place."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return f"{short} {places.mark(depth)}".rstrip()


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as an SVG file, which says names and values under the pointer."""
    # The salt fixes the ids of clip paths, which are random otherwise; one a figure keeps them apart on one page.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"carryover {salt}"}):
        text, texts = io.StringIO(), tips.named(figure, salt)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in tips.with_titles(text.getvalue(), texts).splitlines()) + "\n"


def save(figure: Figure, stem: Path, svg: str = "") -> list[Path]:
    """Writes stem + ".svg" (``svg``, where it was made before) and ".png"; returns both paths."""
    vector, png = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    write_text(vector, svg or svg_text(figure, stem.name))
    with whole(png) as temporary:
        temporary.write_bytes(png_bytes(figure))
    return [vector, png]


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    made = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(made, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return made.getvalue()


@contextlib.contextmanager
def canvas(height: float, wide: float = 1.0) -> Iterator[Figure]:
    """A figure as wide as a phone shows, or ``wide`` times that, so many inches high; what is drawn inside has the
    style of all figures."""
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(wide * WIDTH_INCHES, height), layout="constrained")


def open_frame(axes, grid: str = "both") -> None:
    """Neither top nor right edge; a faint grid of that axis behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


def stacked(count: int) -> tuple[Figure, list]:
    """A figure with panels one above the other."""
    with canvas(PANEL_INCHES * count + LEGEND_INCHES + 0.6) as figure:
        panels = [figure.add_subplot(count, 1, i + 1) for i in range(count)]
    for axes in panels:
        open_frame(axes, "y")
    return figure, panels


def legend(figure: Figure, panels: list, columns: int = 3) -> None:
    """One for all panels: a line that only a later one has is in it too."""
    with matplotlib.rc_context(STYLE):
        shown = [axes.get_legend_handles_labels() for axes in panels]
        handles = {label: handle for found in reversed(shown) for handle, label in zip(*found, strict=True)}
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            columnspacing=1.1,
        )
