"""Which process does what, where several share a folder: a claim is a small file that one process alone can make.

A claim names its owner. An owner in the same place (``processes.place``) is asked whether it lives, so that a dead
one's claim is taken over at once. One elsewhere (another machine on a shared disk, another container) cannot be asked:
it touches its claims while it lives, and one that was not touched for ``LIMIT`` seconds is nobody's. Clocks may be set
in between, so that its age by the disk's clock counts only after ``CONFIRM`` seconds, by this process's own, in which
it was not touched; a claim from the future is given ``LIMIT`` of those.

An owner that was stopped for longer finds its claims taken when it wakes: they are then the other's, and so is what the
other writes (``holds``, ``is_ours``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from carryover.bench.errors import StorageError
from carryover.bench.host.files import DAY, read_text, temporary
from carryover.bench.host.processes import alive, born, place

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 20.0  # seconds between touches
LIMIT = 300.0  # seconds untouched: far more than file systems keep a file's time to themselves (60 on NFS)
CONFIRM = 2 * HEARTBEAT + 5  # seconds without a touch that show that none is to come
POLL = 0.5  # seconds between looks at what another holds
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Claims:
    """This process's claims in a folder; a context manager that gives them all back."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.held: set[str] = set()
        self._token: Path | None = None  # every claim is a link to it, so that one touch keeps them all
        self._seen: dict[str, tuple[float, float]] = {}  # of others' claims: time of touch, and when it was first seen
        self._ended = threading.Event()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        for name in list(self.held):
            self.release(name)
        with contextlib.suppress(OSError):
            if self._token:
                self._token.unlink(missing_ok=True)
            self.folder.rmdir()  # another's claims keep it

    def take(self, name: str) -> bool:
        """Whether it is ours now: nobody had it, or its owner is dead. Raises StorageError."""
        if self.holds(name):
            return True
        path = self.folder / name
        while not self._make(path):
            if not self._abandoned(path):
                return False
            self._clear(path)
        self.held.add(name)
        return True

    def wait(self, names: Iterator[str] | list[str]) -> None:
        """Take them all, waiting for those that another holds. All who wait do so in one order, so none waits for
        ever."""
        for name in sorted(names):
            while not self.take(name):
                time.sleep(POLL)

    def holds(self, name: str) -> bool:
        """Whether it is ours still."""
        if name in self.held and not self._is_token(self.folder / name):
            self.held.discard(name)
        return name in self.held

    def release(self, name: str) -> None:
        with locked(self.folder):
            if self.holds(name):
                self.held.discard(name)
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def owner(self, name: str) -> str:
        """Who holds it, for a reader; empty where nobody does."""
        try:
            found = read(self.folder / name)
        except OSError:
            return ""
        return f"process {found.get('pid', '?')} on {str(found.get('place', '?')).split(' ')[0]}"

    def _make(self, path: Path) -> bool:
        for _ in range(10):  # the folder may be taken away by one that leaves it, just before our file is in it
            try:
                return self._link(path)
            except FileNotFoundError:
                self._token = None
            except OSError as error:
                if isinstance(error, FileExistsError) and (self.folder.is_dir() or not self.folder.exists()):
                    continue  # mkdir met the folder, and it was gone when mkdir looked what it is
                raise StorageError(f"cannot write '{path}': {error.strerror or error}; choose another --out") from error
        raise StorageError(f"cannot write '{path}': its folder vanishes again and again")

    def _link(self, path: Path) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._token is None:
            self._token = temporary(self.folder / "claims")
            owner = {"place": place(), "pid": os.getpid(), "born": born(os.getpid()), "token": self._token.name}
            self._token.write_text(json.dumps(owner), encoding="utf-8")
            threading.Thread(target=self._keep, daemon=True).start()
        try:
            os.link(self._token, path)
            return True
        except FileExistsError:
            if os.path.lexists(path) and not path.is_file():
                raise StorageError(f"'{path}' is in the way of a claim and no file; take it away") from None
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(self._token.read_text(encoding="utf-8"))
            return True
        except FileExistsError:
            return False

    def _is_token(self, path: Path) -> bool:
        try:
            return self._token is not None and read(path).get("token") == self._token.name
        except OSError:
            return False

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            paths = [self._token] if self._token else []
            for path in [*paths, *(self.folder / name for name in list(self.held) if self.holds(name))]:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def _abandoned(self, path: Path) -> bool:
        try:
            owner, touched = read(path), path.stat().st_mtime
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if owner.get("place") == place() and isinstance(pid := owner.get("pid"), int) and pid > 0:
            return not alive(pid, str(owner.get("born") or ""))
        before, since = self._seen.get(path.name, (None, 0.0))
        if before != touched:
            self._seen[path.name] = touched, (since := time.monotonic())
        untouched, age = time.monotonic() - since, self._now() - touched
        return age > DAY or untouched > (CONFIRM if age > LIMIT else LIMIT)

    def _now(self) -> float:
        """By the clock of the disk, which need not be this machine's."""
        if self._token:
            with contextlib.suppress(OSError):
                os.utime(self._token)
                return self._token.stat().st_mtime
        return time.time()

    def _clear(self, path: Path) -> None:
        """Take an abandoned claim away, unless another did so and has made its own since."""
        with locked(self.folder):
            if self._abandoned(path):
                with contextlib.suppress(OSError):
                    path.unlink()


def tidy(folder: Path) -> None:
    """Take away what the dead left there, such as the claim of one killed between its last write and giving it back."""
    with Claims(folder) as ours:
        for path in [path for path in Path(folder).glob("*") if not path.name.startswith(".")]:
            if ours._abandoned(path):
                ours._clear(path)


def is_ours(path: Path) -> bool:
    """Whether that claim is of this process, or of the one whose worker it is."""
    try:
        owner = read(path)
    except OSError:
        return False
    return owner.get("place") == place() and owner.get("pid") in (os.getpid(), os.getppid())


def read(path: Path) -> dict:
    """A claim's owner; empty where it does not say. Raises OSError, for what is no file too."""
    try:
        found = json.loads(read_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """For the moment of a take-over. Where the file system knows no locks, nothing is held: see the module."""
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None and fcntl:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
