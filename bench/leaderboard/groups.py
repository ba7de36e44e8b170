"""Several groups on one board: a run that two of them share is shown once, or marked where its numbers differ; and what
became of every record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from carryover.bench.leaderboard.rows import BoardRow, Counts, arch_for, board_rows, expected_of, of_suite
from carryover.bench.leaderboard.sources import Source
from carryover.bench.plan.run_labels import is_plain
from carryover.bench.plan.settings import Methods, Settings
from carryover.bench.records import reading, selection
from carryover.bench.records.reading import Record, is_done

OTHER_RUNS = {  # why a sound record is in no row
    "path": "retrained or refreshed on a target",
    "test": "evaluated on shifted test sets",
    "suite": "rows of ablation suites",
    "other": "of other weights, images, method sources or program versions than the newest, or repeated",
}


@dataclass(frozen=True)
class Account:
    """What became of a source's records: how many are in rows, done and failed, and in none, by reason."""

    source: Source
    done: int
    failed: tuple[Record, ...]
    left: Mapping[str, int]


def board(sources: Sequence[Source], methods: Methods) -> tuple[list[BoardRow], list[Account], dict[str, list[str]]]:
    """All rows in the order of the sources and of the paper; the accounts; the datasets that each arch is ranked on."""
    expected = {source.arch: expected_of(source.arch, sources) for source in sources}
    rows, accounts = [], []
    for source in sources:
        mine = board_rows(source, expected[source.arch], methods)
        accounts.append(account_of(source, mine, methods))
        rows += mine
    return compared(rows), accounts, expected


def agree(mine: Counts, theirs: Counts) -> bool:
    """The same numbers on every backbone that both were evaluated on."""
    return all(mine[role] == theirs[role] for role in mine.keys() & theirs.keys())


def compared(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """A row whose every run is in another group's row with the same numbers is shown there alone, once; runs of one key
    with other numbers are marked on both sides."""
    kept: list[BoardRow] = []
    for row in sorted(rows, key=lambda row: -len(row.keys)):  # stable: of two with as many, the group named first
        for i, other in enumerate(kept):
            if row.keys and within(row, other):
                kept[i] = replace(other, also=(*other.also, (row.group, len(row.keys))))
                break
        else:
            kept.append(row)
    places = {id(row): place for place, row in enumerate(rows)}
    first = {row.id: places[id(row)] for row in rows}
    return sorted((conflicting(row, rows) for row in kept), key=lambda row: first[row.id])


def within(row: BoardRow, other: BoardRow) -> bool:
    alike = (row.arch, row.method, row.settings, row.options) == (
        other.arch,
        other.method,
        other.settings,
        other.options,
    )
    theirs = other.keys
    return alike and all(key in theirs and agree(counts, theirs[key]) for key, counts in row.keys.items())


def conflicting(row: BoardRow, rows: Sequence[BoardRow]) -> BoardRow:
    found: dict[str, list[tuple[str, Counts]]] = {}
    mine = row.keys
    for other in rows:
        if (other.arch, other.method) != (row.arch, row.method) or other.group == row.group:
            continue
        for key, counts in other.keys.items():
            if key in mine and not agree(mine[key], counts):
                found.setdefault(key, []).append((other.group, counts))
    return replace(row, conflicts=found)


def account_of(source: Source, rows: Sequence[BoardRow], methods: Methods) -> Account:
    shown = {record["key"]: record for row in rows for record in row.records}
    arch, left = arch_for(source.arch), dict.fromkeys(OTHER_RUNS, 0)
    for record in source.records:
        if record["key"] in shown:
            continue
        run = record["run"]
        settings = Settings(**{name: run.get(name) for name in reading.SETTINGS}, methods=methods)
        known = run["method"] in methods
        left[
            "path"
            if not is_plain(run)
            else "test"
            if run.get("test")
            else "suite"
            if known and not selection.is_default(record, settings) and of_suite(record, arch, settings)
            else "other"
        ] += 1
    failed = tuple(r for r in shown.values() if not is_done(r))
    return Account(source, len(shown) - len(failed), failed, left)
