"""How progress is shown: a bar on a terminal, one line that renews in a notebook, a line a minute in a log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as RichBar

from carryover.bench.errors import printable
from carryover.bench.render.terminal import aside, say, words_column

LOG_EVERY = 60.0  # seconds between lines of a log
LINE_EVERY = 2.0  # seconds between renewals of a notebook's line
FRAME_EVERY = 0.5  # seconds between frames of a terminal's bar
KERNEL = "JPY_PARENT_PID", "COLAB_RELEASE_TAG"  # a notebook's `!command` has a terminal, each frame of which is kept


class View(Protocol):
    """every  seconds between calls of ``show``: runs done and planned, at what, and the time left"""

    every: float

    def show(self, done: int, planned: int, what: str, left: str) -> None: ...

    def close(self) -> None: ...


class Bar:
    every = FRAME_EVERY

    def __init__(self, console: Console):
        self.bar = RichBar(
            words_column("{task.description:<44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            words_column("{task.fields[left]}"),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self.bar.add_task("", total=None, left="")
        self.bar.start()

    def show(self, done: int, planned: int, what: str, left: str) -> None:
        given: dict[str, Any] = {"description": printable(what), "left": left}
        self.bar.update(self._task, completed=done, total=planned, refresh=True, **given)

    def close(self) -> None:
        self.bar.stop()


class NotebookLine:
    every = LINE_EVERY

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display(self._plain(""), raw=True, display_id=True)
        self._shown = ""

    def show(self, done: int, planned: int, what: str, left: str) -> None:
        line = in_a_line(done, planned, what, left)
        if line != self._shown:
            self._shown = line
            self._handle.update(self._plain(line), raw=True)

    def close(self) -> None:
        self._handle.update(self._plain(""), raw=True)

    @staticmethod
    def _plain(line: str) -> dict[str, str]:
        return {"text/plain": printable(line)}


class Log:
    every = LOG_EVERY

    def __init__(self, console: Console):
        self.console = console

    def show(self, done: int, planned: int, what: str, left: str) -> None:
        say(in_a_line(done, planned, what, left), to=self.console)

    def close(self) -> None:
        pass


def in_a_line(done: int, planned: int, what: str, left: str) -> str:
    return f"{done}/{planned} runs; {what}" + (f"; {left}" if left else "")


def view_of(console: Console) -> View:
    if console.quiet:
        return Log(console)
    if console.is_jupyter:
        return NotebookLine()
    return Bar(console) if console.is_terminal and not any(name in os.environ for name in KERNEL) else Log(console)


class Ticker:
    """Calls ``tick`` every so many seconds within the block, whatever the main thread waits for."""

    def __init__(self, every: float, tick: Callable[[], None]):
        self.every, self.tick = every, tick
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._over.wait(self.every):
            self.tick()


class Progress:
    """Says how many pictures are encoded, a line a minute, for commands that show no table of progress."""

    def __init__(self) -> None:
        self.spoken = time.monotonic()

    def __call__(self, what: str, done: int, count: int) -> None:
        if time.monotonic() - self.spoken > LOG_EVERY:
            self.spoken = time.monotonic()
            say(f"{what}, {done} of {count}", to=aside)
