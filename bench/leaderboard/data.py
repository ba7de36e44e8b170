"""What the leaderboard's script shows, as one JSON value: rows, numbers, and where each run's numbers come from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from carryover.bench import places
from carryover.bench.analyses.parts import refused
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.host.environment import CHANGES
from carryover.bench.host.identity import canonical
from carryover.bench.leaderboard.groups import Account
from carryover.bench.leaderboard.rows import SEEDS, BoardRow, arch_for, counts_of, settings_text
from carryover.bench.leaderboard.sources import reason
from carryover.bench.plan.runs import shown_setting
from carryover.bench.plan.settings import Methods, default_settings
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_TABLES, read_paper
from carryover.bench.records.reading import AVERAGE, Record, is_done
from carryover.datasets.folder import PREFIX
from carryover.datasets.manifests import MARK as MANIFESTS
from carryover.datasets.splits import NOTE as MADE_SPLIT


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


def content(
    rows: Sequence[BoardRow], accounts: Sequence[Account], expected: Mapping[str, Sequence[str]], methods: Methods
) -> dict:
    """All that the script shows; see `leaderboard.js` for how it reads it."""
    pool = Pool()
    ids = list(dict.fromkeys(row.arch for row in rows))
    found = [row_json(row, pool) for row in rows]
    return {
        "average": AVERAGE,
        "groups": list(dict.fromkeys(account.source.group for account in accounts)),
        "places": [[id, place.label, place.mark] for id, place in places.PLACES.items()],
        "archs": [arch_json(id, [row for row in rows if row.arch == id], expected[id], methods) for id in ids],
        "rows": found,
        "pool": pool.values,
    }


def arch_json(id: str, rows: Sequence[BoardRow], expected: Sequence[str], known: Methods) -> dict:
    records = [record for row in rows for record in row.records]
    labels = {role: t.get("backbone") or role for r in records for role, t in (r.get("targets") or {}).items()}
    names = reading.names(records, "dataset")
    return {
        "id": id,
        "label": " → ".join(labels[role] for role in ("base", *reading.updates(records)) if role in labels),
        "roles": [[role, labels.get(role, role)] for role in reading.updates(records)],
        "datasets": [[one, names[one], one in expected, word_of(one)] for one in reading.ids(records, "dataset")],
        "expected": len(expected),
        "sections": sections(rows),
        "paper": paper_json(id, known),
    }


def sections(rows: Sequence[BoardRow]) -> list[dict]:
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


def paper_json(arch: str, known: Methods) -> dict | None:
    """The paper's table of this arch, as printed."""
    table = read_paper(arch)
    if table is None:
        return None
    rows: dict[str, dict] = {}
    for row in table.itertuples():
        rows.setdefault(row.method, {})[row.dataset] = [row.base, row.new, row.h]
    number = PAPER_TABLES[arch].split("_")[0].removeprefix("table")
    methods = [
        [known[id].name if id in known else id, places.place(known[id].depth) if id in known else "", numbers]
        for id, numbers in rows.items()
    ]
    return {"title": f"As printed in the paper, Table {number}: not run here, never ranked", "methods": methods}


def row_json(row: BoardRow, pool: Pool) -> dict:
    first, place = row.records[-1], row.place
    return {
        "id": row.id,
        "group": row.group,
        "also": [[group, count == len(row.keys)] for group, count in row.also],
        "arch": row.arch,
        "method": reading.shown(first, "method"),
        "place": place,
        "seeds": row.seeds,
        "complete": row.complete,
        "expected": row.expected,
        "notes": notes_of(row),
        "numbers": {dataset: cell_json(cell) for dataset, cell in row.numbers.items()},
        "runs": [run_json(record, row, pool) for record in row.records],
        "command": command_of(row),
    }


def notes_of(row: BoardRow) -> list[str]:
    """What a reader must know of the row before its numbers, each in a few words."""
    found = []
    if row.settings.limit is not None:
        found.append(f"trial: at most {row.settings.limit} test images a class")
    found += [f"option {option} (protocol: {usual})" for option, usual in zip(row.options, row.protocol, strict=True)]
    if row.complete < row.expected:
        found.append(f"{row.complete} of {row.expected} datasets")
    elif not row.numbers[AVERAGE]["seeds"]:
        found.append("no seed is done on every dataset")
    seeds = row.numbers[AVERAGE]["seeds"]
    if 0 < seeds < len(row.seeds):
        found.append(f"average over {seeds} of {len(row.seeds)} seeds")
    if 0 < seeds < SEEDS:
        found.append(f"{reading.counted(int(seeds), 'seed')}, fewer than {SEEDS}: not ranked")
    default = default_settings(arch_for(row.arch), row.settings.methods)
    if not row.ranked and settings_text(row.settings) != settings_text(default):
        found.append(settings_text(row.settings))
    if row.conflicts:
        others = ", ".join(dict.fromkeys(group for pairs in row.conflicts.values() for group, _ in pairs))
        found.append(f"conflict: {reading.counted(len(row.conflicts), 'same run')}, other numbers in {others}")
    for group, count in row.also:
        if count < len(row.keys):
            found.append(f"{count} of these {len(row.keys)} runs are also in {group}, equal numbers")
    found += [reason(line) for line in refused.told(row.records)]
    failed = sum(not is_done(record) for record in row.records)
    return found + ([f"{reading.counted(failed, 'run')} failed"] if failed else [])


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


def run_json(record: Record, row: BoardRow, pool: Pool) -> dict:
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


def command_of(row: BoardRow) -> list[str]:
    """The command line that runs the row, before and after where ``--datasets`` goes; empty places are said in capitals
    (DATA, FILE.toml)."""
    own = row.arch in ARCHS
    head = ["python", "run_all.py", "--arch", row.arch if own else "FILE.toml"]
    head += [] if row.arch.startswith("micro") else ["--data-root", "DATA"]
    tail = ["--methods", row.method]
    default = default_settings(arch_for(row.arch), row.settings.methods).of_runs
    always = ("precision",) if own else ("precision", "protocol", "views")  # what device or file would say
    for name, value in row.settings.of_runs.items():
        if value is not None and (value != default[name] or name in always):
            tail += [f"--{name}", str(shown_setting(name, value))]
    tail += ["--set", *(f"{row.method}.{option}" for option in row.options)] if row.options else []
    tail += ["--seeds", *map(str, sorted({record["run"]["seed"] for record in row.records}))]
    marks = {mark for record in row.records for mark in record.get("marks") or ()}
    tail += ["--manifests", "DIR"] if MANIFESTS in marks else []
    tail += ["--make-split"] if MADE_SPLIT in marks else []
    tail += ["--plugin-dir", "DIR"] if row.method not in row.settings.methods else []
    labels = {role: t.get("backbone") or "" for r in row.records for role, t in (r.get("targets") or {}).items()}
    for role in ("base", "new"):
        tail += [f"--{role}-weights", "FILE"] if labels.get(role, "").endswith("/local file") else []
    return [shlex.join([*head, "--suite", "main"]), shlex.join(tail)]


def word_of(dataset: str) -> str:
    """The dataset as a command line gives it."""
    return shlex.quote(dataset.replace(PREFIX, f"{PREFIX}PATH/", 1) if dataset.startswith(PREFIX) else dataset)
