"""The command ``classify``: what a plug-in says of pictures, by name and probability."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from carryover.bench.cli import flags
from carryover.bench.cli.backbones import Alone, local, named_home
from carryover.bench.cli.evaluate import few_threads, show_warnings
from carryover.bench.errors import UserError
from carryover.bench.host.files import whole
from carryover.bench.records.reading import counted
from carryover.bench.render.terminal import Table, say

if TYPE_CHECKING:
    from carryover.bench.plugins.answers import Answer
    from carryover.bench.plugins.format import Plugin
    from carryover.methods.base import Classes

WORDS = ("PICTURE|FOLDER …", "pictures, and folders with all pictures below them")
FLAGS = (
    "--plugin",
    "--backbone",
    "--classes",
    "--template",
    "--top",
    "--to",
    "--json",
    "--precision",
    *flags.BACKBONES,
    "--plugin-dir",
    *flags.DEVICE,
)
NEEDS = "--plugin FILE"
HELP = {
    "--backbone": f"where it is asked (default: the plug-in's own): {flags.NAMES}",
    "--classes": "other class names, a name a line, for a plug-in without weights of each class's own",
    "--top": "how many names are shown of each picture, the most probable first (default: 5)",
    "--json": "print JSON lines in place of the table",
    "--to": "a file .csv or .jsonl (default: a table here)",
}
EXAMPLES = (
    ("classify --plugin FILE FOLDER", "on the backbone that the plug-in belongs to; then on its update:"),
    ("classify --plugin FILE --backbone micro-update FOLDER --to answers.csv", "a row a picture and name"),
)
NOTE = (
    "Exit status: 0 also where some pictures cannot be read (a note each; a row with an error in JSON lines and CSV), "
    "2 where none can."
)
FORM = "--plugin FILE [--backbone NAME] PICTURE|FOLDER …"
ENDINGS = (".csv", ".jsonl")
TRANSDUCTIVE = "its answer for a picture depends on the others that are asked about with it"
TOP = 5  # names a picture
ROWS = 100  # pictures a table: a folder of any size is shown as it is answered


def main(args: argparse.Namespace) -> int:
    """Says of each picture which names the plug-in finds most probable."""
    if not args.plugin or not args.what:
        raise UserError(f"classify: {'pictures are' if args.plugin else '--plugin is'} missing; expected {FORM}")
    if args.to and Path(args.to).suffix not in ENDINGS:
        raise UserError(f"--to {args.to}: expected a file that ends in {' or '.join(ENDINGS)}")
    if args.to and args.json:
        raise UserError("classify: --json and --to; expected one of them (--to FILE.jsonl writes JSON lines)")
    from carryover.bench.cli.registries import discover
    from carryover.bench.host.outputs import check_output
    from carryover.bench.plugins.answers import bound
    from carryover.bench.plugins.format import read
    from carryover.bench.plugins.homes import of_source, unsure_of
    from carryover.bench.plugins.porting import home_of, reads_prompts
    from carryover.datasets import pictures
    from carryover.methods.base import METHODS

    if args.to:
        files = [one for one in args.what if not Path(one).is_dir()]
        check_output(args.to, [args.plugin, args.classes, args.backbone, *files])
    discover(args.plugin_dir)
    plugin = read(local(args.plugin, args))
    split, called = pictures.given(args.what)  # what is not there is said before weights are read
    classes, note = asked_classes(args, plugin)
    named = named_home(args, "classify", args.backbone, plugin, "--backbone")
    alone = Alone(args, named)
    backbone = alone.load(named)
    notes = [*of_source(plugin), note, TRANSDUCTIVE if METHODS[plugin.method].transductive else ""]
    notes += [] if plugin.ported is None else unsure_of(plugin, backbone)
    known = home_of(plugin)["fingerprint"]
    if not args.backbone and plugin.ported is None and known not in (None, backbone.fingerprint):
        notes.append(f"the plug-in was trained on another {backbone.label} than the one found here, by fingerprint")
    with few_threads(backbone.tower.is_micro and alone.device == "cpu"):
        if args.template and not reads_prompts(plugin, backbone, classes):
            raise UserError(f"classify: {plugin.method} reads no --template here; leave it out")
        model = bound(plugin, backbone, classes, alone.precision, alone.loader)
        show_warnings([line for line in notes if line])
        count, top = Count(), args.top or TOP
        answers = count.counted(model.over(split, called))
        word = "score" if model.scores else "probability"
        if args.to:
            with whole(Path(args.to), "--to") as unfinished, open_text(unfinished) as file:
                written = in_lines if args.to.endswith(ENDINGS[1]) else in_rows
                written(answers, file, top, word)
            say(f"written: {args.to}, {counted(count.answered, 'picture')} of {count.all}")
        elif args.json:
            in_lines(answers, sys.stdout, top, word)
        else:
            in_tables(answers, top, word)
    if not count.answered:
        raise UserError(f"classify: none of {counted(count.all, 'picture')} could be read")
    return 0


def asked_classes(args: argparse.Namespace, plugin: Plugin) -> tuple[Classes, str]:
    """The plug-in's own class names and prompts, or those of --classes and --template; and what is to be noted where
    the prompts are a guess and some are asked for."""
    from carryover.bench.cli.importing import names_in
    from carryover.bench.plugins.format import fills
    from carryover.bench.plugins.porting import classes_of, without_tower

    classes, note = classes_of(plugin)
    guessed = f"{note}; --template says others" if note and without_tower(plugin, classes) is None else ""
    if args.classes:
        names = names_in(args.classes)
        if not names:
            raise UserError(f"--classes: '{args.classes}' holds no name; expected a class name a line")
        classes = replace(classes, dataset=Path(args.classes).name, names=tuple(names))
    if args.template:
        if strange := [text for text in args.template if not fills(text)]:
            raise UserError(f"--template '{strange[0]}': expected a text with one {{}} for the class name")
        return replace(classes, templates=tuple(args.template)), ""
    return classes, guessed


class Count:
    """How many pictures were answered, of how many; a note on each that was not."""

    def __init__(self) -> None:
        self.answered = self.all = 0

    def counted(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        for answer in answers:
            self.all += 1
            self.answered += not answer.error
            if answer.error:
                show_warnings([answer.error])
            yield answer


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """File names may hold what is no text."""
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file


def in_lines(answers: Iterable[Answer], file: TextIO, top: int, word: str) -> None:
    """JSON lines, one a picture: ``{"picture": …, "answers": [{"name": …, "probability": …}, …]}``, or with "error"."""
    for answer in answers:
        found: dict[str, Any] = {"picture": answer.picture}
        if answer.error:
            found["error"] = answer.error
        else:
            found["answers"] = [{"name": name, word: value} for name, value in answer.top(top)]
        print(json.dumps(found, ensure_ascii=file is sys.stdout), file=file)


def in_rows(answers: Iterable[Answer], file: TextIO, top: int, word: str) -> None:
    """CSV, a row a picture and name; of a picture that cannot be read one row, with ``error``."""
    rows = csv.writer(file)
    rows.writerow(["picture", "rank", "name", word, "error"])
    for answer in answers:
        if answer.error:
            rows.writerow([answer.picture, "", "", "", answer.error])
        for rank, (name, value) in enumerate(answer.top(top), start=1):
            rows.writerow([answer.picture, rank, name, f"{value:.6g}", ""])


def in_tables(answers: Iterable[Answer], top: int, word: str) -> None:
    """A table for every hundred pictures."""
    shown, rows = empty(word), 0
    for answer in answers:
        if answer.error:
            continue
        best = answer.top(top)
        values = [f"{value:.4g}" if word == "score" else f"{100 * value:.1f} %" for _, value in best]
        shown.row(str(answer.picture), "\n".join(name for name, _ in best), "\n".join(values))
        rows += 1
        if rows % ROWS == 0:
            shown.show()
            shown = empty(word)
    if rows % ROWS:
        shown.show()


def empty(word: str) -> Table:
    return Table("picture", "name", word, right=(word,))
