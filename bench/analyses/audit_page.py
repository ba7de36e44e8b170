"""The audit as one HTML page: nothing fetched, light and dark, readable on a phone.

What `templates/audit.html` shows, in plain text: a chapter for each table of the paper, in it a row for each number.
"""

from __future__ import annotations

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
from carryover.bench.render.sheets import MISSING, Cell, Column, Grid, Row, percent, signed
from carryover.datasets.layouts import LAYOUTS

SIGNS = dict(zip(audit.VERDICTS, ("=", "▲", "▼", "1", MISSING), strict=True))
NAMES = {"base": "Base", "new": "New", "h": "H", AVERAGE: "Average", OOD_AVERAGE: "Average of shifted"}
COLUMNS = (
    Column("Dataset", filter=True),
    Column("Row", hint="Of the paper's table", filter=True),
    Column("Column", hint="Of the paper's table", filter=True),
    Column("Verdict", "verdict", filter=True),
    Column("Paper", "number"),
    Column("Ours", "number"),
    Column("Difference", "number", hint="Ours less the paper's"),
    Column("95 % interval", "number", hint="Of our mean over seeds"),
    Column("Seeds", "number"),
)


@dataclass(frozen=True)
class Chapter:
    """A table of the paper: all its cells; ``glance``: each dataset of a main table with (column, verdict) of each of
    the methods."""

    name: str
    id: str
    remark: str
    counts: dict[str, int]
    methods: tuple[str, ...]
    glance: tuple[tuple[str, list[list[tuple[str, str]]]], ...]
    cells: Grid
    notes: tuple[str, ...]


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
    notes = tuple(dict.fromkeys(text for text in table["note"] if text))
    parts = table.groupby("dataset", sort=False) if name in audit.MAIN_TABLES.values() else ()
    return Chapter(
        name,
        slug(name.lower()),
        misprints.OF_TABLES.get(name, ""),
        audit.counts(table),
        tuple(map(shown, methods)),
        tuple((shown(id), [field(part[part["row"] == method]) for method in methods]) for id, part in parts),
        Grid(COLUMNS, tuple(cell_row(row, notes) for row in table.itertuples()), name),
        notes,
    )


def field(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What the map shows of one method on one dataset."""
    return [(NAMES[row.column], row.verdict) for row in rows.itertuples()]


def cell_row(row, notes: tuple[str, ...]) -> Row:
    """One printed cell; it opens to the command that runs it."""
    between = MISSING if np.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
    texts = (f"{row.paper:.2f}", percent(row.ours), signed(row.difference + 0.0), between, str(row.seeds or MISSING))
    names = (Cell(shown(row.dataset)), Cell(shown(row.row)))
    note = (notes.index(row.note) + 1,) if row.note else ()
    told = Cell(f"{SIGNS[row.verdict]} {row.verdict}")
    command = Grid((Column("Command"),), (Row((Cell(row.command),)),))
    return Row((*names, Cell(shown(row.column), notes=note), told, *map(Cell, texts)), command)


def shown(id: str) -> str:
    """A method's or dataset's display name; a label as it is."""
    return NAMES.get(id) or PAPER_METHODS.get(id) or (LAYOUTS[id].name if id in LAYOUTS else id)
