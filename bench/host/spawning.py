"""Processes that know nothing of the main module of the one that starts them.

Python's own "spawn" runs that module again in each child, under another name, to find what the child's work may refer
to there. A script without ``if __name__ == "__main__"`` would so start itself over, and one that is read from stdin
cannot be run again at all. What this suite's processes do stands in its own modules, so they leave it out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess

_ONE = threading.RLock()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Children that this thread spawns within are told of no main module, as Python itself does where there is none."""
    with _ONE:
        usual, thread = spawn.get_preparation_data, threading.get_ident()

        def prepared(name: str) -> dict:
            data = usual(name)
            mine = threading.get_ident() == thread
            return {key: value for key, value in data.items() if not (mine and key.startswith("init_main_"))}

        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = usual


class Process(SpawnProcess):
    def start(self) -> None:
        with without_main():
            super().start()


class Context(SpawnContext):
    Process = Process


CONTEXT = Context()  # forked workers would share the parent's threads and CUDA state
