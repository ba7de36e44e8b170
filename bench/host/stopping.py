"""Ctrl-C, SIGTERM and SIGHUP: each ends a command in the same way, wherever it is, and no traceback is shown.

The first raises KeyboardInterrupt in the main thread, so that workers are ended, claims given back and unfinished files
taken away on its way out. Another within ``PATIENCE`` seconds is taken for the same one. A later one ends the process
where it stands; what that leaves behind is swept by the next command, as after a kill.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PATIENCE = 3.0  # seconds in which the way out is not hurried
GOES_ON = "what is done is kept; the same command goes on from here"
Handler = Callable[[int, "FrameType | None"], Any]


class Stop:
    """The handler of a command's signals, and what came of them; ``number`` is 0 until there was one."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > PATIENCE:
            end_at_once(number)

    def unraisable(self, usual: Callable, unraisable: Any) -> None:
        """Python drops an exception that meets a destructor; the signal is then sent again."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt) or not self.number:
            return usual(unraisable)
        number, self.number = self.number, 0
        threading.Timer(0.02, os.kill, (os.getpid(), number)).start()

    @property
    def status(self) -> int:
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def heard() -> Iterator[Stop]:
    """The signals are answered within; those that the caller ignores (``nohup``) stay ignored. Elsewhere than in the
    main thread, which alone may set them, nothing is done."""
    stop, hook = Stop(), sys.unraisablehook
    with kept():
        answer(stop)
        sys.unraisablehook = lambda found: stop.unraisable(hook, found)
        try:
            yield stop
        finally:
            sys.unraisablehook = hook


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is set for the signals within is undone afterwards: libraries set their own."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that Python did not set
                    signal.signal(number, handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """The signals wait until the block is over; a process that is started within begins with them blocked. Masked
    alone, they would reach Python by another thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with kept():
            for number in SIGNALS:
                if callable(signal.getsignal(number)):
                    signal.signal(number, lambda number, frame: came.append(number))
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came:
            signal.raise_signal(came[0])


def answer(handler: Handler) -> None:
    """Set for the signals that are not ignored."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """The process with its workers, without a way out; a handler too."""
    with contextlib.suppress(Exception):
        os.write(2, f"{line()}\n".encode())  # not through a stream that the handler may stand in the middle of
        for child in multiprocessing.active_children():
            child.kill()
    os._exit(128 + number)


def say(where: str = "") -> None:
    """One line that says how to go on. The terminal may be gone."""
    with contextlib.suppress(OSError, ValueError):
        print(line(where), file=sys.stderr, flush=True)


def line(where: str = "") -> str:
    return f"\nstopped{where and ' '}{where}: {GOES_ON}"
