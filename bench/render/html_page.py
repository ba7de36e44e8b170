"""The report's parts as one HTML page: a first screen, then sections that open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from carryover.bench.render.pages import render, slug

# (kind, content) in plain text; `templates/parts.html` has a macro for each kind:
#   title, text, list, command, verdict (the sentence of the first screen): text or texts
#   subheading: the title of a table within a section
#   heading: a title; begins a section, which is folded; what stands before the first is the first screen
#   link: (text, file); files: [(text, file), …], links beside a table; files by their path from the report's folder
#   warning: (head, lines, causes); sheet, block, grid: as in `sheets.py`
#   figure: (file stem, caption, SVG); gallery: pictures as in `gallery.py`
Part = tuple[str, Any]


@dataclass
class Section:
    """``id``: what an address ends in to open it; ``groups``: its parts, from each subheading to the next."""

    title: str
    id: str
    groups: list[list[Part]] = field(default_factory=list)


def html_page(parts: Sequence[Part]) -> str:
    """The whole page; the first part is its title."""
    first, sections = in_sections(parts[1:])
    return render("report.html", title=parts[0][1], first=first, sections=sections)


def in_sections(parts: Sequence[Part]) -> tuple[list[Part], list[Section]]:
    """What stands before the first heading, and the section of each heading."""
    first: list[Part] = []
    sections: list[Section] = []
    for kind, content in parts:
        if kind == "heading":
            taken = {section.id for section in sections}
            id = "-".join(filter(None, slug(content.lower()).split("-"))) or "section"
            sections.append(Section(content, id if id not in taken else f"{id}-{len(sections) + 1}"))
        elif not sections:
            first.append((kind, content))
        elif kind == "subheading" or not sections[-1].groups:
            sections[-1].groups.append([(kind, content)])
        else:
            sections[-1].groups[-1].append((kind, content))
    return first, sections
