"""The commands that run, report and check, given parsed flags; each returns the exit status."""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from carryover import datasets
from carryover.bench.analyses import audit_page, known_zero_shot, main_table
from carryover.bench.analyses.drift import present
from carryover.bench.backbones import archs
from carryover.bench.cli.doctor import doctor
from carryover.bench.cli.listing import dry_run, ls
from carryover.bench.cli.options import arch_of, options_of, plan_of, settings_of, wants_drift
from carryover.bench.cli.plugins import evaluate, export
from carryover.bench.cli.prepare import prepare
from carryover.bench.cluster.engine import joined
from carryover.bench.engine import drift_runs, known_prompts, schedule
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.host import claims
from carryover.bench.host.files import sweep
from carryover.bench.leaderboard import page
from carryover.bench.plan.runs import Run
from carryover.bench.records import drift_files, reading, time_notes
from carryover.bench.records import merge as join
from carryover.bench.records.predictions import Outcomes
from carryover.bench.records.selection import Selection, choose
from carryover.bench.records.store import Store
from carryover.bench.render.terminal import escape
from carryover.bench.report import outputs
from carryover.bench.report import report as report_module
from carryover.bench.report.recompute import recompute, recompute_known, recompute_report, renamed
from carryover.methods import Registered, discover

__all__ = [
    "check",
    "doctor",
    "evaluate",
    "export",
    "leaderboard",
    "ls",
    "merge",
    "prepare",
    "report",
    "run",
]  # the names of bench.cli.flags.COMMANDS
console = Console()
LINES = 20  # that a call says of what it leaves out, where a page says them all
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


