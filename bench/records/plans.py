"""What calls planned: a file for each set of runs that a call was asked for, so that a record taken away is missed.

``plans/<digest of the keys>.json`` holds ``runs`` (key -> what the run is, in words) and ``recorded``: whether the call
came to its end, so that each of them has left a record, done or failed. A call with ``--set`` or ``--sweep`` also has
``changes``, the options of each row that it asked for, which its name then goes by too. The same call again is the same
file, and several processes at one plan write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from carryover.bench.host.files import read_text, write_text
from carryover.bench.host.identity import canonical, digest, parse_json, sealed, unsealed
from carryover.bench.records.reading import Record, counted

FOLDER = "plans"


def write(folder: Path, runs: Mapping[str, str], recorded: bool = False, changes: Sequence[Sequence[str]] = ()) -> str:
    """Writes the plan under folder (``results/<arch>``) where it is not there; returns its name. What was once recorded
    stays so."""
    content: dict[str, Any] = {"runs": dict(sorted(runs.items())), "recorded": recorded}
    if changes:
        content["changes"] = [list(one) for one in changes]
    name = name_of(content)
    path = Path(folder) / FOLDER / f"{name}.json"
    known = read(path)
    if known is None or recorded > known["recorded"]:
        write_text(path, canonical(sealed(content)) + "\n")
    return name


def name_of(plan: Mapping[str, Any]) -> str:
    keys = sorted(plan["runs"])
    return digest([keys, plan["changes"]] if plan.get("changes") else keys)[:16]


def changes(folder: Path) -> list[tuple[str, ...]]:
    """The options of each row that calls asked for, each once."""
    plans = [read(path) for path in sorted((Path(folder) / FOLDER).glob("*.json"))]
    return sorted({tuple(one) for plan in plans if plan is not None for one in plan.get("changes", ())})


def read(path: Path) -> dict[str, Any] | None:
    """None for a file that is not there, not as it was written, or under another name."""
    try:
        found = unsealed(parse_json(read_text(path)))
    except (OSError, ValueError):
        return None
    if found is None:
        return None
    sound = isinstance(found.get("runs"), dict) and isinstance(found.get("recorded"), bool)
    sound = sound and all(isinstance(value, str) for value in found["runs"].values())
    given = found.get("changes", [])
    sound = sound and isinstance(given, list) and all(isinstance(one, list) for one in given)
    sound = sound and all(isinstance(text, str) for one in given for text in one)
    return found if sound and path.stem == name_of(found) else None


def differences(folder: Path, records: Iterable[Record], present: set[str]) -> Iterator[str]:
    """A line for each run that was planned and recorded and has no record now, and for each plan that is not as it was
    written. ``present``: keys of all files among the records, those that cannot be read too."""
    plans = {path.stem: (path, read(path)) for path in sorted((Path(folder) / FOLDER).glob("*.json"))}
    for path, plan in plans.values():
        if plan is None:
            yield f"'{path}' is no plan, or was changed since it was written"
        elif plan["recorded"]:
            for key, what in plan["runs"].items():
                if key not in present:
                    yield f"{key} ({what}): was planned and recorded ('{path}'), its record is not there"
    named: dict[str, list[str]] = {}
    for record in records:
        if record.get("plan"):
            named.setdefault(record["plan"], []).append(record["key"])
    for name, keys in sorted(named.items()):
        path, plan = plans.get(name, (Path(folder) / FOLDER / f"{name}.json", None))
        if name not in plans:
            yield f"'{path}' is not there; {counted(len(keys), 'record')} of its runs are"
        elif plan is not None and (others := [key for key in keys if key not in plan["runs"]]):
            yield f"'{path}' does not hold {', '.join(others[:3])}{' …' * (len(others) > 3)}, whose records name it"


def to_do(folder: Path, present: set[str]) -> int:
    """Runs of calls that have not come to their end, and that no file is of."""
    plans = [read(path) for path in (Path(folder) / FOLDER).glob("*.json")]
    unfinished = [plan["runs"] for plan in plans if plan is not None and not plan["recorded"]]
    return len({key for runs in unfinished for key in runs} - present)
