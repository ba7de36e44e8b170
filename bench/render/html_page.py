"""The report's parts as one HTML page: no script, nothing fetched, light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carryover.bench.render.pages import render

# (kind, content) in plain text; `templates/parts.html` has a macro for each kind: title, heading, text, link, list,
# warning, sheet, block, command, and figure: (file stem, caption, SVG)
Part = tuple[str, Any]


def html_page(parts: Sequence[Part]) -> str:
    """The whole page; the first part is its title."""
    return render("report.html", title=parts[0][1], parts=with_contents(parts))


def with_contents(parts: Sequence[Part]) -> list[Part]:
    """Headings numbered, and links to them in front of the first."""
    made: list[Part] = []
    headings: list[tuple[str, str]] = []
    for kind, content in parts:
        if kind == "heading":
            headings.append((f"part-{len(headings) + 1}", content))
            content = headings[-1]
        made.append((kind, content))
    first = next((i for i, (kind, _) in enumerate(made) if kind == "heading"), len(made))
    return [*made[:first], ("contents", headings), *made[first:]] if len(headings) > 1 else made
