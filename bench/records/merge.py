"""Joins results folders of one arch, such as those of two machines, into one. All is compared before anything is
written: one conflict, and nothing is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_arrays, whole
from carryover.bench.plan.runs import key_of
from carryover.bench.records.store import Store

KEY = re.compile(r"[0-9a-f]{16}")
NAME = re.compile(r"[^/\\]*[^/\\.][^/\\]*")
AGREE = (
    "run",
    "identity",
    "split",
    "targets",
    "refused",
    "trained",
    "marks",
    "manifests",
)  # what a second run of a key repeats
BESIDE = {"splits": "*.jsonl", "known": "*.json", "drift": "*.json", "plans": "*.json"}
OF_MACHINE = ("versions", "device", "sha256", "recorded")  # where a drift file was measured, how far a plan has come
CURRENT = "current.json"  # which drift files are in use: each folder's own, so ours stays
SHOWN = 5  # conflicts that an error names


def merge(out: Store, folders: Sequence[str | Path]) -> dict[str, int]:
    """Copies what ``out`` lacks: done and failed records with their plug-ins and predictions (a done one replaces a
    failed one), few-shot subsets, known answers, layer drift; not the feature cache. Returns how many files by kind.

    Two records of one key are the same where settings, identity and results agree (times and machines may differ) and
    plug-ins and predictions hold the same numbers. Raises UserError naming what conflicts or is damaged, with ``out``
    unchanged.
    """
    known = {record["key"]: (out, record) for record in out.records() if KEY.fullmatch(str(record.get("key")))}
    beside: dict[tuple[str, str], Path] = {}
    for kind, pattern in BESIDE.items():
        beside |= {(kind, path.name): path for path in (out.folder / kind).glob(pattern) if path.is_file()}
    wrong: list[str] = []
    for folder in folders:
        source = store_of(Path(folder), out)
        wrong += [f"'{source.folder / 'runs' / name}' is damaged" for name in source.damaged()]
        wrong += [f"in '{source.folder}': {line}" for line in source.refused()]
        for record in source.records():
            wrong += compared(record, source, known)
        for kind, pattern in BESIDE.items():
            for path in filter(Path.is_file, sorted((source.folder / kind).glob(pattern))):
                other = beside.setdefault((kind, path.name), path)
                if other != path and path.name != CURRENT and not alike(kind, path, other):
                    wrong.append(f"'{path}' differs from '{other}'")
    if wrong:
        more = f" (and {len(wrong) - SHOWN} more)" if len(wrong) > SHOWN else ""
        raise UserError(
            f"nothing was merged: {'; '.join(wrong[:SHOWN])}{more}; take the wrong one away, or run it again"
        )
    counts: dict[str, int] = {}
    for kind, path, target in copies(out, known, beside):
        content = path.read_bytes()
        with whole(target) as unfinished:
            unfinished.write_bytes(content)
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def store_of(folder: Path, out: Store) -> Store:
    """The folder of the arch in a results folder, or itself. Raises UserError where it holds no runs."""
    found = folder / out.folder.name if (folder / out.folder.name).is_dir() else folder
    if not (found / "runs").is_dir():
        raise UserError(f"merge: no '{out.folder.name}/runs' in '{folder}'; expected a results folder, as --out is")
    if found.resolve() == out.folder.resolve():
        raise UserError(f"merge: '{folder}' is the folder that is merged into (--out); name others")
    return Store(found.parent, found.name)


def compared(record: dict, source: Store, known: dict[str, tuple[Store, dict]]) -> Iterator[str]:
    """Puts the record among the known ones where it belongs; a line for each thing wrong with it."""
    key, run = str(record.get("key")), record["run"]
    where = f"{quoted(key)} of '{source.folder}' ({run.get('dataset')}, {run.get('method')}, seed {run.get('seed')})"
    if not KEY.fullmatch(key) or key != key_of(run, record.get("identity")):
        yield f"{where} is not the key of its run"
    elif record.get("status") != "done":
        known.setdefault(key, (source, record))
    elif not KEY.fullmatch(str(record.get("trained") or key)) or source.read_record(key) is None:
        yield f"{where} has a plug-in or predictions that are missing or damaged"
    elif key not in known or known[key][1].get("status") != "done":
        known[key] = source, record
    else:
        other, theirs = known[key]
        for name in AGREE:
            if record.get(name) != theirs.get(name):
                yield f"{where} has other {name} than the one of '{other.folder}'"
                return
        for kind in ("plugins", "predictions"):
            if other.read_record(key) is not None and not same_tensors(source.path(kind, key), other.path(kind, key)):
                yield f"{where} has other {kind} than the one of '{other.folder}'"
        if other.read_record(key) is None:  # its files are gone or damaged there
            known[key] = source, record


def same_tensors(one: Path, other: Path) -> bool:
    """Whether both hold the same numbers (a file's bytes depend on the order that safetensors took). A run on another
    test set has no plug-in of its own; confidences are left aside, which no table shows."""
    if not one.is_file() or not other.is_file():
        return one.is_file() == other.is_file()
    (mine, _), (theirs, _) = read_arrays(one), read_arrays(other)
    return mine.keys() == theirs.keys() and all(
        np.array_equal(mine[name], theirs[name]) for name in mine if not name.endswith(".confidence")
    )


def alike(kind: str, one: Path, other: Path) -> bool:
    if one.read_bytes() == other.read_bytes():
        return True
    if kind == "splits":
        return False
    try:
        mine, theirs = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
        return {k: v for k, v in mine.items() if k not in OF_MACHINE} == {
            k: v for k, v in theirs.items() if k not in OF_MACHINE
        }
    except (ValueError, AttributeError):
        return False


def copies(
    out: Store, known: dict[str, tuple[Store, dict]], beside: dict[tuple[str, str], Path]
) -> Iterator[tuple[str, Path, Path]]:
    """(kind, from, to) of each file that is not of ``out``; records last, so that one there has all it speaks of."""
    foreign = [(key, store) for key, (store, _) in known.items() if store is not out]
    for (kind, name), path in beside.items():
        if path != out.folder / kind / name and NAME.fullmatch(name):
            yield kind, path, out.folder / kind / name
    for kind in ("plugins", "predictions", "runs"):
        for key, store in foreign:
            if store.path(kind, key).is_file():
                yield kind, store.path(kind, key), out.path(kind, key)
