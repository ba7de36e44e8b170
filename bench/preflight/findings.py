"""The page of findings that `doctor` prints, and the space on disk that it asks for."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from carryover.bench.backbones import loading
from carryover.bench.errors import UserError
from carryover.bench.preflight import budget
from carryover.bench.render.terminal import say


class Page:
    """Prints line by line and counts what is bad."""

    def __init__(self):
        self.problems = self.notes = 0

    def section(self, title: str) -> None:
        say((title, "bold"))

    def ok(self, what: str, found: str) -> None:
        self._line(("ok", "green"), what, found)

    def note(self, what: str, found: str) -> None:
        self.notes += 1
        self._line(("note", "yellow"), what, found)

    def bad(self, what: str, found: object) -> None:
        self.problems += 1
        self._line(("bad", "red"), what, str(found))

    @contextlib.contextmanager
    def guard(self, what: str):
        """What cannot be looked at is bad, in one line, and the page goes on."""
        try:
            yield
        except UserError as error:
            self.bad(what, str(error).removeprefix(f"{what}: "))
        except Exception as error:
            self.bad(what, f"{type(error).__name__}: {loading.first_line(error)}")

    def _line(self, mark: tuple[str, str], what: str, found: str) -> None:
        say(mark, f"{' ' * (4 - len(mark[0]))} {what}: {found}")


def check_space(page: Page, what: str, needed: int, folder: str) -> None:
    free = free_space(folder)
    if free < needed:
        page.bad(
            what, f"{amount(needed)} needed, {amount(free)} free at '{folder}'; make room, or choose --out and --cache"
        )
    elif free < 1.2 * needed:
        page.note(what, f"{amount(needed)} needed and only {amount(free)} free at '{folder}'")
    else:
        page.ok(what, f"{amount(needed)} needed, {amount(free)} free")


def nearest(folder: str | Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = Path(folder).resolve()
    return path if path.exists() else nearest(path.parent)


def free_space(folder: str) -> int:
    return shutil.disk_usage(nearest(folder)).free


def check_writable(folder: str) -> None:
    """Without leaving anything behind: the nearest folder that is there must take a file."""
    found = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=found):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write '{folder}': {error.strerror or error}; choose a writable folder with --out (and --cache)"
        ) from error


def amount(count: int | None) -> str:
    return budget.size(count) if count is not None else "size not known"
