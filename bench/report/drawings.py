"""Figures drawn anew and compared with those on disk and in the page.

What matplotlib draws depends on its version, and on the processor in digits that nobody sees: drawings are compared
number by number, pictures pixel by pixel. Where the version is another one, the page's figures must be those of the
files, which `bench.report.written` knows by sha256.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from carryover.bench.analyses.base import ordered
from carryover.bench.records.reading import counted
from carryover.bench.records.selection import Selection
from carryover.bench.render import figures

DRAWN = re.compile(r"<svg.*?</svg>", re.DOTALL)
NAMED = re.compile(r"^!\[.*\]\(figures/([^()/]+)\.svg\)$", re.MULTILINE)  # a figure in the Markdown report
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
OWN_ID = re.compile(r"\b[a-z][0-9a-f]{10}\b")  # of a clip path or marker: a hash of its numbers
VERSION = re.compile(r"Matplotlib v([\w.+]+)")
ACTIVE = re.compile(r"<\s*(script|foreignObject|iframe|object|embed)\b|\son\w+\s*=|javascript:", re.IGNORECASE)
POINTS = 0.02  # by which two processors may place a line apart
LEVELS = 64  # of 255, by which edges of lines so placed may differ


def drawn(selection: Selection) -> dict[str, tuple[Figure, str]]:
    """Every figure that has something to show, with its SVG, by name."""
    found = {}
    for analysis in ordered():
        for drawing in analysis.drawings:
            if (figure := analysis.drawn(drawing, selection)) is not None:
                found[drawing.name] = figure, analysis.svg(drawing, selection)
    return found


def differences(selection: Selection, out_dir: Path) -> list[str]:
    """A line for each figure under ``figures/`` that is not what the records give."""
    folder, made = Path(out_dir) / "figures", drawn(selection)
    lines = []
    for name, (figure, svg) in made.items():
        vector, raster = folder / f"{name}.svg", folder / f"{name}.png"
        lines += [f"{path}: not there; `run_all.py report` draws it" for path in (vector, raster) if not path.is_file()]
        found = text_of(vector)
        if found is None:
            lines += [f"{vector}: cannot be read as text"] if vector.is_file() else []
            continue
        same = version(found) == matplotlib.__version__
        lines += [f"{vector}: {wrong}" for wrong in of_svg(found, svg, same)]
        if same and raster.is_file() and not alike_pictures(raster, figures.png_bytes(figure)):
            lines.append(f"{raster}: shows other than the records give")
    known = {drawing.name for analysis in ordered() for drawing in analysis.drawings}
    expected = {f"{name}.{ending}" for name in made for ending in ("svg", "png")}
    for path in sorted(folder.glob("*.*")):
        if path.suffix.lower() in (".svg", ".png") and not path.name.startswith(".") and path.name not in expected:
            what = "no record here is of this figure" if path.stem in known else "no analysis of this call draws this"
            lines.append(f"{path}: {what}")
    return lines


def of_svg(found: str, fresh: str, same: bool) -> Iterator[str]:
    """What is wrong with a drawing; ``same``: it names this matplotlib, so must be alike what was drawn anew."""
    if active := ACTIVE.search(found):
        yield f"holds what could run: {active[0].strip()!r}"
    elif version(found) is None:
        yield "does not name the matplotlib that drew it"
    elif same and not alike(found, fresh):
        yield "is not what the records give"


def of_page(found: str, fresh: str, markdown: str, out_dir: Path) -> list[str]:
    """A line for each figure of ``report.html`` that is neither the one drawn anew nor that of its file. ``fresh`` and
    ``markdown``: the page and the report as the records give them."""
    path, names = Path(out_dir) / "report.html", NAMED.findall(markdown)
    theirs, ours = DRAWN.findall(found), DRAWN.findall(fresh)
    if len(theirs) != len(ours):
        return [f"{path}: holds {len(theirs)} figures, recomputed {len(ours)}"]
    lines = []
    for name, mine, other in zip(names, ours, theirs, strict=True):
        if active := ACTIVE.search(other):
            lines.append(f"{path}: figure {name} holds what could run: {active[0].strip()!r}")
            continue
        file = text_of(Path(out_dir) / "figures" / f"{name}.svg") or ""
        inline = (
            str(figures.inline_svg(file, name)) if "<svg" in file and version(file) != matplotlib.__version__ else ""
        )
        stored = inline.partition(">")[2]
        if not alike(other, mine) and not (stored and other.partition(">")[2] == stored):
            lines.append(f"{path}: figure {name} is neither what the records give nor that of its file")
    return lines


def of_other_versions(out_dir: Path) -> str:
    """How many figures cannot be compared with what is drawn here; empty where all can."""
    found = [version(text_of(path) or "") for path in (Path(out_dir) / "figures").glob("*.svg")]
    count = sum(one is not None and one != matplotlib.__version__ for one in found)
    return counted(count, "figure") if count else ""


def text_of(path: Path) -> str | None:
    """None where there is no such file, or no text in it."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def version(svg: str) -> str | None:
    """Of the matplotlib that drew it, as the file says."""
    found = VERSION.search(svg)
    return found[1] if found else None


def alike(one: str, other: str) -> bool:
    """Whether two drawings are the same but for digits that nobody sees."""
    if one == other:
        return True
    texts = [ordered_ids(text) for text in (one, other)]
    if NUMBER.sub("#", texts[0]) != NUMBER.sub("#", texts[1]):
        return False
    mine, theirs = ([float(number) for number in NUMBER.findall(text)] for text in texts)
    return bool(np.allclose(mine, theirs, rtol=1e-5, atol=POINTS))


def ordered_ids(svg: str) -> str:
    """Ids that are hashes, by the order in which they first stand."""
    places: dict[str, str] = {}
    return OWN_ID.sub(lambda found: places.setdefault(found[0], f"id-{len(places)}-"), svg)


def alike_pictures(path: Path, fresh: bytes) -> bool:
    """Whether a picture shows the same, whatever its compression."""
    try:
        with Image.open(path) as one, Image.open(io.BytesIO(fresh)) as other:
            mine, theirs = (np.asarray(image.convert("RGBA"), np.int16) for image in (one, other))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return mine.shape == theirs.shape and bool(np.abs(mine - theirs).max() <= LEVELS)
