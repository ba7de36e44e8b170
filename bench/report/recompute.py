"""The check that nothing was lost between predictions, records and what is on disk for readers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from carryover.bench.analyses.audit import PAGE
from carryover.bench.analyses.audit_page import page_text
from carryover.bench.analyses.known_zero_shot import Answer, known_path, known_text
from carryover.bench.plan.runs import key_of
from carryover.bench.records import recount
from carryover.bench.records.printed import PAPER_TABLES
from carryover.bench.records.reading import Predictions, Record
from carryover.bench.records.selection import Selection
from carryover.bench.report.drawings import DRAWN, of_page, text_of
from carryover.bench.report.outputs import made_from, names
from carryover.bench.report.report import texts

ENDINGS = (".csv", ".md", ".tex")
NO_RECORD = "no record here is of this table"
NO_ANALYSIS = "no analysis of this call makes this table; name the folder of its file by --plugin-dir"


def recompute(
    selection: Selection, predictions: Callable[[str], Predictions], out_dir: Path | None = None
) -> list[str]:
    """Every difference between stored predictions, the records and the tables on disk, one line each; [] is agreement.

    predictions: see `stats.recount`. The tables are made anew from the predictions, not from the records' accuracies
    (`results/<arch>` is out_dir; not compared without one).
    """
    remade, lines = recounted(selection, predictions)
    return lines if out_dir is None else lines + recompute_tables(remade, out_dir)


def recounted(selection: Selection, predictions: Callable[[str], Predictions]) -> tuple[Selection, list[str]]:
    """The selection with accuracies counted anew, from which all else is made anew, and a line for each difference."""
    remade, lines = recount.recount(selection.records, predictions)
    return selection.replaced(remade), lines


def recompute_tables(remade: Selection, out_dir: Path) -> list[str]:
    """Tables compared cell by cell with `tables/*.csv`, line by line with their `.md` and `.tex`; then what lies
    there beside them."""
    folder, made = Path(out_dir) / "tables", made_from(remade)
    lines, expected = [], {known_path(out_dir)} if remade.arch.id in PAPER_TABLES else set()
    for name, table in made.items():
        path = folder / f"{name}.csv"
        lines += _table_differences(table.csv, path, len(table.keys), table.decimals)
        expected |= {path, *(folder / f"{name}.{ending}" for ending in table.texts)}
        for ending, text in table.texts.items():
            lines += text_differences(text, folder / f"{name}.{ending}")
    known, reported = {*made, *names()}, set()
    for path in sorted(folder.glob("*.*")):
        strange = path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path not in expected
        if strange and path.stem not in reported:
            reported.add(path.stem)
            lines.append(f"{path}: {NO_RECORD if path.stem in known else NO_ANALYSIS}")
    return lines


def recompute_pages(remade: Selection, out_dir: Path, answers: Sequence[Answer], given: str) -> list[str]:
    """The first line of `report.md`, `report.html` and `audit.html` that is not what the stored predictions give, and
    each figure of the page that is not."""
    folder = Path(out_dir)
    markdown, page = texts(remade, answers, given)
    lines = text_differences(markdown, folder / "report.md")
    lines += text_differences(page, folder / "report.html", DRAWN)
    if found := text_of(folder / "report.html"):
        lines += of_page(found, page, markdown, folder)
    audit = page_text(remade)
    if audit is not None:
        return lines + text_differences(audit, folder / PAGE)
    return lines + [f"{folder / PAGE}: no audit is made of these records"] * (folder / PAGE).exists()


def recompute_known(remade: Selection, answers: Sequence[Answer], out_dir: Path) -> list[str]:
    """The first line of `tables/known.csv` that is not what stored predictions and stored answers give."""
    fresh = known_text(answers, remade.arch.id)
    return [] if fresh is None else text_differences(fresh, known_path(out_dir))


def text_differences(fresh: str, path: Path, apart: re.Pattern | None = None) -> list[str]:
    """A line for a file that is not there, or for its first line that is another."""
    if not path.is_file():
        return [f"{path}: not there; `run_all.py report` writes it"]
    if (found := text_of(path)) is None:
        return [f"{path}: is no text in UTF-8"]
    want, have = (apart.sub("", text) if apart else text for text in (fresh, found))
    pairs = zip_longest(want.split("\n"), have.split("\n"), fillvalue="")
    for number, (expected, line) in enumerate(pairs, 1):
        if expected != line:
            start = max(0, next(i for i in range(len(expected) + 1) if expected[: i + 1] != line[: i + 1]) - 30)
            shown = [repr(text[start : start + 60]) for text in (line, expected)]
            return [f"{path}: line {number} has {shown[0]}, recomputed {shown[1]}"]
    return [] if want == have else [f"{path}: ends in other empty lines"]


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
    if (text := text_of(path)) is None:
        return [f"{path}: is no text in UTF-8"]
    (header, *ours), (found_header, *theirs) = rows_of(fresh), rows_of(text) or [[]]
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
    if not lines and [*found] != [*expected]:
        lines.append(f"{path}: its rows are in another order")
    if not lines and as_csv([found_header, *theirs]) != text:
        lines.append(f"{path}: its lines end, or its cells are quoted, in another way than runs write them")
    return lines


def rows_of(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def as_csv(rows: Iterable[Sequence[str]]) -> str:
    made = io.StringIO(newline="")
    csv.writer(made, lineterminator="\n").writerows(rows)
    return made.getvalue()


def _same(want: str, have: str, decimals: int) -> bool:
    try:  # one unit of the last printed place: another machine may round a tie the other way
        return want == have or abs(float(want) - float(have)) <= 1.01 * 10**-decimals
    except ValueError:
        return False
