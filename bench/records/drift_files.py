"""Layer drift as ``bench.engine.drift_runs`` measured and stored it, and the names of what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carryover.bench.backbones.drift_names import DRIFT_VERSION
from carryover.bench.errors import UserError
from carryover.bench.host.files import read_text
from carryover.bench.host.identity import parse_json, unsealed
from carryover.bench.records.schema import KEY


def load_all(folder: Path) -> list[dict]:
    """What the last ``measure_all`` returned, from ``folder`` (``results/<arch>``) alone; empty before the first.
    Raises UserError for a file whose content is not what was written, or that does not say."""
    drift = Path(folder) / "drift"
    entries = read(drift / "current.json") or []
    if not isinstance(entries, list) or not all(map(is_entry, entries)):
        raise UserError(
            f"'{drift / 'current.json'}' is no list of measurements; delete it and measure again: "
            "run_all.py --suite drift"
        )
    found = []
    for entry in entries:
        measured = None
        if "left_out" not in entry:
            path = drift / f"{entry['key']}.json"
            measured = unsealed(stored := read(path))
            if stored is not None and (measured is None or measured.get("key") != entry["key"]):
                raise UserError(
                    f"'{path}' does not match the sha256 of its content, or holds none: changed since it was measured, "
                    "or written by an older version; delete it and measure again: run_all.py --suite drift"
                )
        if measured is None and "left_out" not in entry:
            entry = {**entry, "left_out": f"drift/{entry['key']}.json is missing or damaged; measure again"}
        elif measured is not None and measured.get("identity", {}).get("version") != DRIFT_VERSION:
            # Its numbers mean something else than what the tables say they are.
            why = f"drift/{entry['key']}.json is of another version; measure again: run_all.py --suite drift"
            measured, entry = None, {**entry, "left_out": why}
        found.append({**(measured or {}), **entry})
    return found


def read(path: Path) -> Any:
    """The content of a file of `drift/`; None where it cannot be read."""
    try:
        return parse_json(read_text(path))
    except (OSError, ValueError):
        return None


def is_entry(entry) -> bool:
    return isinstance(entry, dict) and ("left_out" in entry or bool(KEY.fullmatch(str(entry.get("key", "")))))
