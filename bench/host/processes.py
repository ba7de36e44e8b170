"""What every process of the suite shares: how many workers there may be, that none outlives its parent, and which of
several processes on one folder still live."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import cache
from multiprocessing import connection
from pathlib import Path


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


@cache
def place() -> str:
    """Where a process id means the same process: this host since it was started, and (containers) this set of ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ids = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: the host alone
        boot = ids = ""
    return f"{socket.gethostname()} {boot} {ids}".strip()


def born(pid: int) -> str:
    """When that process was started, in the kernel's ticks, so that a number given again is not taken for it; empty
    where the system does not say, "gone" for one that has ended but was not waited for."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "gone" if state in "ZX" else fields[18]


def alive(pid: int, since: str = "") -> bool:
    """Whether that process of this place lives, and (where both are known) is the one that was born then."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        pass
    found = born(pid)
    return found != "gone" and not (since and found and found != since)
