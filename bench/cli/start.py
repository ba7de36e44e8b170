"""The process of a command line from its first import to its end: what ``run_all.py`` and ``carryover`` call."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from carryover.bench.host import stopping


def start() -> NoReturn:
    """Ends with the command's exit status, whatever signals come before it begins and after it is over."""
    stopping.answer(stopping.end_at_once)  # nothing is begun yet
    from carryover.bench.cli.main import main

    status = main()
    stopping.answer(lambda number, frame: os._exit(status))  # nothing is left to do
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # its reader or terminal is gone
            stream.flush()
    os._exit(status)  # a signal while Python takes itself apart (torch: a second) would have an ending of its own
