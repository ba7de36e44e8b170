"""The one place that knows the results tree. Every file appears whole or not at all. What holds learned tensors is
written and read by ``bench.engine.run_store``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from carryover.bench.errors import StorageError, UserError, printable, quoted
from carryover.bench.host.files import read_arrays, read_text, whole, write_text
from carryover.bench.host.identity import digest, parse_json, sealed, sha256_of, unsealed
from carryover.bench.plan.run_labels import told
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.schema import fault


class Store:
    """``<out>/<arch>``: runs/ and drift/<key>.json, plugins/ and predictions/<key>.safetensors, splits/*.jsonl."""

    def __init__(self, out: str | Path, arch: str):
        self.folder = Path(out) / arch

    def check_writable(self) -> None:
        """Raises UserError now rather than after the first run's work."""
        with whole(self.folder / ".writable") as unfinished:
            unfinished.touch()
        (self.folder / ".writable").unlink(missing_ok=True)  # another process may look too

    def path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.{'json' if kind in ('runs', 'drift') else 'safetensors'}"

    def read_record(self, key: str) -> dict | None:
        """The finished record of that key, its plug-in and predictions as it left them; else None: the run is done
        again, and a warning says why where a file was changed."""
        try:
            stored = parse_json(read_text(self.path("runs", key)))
        except (OSError, ValueError):
            return None
        finished = not fault(stored) and stored["key"] == key and stored.get("status") == "done"
        files = self.files_of(stored).values() if finished else ()
        if not finished or not all(path.is_file() for path in files):
            return None
        record = unsealed(stored)
        changed = [broken_seal(stored)] if record is None else self.changed_files(record)
        if changed:
            logging.warning("%s; the run is done again", changed[0])
            return None
        return record

    def files_of(self, record: dict) -> dict[str, Path]:
        """The files whose sha256 a done record holds; a shifted set's plug-in is that of the run that trained it. A
        refreshed run also holds that of the plug-in it started from."""
        plugin = self.path("plugins", record.get("trained") or record["key"])
        carried = (record.get("identity") or {}).get("carried")
        before = {"carried": self.path("plugins", carried)} if carried else {}
        return {"plugin": plugin, "predictions": self.path("predictions", record["key"]), **before}

    def changed_files(self, record: dict) -> list[str]:
        """A line for each of a done record's files that is there with other bytes than the run left or evaluated."""
        if record.get("status") != "done":
            return []
        noted, lines = record.get("files") or {}, []
        for name, path in self.files_of(record).items():
            found = sha256_of(path)
            if found and found != noted.get(name):
                evaluated = name == "plugin" and record.get("trained") != record["key"]
                what = "started from" if name == "carried" else "evaluated" if evaluated else "left"
                lines.append(f"{about(record)}: '{path}' has sha256 {found}, the run {what} {noted.get(name)}")
        return lines

    def outcome(self, key: str) -> dict | None:
        """The record of that key whether its run is done or failed; None where there is none that can be read."""
        try:
            record = unsealed(json.loads(read_text(self.path("runs", key))))
        except (OSError, ValueError):
            return None
        return record if record and record.get("key") == key else None

    def stamp(self, key: str) -> tuple[int, int] | None:
        """What changes when that record is written again; None where there is none."""
        try:
            found = self.path("runs", key).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def check_there(self, keys: list[str]) -> None:
        """Raises StorageError where records of these keys, which were there, have gone."""
        if gone := sum(self.stamp(key) is None for key in keys):
            raise StorageError(
                f"'{self.folder / 'runs'}' was deleted or moved while this command worked: {gone} of {len(keys)} "
                "records that were there are gone; run the same command again"
            )

    def write_record(self, record: dict) -> None:
        text = json.dumps(sealed(record), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_text(self.path("runs", record["key"]), text)

    def records(self) -> list[dict]:
        """All records that are as they were written and under their own names, in the order of their keys."""
        found = [(path, unsealed(stored)) for path, stored, wrong in self._stored_records() if not wrong]
        return [record for path, record in found if record is not None and record["key"] == path.stem]

    def refused(self) -> list[str]:
        """A line for each record that ``records`` leaves out because it cannot be read or was changed or moved since it
        was written; one for all that hold no sha256."""
        lines, bare = [], 0
        for path, stored, wrong in self._stored_records():
            if wrong:
                lines.append(f"record {quoted(str(path), 300)} is left out: {printable(wrong)}")
                continue
            bare += "sha256" not in stored
            if "sha256" in stored and unsealed(stored) is None:
                lines.append(broken_seal(stored))
            elif "sha256" in stored and stored["key"] != path.stem:
                lines.append(f"'{path}' holds the record of run {about(stored)}, expected {path.stem}")
        if bare:
            lines.append(f"{bare} stored records without a sha256 of their content are left out; run them again")
        return lines

    def examined(self) -> Iterator[tuple[str, dict | None, str]]:
        """(file name, its record, else what is wrong) of each file among the records; no path is in what is said."""
        for path, stored, wrong in self._stored_records():
            record = None if wrong else unsealed(stored)
            if wrong:
                yield path.name, None, printable(wrong.replace(str(path), path.name))
            elif record is None:
                yield path.name, None, "was changed since it was written" if "sha256" in stored else "holds no sha256"
            elif record["key"] != path.stem:
                yield path.name, None, f"holds the record of run {record['key']}"
            else:
                yield path.name, record, ""

    def damaged(self) -> list[str]:
        """Names of the files among the records that cannot be read as one at all."""
        return [path.name for path, _, wrong in self._stored_records() if wrong]

    def _stored_records(self) -> Iterator[tuple[Path, Any, str]]:
        """(file, content, what of it no table can read)."""
        for path in sorted((self.folder / "runs").glob("*.json")):
            try:
                stored = parse_json(read_text(path))
            except (OSError, ValueError) as error:
                yield path, None, f"cannot be read ({error})"
            else:
                yield path, stored, fault(stored)

    def write_note(self, name: str, content: dict) -> None:
        """A file of its own beside the records: what a call predicted or took."""
        write_text(self.folder / name, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")

    def read_note(self, name: str, sound: Callable[[object], bool]) -> dict | None:
        """None where it is not there or not sound."""
        try:
            content = parse_json(read_text(self.folder / name))
        except (OSError, ValueError):
            return None
        return content if sound(content) else None

    def read_predictions(self, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """target -> (predicted labels, true labels), both (N,). Raises UserError where they are another run's."""
        return {target: (found.predicted, found.label) for target, found in self.read_outcomes(key).items()}

    def read_outcomes(self, key: str) -> dict[str, Outcome]:
        """The same with the confidence of each prediction, (N,) fp32, where it was kept."""
        arrays, header = read_arrays(self.path("predictions", key))
        if header.get("key") != key:
            raise UserError(
                f"'{self.path('predictions', key)}' holds the predictions of run {header.get('key')}, expected {key}"
            )
        targets = {name.split(".")[0] for name in arrays}
        return {
            t: Outcome(arrays[f"{t}.predicted"], arrays[f"{t}.label"], arrays.get(f"{t}.confidence")) for t in targets
        }

    def write_manifest(self, name: str, text: str) -> None:
        path = self.folder / "splits" / f"{name}.jsonl"
        try:
            same = read_text(path) == text
        except (OSError, ValueError):
            same = False
        if not same:
            write_text(path, text)


def about(record: dict) -> str:
    """How lines name a record."""
    run = record.get("run") or {}
    test = f" → {run['test']}" if run.get("test") else ""
    return f"{record.get('key')} ({run.get('dataset')}{test}, {run.get('method')}, seed {run.get('seed')}{told(run)})"


def broken_seal(stored: dict) -> str:
    content = digest({name: value for name, value in stored.items() if name != "sha256"})
    return f"{about(stored)}: the record was changed: its content has sha256 {content}, it says {stored.get('sha256')}"
