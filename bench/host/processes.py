"""What every process of the suite shares: how many workers there may be, that none outlives its parent, and which of
several processes on one folder still live."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from functools import cache
from pathlib import Path

from carryover.bench.host.stopping import SIGNALS

LOOK = 0.2  # seconds between a worker's looks at its parent


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def follow(parent: int) -> None:
    """Called in a new worker: the signals that stop a command (``host.stopping``) are its parent's to answer, who ends
    it; and where the parent is gone, killed say, it ends by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


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
