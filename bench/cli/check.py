"""The command ``check``: what is stored, compared with what it was made from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from carryover.bench.cli import flags
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import say

WORDS = ()
FLAGS = (*flags.RECORDS, "--cache", "--encode", "--data-root", "--make-split", "--max-pixels", "--device")
EXAMPLES = (
    ("check", "the micro world's tables, figures and report, from its stored predictions"),
    ("check --arch vit-b16", "those of the paper's experiment"),
    ("check --arch vit-b16 --data-root DATA --encode 8", "and 8 pictures of each feature file, encoded again"),
)
NOTE = (
    "What no check finds: whoever makes everything anew, records, predictions, plug-ins, plans, tables and figures "
    "together, with their hashes, leaves a folder that agrees with itself. Where feature files and pictures are there, "
    "--encode still finds features that are not those of the pictures; who needs more runs it again elsewhere."
)


def main(args: argparse.Namespace) -> int:
    """Non-zero where anything stored is not what it was made from."""
    from carryover.bench.analyses import known_zero_shot
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.results import some_records
    from carryover.bench.cli.settings import arch_of
    from carryover.bench.records import answers, plans, stored_files
    from carryover.bench.records.selection_unknown import of_unclear_options
    from carryover.bench.records.store import Store
    from carryover.bench.report import drawings, recompute, written
    from carryover.methods import Registered

    arch = arch_of(args)
    discover(args.plugin_dir)
    selection, store = some_records(args, arch), Store(args.out, arch.id)
    records, folder = store.records(), store.folder
    for line in of_unclear_options(records, Registered(), plans.changes(folder)).values():
        raise UserError(f"check: {line}")
    present = {path.stem for path in (folder / "runs").glob("*.json")}
    differences = store.refused() + recompute.renamed(records)
    differences += stored_files.differences(store, records)
    differences += plans.differences(folder, records, present)
    differences += answers.differences(records, store.read_outcomes)
    features, notes = stored_files.of_features(records, Path(args.cache or f"{args.out}/cache"))
    differences += features
    remade, lines = recompute.recounted(selection, store.read_predictions)
    differences += lines
    known = known_zero_shot.compare(remade.main, folder, arch.id)
    differences += recompute.recompute_tables(remade, folder)
    differences += recompute.recompute_known(remade, known, folder)
    differences += recompute.recompute_pages(remade, folder, known, args.arch)
    differences += drawings.differences(remade, folder)
    if differences and (listed := written.read(folder)) and listed["records"] != written.of_records(selection.records):
        notes.append("tables, figures and report were made from other records than these; `report` makes them again")
    differences += written.differences(folder, differences, records)
    if args.encode:
        from carryover.bench.cli.options import options_of
        from carryover.bench.engine.encoded_again import encoded_again

        chosen = {record["key"] for record in selection.records}
        options = replace(options_of(args), precision=selection.chosen_by.precision)
        lines, told = encoded_again(options, [r for r in records if r["key"] in chosen], args.encode)
        differences, notes = differences + lines, notes + told
    for line in differences:
        say(("differs", "red"), " " + line.replace("\n", r"\n"))
    if left := plans.to_do(folder, present):
        notes.append(f"{left} planned runs have no record yet: a call was stopped, or is at work")
    if apart := len(records) - len(selection.records):
        notes.append(
            f"{apart} stored records are in none of these tables, which are of {selection.chosen_by.precision}; only "
            "their own files were checked"
        )
    if others := drawings.of_other_versions(folder):
        notes.append(
            f"{others} were drawn by another matplotlib: compared by their sha256 alone; `report` draws them anew"
        )
    for line in notes:
        say(line.replace("\n", r"\n"))
    say(f"{len(selection.records)} records checked against their predictions, {len(differences)} differences")
    return 1 if differences else 0
