"""Every file appears whole or not at all: written beside its place, brought to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from carryover.bench.errors import StorageError, UserError
from carryover.bench.host.processes import alive, born, place
from carryover.bench.host.stopping import held_back

# What ``temporary`` makes; names of version 0.1 do not say when the process was born.
LEFT_BEHIND = re.compile(r"\..+\.(?P<place>[0-9a-f]{8})\.(?P<pid>\d+)(-(?P<born>\d*))?\.[^.]+\.part")
OUT = "--out (and --cache)"  # the flags that choose where files go, but for commands that have --to
DAY = 86400.0  # seconds after which an unfinished file of a process elsewhere is nobody's
_swept: set[Path] = set()  # folders that this process wrote in


def temporary(path: Path) -> Path:
    """A new empty file beside ``path`` that is hidden and says whose it is."""
    start = f".{path.name[:100]}.{here()}.{os.getpid()}-{born(os.getpid())}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=start, suffix=".part")
    os.close(handle)
    return Path(name)


def here() -> str:
    return hashlib.sha256(place().encode()).hexdigest()[:8]


def sweep(*folders: Path) -> int:
    """Takes away what killed processes left unfinished under the folders: files of this place's dead processes, and
    those older than a day of any other. Returns how many."""
    return sum(take_away(path) for folder in folders for path in Path(folder).rglob(".*.part"))


def take_away(path: Path, now: float | None = None) -> bool:
    """Whether it was an unfinished file that nobody works on any more. now: by the clock of the disk, where known."""
    if not (found := LEFT_BEHIND.fullmatch(path.name)):
        return False
    with contextlib.suppress(OSError):  # gone meanwhile, or not ours to take away
        dead = found["place"] == here() and not alive(int(found["pid"]), found["born"] or "")
        if dead or (now or time.time()) - path.stat().st_mtime > DAY:
            path.unlink()
            return True
    return False


def sweep_once(folder: Path, now: float) -> None:
    """Of what killed processes left in the folder, once in this process's life."""
    if folder not in _swept:
        _swept.add(folder)
        for path in folder.glob(".*.part"):
            take_away(path, now)


@contextlib.contextmanager
def whole(path: Path, flag: str = OUT) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well, and vanishes otherwise. When
    the block is over, file and name are on the disk, not only in memory. The first in a folder takes away what killed
    processes left there. Raises StorageError, which names the ``flag`` that chooses the place."""
    unfinished = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with held_back():
                unfinished = temporary(path)
            sweep_once(path.parent, unfinished.stat().st_mtime)
        except OSError as error:
            raise StorageError(
                f"cannot write '{path}': {error.strerror or error}; choose a writable folder with {flag}"
            ) from error
        yield unfinished
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        gone = unfinished is not None and not unfinished.exists()
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
        if gone:
            raise StorageError(
                f"'{path.parent}' was deleted or moved while this command worked; run the same command again"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot write '{path}': {reason}; what was stored before is whole: free space, or mend the disk, and run "
            "the same command again"
        ) from error
    except BaseException:
        if unfinished:
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


def read_text(path: Path) -> str:
    """Of a regular file. Raises OSError, for a pipe or a device too, which reading could wait at for ever; ValueError
    where it is no UTF-8."""
    check_regular(path)
    return path.read_text(encoding="utf-8")


def check_regular(path: Path) -> None:
    """Raises OSError for what is no file."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(errno.EINVAL, f"it is {kinds.get(stat.S_IFMT(mode), 'a device')} and no file", str(path))


def read_arrays(path: Path, framework: str = "np") -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays of a safetensors file, as ``framework`` has them, and header metadata. Raises UserError for a file that is
    not whole."""
    try:
        check_regular(path)
        with safe_open(path, framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"no file '{path}'") from None
    except (SafetensorError, OSError, ValueError, AttributeError) as error:  # the last: a type that numpy has not
        raise UserError(f"'{path}' is damaged ({str(error)[:120]}); delete it and run again") from error
