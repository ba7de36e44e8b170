"""The command ``evaluate``: does a plug-in file fit a backbone, and what does it score there?"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from carryover.bench.cli import agreement, flags
from carryover.bench.cli.backbones import local, named_home
from carryover.bench.cli.progress import Progress
from carryover.bench.cli.shown import few_threads, ported_rows, show_warnings, trained_on
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import Table, say

WORDS = ()
FLAGS = (
    "--plugin",
    "--backbone",
    "--dataset",
    "--images",
    "--count",
    "--old",
    "--new",
    "--json",
    "--limit",
    "--precision",
    *flags.BACKBONES,
    "--data-root",
    "--make-split",
    *flags.FILES,
    *flags.DEVICE,
    *flags.LOOK,
)
NEEDS = "--plugin FILE --backbone NAME --dataset ID"
HELP = {
    "--backbone": f"where it is asked (of a ported plug-in default: where it was ported to): {flags.NAMES}",
    "--dataset": "a dataset id, or folder:PATH with PATH/<class>/*.jpg; its test images are used, of a bare folder a "
    "part, which is noted",
    "--images": "pictures without labels, in any folders below it, in place of --dataset: how far the plug-in agrees "
    "with itself on its old backbone",
    "--count": "at most so many of the pictures, the same ones each time (default: all)",
    "--old": "for agreement: the old backbone (default: the one that the file names); or its features, "
    "FILE.npz, FILE.npz:NAME, or some rows, FILE.npz:NAME[0::2]",
    "--new": "features of the new backbone of the same pictures, in the forms of --old",
    "--json": "print the result as it is stored, in place of the table",
    "--dry-run": "only say whether the plug-in fits that backbone and dataset",
}
EXAMPLES = (
    (
        "evaluate --plugin FILE --backbone micro-update --dataset micro_stars",
        "an embedded model and its pictures: offline, on a CPU",
    ),
    (
        "evaluate --plugin FILE --backbone ViT-B-16/laion2b_s34b_b88k --dataset dtd --data-root DATA",
        "does this plug-in work on that backbone? with --dry-run: does it fit at all?",
    ),
    (
        "evaluate --plugin FILE --backbone NEW --images FOLDER",
        "without labels: does it answer there as it does on its old backbone?",
    ),
    (
        "evaluate --plugin PORTED.safetensors --old OLD.npz --new NEW.npz",
        "the same from stored features of the same pictures, without a backbone; FILE.npz:NAME is one array of several",
    ),
)
FORM = "--plugin FILE --backbone NAME --dataset DATASET"


def main(args: argparse.Namespace) -> int:
    """Contract check, then the plug-in's accuracy on that backbone and dataset; without labels, and of scores, its
    agreement with the old model."""
    if not args.plugin:
        raise UserError(f"evaluate: --plugin is missing; expected {FORM}, or without labels {agreement.FORM}")
    from carryover.bench.cli.registries import discover
    from carryover.bench.plugins.format import read
    from carryover.bench.plugins.scores import tells_scores
    from carryover.bench.plugins.stored_features import is_arrays

    if args.images and args.dataset:
        raise UserError("evaluate: --images and --dataset; expected one of them: pictures without labels, or a dataset")
    arrays = bool(args.new) or is_arrays(args.old or "")
    for flag in ("dry_run", "limit"):
        if (arrays or args.images) and getattr(args, flag):
            raise UserError(f"evaluate: --{flag.replace('_', '-')} is for a --dataset; leave it out without labels")
    if not (arrays or args.images or args.dataset):
        raise UserError(f"evaluate: --dataset is missing; expected {FORM}, or without labels {agreement.FORM}")
    discover(args.plugin_dir)
    plugin = read(local(args.plugin, args))
    if plugin.ported and not (args.backbone or arrays):
        args.backbone = named_home(args, "evaluate", "", plugin, "--backbone")
    if not (arrays or args.images or args.backbone):
        raise UserError(f"evaluate: --backbone is missing; expected {FORM}, or without labels {agreement.FORM}")
    if arrays:
        return agreement.of_arrays(args, plugin)
    if args.images:
        return agreement.of_pictures(args, plugin)
    if args.count:
        raise UserError("evaluate: --count bounds the pictures of --images; of a dataset --limit N takes N a class")
    from carryover import datasets

    if tells_scores(plugin):
        if args.dry_run:
            raise UserError("evaluate: it scores and fits by width alone; there is nothing to try without the pictures")
        show_warnings(["it scores, and labels name classes: what follows is agreement with its old model"])
        return agreement.of_pictures(args, plugin, datasets.identify(args.dataset))
    if args.old:
        raise UserError("evaluate: --old is for agreement without labels: --images FOLDER in place of --dataset")
    from carryover.bench.backbones.names import tower_of
    from carryover.bench.cli.options import options_of
    from carryover.bench.engine.session import Session
    from carryover.bench.plugins.contract import check, check_ported
    from carryover.bench.plugins.evaluation import FOLDER, alone, evaluate_plugin
    from carryover.bench.plugins.homes import warnings_of
    from carryover.bench.plugins.ported import restored

    args.datasets = [args.dataset]
    dataset = datasets.identify(args.dataset)
    tower = tower_of(args.backbone, args.arch, args.base_weights, args.new_weights, args.hub_cache)
    options = replace(options_of(args, tower.is_micro), arch=alone(tower), manifests="")
    session = Session(options, Progress())
    data = session.data(dataset)
    if args.dry_run:
        if plugin.ported is None:
            check(plugin, tower, data, cache_dir=options.hub_cache)
        else:
            check_ported(plugin, restored(plugin), tower, data)
        show_warnings(warnings_of(plugin, tower))
        say(f"compatible: {plugin.path} ({plugin.method}) with {tower.label} on {data.id}")
        return 0
    session.store.check_writable()
    with few_threads(tower.is_micro and options.device == "cpu"):
        stored = evaluate_plugin(session, plugin, dataset, args.limit)
    show_warnings([*stored["dataset"]["marks"], *stored["warnings"]])
    if args.json:
        print(json.dumps(stored, indent=1, sort_keys=True))
        return 0
    table(stored).show()
    say(f"Kept in {args.out}/{FOLDER}/{stored['key']}.json, predictions beside it.")
    return 0


def table(stored: dict[str, Any]) -> Table:
    """The result: a line a number, so that it fits any terminal."""
    header, d = stored["plugin"], stored["difference"]
    shots = f"{header['shots']} shots" if header["shots"] is not None else "shots not known"
    seed = f"seed {header['seed']}" if header["seed"] is not None else "seed not known"
    limited = f", a trial with at most {stored['limit']} a class" if stored["limit"] else ""
    rows = {
        "method": stored["method"]["name"],
        "trained on": f"{trained_on(header)['backbone']}, {header['dataset']}, {shots}, {seed}",
        **ported_rows(header),
        "backbone": stored["backbone"]["label"],
        "dataset": f"{stored['dataset']['id']}, {stored['count']} test images{limited}",
        "accuracy": f"{stored['accuracy']:.2f} %",
        "zero-shot": f"{stored['zero_shot']['accuracy']:.2f} %, this backbone's",
        "difference": f"{d['points']:+.2f} points, {d['low']:+.2f} to {d['high']:+.2f} (95 %, paired over the images)",
    }
    shown = Table("", "", show_header=False)
    for name, told in rows.items():
        shown.row(name, told)
    return shown
