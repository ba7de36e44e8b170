"""What the stored records of a command line's settings say, and the tables, figures and pages made from it."""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace

from carryover.bench.analyses import audit_page, known_zero_shot, main_table
from carryover.bench.analyses.drift import present
from carryover.bench.backbones import archs
from carryover.bench.cli import examples
from carryover.bench.cli.commands import command_line
from carryover.bench.cli.examples import Tests
from carryover.bench.cli.settings import settings_of
from carryover.bench.errors import UserError
from carryover.bench.records import drift_files, example_files, time_notes
from carryover.bench.records.predictions import Outcomes
from carryover.bench.records.selection import Selection, choose
from carryover.bench.records.store import Store
from carryover.bench.render.terminal import say
from carryover.bench.report import outputs, written
from carryover.bench.report import report as report_module

REPEAT = "repeat the flags of the run that change its settings (--set, --limit, --shots, --views, --protocol, …)"


def selection_of(args: argparse.Namespace, arch: archs.Arch) -> Selection:
    """The stored records that this command line's settings could have made, whatever their dataset, method and seed."""
    store = Store(args.out, arch.id)
    selection = choose(store.records(), arch, settings_of(args, arch), args.manifests)
    return replace(
        selection,
        notes=(*selection.notes, *store.refused()),
        drift=tuple(drift_files.load_all(store.folder)),
        estimate=store.read_note(time_notes.PREDICTED, time_notes.sound_estimate),
        call=store.read_note(time_notes.CALL, time_notes.sound_call),
        predictions=functools.cache(store.read_predictions),
        outcomes=Outcomes(store.read_outcomes),
        examples=example_files.load(store.folder),
    )


def some_records(args: argparse.Namespace, arch: archs.Arch) -> Selection:
    """Raises UserError where no stored record fits the command line's settings."""
    selection = selection_of(args, arch)
    if not (selection.records or present(selection.drift)):
        where, stored = f"'{args.out}/{arch.id}/runs'", Store(args.out, arch.id).records()
        if stored:
            raise UserError(f"none of the {len(stored)} records under {where} has these settings; {REPEAT}")
        raise UserError(f"no records of these settings under {where}; run first: {command_line(f'--arch {args.arch}')}")
    return selection


def write_results(args: argparse.Namespace, arch: archs.Arch, tests: Tests | None = None) -> None:
    """``tests``: gives the test pictures, of which thumbnails are kept; without it those stay that are stored."""
    selection, store = selection_of(args, arch), Store(args.out, arch.id)
    folder, estimate = store.folder, store.read_note(time_notes.ESTIMATE, time_notes.sound_estimate)
    if estimate and time_notes.covers(
        selection.records, estimate
    ):  # a copy, so that a later --dry-run changes no report
        store.write_note(time_notes.PREDICTED, estimate)
        selection = replace(selection, estimate=estimate)
    if args.no_examples:
        example_files.write(folder, ())
        selection = replace(selection, examples=())
    elif tests:
        selection = replace(selection, examples=examples.keep(selection, folder, tests))
    answers = known_zero_shot.compare(selection.main, folder, arch.id)
    files = [
        *outputs.write_tables(selection, folder),
        *outputs.write_figures(selection, folder),
        known_zero_shot.write_known(answers, folder, arch.id),
        *report_module.write_report(selection, folder, answers, args.arch),
        audit_page.write_page(selection, folder),
    ]
    written.write(folder, [path for path in files if path is not None], selection.records)
    if warning := known_zero_shot.warning(answers):
        head, lines, causes = warning
        say((head, "bold yellow"))
        say("\n".join([*(f"  {line}" for line in lines), causes]))
    main_table.console_summary(selection.main).show()
    for note in selection.notes:
        say(note)
