"""What ``evaluate`` stored of plug-in files, as records beside those of runs: a row for each file that was measured on
the update, with what it, or the file that it was ported from, reached on the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carryover.bench.errors import UserError
from carryover.bench.host.files import read_arrays, read_text
from carryover.bench.host.identity import parse_json, sha256_of, unsealed
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.reading import TARGETS, Record
from carryover.bench.records.theirs import ONE_SEED, Theirs, record_of

BASE, NEW = TARGETS
SOURCE = "plug-in files that the command evaluate measured; no run of this suite made them"


@dataclass(frozen=True)
class Evaluation:
    """One stored result on the base or the update. ``outcome``: None where its predictions are not there."""

    stored: dict[str, Any]
    role: str
    outcome: Outcome | None

    @property
    def sha256(self) -> str:
        return self.stored["plugin"]["sha256"]

    @property
    def of(self) -> str | None:
        """sha256 of the file that it was ported from."""
        return (self.stored["plugin"].get("ported") or {}).get("of")

    @property
    def name(self) -> str:
        header = self.stored["plugin"]
        port = (header.get("ported") or {}).get("name")
        by = f" by {port}" if port else ""
        return f"{self.stored['method']['name']}{by}, {header['file']}"


def are_evaluations(words: Sequence[str]) -> bool:
    return bool(words) and all(word.endswith(".json") or Path(word).is_dir() for word in words)


def read(words: Sequence[str], labels: Mapping[str, np.ndarray | None], about: Mapping[str, Record]) -> Theirs:
    """words: folders of results of ``evaluate``, or its files; labels, about: as ``theirs.read`` takes them. What
    cannot be a row is left out and said; raises UserError where nothing is left, and for a file that was changed."""
    found: dict[tuple[str, str, str], Evaluation] = {}
    lines: list[str] = []
    for path in files_in(words):
        stored = stored_in(path)
        told = f"{path.name} ({stored['plugin']['file']})"
        if reason := unfit(stored, about):
            lines.append(f"{told}: {reason}")
            continue
        dataset = stored["dataset"]["id"]
        role = role_of(stored["backbone"], about[dataset])
        if role is None:
            lines.append(f"{told}: {stored['backbone']['label']} is neither base nor update of these records")
            continue
        outcome = outcome_of(path, stored)
        ours = labels[dataset]
        if outcome is not None and ours is not None and not np.array_equal(outcome.label, ours):
            lines.append(f"{told}: its test pictures are not those of the records on {dataset}")
            continue
        one, cell = Evaluation(stored, role, outcome), (dataset, role, stored["plugin"]["sha256"])
        if cell not in found or found[cell].stored["started"] < stored["started"]:
            found[cell] = one
    made = Theirs(left_out=tuple(lines))
    rows(made, found, labels, about, lines)
    made.left_out = tuple(lines)
    if not made.records:
        raise UserError(
            f"compare: no row can be made of {', '.join(words)}; expected a plug-in file that evaluate measured on "
            f"base and update of --arch, on one of {', '.join(about)}. {'. '.join(lines) or 'Nothing is stored there'}"
        )
    return made


def rows(
    made: Theirs,
    found: Mapping[tuple[str, str, str], Evaluation],
    labels: Mapping[str, np.ndarray | None],
    about: Mapping[str, Record],
    lines: list[str],
) -> None:
    """Enters a record for each file measured on the update, with its outcomes where every one is there."""
    names: dict[str, set[str]] = {}
    for one in found.values():
        names.setdefault(one.name, set()).add(one.sha256)
    used, whole = set(), True
    outcomes: dict[str, dict[str, Outcome]] = {}
    for (dataset, role, sha256), new in found.items():
        if role != NEW:
            continue
        at_base = [(dataset, BASE, own) for own in (sha256, new.of) if own]
        base = next((found[cell] for cell in at_base if cell in found), None)
        if base is None:
            source = f"it or '{new.of[:12]}…', which it was ported from," if new.of else "it"
            lines.append(f"{new.stored['plugin']['file']} on {dataset}: evaluate {source} on the base too")
            continue
        used.add((dataset, BASE, base.sha256))
        name = f"{new.name} {sha256[:8]}" if len(names[new.name]) > 1 else new.name
        seed = new.stored["plugin"].get("seed")
        points = {BASE: base.stored["accuracy"], NEW: new.stored["accuracy"]}
        record = record_of(about[dataset], dataset, name, ONE_SEED if seed is None else seed, points)
        made.records.append(record)
        if base.outcome is not None and new.outcome is not None and labels[dataset] is not None:
            outcomes[record["key"]] = {BASE: base.outcome, NEW: new.outcome}
        else:
            whole = False
    for (dataset, role, sha256), one in found.items():
        if role == BASE and (dataset, role, sha256) not in used:
            lines.append(f"{one.stored['plugin']['file']} on {dataset}: measured on the base alone")
    if whole:
        made.outcomes.update(outcomes)
    elif made.records:
        lines.append("predictions are not kept of all, so that nothing is paired by picture")


def files_in(words: Sequence[str]) -> list[Path]:
    paths = [
        one for word in words for one in (sorted(Path(word).glob("*.json")) if Path(word).is_dir() else [Path(word)])
    ]
    return list(dict.fromkeys(paths))


def stored_in(path: Path) -> dict[str, Any]:
    """Raises UserError for a file that is no result of ``evaluate``, or was changed since."""
    try:
        content = unsealed(parse_json(read_text(path)))
    except (OSError, ValueError) as error:
        raise UserError(
            f"compare: '{path}' cannot be read ({error}); expected a result of the command evaluate"
        ) from None
    parts = {"key": str, "plugin": dict, "method": dict, "backbone": dict, "started": str}
    if content is None or not all(isinstance(content.get(name), kind) for name, kind in parts.items()):
        raise UserError(
            f"compare: '{path}' is no result of the command evaluate, or was changed since; evaluate the plug-in again"
        )
    return content


def unfit(stored: dict[str, Any], about: Mapping[str, Record]) -> str:
    """Why no row can be made of it; empty where it may be."""
    if "accuracy" not in stored or "dataset" not in stored:
        return "without labels there is no accuracy"
    if stored.get("limit"):
        return f"a trial with at most {stored['limit']} pictures a class"
    return "" if stored["dataset"]["id"] in about else f"no record here is on {stored['dataset']['id']}"


def role_of(backbone: Mapping[str, Any], ours: Record) -> str | None:
    """By fingerprint, and by name where a record has none."""
    for role in TARGETS:
        target = ours["targets"].get(role) or {}
        own = target.get("fingerprint")
        if backbone["fingerprint"] == own if own else backbone["label"] == target.get("backbone"):
            return role
    return None


def outcome_of(path: Path, stored: dict[str, Any]) -> Outcome | None:
    """Raises UserError for predictions that were changed."""
    file = path.parent / "predictions" / f"{stored['key']}.safetensors"
    if not file.is_file():
        return None
    if sha256_of(file) != (stored.get("files") or {}).get("predictions"):
        raise UserError(f"compare: '{file}' was changed since evaluate wrote it; evaluate the plug-in again")
    arrays, _ = read_arrays(file)
    parts = [arrays[f"plugin.{name}"] for name in ("predicted", "label", "confidence")]
    return Outcome(parts[0], parts[1], parts[2])
