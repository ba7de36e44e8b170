"""A run of the plan from the command line: what it shows while it works, what it measures beside the runs."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import replace
from pathlib import Path

from carryover import datasets
from carryover.bench.cli.commands import program
from carryover.bench.cli.curves import Curves
from carryover.bench.cli.device import device_told, precision_told
from carryover.bench.cli.display import Display
from carryover.bench.cli.dry_run import dry_run
from carryover.bench.cli.examples import tests_of
from carryover.bench.cli.options import options_of
from carryover.bench.cli.registries import discover
from carryover.bench.cli.results import write_results
from carryover.bench.cli.settings import changes_of, plan_of, settings_of, wants_drift
from carryover.bench.cluster.engine import joined
from carryover.bench.engine import drift_runs, known_prompts, schedule
from carryover.bench.engine.possible import Possible
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.host import claims
from carryover.bench.host.files import sweep
from carryover.bench.records import time_notes
from carryover.bench.records.reading import counted, precisions
from carryover.bench.render.terminal import console, say


def run(args: argparse.Namespace) -> int:
    """0 only where every planned run is done."""
    options = options_of(args)
    discover(options.plugin_dirs)
    runs, impossible = Possible(options.arch, options.hub_cache).parted(plan_of(args, options.arch))
    for line in impossible:
        say(("left out", "yellow"), f" {line}")
    if args.dry_run:
        return dry_run(options, runs, schedule.workers_of(options, args.jobs), args.fresh)
    started, shown = time.monotonic(), Display(console, len(runs), Curves(args))
    with shown, joined(args, options, shown.say) as cluster:
        if cluster:  # whose cards say what --precision auto is
            options = cluster.options
            runs = [replace(run, precision=options.precision) for run in runs]
        theirs = cluster.setup.options if cluster else options
        device = f"{theirs.device}, of Ray's workers" if cluster else device_told(args, options)
        session = Session(options, shown.on_images)
        session.store.check_writable()
        precision = precision_told(args, theirs) + in_another(args, session)
        shown.say(f"device: {device}; precision of the frozen towers: {precision}")
        args.precision = options.precision  # all that follows is of these runs
        tidy(session)
        tested = list(dict.fromkeys(id for run in runs for id in (run.dataset, run.test) if id))
        open_datasets(session, tested)

        jobs = cluster.room if cluster else schedule.workers_of(options, args.jobs)
        engine = cluster.engine if cluster else None
        told = (shown.on_start, shown.on_done, args.run_limit, shown.on_wait)
        shown.works(session.options, jobs)
        try:
            changes = changes_of(args, settings_of(args, options.arch))
            tally = schedule.run_all(
                session, runs, jobs, args.fresh, args.fail_fast, *told, engine, shown.on_begin, changes
            )
        except KeyboardInterrupt:
            tidy(session)
            raise KeyboardInterrupt(shown.progress()) from None
        keys = {session.keys.of(run) for run in runs}
        laps = {"loading": shown.begun - started, "runs": time.monotonic() - shown.begun}
        session = cluster.afterwards(session) if cluster else session
        if args.limit is None:
            measure_known(session, tested)
        if wants_drift(args, options.arch):
            shown.describe("layer drift")
            measure_drift(session, args)
        whole = time.monotonic() - started
        laps["known answers and drift"] = whole - sum(laps.values())
        if shown.keys:
            session.store.write_note(
                time_notes.CALL, {"keys": time_notes.digest(shown.keys), "stages": laps, "seconds": whole, "jobs": jobs}
            )
    write_results(args, options.arch, tests_of(session, args.limit), keys)
    also = f"{tally.elsewhere} by another process meanwhile, " if tally.elsewhere else ""
    shown.say(
        f"{counted(tally.done, 'run')} done, {tally.already} were done before, {also}{len(tally.failures)} failed; "
        f"{tally.planned} planned. Report: {options.out}/{options.arch.id}/report.html"
        + (" (more experiments: --suite all)" if options.arch.first and not args.suite else "")
    )
    return 0 if tally.done + tally.already + tally.elsewhere == tally.planned else 1


def in_another(args: argparse.Namespace, session: Session) -> str:
    """What is said beside the precision where nobody named it and results of these settings are stored in another."""
    options = session.options
    asked = settings_of(args, options.arch, options.precision).of_runs
    others = [one for one in precisions(session.store.records(), asked) if one != options.precision]
    if args.precision or not others:
        return ""
    return f"; stored here are results in {others[-1]} too, with which --precision {others[-1]} goes on"


def tidy(session: Session) -> None:
    """Takes away what killed processes left, be they this one's own workers."""
    folders = session.store.folder, Path(session.options.cache)
    sweep(*folders)
    for folder in folders:
        claims.tidy(folder / "claims")


def measure_known(session: Session, ids: list[str]) -> None:
    """The known answers of open_clip's prompts. No run needs them, so a failure here costs no results."""
    try:
        known_prompts.measure(session, ids)
    except UserError as error:
        say(("left out", "yellow"), f" known answers: {error}")


def measure_drift(session: Session, args: argparse.Namespace) -> None:
    """Over the class prompts of all datasets that this results folder knows or this call names, so that a further call
    for one more dataset does not narrow the table to it."""
    arch = session.options.arch
    own = datasets.default(arch.datasets)
    known_ids = {record["run"]["dataset"] for record in session.store.records()}
    asked = set(map(datasets.identify, args.datasets)) or (set() if known_ids else set(own))
    prompted = []
    for id in sorted(known_ids | asked, key=lambda id: (datasets.order(id), id)):
        with contextlib.suppress(UserError):  # run earlier, no longer on disk
            session.data(id)
            prompted.append(id)
    try:
        for found in drift_runs.measure_all(session, prompted):
            if "left_out" in found:
                say(f"layer drift without {found['pair']}: {found['left_out']}")
    except UserError as error:
        say(("left out", "yellow"), f" layer drift: {error}")


def open_datasets(session: Session, ids: list[str]) -> None:
    """What is missing is found before any work. Raises UserError naming the first and how many more there are."""
    wrong: dict[str, UserError] = {}
    for id in ids:
        try:
            session.data(id)
        except UserError as error:
            wrong[id] = error
    if wrong:
        first, *more = wrong
        also = f" (also not to be read: {', '.join(more)}; `{program()} doctor` says why)" if more else ""
        raise UserError(f"{wrong[first]}{also}")
