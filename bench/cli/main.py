"""Flags -> plan -> execution -> report. ``run_all.py`` is nothing but a call of ``main``."""

from __future__ import annotations

import logging
import sys
import traceback

from carryover.bench.cli.flags import parse
from carryover.bench.errors import UserError, printable


def main(argv: list[str] | None = None) -> int:
    """Exit status: see ``--help``."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        args = parse(argv)
        # Heavy imports wait until the flags are known to be sound, so that --help and mistakes answer at once.
        from carryover.bench.cli import run

        return getattr(run, args.command)(args)
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"error: {printable(' '.join(str(error).splitlines()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        where = f" {stop}" if str(stop) else ""
        print(f"\nstopped{where}: what is done is kept; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
