"""The command ``port``: a plug-in file for another backbone than the one it was trained on; a head, for stored
features."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carryover.bench.cli import flags
from carryover.bench.cli.agreement import OF_DATASETS
from carryover.bench.cli.backbones import Alone, local, named_home, not_read, tower, wanting
from carryover.bench.cli.commands import command_line
from carryover.bench.cli.evaluate import few_threads, show_warnings
from carryover.bench.errors import UserError
from carryover.bench.plan.defaults import ARCH
from carryover.bench.render.terminal import say

if TYPE_CHECKING:
    from carryover.bench.plugins.format import Plugin
    from carryover.bench.plugins.porting import Outcome
    from carryover.methods.base import Classes

WORDS = ()
FLAGS = (
    "--plugin",
    "--backbone",
    "--old",
    "--images",
    "--count",
    "--map",
    "--port",
    "--dataset",
    "--new",
    "--head",
    "--to",
    "--precision",
    *flags.BACKBONES,
    "--data-root",
    "--make-split",
    *flags.FILES,
    *flags.DEVICE,
)
NEEDS = "--plugin FILE --backbone NAME --images FOLDER --to FILE"
HELP = {
    "--backbone": f"the new backbone: {flags.NAMES}",
    "--dataset": "whose class names and prompts it is ported with (default: those of the file); no picture is read",
    "--images": "pictures that the map is fitted on, in any folders below it; no label is read",
    "--count": "at most so many of the pictures, the same ones each time (default: all)",
    "--old": "the backbone that the plug-in was trained on (default: the one that its file names); or features of it, "
    "FILE.npz, FILE.npz:NAME, or some rows, FILE.npz:NAME[0::2]",
    "--new": "features of the new backbone of the same pictures, in the forms of --old",
    "--to": "the ported plug-in to write, .safetensors; with --head a file of the head's own form",
}
EXAMPLES = (
    (
        "port --plugin FILE --backbone micro-update --images FOLDER --to PORTED.safetensors",
        "carries a plug-in over with pictures of the task, without labels; then: evaluate --plugin PORTED.safetensors",
    ),
    ("port --plugin FILE --map MAP --to PORTED.safetensors", "through a map that the command map fitted before"),
    (
        "port --plugin FILE --backbone NAME --map MAP --images FOLDER --to PORTED.safetensors",
        "the same, fitted further on a few pictures of the task: 16 may do",
    ),
    (
        "port --old OLD.npz --new NEW.npz --head HEAD.npz --to HEAD-FOR-NEW.npz",
        "for stored features: arrays 'features' (rows, width) and, where rows are in another order, 'ids'; HEAD has "
        "'weight' (outputs, width) and perhaps 'bias'",
    ),
    (
        "port --plugin HEAD.safetensors --old OLD.npz --new NEW.npz --backbone NAME --to PORTED.safetensors",
        "a plug-in file, from stored features of the same pictures and without a backbone; FILE.npz:NAME is one array "
        "of several",
    ),
)
FORM = "--plugin FILE --backbone NAME --images FOLDER --to FILE.safetensors"
FORM_OF_ARRAYS = "--old OLD.npz --new NEW.npz --head HEAD.npz --to FILE.npz"
FORM_OF_BOTH = "--plugin FILE --old OLD.npz --new NEW.npz --to FILE.safetensors"


def main(args: argparse.Namespace) -> int:
    """Ports a plug-in, or a head where features are given in files, and says how well it answers as before."""
    from carryover.bench.plugins.stored_features import is_arrays

    arrays = args.new or is_arrays(args.old or "")
    if args.head or (arrays and not args.plugin):
        return of_arrays(args)
    if not args.plugin:
        raise UserError(f"port: --plugin is missing; expected {FORM}, or {FORM_OF_ARRAYS}")
    wanting("port", args, ("to",), FORM)
    if not args.dataset:
        not_read("port", args, OF_DATASETS, "without --dataset")
    if not args.images:
        not_read("port", args, ("--count",), "without --images")
    from carryover.bench.cli.registries import discover
    from carryover.bench.host.outputs import PLUGIN, check_output
    from carryover.bench.plugins.format import read
    from carryover.bench.plugins.ported import check_name, write

    discover(args.plugin_dir)
    check_name(Path(args.to))
    args.plugin = local(args.plugin, args)
    check_output(args.to, [args.plugin, *inputs_of(args)], PLUGIN)
    plugin = read(args.plugin)
    classes, note = prompts(args, plugin)
    if arrays:
        outcome = over_arrays(args, plugin, classes)
    else:
        alone = args.map and not args.images
        outcome = through_map(args, plugin, classes) if alone else over_anchors(args, plugin, classes)
    size = write(args.to, plugin, outcome.ported, outcome.told)
    tell(args, plugin, outcome, size)
    count, names = outcome.told["anchors"]["count"], len(set(classes.names))
    things = "rows" if arrays else "pictures"
    few = f"{count} {things} for {names} classes are too few to rely on" if count < names else ""
    show_warnings([line for line in (note, few) if line])
    return 0


def inputs_of(args: argparse.Namespace) -> list[str | None]:
    """Files and folders that are read, beside the plug-in; of FILE.npz:NAME the file."""
    from carryover.bench.plugins.stored_features import split_name

    sides = [part for given in (args.old, args.new) if given for part in (given, split_name(given)[0])]
    return [*sides, args.map, args.head, args.images, args.backbone]


# ---- plug-ins --------------------------------------------------------------------------------------------------------


def over_anchors(args: argparse.Namespace, plugin: Plugin, classes: Classes) -> Outcome:
    from carryover.bench.plugins import porting
    from carryover.bench.plugins.homes import doubt
    from carryover.datasets import pictures

    wanting("port", args, ("backbone",), FORM)
    port = porting.port_of(args.port or ("procrustes" if args.map else porting.usual_port(plugin)), plugin)
    prior = porting.read_map(args.map) if args.map else None
    if prior is not None:
        if args.port not in (None, "procrustes"):
            raise UserError(f"port: --map with --images is a start for procrustes; --port {args.port} takes none")
        port = porting.FromMap(prior)
    seen = "images" in port.needs
    if seen:
        wanting("port", args, ("images",), f"{FORM}, or --map FILE in place of pictures")
    elif args.images:
        raise UserError(f"port: --images, and port {args.port} looks at none; leave the flag out")
    split = pictures.load(args.images, args.count) if seen else None
    named = named_home(args, "port", args.old, plugin, "--old")
    alone = Alone(args, named, args.backbone)
    old, new = alone.load(named), alone.load(args.backbone)
    if prior is not None and split is not None and told_of(prior) == pictures.told(split, args.images).get("sha256"):
        raise UserError(
            f"port: the map of --map was fitted on the pictures of --images {args.images}: give it alone, or pictures "
            "that it has not seen"
        )
    if prior is not None:
        porting.check_pair(f"--map '{args.map}'", prior, porting.home_of(plugin), new)
    porting.check_home(plugin, old)
    show_warnings(doubt(porting.home_of(plugin), old.label))
    with few_threads(old.tower.is_micro and new.tower.is_micro and alone.device == "cpu"):
        if split is None:
            anchors = porting.anchors_of_texts(port, old)
            told: dict[str, Any] = {"kind": "texts", "count": len(anchors.nouns) + len(set(classes.names))}
        else:
            anchors = porting.anchors_in(split, port, alone.store(old), alone.store(new))
            told = {"kind": "pictures", **pictures.told(split, args.images)}
        outcome = porting.carry(plugin, port, old, new, classes, anchors)
    outcome.told["anchors"] = told
    return outcome


def through_map(args: argparse.Namespace, plugin: Plugin, classes: Classes) -> Outcome:
    from carryover.bench.plugins import porting

    fitted = porting.read_map(args.map)
    if args.port not in (None, fitted.about["name"]):
        raise UserError(f"port: --port {args.port}, and the map of --map is {fitted.about['name']}; leave --port out")
    where = f"--map '{args.map}'"
    new = Alone(args, args.backbone).load(args.backbone) if args.backbone else None
    show_warnings(porting.check_pair(where, fitted, porting.home_of(plugin), new))
    outcome = None if args.old else porting.carry_through(plugin, fitted, None, classes)
    if outcome is None:
        named = named_home(args, "port", args.old, plugin, "--old")
        alone = Alone(args, named)
        old = alone.load(named)
        porting.check_home(plugin, old)
        with few_threads(old.tower.is_micro and alone.device == "cpu"):
            outcome = porting.carry_through(plugin, fitted, old, classes)
    assert outcome is not None  # with the tower, every method that a map can carry is bound
    count = {"count": fitted.about["count"]}
    outcome.told["anchors"] = {**fitted.header["fitted_on"], "kind": "map", **count}
    return outcome


def over_arrays(args: argparse.Namespace, plugin: Plugin, classes: Classes) -> Outcome:
    """From features in files; --backbone names the new backbone and is not loaded."""
    for name in ("images", "map"):
        if getattr(args, name):
            raise UserError(f"port: --{name} beside features in files; expected {FORM_OF_BOTH}, or {FORM}")
    not_read("port", args, ("--count", "--precision"), "beside features in files")
    wanting("port", args, ("old", "new"), FORM_OF_BOTH)
    from carryover.bench.plugins.porting import port_of, usual_port
    from carryover.bench.plugins.porting_stored import carry_stored
    from carryover.bench.plugins.stored_features import stored

    port_of(args.port or usual_port(plugin), plugin)
    old, new = stored(args.old, "--old"), stored(args.new, "--new")
    home = tower(args, args.backbone) if args.backbone else None
    if (old.ids is None) != (new.ids is None):
        show_warnings(["only one of the files has ids: rows were matched by their place"])
    return carry_stored(plugin, classes, old, new, args.port, home)


def prompts(args: argparse.Namespace, plugin: Plugin) -> tuple[Classes, str]:
    """Class names and templates, those of --dataset where it is given; what is to be noted where they are a guess."""
    from carryover import datasets
    from carryover.bench.plugins.porting import classes_of, without_tower

    data = None
    if args.dataset:
        folders = datasets.folder.paths_of([args.dataset])
        id = datasets.identify(args.dataset)
        data = datasets.load(id, args.data_root, make_split=args.make_split, folders=folders)
    classes, note = classes_of(plugin, data)
    note = note and f"{note}; --dataset says another set's"
    return classes, note and ("" if without_tower(plugin, classes) else note)


def tell(args: argparse.Namespace, plugin: Plugin, outcome: Outcome, size: int) -> None:
    told = outcome.told
    anchors = told["anchors"]
    left = {"texts": "texts", "features": "rows"}.get(anchors["kind"], "pictures")
    what = f"{anchors['count']} {left}"
    source = f" of {anchors['folder']}" if anchors.get("folder") else ""
    data = args.dataset or (plugin.header["dataset"] if known(plugin.header["dataset"]) else "DATASET")
    new = args.backbone or told["new"]["backbone"]
    where = ["--arch", args.arch] if args.backbone and args.arch != ARCH else []
    words = ["evaluate", "--plugin", args.to, "--backbone", new, *where, "--dataset", data]
    if left == "rows":
        words = ["evaluate", "--plugin", args.to, "--old", "OTHER-OLD.npz", "--new", "OTHER-NEW.npz"]
    elif "correlation" in told:
        words = ["evaluate", "--plugin", args.to, "--backbone", new, *where, "--images", "FOLDER"]
    lines = [
        f"{plugin.method} of {plugin.header['dataset']}, carried from {told['old']['backbone']} to "
        f"{told['new']['backbone']} by {told['name']}, fitted on {what}{source}",
        ""
        if told["fit"] is None
        else f"fit: R² {told['fit']:.3f} on {left} that it was fitted without (1 is perfect, 0 as good as the mean)",
        ""
        if told["agreement"] is None
        else f"agreement: old and ported plug-in name the same class on {100 * told['agreement']:.1f} % of such {left}",
        *(
            f"correlation of {name} with the old plug-in's {'not known' if r is None else f'{r:.3f}'} on such {left}"
            for name, r in (told.get("correlation") or {}).items()
        ),
        *lead(told),
        as_it_is(plugin, told["new"]),
        "this fit is of texts and tells nothing of pictures: evaluate it before you rely on it"
        if anchors["kind"] == "texts"
        else "",
        f"written: {args.to}, {size / 1024:.0f} KB. Next:",
        f"  {command_line(shlex.join(words))}",
    ]
    for line in filter(None, lines):
        say(line)


def lead(told: dict[str, Any]) -> list[str]:
    """Whether to port at all, by what is known before any label is read (docs/ports.md)."""
    zero = told.get("zero_agreement")
    if zero is None:
        return []
    ahead = told["agreement"] - zero
    advice = "it is likely better than zero-shot" if ahead > 0 else "zero-shot is likely as good or better"
    return [f"the new zero-shot model does so on {100 * zero:.1f} %: a lead of {100 * ahead:+.1f} points, so {advice}"]


def as_it_is(plugin: Plugin, new: dict[str, Any]) -> str:
    """What a lead over zero-shot does not tell: whether the plug-in, where it fits, would do better without a port."""
    from carryover.methods.asks import asked
    from carryover.methods.base import METHODS

    kind = METHODS[plugin.method]
    if plugin.ported is not None or kind.depth != "input":
        return ""
    if any(new.get(name) not in (None, getattr(plugin.shape, name)) for name in asked(kind, kind.Config())):
        return ""
    return "learned prompts often carry over as they are: evaluate the plug-in itself on the new backbone too"


def told_of(fitted: Any) -> str | None:
    """sha256 of the pictures that a map was fitted on, where its file says it."""
    return (fitted.header.get("fitted_on") or {}).get("sha256")


def known(dataset: str) -> bool:
    from carryover import datasets

    return dataset in datasets.ids()


# ---- stored features -------------------------------------------------------------------------------------------------


def of_arrays(args: argparse.Namespace) -> int:
    for name in ("plugin", "backbone", "images", "map", "dataset"):
        if getattr(args, name):
            raise UserError(
                f"port: --{name} beside features in files; expected {FORM_OF_ARRAYS}, or for a plug-in {FORM}"
            )
    not_read("port", args, ("--count", "--precision", *OF_DATASETS), "beside features in files")
    wanting("port", args, ("old", "new", "head", "to"), FORM_OF_ARRAYS)
    from carryover.bench.host.outputs import check_output
    from carryover.bench.plugins.porting import kind_of_map
    from carryover.bench.plugins.stored_features import carry_head, head_of, stored, write

    check_output(args.to, inputs_of(args))
    kind = kind_of_map(args.port)
    old, new, head = stored(args.old, "--old"), stored(args.new, "--new"), head_of(args.head)
    ported, told = carry_head(old, new, head, kind())
    write(ported, args.to)
    alone = sum(told["left_out"])
    agreed = f"the largest output is the same on {100 * told['agreement']:.1f} % of those rows"
    if ported.weight.shape[0] == 1:
        agreed = f"correlation {told['agreement']:.3f} of the outputs on those rows"
    lines = [
        f"{kind.name} from width {new.features.shape[1]} to {old.features.shape[1]}, fitted on {told['rows']} rows "
        f"matched {told['matched']}" + (f"; {alone} rows have no partner" if alone else ""),
        f"fit: R² {told['fit']:.3f} on rows that it was fitted without (1 is perfect, 0 as good as the mean)",
        f"agreement of old and new head: {agreed}",
        f"written: {args.to}: weight {ported.weight.shape}, bias {ported.bias.shape}, for new features as they are",
    ]
    if (old.ids is None) != (new.ids is None):
        show_warnings(["only one of the files has ids: rows were matched by their place"])
    for line in lines:
        say(line)
    outputs = ported.weight.shape[0]
    if told["rows"] < outputs:
        show_warnings([f"{told['rows']} rows for {outputs} outputs are too few to rely on"])
    return 0
