"""The commands that only look: the plan and its estimate, and what there is."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Column, Table

from carryover import datasets
from carryover.bench import places
from carryover.bench.backbones import archs
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan.runs import Run
from carryover.bench.preflight import budget
from carryover.bench.records import time_notes
from carryover.bench.render.terminal import escape
from carryover.methods import discover, ordered
from carryover.methods.base import METHODS

console = Console()


def dry_run(options: Options, runs: list[Run], jobs: int, fresh: bool = False) -> int:
    """The plan, and what it will take; weights or data that cannot be had are no error here, ``doctor`` says more."""
    shown = Table(
        "dataset",
        "methods",
        "seeds",
        "runs",
        title=escape(f"{len(runs)} runs on {options.arch.label}, {options.device}"),
    )
    for id in dict.fromkeys(run.dataset for run in runs):
        mine = [run for run in runs if run.dataset == id]
        shown.add_row(
            escape(id),
            escape(" ".join(dict.fromkeys(r.method for r in mine))),
            " ".join(map(str, dict.fromkeys(r.seed for r in mine))),
            str(len(mine)),
        )
    console.print(shown)
    try:
        session = Session(options)
        found = budget.estimate(session, runs, jobs, fresh)
        report = [*budget.lines(found), *(f"not estimated: {line}" for line in found.missing)]
        if found.runs:
            session.store.write_note(time_notes.ESTIMATE, found.stored())
            report.append("kept beside the records; the report will show it with the actual time")
    except UserError as error:
        report = [f"no estimate: {error}"]
    for line in report:
        console.print(escape(line), highlight=False, soft_wrap=True)
    return 0


def ls(args: argparse.Namespace) -> int:
    kinds = {"methods": list_methods, "datasets": list_datasets, "archs": list_archs}
    what = args.what[0] if args.what else ""
    if what and what not in kinds:
        raise unknown("list", what, kinds)
    discover(tuple(args.plugin_dir))
    for kind, show in kinds.items():
        if what in ("", kind):
            console.print(show(args))
    return 0


def list_methods(args: argparse.Namespace) -> Table:
    shown = Table("method", "name", "depth", "needs", "source", title="methods")
    for name in ordered():
        kind = METHODS[name]
        shown.add_row(*map(escape, (name, kind.name or name, places.label(kind.depth), kind.needs, kind.paper)))
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
    shown = Table("arch", Column("base", overflow="fold"), Column("update", overflow="fold"), "W", "D", title="archs")
    for name, arch in archs.ARCHS.items():
        new = arch.new.label + (f" and {len(arch.more)} more" if arch.more else "")
        shown.add_row(name, arch.base.label, new, str(arch.base.width), str(arch.base.dim))
    return shown


def describe_data(data) -> str:
    data.test.read([0, len(data.test) - 1])
    counts = " / ".join(str(len(split)) for split in (data.train, data.val, data.test))
    return f"{len(data.classnames)} classes, {counts} images" + "".join(f"; {note}" for note in data.notes)
