"""From the words of a command line to its command and the values of all flags."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from carryover.bench.backbones.arch_files import read_toml
from carryover.bench.cli import commands, flags
from carryover.bench.cli.commands import COMMANDS, command_line, program
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan.defaults import LIST_DEFAULTS, PRECISION

ABOUT = "Carryover: does a plug-in trained on one CLIP backbone still work on its update?"
STATUS = (
    "exit status: 0 every planned run is done, every dataset ready; 1 a run failed, a check found a difference or a "
    "dataset is not ready; 2 bad input; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP"
)
OTHERS = "Other flags of a run may stand behind this command, and are not read."


class Parser(argparse.ArgumentParser):
    """argparse with this project's exit: one line, status 2, no usage dump."""

    def error(self, message: str):
        raise UserError(f"{message} (see --help)")


class Unbroken(argparse.RawDescriptionHelpFormatter):
    """Flags and addresses are not broken at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def parser(command: str = "") -> Parser:
    """The parser of a command, whose help shows the flags that it reads; without one that of ``run``, whose help names
    the commands too. All take the same words."""
    module = commands.module_of(command or "run")
    about = ABOUT if not command else f"{command}: {COMMANDS[command][0]}"
    if note := getattr(module, "NOTE", ""):
        about += "\n\n" + textwrap.fill(note, 100)
    words = f" {module.WORDS[0]}" if module.WORDS else ""
    needs, own = (f" {module.NEEDS}" if hasattr(module, "NEEDS") else ""), getattr(module, "HELP", {})
    p = Parser(
        prog=program(),
        usage=f"{program()} {command or '[COMMAND]'}{words}{needs} [FLAG …]",
        formatter_class=Unbroken,
        description=about,
        epilog=epilog(command, module.EXAMPLES),
        add_help=False,
    )
    p.add_argument("command", nargs="?", default="run", help=argparse.SUPPRESS)
    p.add_argument(
        "what", nargs="*", metavar=words.strip() or "WHAT", help=module.WORDS[1] if module.WORDS else argparse.SUPPRESS
    )
    for title, group in flags.GROUPS.items():
        shown = p.add_argument_group(title)
        for flag, settings in group.items():
            names = ("-h", flag) if flag == "--help" else (flag,)
            action = shown.add_argument(*names, **settings)
            if flag not in module.FLAGS and group is not flags.CALL:
                action.help = argparse.SUPPRESS
            elif flag in own:
                action.help = own[flag]
    return p


def epilog(command: str, examples: tuple[tuple[str, str], ...]) -> str:
    width = max(map(len, COMMANDS))
    parts = [] if command else ["commands:", *(f"  {name:<{width}} {line}" for name, (line, _) in COMMANDS.items())]
    parts += [] if command else [f"\n{program()} COMMAND --help says more of each.\n"]
    parts += ["examples:"]
    for words, meaning in examples:
        parts += [f"  {command_line(words)}", f"      {meaning}"]
    return "\n".join([*parts, "", STATUS if command in ("", "run") else OTHERS])


def parse(argv: list[str]) -> argparse.Namespace:
    """All flags, ``command`` and its further words, ``what``. Raises UserError for what no command takes."""
    p = parser()
    args = p.parse_intermixed_args(argv)  # words may stand behind flags: prepare --data-root DATA dtd
    args.command = commands.named(args.command)
    if args.help or args.version or args.print_completion:
        return args
    lists = dict(LIST_DEFAULTS)
    if args.config:
        given = {name: getattr(p.parse_args(words), name) for name, words in read_config(args.config).items()}
        lists.update({name: given.pop(name) for name in lists if name in given})
        p.set_defaults(**given)
        args = p.parse_intermixed_args(argv)
        args.command = commands.named(args.command)
    for name, default in lists.items():  # not argparse's defaults, which those that are given would be added to
        if getattr(args, name) is None:
            setattr(args, name, list(default))
    check_words(args)
    check_values(args)
    args.precision = None if args.precision == PRECISION else args.precision  # as where it is not named
    return args


def check_words(args: argparse.Namespace) -> None:
    """Raises UserError for words and flags that do not go with the command."""
    if args.what and not commands.module_of(args.command).WORDS:
        raise UserError(
            f"'{args.what[0]}' after '{args.command}': it takes no further words; name datasets by --datasets"
        )
    if args.check and args.command != "prepare":
        raise UserError(f"--check goes with prepare; the command that recomputes tables is: {program()} check")
    for name, owners in flags.ONLY.items():
        if getattr(args, name) and args.command not in owners:
            also = "; name datasets by --datasets" if name == "dataset" else ""
            told = " or ".join(f"{program()} {command} … --{name}" for command in owners)
            raise UserError(f"--{name} goes with {' and '.join(owners)}: {told}{also}")


def check_values(args: argparse.Namespace) -> None:
    """Raises UserError for a value that is out of range."""
    if args.mirror and not args.mirror.startswith(("http://", "https://")):
        raise UserError(f"--mirror {args.mirror}: expected an address that starts with http:// or https://")
    for name, least in flags.LEAST.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected {least} or more")
    if min(args.seeds) < 0:
        raise UserError(f"--seeds {min(args.seeds)}: expected 0 or more (a negative seed draws what its positive does)")
    if args.engine != "ray":
        for name in ("ray_address", "ray_gpus", "ray_scratch"):
            if getattr(args, name) not in ("", None):
                raise UserError(f"--{name.replace('_', '-')} goes with --engine ray")
    elif ":" in args.device:
        raise UserError(
            f"--device {args.device} with --engine ray: Ray gives each run its card; use --device cuda, and --ray-gpus"
        )
    if args.ray_gpus is not None and not 0 <= args.ray_gpus <= 1:
        raise UserError(f"--ray-gpus {args.ray_gpus:g}: expected a share of one GPU, 0 to 1")
    if args.run_limit is not None and not args.run_limit > 0:
        raise UserError(f"--run-limit {args.run_limit}: expected seconds, more than 0")
    if args.text_memory is not None and not 0.01 <= args.text_memory <= 1e6:
        raise UserError(f"--text-memory {args.text_memory}: expected gigabytes, 0.01 or more")


def read_config(path: str) -> dict[str, list[str]]:
    """Flags of a TOML file, e.g. ``data-root = "DATA"``, as {attribute: command line}: they are checked like one."""
    values = read_toml(Path(path), "--config")
    known = {
        flag[2:]: spec for group in flags.GROUPS.values() if group is not flags.CALL for flag, spec in group.items()
    }
    known["debug"] = flags.CALL["--debug"]
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        flag = name.replace("_", "-")
        if flag not in known:
            raise unknown("flag in --config", name, known)
        attribute = known[flag].get("dest", flag.replace("-", "_"))
        if known[flag].get("action") == "store_true":
            if not isinstance(value, bool):
                raise UserError(f"--config: {name} = {value!r}: expected true or false")
            found[attribute] = [f"--{flag}"] if value else []
        else:
            many = value if isinstance(value, list) else [value]
            found[attribute] = [f"--{flag}", *map(str, many)]
    return found
