"""What the stored records of a command line's settings say, and the tables, figures and pages made from it."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from carryover.bench.analyses import audit_page, known_zero_shot, main_table
from carryover.bench.analyses.drift import present
from carryover.bench.backbones import archs
from carryover.bench.cli import examples
from carryover.bench.cli.commands import command_line
from carryover.bench.cli.examples import Tests
from carryover.bench.cli.settings import changes_of, says_settings, settings_of
from carryover.bench.errors import UserError
from carryover.bench.plan.defaults import PLAIN_PRECISION
from carryover.bench.plan.settings import Settings
from carryover.bench.records import drift_files, example_files, plans, reading, time_notes
from carryover.bench.records.predictions import Outcomes
from carryover.bench.records.selection import Selection, choose
from carryover.bench.records.store import Store
from carryover.bench.render.terminal import say
from carryover.bench.report import outputs, written
from carryover.bench.report import report as report_module

OTHERS = "leave the flags of settings out (--set, --sweep, --limit, --shots, --views, --protocol, --precision)"


@dataclass(frozen=True)
class Choice:
    """What chooses records: the settings that all of them share, and changes of options (``--set``). ``only`` these
    rows are shown of the methods that they name; else they are further rows."""

    settings: Settings
    changes: list[tuple[str, ...]]
    only: bool

    @property
    def told(self) -> dict:
        """As ``written.json`` keeps it."""
        return {"settings": self.settings.of_runs, "only": [list(one) for one in self.changes] if self.only else []}


def choice_of(args: argparse.Namespace, arch: archs.Arch) -> Choice:
    """A run shows all rows of its own settings. ``report`` shows those that its flags name, all where they name none;
    ``check`` compares the rows that were shown last. Settings that no flag says are read from what is stored."""
    store = Store(args.out, arch.id)
    if args.command == "run":
        return Choice(replace(settings_of(args, arch), overrides=()), plans.changes(store.folder), only=False)
    made_by = written.made_by(store.folder)
    records, last = store.records(), made_by.get("settings")
    mine = settings_of(args, arch, PLAIN_PRECISION)
    if not args.precision:  # whatever the device that they were made on, or that is here
        mine = replace(mine, precision=reading.precision_of(reading.precisions(records, mine.of_runs), last))
    changes, mine = changes_of(args, mine), replace(mine, overrides=())
    settings = mine if says_settings(args) else stored_settings(records, mine, last)
    if args.command == "check":
        changes = [tuple(one) for one in made_by.get("only") or ()]
    return Choice(settings, changes or plans.changes(store.folder), only=bool(changes))


def stored_settings(records: Sequence[reading.Record], mine: Settings, last: dict | None) -> Settings:
    """Those of the last report, else the default ones, else the newest record's: the first that have records."""
    runs = [record["run"] for record in sorted(records, key=lambda r: (r.get("started") or "", r["key"]))]
    newest = {name: runs[-1].get(name) for name in mine.of_runs} if runs else None
    for found in (last, mine.of_runs, newest):
        if found and found.keys() == mine.of_runs.keys():
            if any(all(run.get(name) == value for name, value in found.items()) for run in runs):
                return replace(mine, **found)
    return mine


def selection_of(args: argparse.Namespace, arch: archs.Arch, choice: Choice) -> Selection:
    """The stored records of that choice, whatever their dataset, method and seed."""
    store = Store(args.out, arch.id)
    selection = choose(store.records(), arch, choice.settings, args.manifests, choice.changes, choice.only)
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
    selection = selection_of(args, arch, choice_of(args, arch))
    if not (selection.records or present(selection.drift)):
        where, stored = f"'{args.out}/{arch.id}/runs'", Store(args.out, arch.id).records()
        if stored:
            raise UserError(f"none of the {len(stored)} records under {where} has these settings; {OTHERS}")
        raise UserError(f"no records of these settings under {where}; run first: {command_line(f'--arch {args.arch}')}")
    return selection


def write_results(
    args: argparse.Namespace, arch: archs.Arch, tests: Tests | None = None, keys: Collection[str] | None = None
) -> None:
    """``tests``: gives the test pictures, of which thumbnails are kept; without it those stay that are stored.
    ``keys``: the runs of the call, which the table on the terminal is of; None: of all records that are shown."""
    choice, store = choice_of(args, arch), Store(args.out, arch.id)
    selection = selection_of(args, arch, choice)
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
    written.write(folder, [path for path in files if path is not None], selection.records, choice.told)
    if warning := known_zero_shot.warning(answers):
        head, lines, causes = warning
        say((head, "bold yellow"))
        say("\n".join([*(f"  {line}" for line in lines), causes]))
    shown = [record for record in selection.main if keys is None or record["key"] in keys]
    if shown:
        main_table.console_summary(shown).show()
    for note in selection.notes:
        say(note)
