"""The command ``merge``: the records of other results folders into one."""

from __future__ import annotations

import argparse

from carryover.bench.cli import flags, report
from carryover.bench.cli.commands import program
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import say

WORDS = ("FOLDER …", "results folders that are joined into --out")
FLAGS = flags.RECORDS
EXAMPLES = (
    ("merge results-2 --out results", "what a second machine did beside what this one did"),
    ("merge DOWNLOADED --arch vit-b16 --out all", "into a new folder"),
)


def main(args: argparse.Namespace) -> int:
    """Joins the folders that the command line names into --out, then makes the report."""
    if not args.what:
        raise UserError(f"merge: name one results folder or more: {program()} merge FOLDER --out OUT")
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.settings import arch_of
    from carryover.bench.records import merge
    from carryover.bench.records.store import Store

    arch = arch_of(args)
    discover(args.plugin_dir)
    counts = merge.merge(Store(args.out, arch.id), args.what)
    files = ", ".join(f"{count} of {kind}" for kind, count in counts.items()) or "none, all were there"
    say(f"files merged: {files}")
    return report.main(args)
