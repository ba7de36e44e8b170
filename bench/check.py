"""The check that nothing was lost between predictions, records and the table on disk."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import stats
from bench.stats import Predictions, Record
from bench.tables import CSV_DECIMALS, csv_text, main_tables


def recompute(
    records: Iterable[Record], predictions: Callable[[str], Predictions], out_dir: Path | None = None
) -> list[str]:
    """Every difference between stored predictions, the records and the table on disk, one line each; [] is agreement.

    predictions: see `stats.recount`. The table is made anew from the predictions, not from the records' accuracies,
    and compared cell by cell with `tables/*.csv` under out_dir (`results/<arch>`; not compared without one).
    """
    remade, lines = stats.recount(records, predictions)
    if out_dir is None or not remade:
        return lines
    for name, (frame, _) in main_tables(remade, remade[0]["run"]["arch"]).items():
        lines += _table_differences(csv_text(frame), Path(out_dir) / "tables" / f"{name}.csv")
    return lines


def _table_differences(fresh: str, path: Path) -> list[str]:
    if not path.is_file():
        return [f"{path}: not there; `run_all.py report` writes it"]
    (header, *ours), (found_header, *theirs) = csv.reader(io.StringIO(fresh)), _rows(path)
    if header != found_header:
        return [f"{path}: columns are {found_header!r}, expected {header!r}"]
    expected, found = ({tuple(row[:2]): row for row in rows} for rows in (ours, theirs))
    lines = [f"{path}: row {row!r} is not in the records" for row in found if row not in expected]
    lines += [f"{path}: {len(theirs) - len(found)} repeated row(s)"] if len(theirs) != len(found) else []
    for row, cells in expected.items():
        if row not in found or len(found[row]) != len(cells):
            lines.append(f"{path}: row {row!r} is missing or cut")
            continue
        for name, want, have in zip(header[2:], cells[2:], found[row][2:], strict=True):
            if not _same(want, have):
                lines.append(f"{path}: {name} of {row!r} is {have!r}, recomputed {want!r}")
    return lines


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row] or [[]]


def _same(want: str, have: str) -> bool:
    try:  # one unit of the last printed place: another machine may round a tie the other way
        return want == have or abs(float(want) - float(have)) <= 1.01 * 10**-CSV_DECIMALS
    except ValueError:
        return False
