"""The leaderboard as one HTML page that needs neither network nor server: data in a JSON block, one script of our own.

Everything a folder or a method's author may have named is data: escaped in the JSON block and in the static text, put
on the page as text by the script. The policy in the page's head allows that one script, by its hash, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from carryover.bench import places
from carryover.bench.host.files import write_text
from carryover.bench.leaderboard import sources
from carryover.bench.leaderboard.data import content
from carryover.bench.leaderboard.groups import OTHER_RUNS, Account, board
from carryover.bench.leaderboard.rows import SEEDS, BoardRow
from carryover.bench.leaderboard.sources import reason
from carryover.bench.plan.settings import Methods
from carryover.bench.records.reading import Record, counted
from carryover.bench.render.html_page import escaped, page_of
from carryover.bench.render.sheets import MISSING

HERE = Path(__file__).resolve().parent
TITLE = "Carryover leaderboard"


def write_page(words: Sequence[str | Path], path: Path, methods: Methods) -> tuple[list[BoardRow], list[Account]]:
    """Reads the folders (`leaderboard.read`) and writes the page; returns what is on it. Raises UserError."""
    rows, accounts, expected = board(sources.read(words), methods)
    write_text(path, page(rows, accounts, expected, methods), "--to")
    return rows, accounts


def page(
    rows: Sequence[BoardRow], accounts: Sequence[Account], expected: Mapping[str, Sequence[str]], methods: Methods
) -> str:
    script, style = ((HERE / f"leaderboard.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    data = json.dumps(content(rows, accounts, expected, methods), separators=(",", ":"), allow_nan=False)
    # In JSON these characters stand in texts alone; as codes, no text can end the block or open a comment in it.
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = [
        f"<h1>{TITLE}</h1>",
        f"<p>{escaped(summary(rows, accounts))}</p>",
        "<noscript><p><strong>This page sorts and shows its rows by its own script, which is switched off here. "
        "Nothing is fetched by it.</strong></p></noscript>",
        '<div id="filters" role="group" aria-label="Filters"></div>',
        '<p id="status" role="status"></p>',
        '<div id="tables"></div>',
        reading(),
        records_html(accounts),
        '<dialog id="origin" aria-labelledby="origin-title"></dialog>',
        f'<script type="application/json" id="board">{data}</script>',
        f"<script>{script}</script>",
    ]
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    return page_of(TITLE, "\n".join(parts), style, allowed)


# ---- static text -----------------------------------------------------------------------------------------------------


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


def reading() -> str:
    lines = (
        "Top-1 accuracy in percent, mean over seeds; the small number is the sample deviation over seeds. The average "
        "is that of the datasets, its H that of the averaged Base and New, as in each group's tables/main.csv.",
        "Ranks are by H as printed, within one arch, over rows with the same settings, weights, test images and "
        f"program version, done on all datasets with at least {SEEDS} seeds; equal numbers share a rank. Rows on fewer "
        "datasets or seeds, trials with --limit and rows with other options stand below, unranked; an average there is "
        "over what the group ran.",
        "“vs zero-shot” is the accuracy on the target less that of its zero-shot CLIP in the same group, in points. "
        "Parameters and fit seconds are medians over runs; seconds depend on the machine.",
        "A run of two groups is shown once where its numbers are equal; where they differ, both are shown and marked.",
        f"{MISSING} was not measured. Marks: {'; '.join(places.legend(places.PLACES))}.",
        "Click a number for the records it comes from (keyboard: Enter on a method's name, arrow keys from there to "
        "its numbers). Click a heading to sort. The address keeps what you see, so it can be linked.",
    )
    return '<h2>How to read</h2><ul class="notes">' + "".join(f"<li>{escaped(line)}</li>" for line in lines) + "</ul>"


def records_html(accounts: Iterable[Account]) -> str:
    """What became of every record: nothing is dropped in silence."""
    accounts = list(accounts)
    header = ("Group", "Arch", "Files", "In rows", "Failed", *(text for text in OTHER_RUNS.values()), "Left out")
    rows = "".join(account_html(account) for account in accounts)
    head = "".join(f'<th scope="col">{escaped(text[0].upper() + text[1:])}</th>' for text in header)
    table = f'<table class="numeric accounts"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    lists = "".join(left_html(account) for account in accounts)
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="Records">{table}</div>'
    return f"<h2>Records</h2>{scroll}{lists}"


def account_html(account: Account) -> str:
    source = account.source
    left = len(source.faults) + source.unfinished
    files = len(source.records) + left
    numbers = [files, account.done, len(account.failed), *account.left.values(), left]
    cells = "".join(f"<td>{count or MISSING}</td>" for count in numbers)
    return f'<tr><th scope="row">{escaped(source.group)}</th><td>{escaped(source.arch)}</td>{cells}</tr>\n'


def left_html(account: Account) -> str:
    source, lines = account.source, left_out(account)
    if not lines:
        return ""
    listed = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    what = f"{source.group}, {source.arch}: {counted(len(lines), 'line')} on records left out or failed"
    return f"<details><summary>{escaped(what)}</summary><ul>{listed}</ul></details>"


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
