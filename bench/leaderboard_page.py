"""The leaderboard as one HTML page that needs neither network nor server: data in a JSON block, one script of our own.

Everything a folder or a method's author may have named is data: escaped in the JSON block and in the static text, put
on the page as text by the script. The policy in the page's head allows that one script, by its hash, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import leaderboard, stats, taxonomy
from bench.archs import ARCHS
from bench.audit import default_settings
from bench.leaderboard import reason
from bench.leaderboard_rows import OTHER_RUNS, Account, Row, arch_for, board, counts_of, settings_text
from bench.page import escaped, page_of
from bench.plan import shown_setting
from bench.provenance import CHANGES
from bench.sheets import MISSING
from bench.stats import AVERAGE, Record, is_done
from bench.store import canonical, write_text
from bench.tables import PAPER_TABLES, read_paper
from datasets.folder import PREFIX
from datasets.manifests import MARK as MANIFESTS
from datasets.splits import NOTE as MADE_SPLIT
from methods.base import METHODS

HERE = Path(__file__).resolve().parent
TITLE = "Carryover leaderboard"


class Pool:
    """Values that many runs share, each stored once and named by its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        place = self.places.setdefault(canonical(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def write_page(words: Sequence[str | Path], path: Path) -> tuple[list[Row], list[Account]]:
    """Reads the folders (`leaderboard.read`) and writes the page; returns what is on it. Raises UserError."""
    rows, accounts, expected = board(leaderboard.read(words))
    write_text(path, page(rows, accounts, expected))
    return rows, accounts


def page(rows: Sequence[Row], accounts: Sequence[Account], expected: Mapping[str, Sequence[str]]) -> str:
    script, style = ((HERE / f"leaderboard.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    data = json.dumps(content(rows, accounts, expected), separators=(",", ":"), allow_nan=False)
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


# ---- data ------------------------------------------------------------------------------------------------------------


def content(rows: Sequence[Row], accounts: Sequence[Account], expected: Mapping[str, Sequence[str]]) -> dict:
    """All that the script shows; see `leaderboard.js` for how it reads it."""
    pool = Pool()
    ids = list(dict.fromkeys(row.arch for row in rows))
    found = [row_json(row, pool) for row in rows]
    return {
        "average": AVERAGE,
        "groups": list(dict.fromkeys(account.source.group for account in accounts)),
        "places": [[id, place.label, place.mark] for id, place in taxonomy.PLACES.items()],
        "archs": [arch_json(id, [row for row in rows if row.arch == id], expected[id]) for id in ids],
        "rows": found,
        "pool": pool.values,
    }


def arch_json(id: str, rows: Sequence[Row], expected: Sequence[str]) -> dict:
    records = [record for row in rows for record in row.records]
    labels = {role: t.get("backbone") or role for r in records for role, t in (r.get("targets") or {}).items()}
    names = stats.names(records, "dataset")
    return {
        "id": id,
        "label": " → ".join(labels[role] for role in ("base", *stats.updates(records)) if role in labels),
        "roles": [[role, labels.get(role, role)] for role in stats.updates(records)],
        "datasets": [[one, names[one], one in expected, word_of(one)] for one in stats.ids(records, "dataset")],
        "expected": len(expected),
        "sections": sections(rows),
        "paper": paper_json(id),
    }


def sections(rows: Sequence[Row]) -> list[dict]:
    """A section a league, the arch's default settings first (as the rows come), then the rows that are not ranked."""
    leagues = {canonical(row.league): row.league for row in rows if row.ranked}
    made = []
    for key, league in leagues.items():
        alike = [other for other in leagues.values() if other["settings"] == league["settings"]]
        apart = [f"{name} {league[name]}" for name in league if len({other[name] for other in alike}) > 1]
        mine = [row.id for row in rows if row.ranked and canonical(row.league) == key]
        made.append({"title": "; ".join([league["settings"], *apart]), "ranked": True, "rows": mine})
    left = [row.id for row in rows if not row.ranked]
    return [*made, {"title": "Not ranked", "ranked": False, "rows": left}] if left else made


def paper_json(arch: str) -> dict | None:
    """The paper's table of this arch, as printed."""
    table = read_paper(arch)
    if table is None:
        return None
    rows: dict[str, dict] = {}
    for row in table.itertuples():
        rows.setdefault(row.method, {})[row.dataset] = [row.base, row.new, row.h]
    number = PAPER_TABLES[arch].split("_")[0].removeprefix("table")
    methods = [
        [METHODS[id].name if id in METHODS else id, taxonomy.place(METHODS[id].depth) if id in METHODS else "", numbers]
        for id, numbers in rows.items()
    ]
    return {"title": f"As printed in the paper, Table {number}: not run here, never ranked", "methods": methods}


def row_json(row: Row, pool: Pool) -> dict:
    first, place = row.records[-1], row.place
    return {
        "id": row.id,
        "group": row.group,
        "also": [[group, count == len(row.keys)] for group, count in row.also],
        "arch": row.arch,
        "method": stats.shown(first, "method"),
        "place": place,
        "seeds": row.seeds,
        "complete": row.complete,
        "expected": row.expected,
        "notes": notes_of(row),
        "numbers": {dataset: cell_json(cell) for dataset, cell in row.numbers.items()},
        "runs": [run_json(record, row, pool) for record in row.records],
        "command": command_of(row),
    }


def notes_of(row: Row) -> list[str]:
    """What a reader must know of the row before its numbers, each in a few words."""
    found = []
    if row.settings.limit is not None:
        found.append(f"trial: at most {row.settings.limit} test images a class")
    found += [f"option {option} (protocol: {usual})" for option, usual in zip(row.options, row.protocol, strict=True)]
    if row.complete < row.expected:
        found.append(f"{row.complete} of {row.expected} datasets")
    elif not row.numbers[AVERAGE]["seeds"]:
        found.append("no seed is done on every dataset")
    if 0 < row.numbers[AVERAGE]["seeds"] < len(row.seeds):
        found.append(f"average over {row.numbers[AVERAGE]['seeds']} of {len(row.seeds)} seeds")
    default = default_settings(arch_for(row.arch, ()))
    if not row.ranked and settings_text(row.settings) != settings_text(default):
        found.append(settings_text(row.settings))
    if row.conflicts:
        others = ", ".join(dict.fromkeys(group for pairs in row.conflicts.values() for group, _ in pairs))
        found.append(f"conflict: {stats.counted(len(row.conflicts), 'same run')}, other numbers in {others}")
    for group, count in row.also:
        if count < len(row.keys):
            found.append(f"{count} of these {len(row.keys)} runs are also in {group}, equal numbers")
    failed = sum(not is_done(record) for record in row.records)
    return found + ([f"{stats.counted(failed, 'run')} failed"] if failed else [])


def cell_json(cell: Mapping[str, Any]) -> dict:
    return {
        "seeds": int(cell["seeds"]),
        "base": list(map(number, cell["base"])),
        "at": {role: list(map(number, values)) for role, values in cell["at"].items()},
        "parameters": number(cell["parameters"]),
        "fit": number(cell["fit"]),
    }


def number(value: float) -> float | None:
    """In full, so that two decimals of it are the tables' two decimals; null where there is none."""
    return None if math.isnan(value) else float(value)


def run_json(record: Record, row: Row, pool: Pool) -> dict:
    """Where one run's numbers come from; what many runs share is named by its place in the pool."""
    targets, split, identity = (record.get(name) or {} for name in ("targets", "split", "identity"))
    commit, changes, _ = str(record.get("git_commit") or "unknown").partition(CHANGES)
    made = {
        "device": record.get("device") or "unknown",
        "commit": commit,
        "changed": bool(changes) or bool(record.get("git_dirty")),
        "versions": {name: str(version) for name, version in (record.get("versions") or {}).items()},
    }
    hashes = {part: split.get(f"{part}_sha256") or "" for part in ("train", "val", "test")}
    code = {name: identity.get(name) for name in ("method", "numbers", "features")}
    prints = {role: [t.get("backbone") or role, t.get("fingerprint") or ""] for role, t in targets.items()}
    found = {
        "dataset": record["run"]["dataset"],
        "seed": record["run"]["seed"],
        "key": record["key"],
        "started": record.get("started") or "",
        "counts": counts_of(record) if is_done(record) else {},
        "made": pool.place(published(made)),
        "split": pool.place(hashes),
        "backbones": pool.place(published(prints)),
        "code": pool.place(code),
    }
    if record.get("marks"):
        found["marks"] = pool.place([reason(mark) for mark in record["marks"]])
    if not is_done(record):
        found["error"] = reason(record.get("error") or f"status {record.get('status')}")
    if record["key"] in row.conflicts:
        found["conflicts"] = list(row.conflicts[record["key"]])
    return found


def published(value: Any) -> Any:
    """Texts of a record without folders of the machine that wrote it."""
    if isinstance(value, dict):
        return {reason(str(name)): published(one) for name, one in value.items()}
    if isinstance(value, list):
        return [published(one) for one in value]
    return reason(value) if isinstance(value, str) else value


# ---- commands --------------------------------------------------------------------------------------------------------


def command_of(row: Row) -> list[str]:
    """The command line that runs the row, before and after where ``--datasets`` goes; empty places are said in capitals
    (DATA, FILE.toml)."""
    own = row.arch in ARCHS
    head = ["python", "run_all.py", "--arch", row.arch if own else "FILE.toml"]
    head += [] if row.arch.startswith("micro") else ["--data-root", "DATA"]
    tail = ["--methods", row.method]
    default = default_settings(arch_for(row.arch, ())).of_runs
    for name, value in row.settings.of_runs.items():
        if value is not None and (value != default[name] or (not own and name in ("protocol", "views"))):
            tail += [f"--{name}", str(shown_setting(name, value))]
    tail += ["--set", *(f"{row.method}.{option}" for option in row.options)] if row.options else []
    tail += ["--seeds", *map(str, sorted({record["run"]["seed"] for record in row.records}))]
    marks = {mark for record in row.records for mark in record.get("marks") or ()}
    tail += ["--manifests", "DIR"] if MANIFESTS in marks else []
    tail += ["--make-split"] if MADE_SPLIT in marks else []
    tail += ["--plugin-dir", "DIR"] if row.method not in METHODS else []
    labels = {role: t.get("backbone") or "" for r in row.records for role, t in (r.get("targets") or {}).items()}
    for role in ("base", "new"):
        tail += [f"--{role}-weights", "FILE"] if labels.get(role, "").endswith("/local file") else []
    return [shlex.join([*head, "--suite", "main"]), shlex.join(tail)]


def word_of(dataset: str) -> str:
    """The dataset as a command line gives it."""
    return shlex.quote(dataset.replace(PREFIX, f"{PREFIX}PATH/", 1) if dataset.startswith(PREFIX) else dataset)


# ---- static text -----------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Row], accounts: Sequence[Account]) -> str:
    wrong = sum(len(account.source.faults) + account.source.unfinished for account in accounts)
    text = f"{counted_rows(rows, accounts)}. Plug-ins are trained on Base and plugged unchanged into the upgraded "
    text += "model; H is the harmonic mean of both accuracies."
    return text + (f" {stats.counted(wrong, 'file')} could not be taken as a record; see below." if wrong else "")


def counted_rows(rows: Sequence[Row], accounts: Sequence[Account]) -> str:
    """ "3 groups, 2 archs: 54 rows, 40 of them ranked"."""
    groups = {account.source.group for account in accounts}
    archs = {account.source.arch for account in accounts}
    text = f"{stats.counted(len(groups), 'group')}, {stats.counted(len(archs), 'arch')}: "
    return text + f"{stats.counted(len(rows), 'row')}, {sum(row.ranked for row in rows)} of them ranked"


def reading() -> str:
    lines = (
        "Top-1 accuracy in percent, mean over seeds; the small number is the sample deviation over seeds. The "
        "average is of the datasets' accuracies, its H that of the averaged Base and New, as in each group's tables/main.csv.",
        "Ranks are by H as printed, within one arch, over rows with the same settings, weights, test images and program "
        "version, done on all datasets; equal numbers share a rank. Rows on fewer datasets, trials with --limit and "
        "rows with other options stand below, unranked; an average there is over the datasets that the group ran.",
        "“vs zero-shot” is the accuracy on the target less that of its zero-shot CLIP in the same group, in points. "
        "Parameters and fit seconds are medians over runs; seconds depend on the machine.",
        "A run of two groups is shown once where its numbers are equal; where they differ, both are shown and marked.",
        f"{MISSING} was not measured. Marks: {'; '.join(taxonomy.legend(taxonomy.PLACES))}.",
        "Click a number for the records it comes from (keyboard: Enter on a method's name, arrow keys from there to its "
        "numbers). Click a heading to sort. The address keeps what you see, so it can be linked.",
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
    what = f"{source.group}, {source.arch}: {stats.counted(len(lines), 'line')} on records left out or failed"
    return f"<details><summary>{escaped(what)}</summary><ul>{listed}</ul></details>"


def left_out(account: Account) -> list[str]:
    """A line for each file that is no sound record and each run that is not done."""
    source = account.source
    lines = [f"{file}: {wrong}" for file, wrong in source.faults]
    if source.unfinished:
        lines.append(f"{stats.counted(source.unfinished, 'file')} that a process left unfinished, or is writing now")
    return lines + [failure(record) for record in account.failed]


def failure(record: Record) -> str:
    run = record["run"]
    where = f"{record['key']} ({run['dataset']}, {run['method']}, seed {run['seed']})"
    return f"{where} is no finished run: {reason(record.get('error') or str(record.get('status')))}"
