"""The check that nothing was lost between predictions, records and the table on disk."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from carryover.bench.analyses.known_zero_shot import Answer, compare, known_path, known_text
from carryover.bench.plan.runs import key_of
from carryover.bench.records import recount
from carryover.bench.records.reading import Predictions, Record
from carryover.bench.records.selection import Selection
from carryover.bench.report.outputs import made_from, names
from carryover.bench.report.report import texts

DRAWN = re.compile(r"<svg.*?</svg>", re.DOTALL)


def recompute(
    selection: Selection, predictions: Callable[[str], Predictions], out_dir: Path | None = None
) -> list[str]:
    """Every difference between stored predictions, the records and the tables on disk, one line each; [] is agreement.

    predictions: see `stats.recount`. The tables are made anew from the predictions, not from the records' accuracies,
    and compared cell by cell with `tables/*.csv`, line by line with their `.md` and `.tex`, under out_dir
    (`results/<arch>`; not compared without one).
    """
    remade, lines = recount.recount(selection.records, predictions)
    if out_dir is None:
        return lines
    folder, made = Path(out_dir) / "tables", made_from(selection.replaced(remade))
    for name, table in made.items():
        lines += _table_differences(table.csv, folder / f"{name}.csv", len(table.keys), table.decimals)
        for ending, text in table.texts.items():
            lines += text_differences(text, folder / f"{name}.{ending}")
    others = [folder / f"{name}.csv" for name in sorted(names() - {*made})]
    lines += [f"{path}: no record here is of this table" for path in others if path.is_file()]
    known = {*made, *names(), known_path(folder).stem}
    strange = [path for path in sorted(folder.glob("*.csv")) if path.stem not in known]
    return lines + [
        f"{path}: no analysis of this call makes this table; name the folder of its file by --plugin-dir"
        for path in strange
    ]


def recompute_report(
    selection: Selection,
    predictions: Callable[[str], Predictions],
    out_dir: Path,
    answers: Sequence[Answer],
    given: str,
) -> list[str]:
    """The first line of `report.md` and of `report.html` (its figures apart, whose bytes depend on matplotlib) that is
    not what the stored predictions give."""
    remade = selection.replaced(recount.recount(selection.records, predictions)[0])
    markdown, page = texts(remade, answers, given)
    lines = text_differences(markdown, Path(out_dir) / "report.md")
    return lines + text_differences(page, Path(out_dir) / "report.html", DRAWN)


def recompute_known(selection: Selection, predictions: Callable[[str], Predictions], out_dir: Path) -> list[str]:
    """The first line of `tables/known.csv` that is not what stored predictions and stored answers give."""
    arch = selection.arch.id
    remade = selection.replaced(recount.recount(selection.records, predictions)[0])
    fresh = known_text(compare(remade.main, out_dir, arch), arch)
    return [] if fresh is None else text_differences(fresh, known_path(out_dir))


def text_differences(fresh: str, path: Path, apart: re.Pattern | None = None) -> list[str]:
    """A line for a file that is not there, or for its first line that is another."""
    if not path.is_file():
        return [f"{path}: not there; `run_all.py report` writes it"]
    want, have = (apart.sub("", text) if apart else text for text in (fresh, path.read_text(encoding="utf-8")))
    pairs = zip_longest(want.splitlines(), have.splitlines(), fillvalue="")
    for number, (expected, found) in enumerate(pairs, 1):
        if expected != found:
            start = max(0, next(i for i in range(len(expected) + 1) if expected[: i + 1] != found[: i + 1]) - 30)
            shown = [repr(text[start : start + 60]) for text in (found, expected)]
            return [f"{path}: line {number} has {shown[0]}, recomputed {shown[1]}"]
    return []


def renamed(records: Iterable[Record]) -> list[str]:
    """A line for each record whose key is not that of the run and identity it holds: one of them was changed by hand,
    and its numbers stand in another run's row."""
    lines = []
    for record in records:
        run = record["run"]
        if record.get("key") != key_of(run, record.get("identity")):
            lines.append(
                f"{record.get('key')} ({run['dataset']}, {run['method']}, seed {run['seed']}): not the key of its run"
            )
    return lines


def _table_differences(fresh: str, path: Path, keys: int, decimals: int) -> list[str]:
    if not path.is_file():
        return [f"{path}: not there; `run_all.py report` writes it"]
    (header, *ours), (found_header, *theirs) = csv.reader(io.StringIO(fresh)), _rows(path)
    if header != found_header:
        return [f"{path}: columns are {found_header!r}, expected {header!r}"]
    expected, found = ({tuple(row[:keys]): row for row in rows} for rows in (ours, theirs))
    lines = [f"{path}: row {row!r} is not in the records" for row in found if row not in expected]
    lines += [f"{path}: {len(theirs) - len(found)} repeated row(s)"] if len(theirs) != len(found) else []
    for row, cells in expected.items():
        if row not in found or len(found[row]) != len(cells):
            lines.append(f"{path}: row {row!r} is missing or cut")
            continue
        for name, want, have in zip(header[keys:], cells[keys:], found[row][keys:], strict=True):
            if not _same(want, have, decimals):
                lines.append(f"{path}: {name} of {row!r} is {have!r}, recomputed {want!r}")
    return lines


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row] or [[]]


def _same(want: str, have: str, decimals: int) -> bool:
    try:  # one unit of the last printed place: another machine may round a tie the other way
        return want == have or abs(float(want) - float(have)) <= 1.01 * 10**-decimals
    except ValueError:
        return False
