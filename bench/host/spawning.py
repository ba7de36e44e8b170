"""Processes that know nothing of the main module of the one that starts them.

Python's own "spawn" runs that module again in each child, under another name, to find what the child's work may refer
to there. A script without ``if __name__ == "__main__"`` would so start itself over, and one that is read from stdin
cannot be run again at all. What this suite's processes do stands in its own modules, so they leave it out.

They follow the process that starts them from their first moment: what they are to do is unpickled, and so imported
(torch: seconds), after that. One whose parent is killed before it is told anything ends without a word: Python would
show a traceback of its own, EOFError.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from carryover.bench.host.processes import follow
from carryover.bench.host.stopping import held_back

_ONE = threading.RLock()
PROGRAM = "-c"  # the argument before the program that Python gives a child


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Children that this thread spawns within are told of no main module, as Python itself does where there is none,
    and end silently where they are told nothing at all."""
    with _ONE:
        usual, usual_line, thread = spawn.get_preparation_data, spawn.get_command_line, threading.get_ident()

        def prepared(name: str) -> dict:
            data = usual(name)
            mine = threading.get_ident() == thread
            return {key: value for key, value in data.items() if not (mine and key.startswith("init_main_"))}

        def command_line(**given: int) -> list[str]:
            line = usual_line(**given)
            if threading.get_ident() == thread and PROGRAM in line:  # a frozen program has none
                place = line.index(PROGRAM) + 1
                line[place] = f"try:\n    {line[place]}\nexcept EOFError:\n    raise SystemExit(1)"
            return line

        spawn.get_preparation_data, spawn.get_command_line = prepared, command_line
        try:
            yield
        finally:
            spawn.get_preparation_data, spawn.get_command_line = usual, usual_line


class Process(SpawnProcess):
    def start(self) -> None:
        """No signal comes between a process and the note that it is there to be ended."""
        resource_tracker.ensure_running()  # the first time, it lets the signals through
        with without_main(), held_back():
            super().start()

    def __reduce__(self) -> tuple[Any, ...]:
        return revived, (type(self), os.getpid(), bytes(ForkingPickler.dumps(self.__dict__)))


def revived(kind: type[Process], parent: int, content: bytes) -> Process:
    """In the new process: itself."""
    follow(parent)
    process = kind.__new__(kind)
    process.__dict__.update(ForkingPickler.loads(content))  # as Python itself hands a process its work
    return process


class Context(SpawnContext):
    Process = Process


CONTEXT = Context()  # forked workers would share the parent's threads and CUDA state
