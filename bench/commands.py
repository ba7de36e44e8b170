"""The commands that run, report and check, given parsed flags; each returns the exit status."""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import archs, executor, figures, known, own_prompts, plan, tables
from bench import report as report_module
from bench.check import recompute
from bench.doctor import doctor
from bench.errors import UserError
from bench.look import dry_run, ls
from bench.prepare import prepare
from bench.session import Session
from bench.settings import options_of, plan_of, settings_of
from bench.store import Store, canonical
from datasets.manifests import MARK
from methods import discover, ordered
from methods.base import METHODS

__all__ = ["check", "doctor", "ls", "prepare", "report", "run"]  # the names of bench.cli.COMMANDS
console = Console()
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


def run(args: argparse.Namespace) -> int:
    options = options_of(args)
    discover(options.plugin_dirs)
    runs = plan_of(args, options.arch)
    if args.dry_run:
        return dry_run(options, runs, args.jobs or executor.default_jobs(options), args.fresh)
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
    with bar:
        total = bar.add_task("loading backbones and data", total=len(runs))
        spoken = [time.monotonic()]

        def on_images(what: str, done: int, count: int) -> None:
            bar.update(total, description=f"{escape(what)} {done}/{count}")
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:  # a log file shows no bar
                spoken[0] = time.monotonic()
                console.print(f"{escape(what)}, {done} of {count}", highlight=False, soft_wrap=True)

        session = Session(options, on_images)
        session.store.check_writable()
        open_datasets(session, list(dict.fromkeys(run.dataset for run in runs)))

        said: set[str] = set()

        def on_start(todo: int, already: int) -> None:
            bar.reset(total, total=todo)

        def on_done(run: plan.Run, record: dict) -> None:
            bar.update(total, advance=1, description=escape(str(run)))
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:
                spoken[0], task = time.monotonic(), bar.tasks[0]
                left = "?" if task.time_remaining is None else f"{task.time_remaining / 60:.0f}"
                console.print(f"{task.completed:.0f}/{task.total:.0f} runs, about {left} minutes left", highlight=False)
            if record["status"] != "done" and record["error"] not in said:  # one broken image fails many runs
                said.add(record["error"])
                console.print(
                    f"[red]failed[/] {escape(str(run))}: {escape(record['error'])}", highlight=False, soft_wrap=True
                )

        jobs = args.jobs or executor.default_jobs(options)
        tally = executor.run_all(session, runs, jobs, args.fresh, args.fail_fast, on_start, on_done)
        if args.limit is None:
            measure_known(session, list(dict.fromkeys(run.dataset for run in runs)))
    write_results(args, options.arch)
    console.print(
        f"{tally.done} runs done, {tally.already} were done before, {len(tally.failures)} failed; "
        f"{tally.planned} planned. Report: {options.out}/{options.arch.id}/report.html",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if tally.done + tally.already == tally.planned else 1


def measure_known(session: Session, ids: list[str]) -> None:
    """The known answers of open_clip's prompts. No run needs them, so a failure here costs no results."""
    try:
        own_prompts.measure(session, ids)
    except UserError as error:
        console.print(f"[yellow]left out[/] known answers: {escape(str(error))}", highlight=False, soft_wrap=True)


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


def fitting_records(args: argparse.Namespace, arch: archs.Arch) -> tuple[list[dict], list[str]]:
    """The stored records that this command line's settings could have made, whatever their dataset, method and seed,
    and notes on what was left out: a trial with other settings in the same folder never enters a table of full runs,
    and seeds of different weights, pictures or programs are never averaged."""
    settings, kept = settings_of(args, arch), []
    changes = plan.parse_overrides(args.overrides, ordered())
    for record in Store(args.out, arch.id).records():
        run = record["run"]
        if any(run.get(name) != value for name, value in settings.items()):
            continue
        if run["method"] in METHODS:
            config = plan.configure(run["method"], run["dataset"], run["shots"], run["protocol"], changes)
            if plan.as_stored(config) != run["config"]:
                continue
        kept.append(record)
    current = of_one_identity(of_one_source(kept, bool(args.manifests)))
    left = len(kept) - len(current)
    note = f"{left} stored records of other weights, pictures, settings or program versions are left out of every table"
    return current, [note] if left else []


def of_one_source(records: list[dict], given: bool) -> list[dict]:
    """A dataset's table never mixes seeds whose few-shot images a user gave with drawn ones: where there are both,
    those that the command line asks for stay."""
    marked = {record["key"] for record in records if MARK in (record.get("marks") or ())}
    sources: dict[str, set[bool]] = {}
    for record in records:
        sources.setdefault(record["run"]["dataset"], set()).add(record["key"] in marked)
    return [r for r in records if len(sources[r["run"]["dataset"]]) == 1 or (r["key"] in marked) == given]


def of_one_identity(records: list[dict]) -> list[dict]:
    """Those that agree with the last started one: on weights and program over the whole table, and on pictures,
    templates, method source and options for each dataset and method."""

    def narrowed(records: list[dict], group, traits) -> list[dict]:
        newest: dict = {}
        for record in sorted(records, key=lambda r: (r.get("started") or "", r["key"])):
            newest[canonical(group(record))] = canonical(traits(record))
        return [record for record in records if newest[canonical(group(record))] == canonical(traits(record))]

    def identity(record: dict, *names: str) -> list:
        return [(record.get("identity") or {}).get(name) for name in names]

    records = narrowed(records, lambda r: 0, lambda r: identity(r, "backbones", "numbers"))
    records = narrowed(
        records,
        lambda r: r["run"]["dataset"],
        lambda r: [identity(r, "templates"), (identity(r, "pictures")[0] or [None])[-1]],
    )
    return narrowed(
        records,
        lambda r: [r["run"]["dataset"], r["run"]["method"]],
        lambda r: [identity(r, "method"), r["run"]["config"]],
    )


def write_results(args: argparse.Namespace, arch: archs.Arch) -> list[dict]:
    records, notes = fitting_records(args, arch)
    store = Store(args.out, arch.id)
    tables.write_tables(records, store.folder, arch.id)
    figures.write_figures(records, store.folder)
    report_module.write_report(records, store.folder, arch.id, [arch.label, *notes], args.arch)
    answers = known.compare(records, store.folder, arch.id)
    known.write_known(answers, store.folder, arch.id)
    if warning := known.warning(answers):
        head, lines, causes = warning
        console.print(f"[bold yellow]{escape(head)}[/]", highlight=False, soft_wrap=True)
        console.print(escape("\n".join([*(f"  {line}" for line in lines), causes])), highlight=False, soft_wrap=True)
    console.print(tables.console_summary(records))
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    return records


def report(args: argparse.Namespace) -> int:
    arch = archs.find_arch(args.arch)
    discover(tuple(args.plugin_dir))
    if not fitting_records(args, arch)[0]:
        raise UserError(
            f"no records of these settings under '{args.out}/{arch.id}/runs'; run first: python run_all.py "
            f"--arch {arch.id}"
        )
    write_results(args, arch)
    return 0


def check(args: argparse.Namespace) -> int:
    """Non-zero where a cell of the stored tables is not what the stored predictions give."""
    arch = archs.find_arch(args.arch)
    discover(tuple(args.plugin_dir))
    (records, _), store = fitting_records(args, arch), Store(args.out, arch.id)
    if not records:
        raise UserError(f"no records of these settings under '{store.folder}/runs'; nothing to check")
    differences = recompute(records, store.read_predictions, store.folder)
    for line in differences:
        console.print(f"[red]differs[/] {escape(line)}", highlight=False, soft_wrap=True)
    console.print(f"{len(records)} records checked against their predictions, {len(differences)} differences")
    return 1 if differences else 0
