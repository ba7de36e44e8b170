"""Unpack an archive that is not trusted: nothing is written outside its folder, no link is made, no bomb goes off.

The rules are checked here, not by ``tarfile``'s filters, which not every supported Python has. A link to a file of the
same archive becomes that file; any other link, and every device, is refused. All names are checked, also those of
members that are not wanted.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from carryover.bench.errors import UserError, quoted

CHUNK = 1 << 20
MOST_FILES = 2_000_000  # ImageNet has 1.3 million
MOST_TIMES, MOST_MORE = 20, 1 << 28  # unpacked bytes: so many times the archive's, and a quarter of a GB
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
Progress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class Member:
    """One entry. ``kind`` is "file", "folder", "link" or "other"; ``target`` is a link's, from the archive's root where
    ``rooted`` (tar's hard links), else from the member's folder."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes]]
    target: str = ""
    rooted: bool = False


def unpack(archive: Path, into: Path, wanted: Iterable[str], progress: Progress | None = None) -> None:
    """Write the members at or below the ``wanted`` paths into the new folder ``into``.

    Raises UserError, and leaves no ``into``, for a name or link that leaves the folder, a device, too many or too large
    members, a wanted path that is not there, and an archive that is damaged.
    """
    paths = [tuple(path.split("/")) for path in wanted]
    try:
        into.mkdir(parents=True)
        with members_of(archive) as members:
            write(archive, into, members, paths, progress)
        for path in paths:
            if not into.joinpath(*path).exists():
                raise UserError(f"'{archive}' holds no '{'/'.join(path)}': it is another file; delete it and run again")
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if isinstance(error, DAMAGED):
            raise UserError(f"'{archive}' is damaged ({reason}); delete it and run again") from error
        if isinstance(error, OSError):
            raise UserError(f"cannot unpack '{archive}' into '{into}' ({error.strerror or reason})") from error
        raise


def write(archive: Path, into: Path, members: Iterable[Member], wanted: list, progress: Progress | None) -> None:
    most, whole = MOST_TIMES * archive.stat().st_size + MOST_MORE, 0
    written: dict[tuple[str, ...], int] = {}
    links: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def refused(why: str) -> UserError:
        return UserError(f"'{archive}' is refused: {why}; delete it and fetch the published file")

    for count, member in enumerate(members, 1):
        whole += member.size
        if count > MOST_FILES or whole > most:
            what = f"{MOST_FILES} members" if count > MOST_FILES else f"{most} bytes"
            raise refused(f"it unpacks to more than {what}")
        path = safe_path(member.name)
        if path is None:
            raise refused(f"{quoted(member.name)} is a path outside the folder")
        target = safe_path(member.target, () if member.rooted else path[:-1]) if member.kind == "link" else ()
        if target is None:
            raise refused(f"{quoted(member.name)} is a link out of the folder, to {quoted(member.target)}")
        if member.kind == "other":
            raise refused(f"{quoted(member.name)} is a device, a pipe or something else that is no file")
        if not path or not any(path[: len(start)] == start for start in wanted):
            continue
        place = into.joinpath(*path)
        if member.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
        elif member.kind == "link":
            links.append((path, target))
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(place, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            if place.stat().st_size != member.size:
                raise EOFError(f"{member.name} has {place.stat().st_size} bytes of {member.size}")
            written[path] = member.size
            if progress:
                progress(f"unpacking {archive.name}", whole, None)
    for path, target in links:
        whole += written.get(target, 0)
        if target not in written or whole > most:
            why = "is no file of the archive" if target not in written else f"makes more than {most} bytes"
            raise refused(f"{quoted('/'.join(path))} is a link to {quoted('/'.join(target))}, which {why}")
        into.joinpath(*path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(into.joinpath(*target), into.joinpath(*path))


def safe_path(name: str, start: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """The parts of a path in an archive, seen from its root; None for one that leaves it on any system.

    start   the folder that a link's target is relative to; only a target may hold "..", a member's name may not
    """
    if "\0" in name or "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name):
        return None
    parts = list(start)
    for part in name.split("/"):
        if part == ".." and not (start and parts):
            return None
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


# ---- the kinds of archives -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def members_of(archive: Path) -> Iterator[Iterator[Member]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            yield (zip_member(file, info) for info in file.infolist())
    else:
        with tarfile.open(archive) as file:
            yield (tar_member(file, info) for info in file)


def tar_member(file: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kind = "file" if info.isreg() else "folder" if info.isdir() else "other"
    if info.issym() or info.islnk():
        return Member(info.name, "link", 0, lambda: opened(file, info), info.linkname, info.islnk())
    return Member(info.name, kind, info.size if kind == "file" else 0, lambda: opened(file, info))


def opened(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    if (source := file.extractfile(info)) is None:
        raise tarfile.TarError(f"{info.name} has no content")
    return source


def zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        target = file.read(info).decode("utf-8", "replace") if info.file_size < 4096 else "/"
        return Member(info.filename, "link", 0, lambda: file.open(info), target)
    kind = "folder" if info.is_dir() else "other" if stat.S_IFMT(mode) not in (0, stat.S_IFREG) else "file"
    return Member(info.filename, kind, info.file_size, lambda: file.open(info))
