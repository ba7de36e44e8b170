"""Flags -> plan -> execution -> report (``bench.cli.start`` is the process around it)."""

from __future__ import annotations

import logging
import sys
import traceback

import carryover
from carryover.bench.cli import commands
from carryover.bench.cli.parsing import parse, parser
from carryover.bench.errors import UserError, printable
from carryover.bench.host import environment, stopping
from carryover.bench.render.terminal import Plain


def main(argv: list[str] | None = None) -> int:
    """Exit status: see ``--help``."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):  # a name that the stream's encoding does not have is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    with stopping.heard() as stop:
        try:
            return command(argv)
        except UserError as error:
            if "--debug" in argv:
                traceback.print_exc()
            if not stop.number:
                print(f"error: {printable(' '.join(str(error).splitlines()))}", file=sys.stderr)
                return 2
            stopping.say()
        except KeyboardInterrupt as where:
            stopping.say(str(where))
        except BrokenPipeError:
            return 141
        except Exception:  # a library's, whose own work the signal has cut short
            if not stop.number:
                raise
            stopping.say()
        return stop.status


def command(argv: list[str]) -> int:
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
