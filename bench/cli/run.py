"""The command ``run``, which a command line without a command means."""

from __future__ import annotations

import argparse

from carryover.bench.cli import flags

WORDS = ()
FLAGS = (
    *flags.CHOICE,
    *flags.SETTINGS,
    *flags.BACKBONES,
    *flags.DATA,
    *flags.FILES,
    *flags.EXAMPLES,
    *flags.DEVICE,
    *flags.ENGINE,
    *flags.LOOK,
    *flags.CURVES,
)
EXAMPLES = (
    ("", "the embedded micro world: offline, on a CPU, in minutes"),
    ("--arch vit-b16 --data-root DATA", "the paper's main experiment"),
    (
        "--arch vit-b16 --data-root DATA --datasets caltech101 --limit 2 --shots 1 --seeds 1 --views 1 "
        "--set '*.epochs=2'",
        "a trial of the same road",
    ),
)


def main(args: argparse.Namespace) -> int:
    from carryover.bench.cli.running import run

    return run(args)
