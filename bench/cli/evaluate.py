"""The command ``evaluate``: does a plug-in file fit a backbone, and what does it score there?"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from carryover.bench.cli import flags
from carryover.bench.cli.backbones import local
from carryover.bench.cli.progress import Progress
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import Table, aside, say

WORDS = ()
FLAGS = (
    "--plugin",
    "--backbone",
    "--dataset",
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
EXAMPLES = (
    (
        "evaluate --plugin FILE --backbone micro-update --dataset micro_stars",
        "an embedded model and its pictures: offline, on a CPU",
    ),
    (
        "evaluate --plugin FILE --backbone ViT-B-16/laion2b_s34b_b88k --dataset dtd --data-root DATA",
        "does this plug-in work on that backbone? with --dry-run: does it fit at all?",
    ),
)


def main(args: argparse.Namespace) -> int:
    """Contract check, then the plug-in's accuracy on that backbone and dataset."""
    for flag in ("plugin", "backbone", "dataset"):
        if not getattr(args, flag):
            raise UserError(f"evaluate: --{flag} is missing; expected --plugin FILE --backbone NAME --dataset DATASET")
    from carryover import datasets
    from carryover.bench.backbones.names import tower_of
    from carryover.bench.cli.options import options_of
    from carryover.bench.cli.registries import discover
    from carryover.bench.engine.session import Session
    from carryover.bench.plugins.contract import check, check_ported, warnings_of
    from carryover.bench.plugins.evaluation import FOLDER, alone, evaluate_plugin
    from carryover.bench.plugins.format import read
    from carryover.bench.plugins.ported import restored

    discover(args.plugin_dir)
    args.datasets = [args.dataset]
    dataset, plugin = datasets.identify(args.dataset), read(local(args.plugin, args))
    tower = tower_of(args.backbone, args.arch, args.base_weights, args.new_weights, args.hub_cache)
    options = replace(options_of(args), arch=alone(tower), manifests="")
    session = Session(options, Progress())
    data = session.data(dataset)
    if args.dry_run:
        if plugin.ported is None:
            check(plugin, tower, data)
        else:
            check_ported(plugin, restored(plugin), tower, data)
        show_warnings(warnings_of(plugin, tower))
        say(f"compatible: {plugin.path} ({plugin.method}) with {tower.label} on {data.id}")
        return 0
    session.store.check_writable()
    with few_threads(tower.is_micro and options.device == "cpu"):
        stored = evaluate_plugin(session, plugin, dataset, args.limit)
    show_warnings(stored["warnings"])
    if args.json:
        print(json.dumps(stored, indent=1, sort_keys=True))
        return 0
    table(stored).show()
    say(f"Kept in {args.out}/{FOLDER}/{stored['key']}.json, predictions beside it.")
    return 0


@contextlib.contextmanager
def few_threads(one: bool) -> Iterator[None]:
    """One thread for the embedded models on a CPU, as their runs have: the same bits on any number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if one else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show_warnings(lines: list[str]) -> None:
    for line in lines:
        say(("note", "yellow"), f" {line}", to=aside)


def ported_rows(header: dict[str, Any]) -> dict[str, str]:
    """How it was carried over, where it was; a header of version 1 may say anything there."""
    told = header.get("ported")
    if not isinstance(told, dict) or not isinstance(told.get("anchors"), dict):
        return {}
    anchors = told["anchors"]
    kind = "texts" if anchors.get("kind") == "texts" else "pictures"
    source = f" of {anchors['folder']}" if anchors.get("folder") else ""
    return {"ported by": f"{told.get('name')}, fitted on {anchors.get('count')} {kind}{source}"}


def table(stored: dict[str, Any]) -> Table:
    """The result: a line a number, so that it fits any terminal."""
    header, d = stored["plugin"], stored["difference"]
    shots = f"{header['shots']} shots" if header["shots"] is not None else "shots not known"
    seed = f"seed {header['seed']}" if header["seed"] is not None else "seed not known"
    limited = f", a trial with at most {stored['limit']} a class" if stored["limit"] else ""
    rows = {
        "method": stored["method"]["name"],
        "trained on": f"{header['trained_on'][-1]['backbone']}, {header['dataset']}, {shots}, {seed}",
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
