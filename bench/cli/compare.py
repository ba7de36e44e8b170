"""The command ``compare``: results that others have beside ours, with the same statistics."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from carryover.bench.cli import flags
from carryover.bench.cli.commands import program
from carryover.bench.errors import UserError, unknown
from carryover.bench.records import reading
from carryover.bench.records.predictions import Outcome, Outcomes
from carryover.bench.records.reading import Record
from carryover.bench.render.terminal import aside, say

if TYPE_CHECKING:
    import numpy as np

    from carryover.bench.records.selection import Selection
    from carryover.bench.records.theirs import Theirs

WORDS = (
    "FILE.csv",
    "accuracies in percent (dataset,method,base,new[,seed]), or predictions by picture; or OUT/evaluations, what the "
    "command evaluate stored (or some of its .json files)",
)
FLAGS = ("--to", "--methods", *flags.RECORDS)
HELP = {"--to": "a file .md or .csv (default: a table here)"}
EXAMPLES = (
    ("compare THEIRS.csv", "their accuracies beside ours, as Markdown; THEIRS.csv begins dataset,method,base,new,seed"),
    (
        "compare PREDICTIONS.csv --methods coop --to compared.csv",
        "their predictions (dataset,method,backbone,image,predicted[,label][,seed]) paired with CoOp's; a row a pair",
    ),
    ("compare OUT/evaluations", "plug-in files that evaluate measured on base and update, beside ours, by picture"),
)
ENDINGS = (".md", ".csv")


def main(args: argparse.Namespace) -> int:
    from carryover.bench.records import evaluations

    ours_stored = evaluations.are_evaluations(args.what)
    if len(args.what) != 1 and not ours_stored:
        raise UserError(f"compare: {len(args.what)} files; expected one: {program()} compare FILE.csv")
    if args.to and not args.to.lower().endswith(ENDINGS):
        raise UserError(f"--to {args.to}: expected a file that ends in {' or '.join(ENDINGS)}")
    from carryover.bench.host.outputs import check_output

    scores_to = Path(args.to).with_name(f"{Path(args.to).stem}-scores.csv") if args.to else Path()
    for to in (args.to, scores_to) if args.to else ():
        check_output(to, args.what)
    from carryover.bench.analyses.parts import beside_theirs
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.results import some_records
    from carryover.bench.cli.settings import arch_of
    from carryover.bench.host.files import write_text
    from carryover.bench.records.theirs import read
    from carryover.bench.render.sheets import csv_text, sheet_markdown

    arch = arch_of(args)
    discover(args.plugin_dir)
    ours = chosen(some_records(args, arch), args.methods)
    about, truth = on(ours), {dataset: labels(ours, dataset) for dataset in on(ours)}
    theirs = evaluations.read(args.what, truth, about) if ours_stored else read(args.what[0], truth, about)
    both, paired = beside(ours, theirs), bool(theirs.outcomes)
    scores, differences = beside_theirs.score_table(both), beside_theirs.difference_table(both, paired)
    if theirs.unread:
        say(("note", "yellow"), f" columns of {args.what[0]} that are not read: {', '.join(theirs.unread)}")
    for line in theirs.left_out:
        say(("note", "yellow"), f" {line}", to=aside)
    if args.to and args.to.lower().endswith(".csv"):
        write_text(Path(args.to), csv_text(differences), "--to")
        write_text(scores_to, csv_text(scores), "--to")
        say(f"differences: {args.to}; scores: {scores_to}")
        return 0
    source = evaluations.SOURCE if ours_stored else beside_theirs.FROM_FILE
    shown = beside_theirs.sheet(scores, differences, both, paired, source)
    text = f"## {shown.caption}\n\n{sheet_markdown(shown)}"
    if args.to:
        write_text(Path(args.to), text, "--to")
        say(f"written: {args.to}")
    else:
        print(text, end="")
    return 0


def chosen(selection: Selection, given: list[str]) -> Selection:
    """Of the main suite, the methods that are named (all, where none is)."""
    known = reading.ids(selection.main, "method")
    if not known:
        raise UserError("compare: the main suite has no records here; run it first")
    wanted = []
    for word in given:
        name = word.lower()
        named = [id for id, shown in reading.names(selection.main, "method").items() if name in (id, shown.lower())]
        if not named and name != "all":
            raise unknown("method of the records", word, known)
        wanted += named or known
    main = [record for record in selection.main if not wanted or record["run"]["method"] in wanted]
    return replace(selection, main=tuple(main))


def on(selection: Selection) -> dict[str, Record]:
    """A record of each dataset."""
    return {record["run"]["dataset"]: record for record in reversed(selection.main)}


def labels(selection: Selection, dataset: str) -> np.ndarray | None:
    """True classes of its test pictures in order, from the predictions that a run left; None where none did."""
    for record in selection.main:
        if record["run"]["dataset"] == dataset and (found := selection.answers(record)):
            return next(iter(found.values())).label
    return None


def beside(ours: Selection, theirs: Theirs) -> Selection:
    """Both on the datasets of the file, theirs with what was predicted where the file says."""
    datasets, own = {record["run"]["dataset"] for record in theirs.records}, ours.outcomes

    def read(key: str) -> Mapping[str, Outcome]:
        return theirs.outcomes[key] if key in theirs.outcomes or own is None else own.read(key)

    mine = [record for record in ours.main if record["run"]["dataset"] in datasets]
    return replace(ours, main=(*mine, *theirs.records), rows={}, outcomes=Outcomes(read))
