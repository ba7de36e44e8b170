"""The command ``doctor``."""

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
    *flags.DEVICE,
    "--jobs",
    "--together",
    "--fresh",
)
EXAMPLES = (
    ("doctor", "is all well for the embedded micro world?"),
    ("doctor --arch vit-b16 --data-root DATA", "before the paper's main experiment: weights, pictures, disk, time"),
)


def main(args: argparse.Namespace) -> int:
    from carryover.bench.cli.doctor_page import doctor

    return doctor(args)
