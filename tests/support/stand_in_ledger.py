"""What the stand-in for a CUDA device (``stand_in_cuda``) counts and what it refuses."""

from __future__ import annotations

import collections
import os
import sys

import carryover

CODE = os.path.dirname(carryover.__file__)
NO_WAITS = {"kernel", "replay", "h2d", "h2d unpinned", "d2h later"}


class DeviceFault(RuntimeError):
    """What CUDA would refuse, or would do wrong without a word."""


class Ledger:
    """What the device was asked for. ``events``: Counter of (kind, place); a place is "file function:line" of the code
    of the suite that asked, "elsewhere" outside it.

    kinds    "kernel" and "replay" (of a graph); "h2d" and "d2h", copies; "h2d blocking", one that the host waits for;
             "h2d unpinned", one from memory that is not pinned, which the device has to wait for; "synchronize"; and
             results that the host waits for, by name: "item", "equal", "nonzero", "boolean index" ...
    """

    def __init__(self):
        self.events: collections.Counter[tuple[str, str]] = collections.Counter()
        self.operations: collections.Counter[str] = collections.Counter()  # kernels, by name

    def note(self, kind: str) -> None:
        self.events[kind, place()] += 1

    def count(self, *kinds: str) -> int:
        return sum(times for (kind, _), times in self.events.items() if kind in kinds)

    @property
    def kernels(self) -> int:
        return self.count("kernel")

    @property
    def h2d(self) -> int:
        return self.count("h2d", "h2d unpinned", "h2d blocking")

    @property
    def d2h(self) -> int:
        return self.count("d2h", "d2h later")

    @property
    def syncs(self) -> int:
        return sum(self.waits().values())

    def waits(self, inside: str = "") -> dict[tuple[str, str], int]:
        """The events for which the host waits, of places that begin with ``inside``."""
        return {e: n for e, n in self.events.items() if e[0] not in NO_WAITS and e[1].startswith(inside)}


def place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(CODE):
            return f"{name[len(CODE) + 1 :]} {frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
