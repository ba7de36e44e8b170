"""Fetch, unpack and arrange the paper's datasets under a data root, in CoOp's layout, and say what is left to do.

What is there is never fetched again, overwritten or removed, but for a split file whose content is none (a server's
error message, say), which goes as soon as a right one is there. Archives lie in ``<data root>/downloads`` and stay
there; one that was put there by hand is checked and used like one that was fetched. A file or folder of the layout
appears whole or not at all, so a run that was stopped leaves nothing half-arranged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carryover import datasets
from carryover.bench.errors import UserError, quoted
from carryover.datasets import coop_format, fetch
from carryover.datasets.layouts import LAYOUTS
from carryover.datasets.sources import SOURCES, Source
from carryover.datasets.unpack import unpack
from carryover.datasets.verify import Finding, check_dataset

DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Outcome:
    """One dataset after ``prepare``: ``finding`` of its check, what failed, and what a person must fetch."""

    id: str
    finding: Finding
    state: str  # "ready", "partial" or "missing"
    failed: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


def prepare(
    id: str,
    data_root: str,
    *,
    make_split: bool = False,
    mirror: str = "",
    sources: Mapping[str, Sequence[Source]] = SOURCES,
    progress: fetch.Progress | None = None,
) -> Outcome:
    """Bring one dataset as far as a program can, then check it. Other files go on where one fails.

    make_split  also make a split where the published file cannot be had
    mirror      an address under which all files lie by name: it is asked in place of their own addresses
    """
    finding = check_dataset(id, data_root, make_split)
    if finding.ready:
        return Outcome(id, finding, "ready")
    failed, by_hand = [], []
    for source in sources[id]:
        try:
            if not missing_of(id, data_root, source):
                continue
            archive = Path(data_root) / DOWNLOADS / source.name
            if source.by_hand and not (source.name and (mirror or archive.is_file())):
                if make_split or not source.extra:
                    by_hand.append(by_hand_line(id, data_root, source))
                continue
            obtain(id, source, archive, mirror, progress)
            arrange(id, data_root, source, archive, progress)
        except UserError as error:
            failed.append(f"{id}: {error}")
            if source.by_hand and (make_split or not source.extra):
                by_hand.append(by_hand_line(id, data_root, source))
    if make_split:
        with contextlib.suppress(UserError):  # the check says what is wrong
            datasets.load(id, data_root, make_split=True)
    finding = check_dataset(id, data_root, make_split)
    some = any(not missing_of(id, data_root, source) for source in sources[id])
    return Outcome(
        id, finding, "ready" if finding.ready else "partial" if some else "missing", *map(tuple, (failed, by_hand))
    )


def missing_of(id: str, data_root: str, source: Source) -> list[tuple[str, str]]:
    """The pairs of ``source.gives`` whose place is not filled, or by a split file that is none."""
    folder = Path(data_root) / LAYOUTS[id].folder
    return [
        (inside, place)
        for inside, place in source.gives
        if not filled(folder / place) or is_spoilt(id, source, folder / place)
    ]


def is_spoilt(id: str, source: Source, path: Path) -> bool:
    """Whether ``source`` is the split file of the dataset and what lies at ``path`` is no split."""
    return bool(source.name) and source.name == LAYOUTS[id].split and not coop_format.is_split(id, path)


def filled(place: Path) -> bool:
    """A file, or a folder with something in it."""
    try:
        return any(place.iterdir()) if place.is_dir() else place.exists()
    except OSError as error:
        raise UserError(f"cannot look at '{place}' ({error.strerror or error})") from error


def by_hand_line(id: str, data_root: str, source: Source) -> str:
    """What to fetch, why, from where, and where to put it."""
    folder = Path(data_root) / LAYOUTS[id].folder
    places = " and ".join(f"'{folder / place}'" for _, place in source.gives)
    if not source.name:
        return f"{id}: {source.url}: {source.by_hand}; place: {places}"
    unpacked = f", or its content as {places}" if source.archive else ""
    place = Path(data_root) / DOWNLOADS / source.name
    return f"{id}: {source.name} ({source.url}): {source.by_hand}; place: '{place}'{unpacked}, then run again"


def obtain(id: str, source: Source, archive: Path, mirror: str, progress: fetch.Progress | None) -> None:
    """The file in the download folder, fetched unless it is there, and right. Raises UserError."""
    if not archive.is_file() or is_spoilt(id, source, archive):
        url = f"{mirror.rstrip('/')}/{source.name}" if mirror else source.address
        fetch.download(url, archive, size=source.size, digest=source.digest, page=source.url, progress=progress)
        if is_spoilt(id, source, archive):
            found = quoted(archive.read_bytes()[: fetch.HEAD].decode(errors="replace"))
            archive.unlink()
            raise UserError(
                f"{source.name}: {url} gives {found}; expected lists train, val and test of [path, label, class name]; "
                f"it is removed: run again, or fetch {source.url} by hand to '{archive}'"
            )
        return
    wrong = fetch.check_file(archive, source.size, source.digest)
    if not wrong:
        try:
            with open(archive, "rb") as file:
                wrong = fetch.other_kind(source.name, file.read(fetch.HEAD))
        except OSError as error:
            raise UserError(f"cannot read '{archive}' ({error.strerror or error})") from error
    if wrong:
        raise UserError(f"'{archive}' is {wrong}; delete it, or put the published file there ({source.url})")


def arrange(id: str, data_root: str, source: Source, archive: Path, progress: fetch.Progress | None) -> None:
    """The file's content in the places that are not filled yet. Raises UserError."""
    folder = Path(data_root) / LAYOUTS[id].folder
    # Beside the places, so that moving is renaming even where the dataset's folder is a link to another disk; hidden
    # names are no part of a dataset.
    work = folder / f".unpacking-{source.name}"
    pairs = missing_of(id, data_root, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        if not source.archive:
            work.mkdir()
            shutil.copyfile(archive, work / source.name)
            pairs = [(source.name, place) for _, place in pairs]
        else:
            fetch.need_room(work, 0, archive.stat().st_size)
            packed = archive
            if source.inner:
                unpack(archive, work / "outer", [source.inner], progress)
                packed = work / "outer" / source.inner
            unpack(packed, work / "content", [inside for inside, _ in pairs], progress)
            pairs = [(f"content/{inside}", place) for inside, place in pairs]
        for inside, place in pairs:
            if (folder / place).is_dir():
                (folder / place).rmdir()  # it is empty
            os.replace(work / inside, folder / place)
    except OSError as error:
        raise UserError(f"cannot arrange '{archive}' in '{folder}' ({error.strerror or error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def alone(data_root: str) -> Iterator[None]:
    """Raises UserError where another ``prepare`` works in the same data root: they would write the same files."""
    folder = Path(data_root) / DOWNLOADS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise UserError(f"--data-root: cannot write in '{folder}' ({error.strerror or error})") from error
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the process ends, however it ends
        except ImportError:  # Windows
            pass
        except BlockingIOError:
            raise UserError(f"--data-root: another prepare works in '{data_root}'; wait for it") from None
        except OSError:  # a file system without locks
            pass
        yield


def kept_bytes(data_root: str) -> int:
    """Size of the archives in the download folder."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in (Path(data_root) / DOWNLOADS).iterdir() if path.is_file())
    return 0
