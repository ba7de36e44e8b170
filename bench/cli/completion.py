"""A script that completes commands, flags and names in bash or zsh, made by shtab from the parsers themselves."""

from __future__ import annotations

import argparse
from typing import Any

from carryover import datasets
from carryover.bench import analyses
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import flag_values, port_files
from carryover.bench.cli.commands import COMMANDS, program
from carryover.bench.cli.parsing import parser
from carryover.bench.errors import UserError
from carryover.bench.plan import method_files, suites

FILES = ("base_weights", "new_weights", "config", "plugin", "map", "head", "old")
FOLDERS = ("out", "cache", "data_root", "hub_cache", "manifests", "plugin_dir", "ray_scratch", "images")


def script(shell: str) -> str:
    """``shell``: bash or zsh. Raises UserError where shtab is not installed."""
    try:
        import shtab
    except ImportError:
        raise UserError("--print-completion needs the package shtab: pip install shtab") from None
    analyses.discover()
    names = {
        "arch": list(ARCHS),
        "suite": [*suites.SUITES, "all"],
        "methods": [one.id for one in method_files.listed()],
        "datasets": datasets.ids(),
        "dataset": datasets.ids(),
        "port": [one.id for one in port_files.listed()],
        "device": [*flag_values.DEVICES, f"{flag_values.CUDA}:{flag_values.ALL_CARDS}"],
    }
    top = argparse.ArgumentParser(program(), add_help=False)
    commands = top.add_subparsers()
    for command, (line, _) in COMMANDS.items():
        flags_of(parser(command), commands.add_parser(command, help=line, add_help=False), names, shtab)
    flags_of(parser(), top, names, shtab)
    return shtab.complete(top, shell)


def flags_of(
    source: argparse.ArgumentParser, made: argparse.ArgumentParser, names: dict[str, list[str]], shtab: Any
) -> None:
    """The flags that a command's help shows, with what may stand behind them; nothing is parsed by the result."""
    for action in source._actions:
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        settings: dict[str, Any] = {"action": "store_true"}
        if action.nargs != 0:
            settings = {"nargs": action.nargs, "choices": names.get(action.dest, action.choices)}
        copy = made.add_argument(*action.option_strings, dest=action.dest, help=action.help, **settings)
        if action.dest in FILES + FOLDERS:
            copy.complete = shtab.DIRECTORY if action.dest in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
