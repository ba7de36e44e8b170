"""The command ``prepare``: which datasets, what was done, what is left to fetch by hand."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from carryover import datasets
from carryover.bench.cli import flag_values, flags
from carryover.bench.errors import UserError, printable, unknown
from carryover.bench.render.terminal import console, say, words_column
from carryover.datasets import fetch
from carryover.datasets import prepare as prepare_module
from carryover.datasets.layouts import LAYOUTS
from carryover.datasets.verify import Finding, check_dataset

WORDS = ("[DATASET …]", "dataset ids (none: all fifteen)")
FLAGS = ("--datasets", "--data-root", "--make-split", *flags.PREPARATION)
EXAMPLES = (
    ("prepare dtd eurosat --data-root DATA", "fetch two datasets and say what must be fetched by hand"),
    ("prepare --check --data-root DATA", "is all there? nothing is fetched or changed"),
)
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


def main(args: argparse.Namespace) -> int:
    """0 only where every named dataset is ready."""
    if not args.data_root:
        raise UserError("prepare needs --data-root: the folder to put the datasets in, or with --check to look at")
    ids = ids_of([id for word in args.what for id in flag_values.datasets(word)] + args.datasets)
    if args.check:
        findings = []
        for id in ids:
            findings.append(check_dataset(id, args.data_root, args.make_split))
            show(findings[-1], "ok" if findings[-1].ready else "bad")
    else:
        with prepare_module.alone(args.data_root):
            findings = [outcome.finding for outcome in bring(args, ids)]
        if kept := prepare_module.kept_bytes(args.data_root):
            folder = f"{args.data_root}/{prepare_module.DOWNLOADS}"
            say(f"'{folder}' keeps {fetch.gigabytes(kept)} of downloads; once all is ready it may be deleted")
    ready = sum(finding.ready for finding in findings)
    say(f"{ready} of {len(ids)} datasets ready in '{args.data_root}'")
    return 0 if ready == len(ids) else 1


def ids_of(given: list[str]) -> list[str]:
    """The datasets to prepare: all of the paper's where none is named."""
    for id in given:
        if id in LAYOUTS:
            continue
        if id in datasets.ids():
            raise UserError(f"prepare: '{id}' is embedded, there is nothing to fetch; known: {', '.join(LAYOUTS)}")
        raise unknown("dataset to prepare", id, LAYOUTS)
    return list(dict.fromkeys(given)) or list(LAYOUTS)


def bring(args: argparse.Namespace, ids: list[str]) -> list[prepare_module.Outcome]:
    outcomes = []
    with shown_progress() as progress:
        for id in ids:
            outcome = prepare_module.prepare(
                id, args.data_root, make_split=args.make_split, mirror=args.mirror, progress=progress
            )
            for line in outcome.failed:
                say(("failed", "red"), f" {line}")
            show(outcome.finding, outcome.state)
            outcomes.append(outcome)
    lines = [line for outcome in outcomes for line in outcome.by_hand if not outcome.finding.ready]
    if lines:
        say("to fetch by hand:")
    for line in lines:
        say(f"  {line}")
    return outcomes


def show(finding: Finding, state: str) -> None:
    """One line a dataset: state, counts and notes, or what is wrong."""
    found = "; ".join([finding.summary, *finding.notes] if finding.ready else finding.problems)
    about = found.removeprefix(f"{finding.id}: ")
    say((f"{state:<7}", "green" if finding.ready else "red"), f" {finding.id}: {about}")


@contextlib.contextmanager
def shown_progress() -> Iterator[fetch.Progress]:
    """A bar on a terminal, else a line now and then."""
    spoken = [time.monotonic()]
    bar = Progress(
        words_column("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)

        def progress(name: str, done: int, total: int | None) -> None:
            if bar.tasks[0].description != printable(name):
                bar.reset(task, total=total, completed=done, description=printable(name), visible=True)
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:  # a log file shows no bar
                spoken[0] = time.monotonic()
                say(f"{name}: {fetch.gigabytes(done)}" + (f" of {fetch.gigabytes(total)}" if total else ""))

        yield progress