def run(args: argparse.Namespace) -> int:
    options = options_of(args)
    discover(options.plugin_dirs)
    runs = plan_of(args, options.arch)
    if args.dry_run:
        return dry_run(options, runs, args.jobs or schedule.default_jobs(options), args.fresh)
    bar = Progress(
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    started, keys = time.monotonic(), []
    with bar, joined(args, options, say) as cluster:
        options = cluster.options if cluster else options
        total = bar.add_task("loading backbones and data", total=len(runs))
        spoken, begun = [time.monotonic()], [time.monotonic()]

        def on_images(what: str, done: int, count: int) -> None:
            bar.update(total, description=f"{escape(what)} {done}/{count}")
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:  # a log file shows no bar
                spoken[0] = time.monotonic()
                console.print(f"{escape(what)}, {done} of {count}", highlight=False, soft_wrap=True)

        session = Session(options, on_images)
        session.store.check_writable()
        sweep(session.store.folder, Path(options.cache))
        for folder in (session.store.folder, Path(options.cache)):
            claims.tidy(folder / "claims")
        tested = list(dict.fromkeys(id for run in runs for id in (run.dataset, run.test) if id))
        open_datasets(session, tested)

        said: set[str] = set()

        def on_start(todo: int, already: int) -> None:
            begun[0] = time.monotonic()
            bar.reset(total, total=todo)

        def on_done(run: Run, record: dict) -> None:
            keys.extend([record["key"]] if record["status"] == "done" else [])
            bar.update(total, advance=1, description=escape(str(run)))
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:
                spoken[0], task = time.monotonic(), bar.tasks[0]
                left = (spoken[0] - begun[0]) / task.completed * ((task.total or 0) - task.completed) / 60
                console.print(
                    f"{task.completed:.0f}/{task.total:.0f} runs, about {left:.0f} minutes left", highlight=False
                )
            if record["status"] != "done" and record["error"] not in said:  # one broken image fails many runs
                said.add(record["error"])
                console.print(
                    f"[red]failed[/] {escape(str(run))}: {escape(record['error'])}", highlight=False, soft_wrap=True
                )

        def on_wait(count: int, owner: str) -> None:
            bar.update(total, description=f"waiting for {escape(owner)}")
            if owner not in said:
                said.add(owner)
                console.print(
                    f"{reading.counted(count, 'run')} left to {escape(owner)}; waiting", highlight=False, soft_wrap=True
                )

        jobs = cluster.room if cluster else args.jobs or schedule.default_jobs(options)
        engine = cluster.engine if cluster else None
        try:
            tally = schedule.run_all(
                session, runs, jobs, args.fresh, args.fail_fast, on_start, on_done, args.run_limit, on_wait, engine
            )
        except KeyboardInterrupt:
            task = bar.tasks[0]
            raise KeyboardInterrupt(f"after {task.completed:.0f} of {task.total:.0f} runs") from None
        laps = {"loading": begun[0] - started, "runs": time.monotonic() - begun[0]}
        session = cluster.afterwards(session) if cluster else session
        if args.limit is None:
            measure_known(session, tested)
        if wants_drift(args, options.arch):
            bar.update(total, description="layer drift")
            measure_drift(session, args)
        whole = time.monotonic() - started
        laps["known answers and drift"] = whole - sum(laps.values())
        if keys:
            session.store.write_note(
                time_notes.CALL, {"keys": time_notes.digest(keys), "stages": laps, "seconds": whole, "jobs": jobs}
            )
    write_results(args, options.arch)
    also = f"{tally.elsewhere} by another process meanwhile, " if tally.elsewhere else ""
    console.print(
        f"{tally.done} runs done, {tally.already} were done before, {also}{len(tally.failures)} failed; "
        f"{tally.planned} planned. Report: {escape(options.out)}/{options.arch.id}/report.html",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if tally.done + tally.already + tally.elsewhere == tally.planned else 1


def measure_known(session: Session, ids: list[str]) -> None:
    """The known answers of open_clip's prompts. No run needs them, so a failure here costs no results."""
    try:
        known_prompts.measure(session, ids)
    except UserError as error:
        console.print(f"[yellow]left out[/] known answers: {escape(str(error))}", highlight=False, soft_wrap=True)


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
                console.print(
                    f"layer drift without {escape(found['pair'])}: {escape(found['left_out'])}",
                    highlight=False,
                    soft_wrap=True,
                )
    except UserError as error:
        console.print(f"[yellow]left out[/] layer drift: {escape(str(error))}", highlight=False, soft_wrap=True)


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
        also = f" (also not to be read: {', '.join(more)}; `run_all.py doctor` says why)" if more else ""
        raise UserError(f"{wrong[first]}{also}")


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
    )


def write_results(args: argparse.Namespace, arch: archs.Arch) -> None:
    selection, store = selection_of(args, arch), Store(args.out, arch.id)
    folder, estimate = store.folder, store.read_note(time_notes.ESTIMATE, time_notes.sound_estimate)
    if estimate and time_notes.covers(
        selection.records, estimate
    ):  # a copy, so that a later --dry-run changes no report
        store.write_note(time_notes.PREDICTED, estimate)
        selection = replace(selection, estimate=estimate)
    outputs.write_tables(selection, folder)
    outputs.write_figures(selection, folder)
    answers = known_zero_shot.compare(selection.main, folder, arch.id)
    known_zero_shot.write_known(answers, folder, arch.id)
    report_module.write_report(selection, folder, answers, args.arch)
    audit_page.write_page(selection, folder)
    if warning := known_zero_shot.warning(answers):
        head, lines, causes = warning
        console.print(f"[bold yellow]{escape(head)}[/]", highlight=False, soft_wrap=True)
        console.print(escape("\n".join([*(f"  {line}" for line in lines), causes])), highlight=False, soft_wrap=True)
    console.print(main_table.console_summary(selection.main))
    for note in selection.notes:
        console.print(escape(note), highlight=False, soft_wrap=True)


def report(args: argparse.Namespace) -> int:
    arch = arch_of(args)
    discover(tuple(args.plugin_dir))
    some_records(args, arch)
    write_results(args, arch)
    store = Store(args.out, arch.id)
    for line in (line for record in store.records() for line in store.changed_files(record)):
        console.print(f"[yellow]changed[/] {escape(line)}", highlight=False, soft_wrap=True)
    return 0


def merge(args: argparse.Namespace) -> int:
    """Joins the folders that the command line names into --out, then makes the report."""
    arch = arch_of(args)
    discover(tuple(args.plugin_dir))
    if not args.what:
        raise UserError("merge: name one results folder or more: run_all.py merge FOLDER --out OUT")
    counts = join.merge(Store(args.out, arch.id), args.what)
    files = ", ".join(f"{count} of {kind}" for kind, count in counts.items()) or "none, all were there"
    console.print(f"files merged: {escape(files)}", highlight=False, soft_wrap=True)
    return report(args)


def leaderboard(args: argparse.Namespace) -> int:
    """One page over the folders that the command line names; what is no sound record is named here and on the page."""
    discover(tuple(args.plugin_dir))
    path = Path(args.to or "leaderboard.html")
    rows, accounts = page.write_page(args.what or [args.out], path, Registered())
    wrong = [
        f"{account.source.group}, {account.source.arch}: {line}"
        for account in accounts
        for line in page.left_out(account)
    ]
    for line in wrong[:LINES]:
        console.print(f"[yellow]left out[/] {escape(line)}", highlight=False, soft_wrap=True)
    if len(wrong) > LINES:
        console.print(f"and {len(wrong) - LINES} more, which the page names", highlight=False)
    said = f"{page.counted_rows(rows, accounts)}. Page: {path}"
    console.print(escape(said), highlight=False, soft_wrap=True)
    return 0


def check(args: argparse.Namespace) -> int:
    """Non-zero where a cell of the stored tables is not what the stored predictions give."""
    arch = arch_of(args)
    discover(tuple(args.plugin_dir))
    selection, store = some_records(args, arch), Store(args.out, arch.id)
    records = store.records()
    differences = store.refused() + renamed(records)
    differences += [line for record in records for line in store.changed_files(record)]
    differences += recompute(selection, store.read_predictions, store.folder)
    answers = known_zero_shot.compare(selection.main, store.folder, arch.id)
    differences += recompute_known(selection, store.read_predictions, store.folder)
    differences += recompute_report(selection, store.read_predictions, store.folder, answers, args.arch)
    for line in differences:
        console.print(f"[red]differs[/] {escape(line)}", highlight=False, soft_wrap=True)
    console.print(f"{len(selection.records)} records checked against their predictions, {len(differences)} differences")
    return 1 if differences else 0


def some_records(args: argparse.Namespace, arch: archs.Arch) -> Selection:
    """Raises UserError where no stored record fits the command line's settings."""
    selection = selection_of(args, arch)
    if not (selection.records or present(selection.drift)):
        raise UserError(
            f"no records of these settings under '{args.out}/{arch.id}/runs'; run first: python run_all.py "
            f"--arch {args.arch}"
        )
    return selection
