"""Flags -> plan -> execution -> report. ``run_all.py`` is nothing but a call of ``main``."""

from __future__ import annotations

import logging
import sys
import traceback

import carryover
from carryover.bench.cli import commands
from carryover.bench.cli.parsing import parse, parser
from carryover.bench.errors import UserError, printable
from carryover.bench.host import environment
from carryover.bench.render.terminal import Plain


def main(argv: list[str] | None = None) -> int:
    """Exit status: see ``--help``."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):  # a name that the stream's encoding does not have is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        args = parse(argv)
        if args.version:
            found = environment.versions()
            print(f"carryover {carryover.__version__} (torch {found['torch']}, open_clip {found['open_clip']})")
        elif args.print_completion:
            from carryover.bench.cli.completion import script

            print(script(args.print_completion))
        elif args.help:
            named = any(word.lower() == args.command for word in argv)
            print(parser(args.command if named else "").format_help(), end="")
        else:
            return commands.module_of(args.command).main(args)
        return 0
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
