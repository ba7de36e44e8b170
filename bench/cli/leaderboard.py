"""The command ``leaderboard``: several groups' results on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from carryover.bench.render.terminal import say

WORDS = ("[[NAME=]FOLDER …]", "results folders, each with the name of its group where wanted (none: --out)")
FLAGS = ("--to", "--plugin-dir", "--out")
HELP = {"--to": "the page to write (default: leaderboard.html)"}
EXAMPLES = (
    ("leaderboard ours=results theirs=FOLDER --to leaderboard.html", "two groups' results side by side"),
    ("leaderboard", "one's own results alone"),
)
LINES = 20  # said of what is left out, where the page says them all


def main(args: argparse.Namespace) -> int:
    """One page over the folders that the command line names; what is no sound record is named here and on the page."""
    from carryover.bench.cli.registries import discover
    from carryover.bench.leaderboard import page
    from carryover.methods import Registered

    discover(args.plugin_dir)
    path = Path(args.to or "leaderboard.html")
    rows, accounts = page.write_page(args.what or [args.out], path, Registered())
    wrong = [
        f"{account.source.group}, {account.source.arch}: {line}"
        for account in accounts
        for line in page.left_out(account)
    ]
    for line in wrong[:LINES]:
        say(("left out", "yellow"), f" {line}")
    if len(wrong) > LINES:
        say(f"and {len(wrong) - LINES} more, which the page names")
    said = f"{page.counted_rows(rows, accounts)}. Page: {path}"
    say(said)
    return 0
