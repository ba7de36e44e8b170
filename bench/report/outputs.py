"""Every table and figure of a results folder, written: what the registered analyses make of a selection of records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from carryover.bench.analyses.base import Table, ordered
from carryover.bench.host.files import write_text
from carryover.bench.records.selection import Selection
from carryover.bench.render import figures
from carryover.bench.report.drawings import drawn


def made_from(selection: Selection) -> dict[str, Table]:
    """Every table by its file name, in the order of the report."""
    return {name: table for analysis in ordered() for name, table in analysis.made(selection).items()}


def names() -> set[str]:
    """Of all tables that are taken away where nothing is of them any more."""
    return {name for analysis in ordered() for name in analysis.names or (analysis.id,)}


def write_tables(selection: Selection, folder: Path) -> list[Path]:
    """Writes `tables/<name>.csv` and, for what has a sheet, `.md` and `.tex` under folder (`results/<arch>`), each
    whole or not at all; takes away those without records: tables beside each other are of one selection."""
    written = []
    for name, table in made_from(selection).items():
        for ending, text in {"csv": table.csv, **table.texts}.items():
            written.append(Path(folder) / "tables" / f"{name}.{ending}")
            write_text(written[-1], text)
    remove_others(written, Path(folder) / "tables", names())
    return written


def write_figures(selection: Selection, folder: Path) -> list[Path]:
    """Writes every figure that has something to show as `figures/<name>.svg` and `.png` under folder."""
    known = {drawing.name for analysis in ordered() for drawing in analysis.drawings}
    written = []
    for name, (figure, svg) in drawn(selection).items():
        written += figures.save(figure, Path(folder) / "figures" / name, svg)
    remove_others(written, Path(folder) / "figures", known)
    return written


def remove_others(written: Iterable[Path], folder: Path, names: Iterable[str]) -> None:
    """Files of these names that an earlier call wrote there and this one did not."""
    for path in folder.glob("*.*"):
        if path.stem in names and path not in written:
            path.unlink(missing_ok=True)
