"""The one place that knows the results tree: records, plug-ins, predictions. Every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UserError, printable, quoted
from bench.naming import told
from bench.outcomes import Outcome
from bench.processes import alive, place
from bench.soundness import fault

PLUGIN_FORMAT, PLUGIN_VERSION = "carryover-plugin", 1  # docs/plugins.md
FIRST_FORMAT = "1"  # of the plug-ins that runs wrote before the format had a name: read, no longer written
LEFT_BEHIND = re.compile(r"\..+\.(?P<place>[0-9a-f]{8})\.(?P<pid>\d+)\.[^.]+\.part")  # what ``temporary`` makes
OUT = "--out (and --cache)"  # the flags that choose where files go, but for commands that have --to
DAY = 86400.0  # seconds after which an unfinished file of a process elsewhere is nobody's


class StorageError(UserError):
    """A file could not be written (disk full, read-only): it concerns every run, not the one that met it."""


def canonical(value) -> str:
    """Canonical JSON: sorted keys, no spaces; what every identity is hashed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sealed(content: dict) -> dict:
    """The content with its own sha256: changed by hand, it is refused. No signature: whoever changes it can seal it
    anew."""
    return {**content, "sha256": digest(content)}


def unsealed(stored) -> dict | None:
    """What was sealed; None where the seal is missing or another content's."""
    if not isinstance(stored, dict):
        return None
    content = {name: value for name, value in stored.items() if name != "sha256"}
    return content if stored.get("sha256") == digest(content) else None


def sha256_of(path: Path) -> str:
    """Of a file's bytes; empty where there is no such file."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except FileNotFoundError:
        return ""
    return found.hexdigest()


def parse_json(text: str):
    """As ``json.loads``; NaN, infinities, numbers beyond a float and nesting without end are a ValueError too: what is
    read can be written again."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):
            raise ValueError(f"{quoted(number, 20)} is more than a float holds")
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def temporary(path: Path) -> Path:
    """A new empty file beside ``path`` that is hidden and says whose it is."""
    start = f".{path.name[:100]}.{here()}.{os.getpid()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=start, suffix=".part")
    os.close(handle)
    return Path(name)


def here() -> str:
    return hashlib.sha256(place().encode()).hexdigest()[:8]


def sweep(*folders: Path) -> int:
    """Takes away what killed processes left unfinished under the folders: files of this place's dead processes, and
    those older than a day of any other. Returns how many."""
    count = 0
    for path in (path for folder in folders for path in Path(folder).rglob(".*.part")):
        if not (found := LEFT_BEHIND.fullmatch(path.name)):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to take away
            if found["place"] == here() and not alive(int(found["pid"])) or time.time() - path.stat().st_mtime > DAY:
                path.unlink()
                count += 1
    return count


@contextlib.contextmanager
def whole(path: Path, flag: str = OUT) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well, and vanishes otherwise. When
    the block is over, file and name are on the disk, not only in memory. Raises StorageError, which names the ``flag``
    that chooses the place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = temporary(path)
    except OSError as error:
        raise StorageError(
            f"cannot write '{path}': {error.strerror or error}; choose a writable folder with {flag}"
        ) from error
    try:
        yield unfinished
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot write '{path}': {reason}; what was stored before is whole: free space, or mend the disk, and run "
            "the same command again"
        ) from error
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    settle(path.parent)


def settle(folder: Path) -> None:
    """The folder's names to the disk, so that a record there after a power cut means its plug-in is there too. Some
    file systems know no such thing; the file itself is whole either way."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str, flag: str = OUT) -> None:
    with whole(Path(path), flag) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], flag: str = OUT) -> None:
    with whole(Path(path), flag) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header metadata. Raises UserError for a file that is not whole."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"no file '{path}'") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({str(error)[:120]}); delete it and run again") from error


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
            stored = parse_json(self.path("runs", key).read_text(encoding="utf-8"))
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
            record = unsealed(json.loads(self.path("runs", key).read_text(encoding="utf-8")))
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
                stored = parse_json(path.read_text(encoding="utf-8"))
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
            content = parse_json((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if sound(content) else None

    def write_plugin(self, key: str, tensors: dict[str, Tensor], metadata: dict) -> int:
        """Learned tensors only; returns the file's size in bytes."""
        path = self.path("plugins", key)
        # One entry, for safetensors writes several in no fixed order: the same plug-in is the same bytes.
        header = {"format": PLUGIN_FORMAT, "version": PLUGIN_VERSION, "key": key, **metadata}
        write_tensors(path, tensors, {"plugin": canonical(header)})
        return path.stat().st_size

    def read_plugin(self, key: str) -> tuple[dict[str, Tensor], dict]:
        """Raises UserError where it is not there (its run failed), damaged, or another run's."""
        tensors, header = read_tensors(self.path("plugins", key))
        try:
            metadata = dict(parse_json(header["plugin"]))
        except (KeyError, ValueError, TypeError):
            metadata = {}
        form, version, own = (metadata.pop(name, None) for name in ("format", "version", "key"))
        if (form, version) not in ((PLUGIN_FORMAT, PLUGIN_VERSION), (FIRST_FORMAT, None)) or own != key:
            raise UserError(
                f"plug-in '{self.path('plugins', key)}' has format {form}, version {version} and key {own}, expected "
                f"{PLUGIN_FORMAT}, {PLUGIN_VERSION} and {key}: it is not the file this run wrote"
            )
        return tensors, metadata

    def write_predictions(self, key: str, tensors: dict[str, Tensor]) -> None:
        write_tensors(self.path("predictions", key), tensors, {"key": key})

    def read_predictions(self, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """target -> (predicted labels, true labels), both (N,). Raises UserError where they are another run's."""
        return {target: (found.predicted, found.label) for target, found in self.read_outcomes(key).items()}

    def read_outcomes(self, key: str) -> dict[str, Outcome]:
        """The same with the confidence of each prediction, (N,) fp32, where it was kept."""
        tensors, header = read_tensors(self.path("predictions", key))
        if header.get("key") != key:
            raise UserError(
                f"'{self.path('predictions', key)}' holds the predictions of run {header.get('key')}, expected {key}"
            )
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        targets = {name.split(".")[0] for name in arrays}
        return {
            t: Outcome(arrays[f"{t}.predicted"], arrays[f"{t}.label"], arrays.get(f"{t}.confidence")) for t in targets
        }

    def write_manifest(self, name: str, text: str) -> None:
        path = self.folder / "splits" / f"{name}.jsonl"
        try:
            same = path.read_bytes() == text.encode()
        except OSError:
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
