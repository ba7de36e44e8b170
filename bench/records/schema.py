"""What a record must be for the tables to read it. A file may have been edited or put there by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

Number = (int, float)
KEY = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)  # it names files
NEEDED: dict[str, Any] = {"key": str, "run": dict}
OF_RECORD: dict[str, Any] = {
    "status": str, "error": str, "names": dict, "depth": str, "order": dict, "averaged": bool, "identity": dict,
    "about": str, "marks": list, "manifests": dict, "split": dict, "trained": str, "targets": dict, "curve": list,
    "chosen": dict, "tried": list,
    "seconds": dict, "versions": dict, "device": str, "git_commit": str, "started": str, "encoded": dict,
    "files": dict, "features": dict, "drawn": dict, "plan": str, "together": int, "card": int, "git_dirty": bool,
    "processor": dict, "port": dict, "refused": dict,
    "trainable_parameters": Number, "plugin_bytes": Number, "peak_memory_bytes": Number,
}  # fmt: skip
NEEDED_OF_RUN: dict[str, Any] = {"dataset": str, "method": str, "seed": int}
OF_RUN: dict[str, Any] = {
    "test": str, "config": dict, "shots": int, "precision": str, "protocol": str, "views": int,
    "path": list, "refresh": int, "carried_shots": int, "port": str, "anchors": str, "count": int, "via": list,
}  # fmt: skip
OF_TARGET: dict[str, Any] = {
    "accuracy": Number, "correct": int, "count": int, "backbone": str, "fingerprint": str,
}  # fmt: skip


def fault(record: Any) -> str:
    """What no table could read, in a few words; empty where all can. Entries that are missing or null are no fault,
    but for those that say which run it is."""
    if not isinstance(record, dict):
        return f"is no object but {type(record).__name__}"
    return next(faults(record), "")


def faults(record: dict) -> Iterator[str]:
    yield from of_kind(record, NEEDED, "", needed=True)
    yield from of_kind(record, OF_RECORD, "")
    run = record["run"]
    yield from of_kind(run, NEEDED_OF_RUN, "run.", needed=True)
    yield from of_kind(run, OF_RUN, "run.")
    for name in ("path", "via"):
        if not all(isinstance(role, str) for role in run.get(name) or ()) or run.get("path") == []:
            yield f"run.{name} are not names of backbones"
    carried = (record.get("identity") or {}).get("carried")
    for name, key in (("key", record["key"]), ("trained", record.get("trained")), ("identity.carried", carried)):
        if key and not (isinstance(key, str) and KEY.fullmatch(key)):
            yield f"{name} is no name of a file"
    for name in ("names", "split", "manifests", "versions", "processor"):
        yield from of_kind(record.get(name) or {}, dict.fromkeys(record.get(name) or {}, (str, int)), f"{name}.")
    yield from of_kind(record.get("order") or {}, dict.fromkeys(record.get("order") or {}, Number), "order.")
    if not all(isinstance(mark, str) for mark in record.get("marks") or ()):
        yield "marks are not text"
    if not isinstance((record.get("identity") or {}).get("pictures") or [], list):
        yield "identity.pictures is not list"
    yield from of_seconds(record.get("seconds") or {})
    yield from of_kind(record.get("files") or {}, dict.fromkeys(record.get("files") or {}, str), "files.")
    yield from of_kind(record.get("drawn") or {}, dict.fromkeys(record.get("drawn") or {}, str), "drawn.")
    yield from of_refused(record)
    for role, files in (record.get("features") or {}).items():
        if not isinstance(files, dict):
            yield f"features.{role} is not dict"
            continue
        yield from of_kind(files, dict.fromkeys(files, str), f"features.{role}.", needed=True)
        if not all(KEY.fullmatch(name) for name in files):
            yield f"features.{role} are no names of files"
    for role, made in (record.get("encoded") or {}).items():
        if not isinstance(made, dict):
            yield f"encoded.{role} is not dict"
            continue
        yield from of_kind(made, {"images": int, "seconds": Number}, f"encoded.{role}.", needed=True)
    for role, target in (record.get("targets") or {}).items():
        if not isinstance(target, dict):
            yield f"targets.{role} is not dict"
            continue
        yield from of_kind(target, OF_TARGET, f"targets.{role}.")
        if target.get("accuracy") is not None and not 0 <= target["accuracy"] <= 100:
            yield f"targets.{role}.accuracy is not between 0 and 100"


def of_refused(record: dict) -> Iterator[str]:
    """A reason for each backbone, none of which has an accuracy."""
    refused, targets = record.get("refused") or {}, record.get("targets") or {}
    yield from of_kind(refused, dict.fromkeys(refused, str), "refused.", needed=True)
    for role, reason in refused.items():
        if not reason:
            yield f"refused.{role} is empty"
        if targets.get(role):
            yield f"refused.{role} is a reason beside numbers"


def of_seconds(seconds: dict) -> Iterator[str]:
    each = seconds.get("evaluate") or {}
    if not isinstance(each, dict):
        yield "seconds.evaluate is not dict"
        return
    rest = {name: value for name, value in seconds.items() if name != "evaluate"}
    for values in (rest, each):
        yield from of_kind(values, dict.fromkeys(values, Number), "seconds.")


def of_kind(values: Mapping, kinds: Mapping[str, Any], place: str, needed: bool = False) -> Iterator[str]:
    for name, kind in kinds.items():
        value = values.get(name)
        if value is None and not needed:
            continue
        truth = isinstance(value, bool) and kind is not bool  # Python takes True for the number 1
        if truth or not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            yield f"{place}{name} is {'missing' if value is None else f'not {names}'}"
