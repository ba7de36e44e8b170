"""The audit as one HTML page: no script, nothing fetched, light and dark, readable on a phone.

Verdicts are told by a sign and a word, never by colour alone. Names and notes are plain text, escaped here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from carryover.bench.analyses import audit
from carryover.bench.analyses.ood import AVERAGE as OOD_AVERAGE
from carryover.bench.analyses.parts import misprints
from carryover.bench.host.files import write_text
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.report.html_page import escaped, page_of
from carryover.bench.report.sheets import MISSING, percent
from carryover.datasets.layouts import LAYOUTS
from carryover.methods.base import METHODS

SIGNS = dict(zip(audit.VERDICTS, ("=", "▲", "▼", "1", MISSING), strict=True))
NAMES = {"base": "Base", "new": "New", "h": "H", AVERAGE: "Average", OOD_AVERAGE: "Average of shifted"}
HEADER = ("", "Paper", "Ours", "Diff.", "95 % interval", "Verdict")


def write_page(selection: Selection, folder: Path) -> Path | None:
    """Writes `audit.html` under folder (`results/<arch>`); nothing for an arch that the paper does not print."""
    table = audit.audit_table(selection)
    if table is None:
        return None
    path = Path(folder) / audit.PAGE
    write_text(path, audit_html(selection.arch.id, table, audit.not_comparable(selection)))
    return path


def audit_html(arch: str, table: pd.DataFrame, reason: str = "") -> str:
    """The whole page of an `audit.audit_table`: counts, map, each cell, what was not run. ``reason``: see
    `audit.not_comparable`."""
    title = f"Audit of the paper's numbers: {arch}"
    parts = [f"<h1>{escaped(title)}</h1>", f"<p><strong>{escaped(audit.summary(table, reason))}</strong></p>"]
    parts += [counts_html(table), legend(arch)]
    for name in dict.fromkeys(table["table"]):
        mine = table[table["table"] == name]
        parts.append(f'<h2 id="{anchor(name)}">{escaped(name)}</h2>')
        parts += [f"<p>{escaped(text)}</p>"] if (text := misprints.OF_TABLES.get(name, "")) else []
        if name in audit.MAIN_TABLES.values():
            parts.append(map_html(mine))
            places = [(mine[mine["dataset"] == id], id) for id in dict.fromkeys(mine["dataset"])]
        else:
            places = [(mine, "")]
        alone = " alone" if len(places) == 1 else ""
        blocks = "".join(block_html(rows, shown(id), anchor(name, id)) for rows, id in places)
        parts.append(f'<div class="blocks wide{alone}">{blocks}</div>')
    left = "".join(f"<li>{escaped(line)}</li>" for line in audit.missing(table))
    parts.append('<h2 id="not-run">Not run</h2>' + (f"<ul>{left}</ul>" if left else "<p>Nothing is missing.</p>"))
    return page_of(title, "\n".join(parts), STYLE)


def legend(arch: str) -> str:
    keys = {
        "within": f"the printed number lies in our interval, widened by {audit.SLACK} points at both ends",
        "above": "ours is higher than that",
        "below": "ours is lower than that",
        "one seed": "ours has no interval, so no verdict",
        "not run": "no finished run of these settings; the paper's number never fills the gap",
    }
    listed = "".join(f"<li>{sign(name)} {escaped(text)}</li>" for name, text in keys.items())
    report = f"python run_all.py report --arch {arch}"
    return (
        f'<ul class="keys">{listed}</ul>'
        "<p>Top-1 accuracy in percent; difference: ours less the paper's. The interval is the 95 % t interval of our "
        "mean over seeds: wide with few seeds, so “within” is no proof of agreement; and where all agreed, about one "
        "cell in twenty would still lie outside. The paper prints no deviations. Each row’s command runs what the row "
        f"needs, all seeds, and nothing else; <code>{escaped(report)}</code> then makes tables and page again. "
        "All cells for programs: <code>tables/audit.csv</code>.</p>"
    )


def counts_html(table: pd.DataFrame) -> str:
    """A row a table of the paper, a column a verdict."""
    head = "".join(f'<th scope="col">{sign(name)}</th>' for name in audit.VERDICTS)
    rows = ""
    for name in dict.fromkeys(table["table"]):
        cells = "".join(number(n) for n in audit.counts(table[table["table"] == name]).values())
        rows += f'<tr><th scope="row"><a href="#{anchor(name)}">{escaped(name)}</a></th>{cells}</tr>\n'
    whole = "".join(number(n) for n in audit.counts(table).values())
    body = f'{rows}<tr class="whole"><th scope="row">All</th>{whole}</tr>'
    table_html = f'<table class="numeric counts"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody>'
    return scroll("Verdicts", table_html, fit=True)


def map_html(table: pd.DataFrame) -> str:
    """The main table at a glance: a row a dataset, a column a method, the signs of Base, New and H in each field."""
    methods = list(dict.fromkeys(table["row"]))
    head = "".join(f'<th scope="col"><span>{escaped(shown(id))}</span></th>' for id in methods)
    rows = ""
    for dataset, mine in table.groupby("dataset", sort=False):
        link = f'<a href="#{anchor(mine["table"].iloc[0], dataset)}">{escaped(shown(dataset))}</a>'
        cells = "".join(field(mine[mine["row"] == id]) for id in methods)
        rows += f'<tr><th scope="row">{link}</th>{cells}</tr>\n'
    text = "<p>At a glance, in each field Base, New and H:</p>"
    table_html = f'<table class="map"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody>'
    return text + scroll("At a glance", table_html, fit=True)


def field(rows: pd.DataFrame) -> str:
    told = ", ".join(f"{NAMES[row.column]} {row.verdict}" for row in rows.itertuples())
    signs = "".join(f'<i class="{slug(row.verdict)}">{SIGNS[row.verdict]}</i>' for row in rows.itertuples())
    return f'<td><span role="img" aria-label="{told}" title="{told}">{signs}</span></td>'


def block_html(rows: pd.DataFrame, title: str, id: str) -> str:
    """One table: a group for each row of the paper with its command, in it a line for each cell."""
    notes = list(dict.fromkeys(text for text in rows["note"] if text))
    by_set = rows["table"].iloc[0] == "Table 3"
    body = ""
    for name, mine in rows.groupby("row", sort=False):
        commands = "".join(command(text, part, by_set) for text, part in mine.groupby("command", sort=False))
        seeds = sorted(set(mine["seeds"]) - {0})
        said = f" <small>{' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}</small>" if seeds else ""
        head = f"{escaped(shown(name))}{said}<details><summary>command</summary>{commands}</details>"
        body += f'<tbody><tr class="who"><th colspan="{len(HEADER)}" scope="rowgroup">{head}</th></tr>\n'
        body += "".join(cell_row(row, row.dataset if by_set else row.column, notes) for row in mine.itertuples())
        body += "</tbody>\n"
    head = "".join(f'<th scope="col">{text}</th>' for text in HEADER)
    listed = "".join(f"<li><sup>{n}</sup> {escaped(text)}</li>" for n, text in enumerate(notes, 1))
    return (
        (f'<section id="{id}"><h3>{escaped(title)}</h3>' if title else "<section>")
        + scroll(title or rows["table"].iloc[0], f'<table class="numeric cells"><thead><tr>{head}</tr></thead>{body}')
        + (f'<ul class="notes">{listed}</ul>' if listed else "")
        + "</section>"
    )


def cell_row(row, name: str, notes: list[str]) -> str:
    mark = f"<sup>{notes.index(row.note) + 1}</sup>" if row.note else ""
    between = "" if np.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
    numbers = [f"{row.paper:.2f}", percent(row.ours), MISSING if np.isnan(row.difference) else f"{row.difference:+.2f}"]
    cells = "".join(f"<td>{text}</td>" for text in [*numbers, between or MISSING])
    verdict = f'<td class="verdict">{sign(row.verdict)}</td>'
    return f'<tr><th scope="row">{escaped(shown(name))}{mark}</th>{cells}{verdict}</tr>\n'


def command(text: str, rows: pd.DataFrame, by_set: bool) -> str:
    sets = f"<small>{escaped(', '.join(map(shown, rows['dataset'])))}</small>" if by_set else ""
    return f"{sets}<code>{escaped(text)}</code>"


def sign(verdict: str) -> str:
    return f'<span class="sign {slug(verdict)}"><i>{SIGNS[verdict]}</i> {verdict}</span>'


def number(count: int) -> str:
    return f"<td>{count or MISSING}</td>"


def scroll(label: str, table: str, fit: bool = False) -> str:
    kind = "scroll fit" if fit else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escaped(label)}">{table}</table></div>'


def shown(id: str) -> str:
    """A method's or dataset's display name; a label as it is."""
    if id in METHODS:
        return METHODS[id].name or id
    return NAMES.get(id) or (LAYOUTS[id].name if id in LAYOUTS else id)


def anchor(*names: str) -> str:
    return "-".join(slug(name.lower()) for name in names if name)


def slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


STYLE = """:root { --within: #1a6b35; --above: #1f5fae; --below: #a8321f; --none: #5b6168; }
@media (prefers-color-scheme: dark) {
  :root { --within: #7fd197; --above: #8ab8f5; --below: #f0907d; --none: #a3abb4; }
}
.within { color: var(--within); } .above { color: var(--above); } .below { color: var(--below); }
.one-seed, .not-run { color: var(--none); }
.sign { white-space: nowrap; } .sign i, .map i { font-style: normal; font-weight: 600; display: inline-block;
  text-align: center; } .sign i { min-width: .9em; }
.keys { list-style: none; padding: 0; max-width: 46rem; }
.alone { max-width: 40rem; }
.fit { width: fit-content; max-width: 100%; }
.counts { width: auto; } .counts .whole > * { border-top: 1px solid var(--line); font-weight: 600; }
.map { width: auto; } .map td, .map th { padding: .15rem .4rem; } .map tbody td { white-space: nowrap; }
.map thead th { vertical-align: bottom; } .map i { width: 1em; }
.map tbody tr:nth-child(odd) { background: var(--page); }
.cells .who th { text-align: left; padding-top: .5rem; border-top: 1px solid var(--line); font-weight: 600;
  white-space: normal; }
.cells tbody tr:not(.who) th { padding-left: .8rem; text-align: left; }
.cells details { float: right; font-weight: 400; max-width: 100%; } .cells details[open] { float: none; }
.cells summary { color: var(--soft); cursor: pointer; }
code { font-size: .9em; } .cells code { display: block; white-space: pre-wrap; overflow-wrap: anywhere;
  user-select: all; padding: .2rem 0 .4rem; }
@media (max-width: 34rem) {
  .map thead th span { writing-mode: vertical-rl; } .map td, .map th { padding: .15rem .08rem; }
  .map { font-size: .72rem; } .map i { width: .72em; }
  .counts { font-size: .76rem; } .counts :is(td, th) { padding: .25rem .3rem; }
  .counts .sign { white-space: normal; } .blocks .cells :is(td, th) { padding: .2rem .18rem; }
  .blocks .cells { font-size: .72rem; } .cells tbody tr:not(.who) th { padding-left: .4rem; white-space: normal; }
}
"""
