"""What each command does, given parsed flags; every function returns the exit status."""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import datasets
from bench import archs, executor, figures, plan, tables
from bench import report as report_module
from bench.check import recompute
from bench.cli import MICRO_VIEWS, PUBLISHED_VIEWS
from bench.errors import UserError, unknown
from bench.session import Options, Session
from bench.store import Store
from methods import discover, ordered
from methods.base import METHODS

console = Console()
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


def device_of(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this build of torch has no CUDA device; use --device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: not available here; use --device cpu")
    return name


def options_of(args: argparse.Namespace) -> Options:
    arch = archs.find_arch(args.arch, args.base_weights, args.new_weights)
    return Options(
        arch,
        device_of(args.device),
        args.out,
        args.cache or f"{args.out}/cache",
        args.hub_cache,
        args.data_root,
        args.precision,
        int(args.text_memory * 2**30),
        plugin_dirs=tuple(args.plugin_dir),
        debug=args.debug,
        make_split=args.make_split,
        folders=tuple(datasets.folder.paths_of(args.datasets).items()),
    )


def settings_of(args: argparse.Namespace, arch: archs.Arch) -> dict:
    protocol = args.protocol or arch.protocol
    return {
        "shots": args.shots,
        "protocol": protocol,
        "precision": args.precision,
        "limit": args.limit,
        "views": args.views or (MICRO_VIEWS if protocol == "micro" else PUBLISHED_VIEWS),
    }


def plan_of(args: argparse.Namespace, arch: archs.Arch) -> list[plan.Run]:
    return plan.grid(
        arch,
        suites=args.suite,
        methods=args.methods,
        datasets_=args.datasets,
        seeds=args.seeds,
        overrides=args.overrides,
        **settings_of(args, arch),
    )


def run(args: argparse.Namespace) -> int:
    options = options_of(args)
    discover(options.plugin_dirs)
    runs = plan_of(args, options.arch)
    if args.dry_run:
        return dry_run(options, runs)
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
        session = Session(options, lambda what, done, count: bar.update(total, description=f"{what} {done}/{count}"))
        session.store.check_writable()
        open_datasets(session, list(dict.fromkeys(run.dataset for run in runs)))

        said: set[str] = set()
        spoken = [time.monotonic()]

        def on_start(todo: int, already: int) -> None:
            bar.reset(total, total=todo)

        def on_done(run: plan.Run, record: dict) -> None:
            bar.update(total, advance=1, description=escape(str(run)))
            if not console.is_terminal and time.monotonic() - spoken[0] > LOG_EVERY:  # a log file shows no bar
                spoken[0], task = time.monotonic(), bar.tasks[0]
                left = "?" if task.time_remaining is None else f"{task.time_remaining / 60:.0f}"
                console.print(f"{task.completed:.0f}/{task.total:.0f} runs, about {left} minutes left", highlight=False)
            if record["status"] != "done" and record["error"] not in said:  # one broken image fails many runs
                said.add(record["error"])
                console.print(
                    f"[red]failed[/] {escape(str(run))}: {escape(record['error'])}", highlight=False, markup=True
                )

        jobs = args.jobs or executor.default_jobs(options)
        tally = executor.run_all(session, runs, jobs, args.fresh, args.fail_fast, on_start, on_done)
    write_results(args, options.arch)
    console.print(
        f"{tally.done} runs done, {tally.already} were done before, {len(tally.failures)} failed; "
        f"{tally.planned} planned. Report: {options.out}/{options.arch.id}/report.html",
        highlight=False,
    )
    return 0 if tally.done + tally.already == tally.planned else 1


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


def dry_run(options: Options, runs: list[plan.Run]) -> int:
    shown = Table(
        "dataset",
        "methods",
        "seeds",
        "runs",
        title=f"{len(runs)} runs on {options.arch.base.label} → {options.arch.new.label}, {options.device}",
    )
    for id in dict.fromkeys(run.dataset for run in runs):
        mine = [run for run in runs if run.dataset == id]
        shown.add_row(
            escape(id),
            " ".join(dict.fromkeys(r.method for r in mine)),
            " ".join(map(str, dict.fromkeys(r.seed for r in mine))),
            str(len(mine)),
        )
    console.print(shown)
    return 0


def fitting_records(args: argparse.Namespace, arch: archs.Arch) -> list[dict]:
    """The stored records that this command line's settings could have made, whatever their dataset, method and seed; so
    a trial with other settings in the same folder never enters a table of full runs."""
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
    return kept


def write_results(args: argparse.Namespace, arch: archs.Arch) -> list[dict]:
    records = fitting_records(args, arch)
    store = Store(args.out, arch.id)
    tables.write_tables(records, store.folder, arch.id)
    figures.write_figures(records, store.folder)
    report_module.write_report(records, store.folder, arch.id, notes_of(arch))
    console.print(tables.console_summary(records))
    return records


def notes_of(arch: archs.Arch) -> list[str]:
    return [f"{arch.base.label} → {arch.new.label}"]


def report(args: argparse.Namespace) -> int:
    arch = archs.find_arch(args.arch)
    discover(tuple(args.plugin_dir))
    if not fitting_records(args, arch):
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
    records, store = fitting_records(args, arch), Store(args.out, arch.id)
    if not records:
        raise UserError(f"no records of these settings under '{store.folder}/runs'; nothing to check")
    differences = recompute(records, store.read_predictions, store.folder)
    for line in differences:
        console.print(f"[red]differs[/] {escape(line)}", highlight=False)
    console.print(f"{len(records)} records checked against their predictions, {len(differences)} differences")
    return 1 if differences else 0


def ls(args: argparse.Namespace) -> int:
    kinds = {"methods": list_methods, "datasets": list_datasets, "archs": list_archs}
    if args.what and args.what not in kinds:
        raise unknown("list", args.what, kinds)
    discover(tuple(args.plugin_dir))
    for kind, show in kinds.items():
        if args.what in ("", kind):
            console.print(show(args))
    return 0


def list_methods(args: argparse.Namespace) -> Table:
    shown = Table("method", "name", "depth", "source", title="methods")
    for name in ordered():
        kind = METHODS[name]
        shown.add_row(name, kind.name or name, kind.depth, kind.paper)
    return shown


def list_datasets(args: argparse.Namespace) -> Table:
    """All ids, and the folders that the command line names."""
    shown, layouts = Table("dataset", "where", title="datasets"), datasets.layouts.LAYOUTS
    for id in datasets.ids():
        only = ", test only" if id in datasets.ood("paper") + datasets.ood("micro") else ""
        shown.add_row(
            id,
            (f"--data-root, {layouts[id].folder}/" if id in layouts else f"embedded: {datasets.load(id).about}") + only,
        )
    for id, path in datasets.folder.paths_of(args.datasets).items():
        shown.add_row(escape(id), escape(f"{path}: {describe_data(datasets.folder.load(id, path))}"))
    if not args.datasets:
        shown.add_row("folder:PATH", "your own images: PATH/<class>/*.jpg or PATH/{train,val,test}/<class>/*.jpg")
    return shown


def list_archs(args: argparse.Namespace) -> Table:
    shown = Table("arch", "base", "update", "W", "D", title="archs")
    for name, arch in archs.ARCHS.items():
        shown.add_row(name, arch.base.label, arch.new.label, str(arch.base.width), str(arch.base.dim))
    return shown


def doctor(args: argparse.Namespace) -> int:
    """Everything that is wrong with this arch's weights and data, at once."""
    options = options_of(args)
    discover(options.plugin_dirs)
    session, wrong = Session(options), []

    def step(what: str, look) -> None:
        try:
            console.print(f"[green]ok[/]   {what}: {escape(look())}", highlight=False)
        except UserError as error:
            wrong.append(what)
            console.print(f"[red]bad[/]  {what}: {escape(str(error))}", highlight=False)

    for role, tower in options.arch.towers.items():
        step(
            f"{role} backbone",
            lambda role=role, tower=tower: (
                f"{session.backbone(role).label}, {tower.activation}, "
                f"W {tower.width}, D {tower.dim}, "
                f"fast text path {'yes' if session.backbone(role).text.fast else 'no'}, "
                f"{session.backbone(role).fingerprint[:12]}"
            ),
        )
    for id in [datasets.identify(given) for given in args.datasets] or datasets.default(options.arch.datasets):
        step(escape(id), lambda id=id: describe_data(session.data(id)))
    console.print(f"{len(wrong)} problems" if wrong else "no problem found")
    return 1 if wrong else 0


def describe_data(data) -> str:
    data.test.read([0, len(data.test) - 1])
    counts = " / ".join(str(len(split)) for split in (data.train, data.val, data.test))
    return f"{len(data.classnames)} classes, {counts} images" + "".join(f"; {note}" for note in data.notes)
