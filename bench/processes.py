"""What every worker process of the suite shares: how many there may be, and that none outlives its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import connection


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """A worker whose parent was killed must not stay behind, waiting for work."""
    if parent := multiprocessing.parent_process():
        connection.wait([parent.sentinel])
    os._exit(1)


def follow_parent() -> None:
    """Called in a new worker: Ctrl-C is the parent's to answer, and the worker ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started within never see Ctrl-C, not even while they import. Elsewhere than in the main thread, which
    alone may set signals, nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
