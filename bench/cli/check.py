"""The command ``check``: every cell of the tables again from stored predictions."""

from __future__ import annotations

import argparse

from carryover.bench.cli import flags
from carryover.bench.render.terminal import say

WORDS = ()
FLAGS = flags.RECORDS
EXAMPLES = (
    ("check", "the micro world's tables and report"),
    ("check --arch vit-b16", "those of the paper's experiment"),
)


def main(args: argparse.Namespace) -> int:
    """Non-zero where a cell of the stored tables is not what the stored predictions give."""
    from carryover.bench.analyses import known_zero_shot
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.results import REPEAT, some_records
    from carryover.bench.cli.settings import arch_of
    from carryover.bench.records.store import Store
    from carryover.bench.report.recompute import recompute, recompute_known, recompute_report, renamed

    arch = arch_of(args)
    discover(args.plugin_dir)
    selection, store = some_records(args, arch), Store(args.out, arch.id)
    records = store.records()
    differences = store.refused() + renamed(records)
    differences += [line for record in records for line in store.changed_files(record)]
    differences += recompute(selection, store.read_predictions, store.folder)
    answers = known_zero_shot.compare(selection.main, store.folder, arch.id)
    differences += recompute_known(selection, store.read_predictions, store.folder)
    differences += recompute_report(selection, store.read_predictions, store.folder, answers, args.arch)
    for line in differences:
        say(("differs", "red"), f" {line}")
    if differences and (apart := len(records) - len(selection.records)):
        say(f"{apart} stored records have other settings than this call: {REPEAT}")
    say(f"{len(selection.records)} records checked against their predictions, {len(differences)} differences")
    return 1 if differences else 0
