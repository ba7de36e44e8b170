"""The leaderboard as one HTML page that needs neither network nor server: data in a JSON block, one script of our own.

Everything a folder or a method's author may have named is data: escaped in `templates/leaderboard.html`, also in its
JSON block, and put on the page as text by the script. The policy in the page's head allows that script and no request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from carryover.bench import places
from carryover.bench.host.files import write_text
from carryover.bench.leaderboard import sources
from carryover.bench.leaderboard.data import content, notes_of
from carryover.bench.leaderboard.groups import OTHER_RUNS, Account, board
from carryover.bench.leaderboard.rows import SEEDS, BoardRow
from carryover.bench.leaderboard.sources import reason
from carryover.bench.plan.settings import Methods
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record, counted
from carryover.bench.render.pages import render
from carryover.bench.render.sheets import MISSING, Cell, Column, Grid, Row, percent, signed

TITLE = "Carryover leaderboard"


def write_page(words: Sequence[str | Path], path: Path, methods: Methods) -> tuple[list[BoardRow], list[Account]]:
    """Reads the folders (`leaderboard.read`) and writes the page; returns what is on it. Raises UserError."""
    rows, accounts, expected = board(sources.read(words), methods)
    write_text(path, page(rows, accounts, expected, methods), "--to")
    return rows, accounts


def page(
    rows: Sequence[BoardRow], accounts: Sequence[Account], expected: Mapping[str, Sequence[str]], methods: Methods
) -> str:
    others = (text[0].upper() + text[1:] for text in OTHER_RUNS.values())
    return render(
        "leaderboard.html",
        title=TITLE,
        summary=summary(rows, accounts),
        seeds=SEEDS,
        missing=MISSING,
        marks=places.legend(places.PLACES),
        header=("Group", "Arch", "Files", "In rows", "Failed", *others, "Left out"),
        accounts=[(account.source.group, account.source.arch, counts(account)) for account in accounts],
        left_out=[(what(account, lines), lines) for account in accounts if (lines := left_out(account))],
        averages=averages(rows),
        data=content(rows, accounts, expected, methods),
    )


def averages(rows: Sequence[BoardRow]) -> Grid:
    """The rows as the page shows them without its script: averages over the datasets."""
    columns = [Column(title) for title in ("Arch", "Group", "Method", "Place")]
    columns += [Column(title, "number") for title in ("Base", "New", "H", "vs zero-shot")]
    found = []
    for row in rows:
        numbers = row.numbers[AVERAGE]
        new, std, h, h_std, gain = numbers["at"].get("new", [math.nan] * 5)
        words = (row.arch, row.group, reading.shown(row.records[-1], "method"), places.label(row.place))
        shown = (percent(*numbers["base"]), percent(new, std), percent(h, h_std), signed(gain))
        notes = "; ".join([*([] if row.ranked else ["not ranked"]), *notes_of(row)])
        found.append(Row(tuple(map(Cell, (*words, *shown, notes)))))
    return Grid((*columns, Column("Notes")), tuple(found), "Averages")


# ---- text ------------------------------------------------------------------------------------------------------------


def summary(rows: Sequence[BoardRow], accounts: Sequence[Account]) -> str:
    wrong = sum(len(account.source.faults) + account.source.unfinished for account in accounts)
    text = f"{counted_rows(rows, accounts)}. Plug-ins are trained on Base and plugged unchanged into the upgraded "
    text += "model; H is the harmonic mean of both accuracies."
    return text + (f" {counted(wrong, 'file')} could not be taken as a record; see below." if wrong else "")


def counted_rows(rows: Sequence[BoardRow], accounts: Sequence[Account]) -> str:
    """ "3 groups, 2 archs: 54 rows, 40 of them ranked"."""
    groups = {account.source.group for account in accounts}
    archs = {account.source.arch for account in accounts}
    text = f"{counted(len(groups), 'group')}, {counted(len(archs), 'arch')}: "
    return text + f"{counted(len(rows), 'row')}, {sum(row.ranked for row in rows)} of them ranked"


def counts(account: Account) -> list[int]:
    """What became of every record, as the page's table has it: nothing is dropped in silence."""
    source = account.source
    left = len(source.faults) + source.unfinished
    return [len(source.records) + left, account.done, len(account.failed), *account.left.values(), left]


def what(account: Account, lines: Sequence[str]) -> str:
    source = account.source
    return f"{source.group}, {source.arch}: {counted(len(lines), 'line')} on records left out or failed"


def left_out(account: Account) -> list[str]:
    """A line for each file that is no sound record and each run that is not done."""
    source = account.source
    lines = [f"{file}: {wrong}" for file, wrong in source.faults]
    if source.unfinished:
        lines.append(f"{counted(source.unfinished, 'file')} that a process left unfinished, or is writing now")
    return lines + [failure(record) for record in account.failed]


def failure(record: Record) -> str:
    run = record["run"]
    where = f"{record['key']} ({run['dataset']}, {run['method']}, seed {run['seed']})"
    return f"{where} is no finished run: {reason(record.get('error') or str(record.get('status')))}"
