"""The audit as one HTML page: nothing fetched, light and dark, readable on a phone.

What `templates/audit.html` shows, in plain text: a chapter for each table of the paper, in it a place for each dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from carryover.bench.analyses import audit
from carryover.bench.analyses.ood import AVERAGE as OOD_AVERAGE
from carryover.bench.analyses.parts import misprints
from carryover.bench.host.files import write_text
from carryover.bench.records.printed import PAPER_METHODS
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.pages import render, slug
from carryover.bench.render.sheets import MISSING, percent
from carryover.datasets.layouts import LAYOUTS

SIGNS = dict(zip(audit.VERDICTS, ("=", "▲", "▼", "1", MISSING), strict=True))
NAMES = {"base": "Base", "new": "New", "h": "H", AVERAGE: "Average", OOD_AVERAGE: "Average of shifted"}


@dataclass(frozen=True)
class Line:
    """One printed cell; ``numbers``: paper, ours, difference, interval; ``note``: which of its place, 0 of none."""

    name: str
    note: int
    numbers: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Group:
    """A row of the paper; ``commands``: (the sets it runs, where that is not all of the group; words)."""

    name: str
    seeds: str
    commands: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Place:
    """One table of the page; without a title where it is its chapter's only one."""

    title: str
    id: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Chapter:
    """A table of the paper; ``glance``: each dataset of a main table with (column, verdict) of each of the methods."""

    name: str
    id: str
    remark: str
    counts: dict[str, int]
    methods: tuple[str, ...]
    glance: tuple[tuple[Place, list[list[tuple[str, str]]]], ...]
    places: tuple[Place, ...]


def write_page(selection: Selection, folder: Path) -> Path | None:
    """Writes `audit.html` under folder (`results/<arch>`); nothing for an arch that the paper does not print."""
    text = page_text(selection)
    if text is None:
        return None
    path = Path(folder) / audit.PAGE
    write_text(path, text)
    return path


def page_text(selection: Selection) -> str | None:
    """The page; None for an arch that the paper does not print."""
    table = audit.audit_table(selection)
    return None if table is None else audit_html(selection.arch.id, table, audit.not_comparable(selection))


def audit_html(arch: str, table: pd.DataFrame, reason: str = "") -> str:
    """The whole page of an `audit.audit_table`. ``reason``: see `audit.not_comparable`."""
    return render(
        "audit.html",
        title=f"Audit of the paper's numbers: {arch}",
        summary=audit.summary(table, reason),
        arch=arch,
        signs=SIGNS,
        missing=MISSING,
        slack=audit.SLACK,
        chapters=[chapter(table[table["table"] == name]) for name in dict.fromkeys(table["table"])],
        whole=audit.counts(table),
        not_run=audit.missing(table),
    )


def chapter(table: pd.DataFrame) -> Chapter:
    name, methods = table["table"].iloc[0], list(dict.fromkeys(table["row"]))
    main = name in audit.MAIN_TABLES.values()
    parts = [(id, part) for id, part in table.groupby("dataset", sort=False)] if main else [("", table)]
    places = tuple(place(part, shown(id), anchor(name, id)) for id, part in parts)
    fields = [[field(part[part["row"] == method]) for method in methods] for _, part in parts]
    return Chapter(
        name,
        anchor(name),
        misprints.OF_TABLES.get(name, ""),
        audit.counts(table),
        tuple(map(shown, methods)),
        tuple(zip(places, fields, strict=True)) if main else (),
        places,
    )


def field(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What the map shows of one method on one dataset."""
    return [(NAMES[row.column], row.verdict) for row in rows.itertuples()]


def place(rows: pd.DataFrame, title: str, id: str) -> Place:
    notes = tuple(dict.fromkeys(text for text in rows["note"] if text))
    return Place(title, id, tuple(groups(rows, notes)), notes)


def groups(rows: pd.DataFrame, notes: tuple[str, ...]) -> Iterator[Group]:
    by_set = rows["table"].iloc[0] == "Table 3"
    for name, mine in rows.groupby("row", sort=False):
        seeds = sorted(set(mine["seeds"]) - {0})
        yield Group(
            shown(name),
            f"{' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}" if seeds else "",
            tuple(
                (", ".join(map(shown, part["dataset"])) if by_set else "", words)
                for words, part in mine.groupby("command", sort=False)
            ),
            tuple(line(row, shown(row.dataset if by_set else row.column), notes) for row in mine.itertuples()),
        )


def line(row, name: str, notes: tuple[str, ...]) -> Line:
    difference = MISSING if np.isnan(row.difference) else f"{row.difference:+.2f}"
    between = MISSING if np.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
    note = notes.index(row.note) + 1 if row.note else 0
    return Line(name, note, (f"{row.paper:.2f}", percent(row.ours), difference, between), row.verdict)


def shown(id: str) -> str:
    """A method's or dataset's display name; a label as it is."""
    return NAMES.get(id) or PAPER_METHODS.get(id) or (LAYOUTS[id].name if id in LAYOUTS else id)


def anchor(*names: str) -> str:
    return "-".join(slug(name.lower()) for name in names if name)
