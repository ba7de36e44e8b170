"""The command ``ls``: what there is, told without importing torch."""

from __future__ import annotations

import argparse

from carryover import datasets
from carryover.bench import places
from carryover.bench.backbones import archs
from carryover.bench.cli import port_files
from carryover.bench.cli.backbones import not_read
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan import method_files
from carryover.bench.render.terminal import Table

WORDS = (
    "[methods|ports|datasets|archs [NAME]|targets]",
    "one list alone; archs NAME (or FILE.toml): what can be done with plug-ins of its base on each of its targets; "
    "targets: the same on each tag of open_clip",
)
FLAGS = ("--datasets", "--plugin-dir", "--arch", "--backbone", "--markdown", "--hub-cache")
HELP = {
    "--arch": "for targets: whose base (default: micro)",
    "--backbone": "for targets: the base, in place of the arch's; MODEL/TAG of open_clip or what evaluate takes",
}
EXAMPLES = (
    ("ls methods --plugin-dir mine", "the suite's methods and your own"),
    ("ls datasets --datasets folder:PATH", "is your own folder read as you mean it?"),
    ("ls archs vit-b16-all", "which plug-ins go into each of its targets as they are, which through a port"),
    ("ls targets --backbone ViT-L-14-quickgelu/openai", "the same for every tag of open_clip"),
)


def main(args: argparse.Namespace) -> int:
    kinds = {"methods": list_methods, "ports": list_ports, "datasets": list_datasets, "archs": list_archs}
    what = args.what[0].lower() if args.what else ""
    if what and what not in (*kinds, "targets"):
        raise unknown("list", what, (*kinds, "targets"))
    if len(args.what) > 1 and not (what == "archs" and len(args.what) == 2):
        raise UserError(f"'{args.what[-1]}' after 'ls {what}': ls takes one list at most, and archs one name")
    if what != "targets":
        not_read("ls", args, ("--backbone", "--markdown"), "but by 'ls targets'")
    if what == "targets" or len(args.what) > 1:
        from carryover.bench.cli import ls_targets  # which needs open_clip

        ls_targets.list_arch(args, args.what[1]) if len(args.what) > 1 else ls_targets.list_targets(args)
        return 0
    for kind, show in kinds.items():
        if what in ("", kind):
            show(args).show()
    return 0


def list_methods(args: argparse.Namespace) -> Table:
    shown = Table("method", "name", "depth", "needs", "source", title="methods")
    for one in method_files.listed(tuple(args.plugin_dir)):
        shown.row(one.id, one.name or one.id, places.label(one.depth), one.needs, one.paper)
    return shown


def list_ports(args: argparse.Namespace) -> Table:
    shown = Table("port", "name", "needs", "anchors", "source", title="ports")
    for one in port_files.listed(tuple(args.plugin_dir)):
        shown.row(one.id, one.name, ", ".join(one.needs), ", ".join(one.anchors), one.source)
    return shown


def list_datasets(args: argparse.Namespace) -> Table:
    """All ids, and the folders that the command line names."""
    shown, layouts = Table("dataset", "where", title="datasets"), datasets.layouts.LAYOUTS
    for id in datasets.ids():
        only = ", test only" if id in datasets.ood("paper") + datasets.ood("micro") else ""
        shown.row(
            id,
            (f"--data-root, {layouts[id].folder}/" if id in layouts else f"embedded: {datasets.load(id).about}") + only,
        )
    for id, path in datasets.folder.paths_of(args.datasets).items():
        shown.row(id, f"{path}: {describe_data(datasets.folder.load(id, path))}")
    if not args.datasets:
        shown.row("folder:PATH", "your own images: PATH/<class>/*.jpg or PATH/{train,val,test}/<class>/*.jpg")
    return shown


def list_archs(args: argparse.Namespace) -> Table:
    shown = Table("arch", "base", "update", "W", "D", title="archs")
    for name, arch in archs.ARCHS.items():
        new = arch.new.label + (f" and {len(arch.more)} more" if arch.more else "")
        shown.row(name, arch.base.label, new, str(arch.base.width), str(arch.base.dim))
    return shown


def describe_data(data) -> str:
    data.test.read([0, len(data.test) - 1])
    counts = " / ".join(str(len(split)) for split in (data.train, data.val, data.test))
    return f"{len(data.classnames)} classes, {counts} images" + "".join(f"; {note}" for note in data.notes)
