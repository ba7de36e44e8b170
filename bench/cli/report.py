"""The command ``report``: tables, figures and pages from stored records alone."""

from __future__ import annotations

import argparse

from carryover.bench.cli import flags
from carryover.bench.render.terminal import say

WORDS = ()
FLAGS = (*flags.RECORDS, *flags.EXAMPLES)
EXAMPLES = (
    ("report", "of the micro world, again"),
    ("report --arch vit-b16 --out FOLDER", "of the paper's experiment, from another results folder"),
)


def main(args: argparse.Namespace) -> int:
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.results import some_records, write_results
    from carryover.bench.cli.settings import arch_of
    from carryover.bench.records.store import Store

    arch = arch_of(args)
    discover(args.plugin_dir)
    some_records(args, arch)
    write_results(args, arch)
    store = Store(args.out, arch.id)
    for line in (line for record in store.records() for line in store.changed_files(record)):
        say(("changed", "yellow"), f" {line}")
    return 0
