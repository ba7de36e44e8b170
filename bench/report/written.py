"""The list of what a report wrote, with the sha256 of each file, and what it was made by: ``written.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carryover.bench.host.files import write_text
from carryover.bench.host.identity import canonical, digest, parse_json, sealed, sha256_of, unsealed
from carryover.bench.records.reading import Record

NAME = "written.json"


def write(folder: Path, files: Iterable[Path], records: Sequence[Record], made_by: Mapping[str, Any]) -> None:
    """``records``: those that the files were made from; ``made_by``: what chose them (`bench.cli.settings.Asked`)."""
    found = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    content = sealed({"files": dict(sorted(found.items())), "records": of_records(records), "made_by": dict(made_by)})
    write_text(Path(folder) / NAME, canonical(content) + "\n")


def of_records(records: Iterable[Record]) -> str:
    return digest(sorted(record["key"] for record in records))


def read(folder: Path) -> dict | None:
    """None where it is not there, or not as it was written."""
    try:
        found = unsealed(parse_json((Path(folder) / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    return found if found is not None and isinstance(found.get("files"), dict) else None


def made_by(folder: Path) -> dict[str, Any]:
    """What the last report was made by; empty where there is none."""
    return (read(folder) or {}).get("made_by") or {}


def differences(folder: Path, told: Sequence[str], records: Iterable[Record]) -> list[str]:
    """A line for each listed file that has other bytes now, where none of the lines ``told`` names it. Results whose
    records name a plan have such a list; older ones need none."""
    path = Path(folder) / NAME
    if (found := read(folder)) is None:
        if path.is_file():
            return [f"{path}: was changed since it was written, or is no list of files"]
        needed = any(record.get("plan") for record in records)
        return [f"{path}: not there; `run_all.py report` writes it"] if needed else []
    lines = []
    for name, expected in found["files"].items():
        file = Path(folder) / name
        if not any(str(file) in line for line in told) and (now := sha256_of(file)) != expected:
            state = f"has sha256 {now}, written was {expected}" if now else "not there; `run_all.py report` writes it"
            lines.append(f"{file}: {state}")
    return lines
