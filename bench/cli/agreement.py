"""``evaluate`` where no label is: a plug-in's answers on the new backbone beside those on its old one."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from carryover.bench.cli.backbones import Alone, named_home, not_read, tower
from carryover.bench.cli.shown import few_threads, ported_rows, show_warnings
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import Table, say

if TYPE_CHECKING:
    from carryover.bench.plugins.format import Plugin
    from carryover.bench.plugins.unlabelled import Seen

FORM = "--plugin FILE --backbone NEW --images FOLDER [--old OLD]"
FORM_OF_ARRAYS = "--plugin FILE --old OLD.npz --new NEW.npz"
OF_DATASETS = ("--data-root", "--make-split")
FIGURES = {
    "pearson": ("Pearson", "{:.3f}"),
    "spearman": ("Spearman", "{:.3f}"),
    "mae": ("mean error", "{:.3g}"),
    "rmse": ("root mean squared error", "{:.3g}"),
}


def of_pictures(args: argparse.Namespace, plugin: Plugin, dataset: str = "") -> int:
    """Over --images, or the test pictures of a dataset, whose labels are not read."""
    from carryover.bench.plugins.porting import classes_of, without_tower
    from carryover.bench.plugins.unlabelled import evaluate_pictures, old_home

    if not args.backbone:
        raise UserError(f"evaluate: --backbone is missing; expected {FORM}, or for stored features {FORM_OF_ARRAYS}")
    if not dataset:
        not_read("evaluate", args, OF_DATASETS, "beside --images")
    seen, (classes, note) = pictures_of(args, dataset), classes_of(plugin)
    named = named_home(args, "evaluate", args.old, plugin, "--old", old_home(plugin))
    alone = Alone(args, named, args.backbone)
    old, new = (alone.store(alone.load(name)) for name in (named, args.backbone))
    micro = old.backbone.tower.is_micro and new.backbone.tower.is_micro
    with few_threads(micro and alone.device == "cpu"):
        stored = evaluate_pictures(plugin, classes, old, new, seen, args.out, alone.precision)
    if note and plugin.ported is None and without_tower(plugin, classes) is None:
        stored["warnings"].append(note)
    return show(args, stored)


def of_arrays(args: argparse.Namespace, plugin: Plugin) -> int:
    """Over rows that both backbones gave, in files."""
    for name in ("images", "dataset"):
        if getattr(args, name):
            raise UserError(f"evaluate: --{name} beside features in files; expected {FORM_OF_ARRAYS}")
    not_read("evaluate", args, ("--count", "--precision", *OF_DATASETS), "beside features in files")
    for name in ("old", "new"):
        if not getattr(args, name):
            raise UserError(f"evaluate: --{name} is missing; expected {FORM_OF_ARRAYS}")
    from carryover.bench.plugins.porting import classes_of
    from carryover.bench.plugins.stored_features import stored
    from carryover.bench.plugins.unlabelled import evaluate_stored

    new = tower(args, args.backbone) if args.backbone else None
    sides = stored(args.old, "--old"), stored(args.new, "--new")
    return show(args, evaluate_stored(plugin, classes_of(plugin)[0], *sides, args.out, new))


def pictures_of(args: argparse.Namespace, dataset: str) -> Seen:
    from carryover.bench.plugins.unlabelled import Seen

    if not dataset:
        from carryover.datasets import pictures

        split = pictures.load(args.images, args.count)
        return Seen(split, pictures.NAMES, pictures.told(split, args.images))
    from carryover import datasets
    from carryover.bench.engine.few_shot import at_most

    folders = datasets.folder.paths_of([args.dataset])
    data = datasets.load(dataset, args.data_root, make_split=args.make_split, folders=folders)
    split = at_most(data.test, args.limit)
    return Seen(split, data.classnames, {"count": len(split), "dataset": data.id})


def scored(stored: dict[str, Any]) -> bool:
    return stored["agreement"]["kind"] == "scores"


def show(args: argparse.Namespace, stored: dict[str, Any]) -> int:
    from carryover.bench.plugins.evaluation import FOLDER

    show_warnings(stored["warnings"])
    if args.json:
        print(json.dumps(stored, indent=1, sort_keys=True))
        return 0
    table(stored).show()
    say("No label was read: this is agreement with the old model, not how often either is right.")
    say(f"Kept in {args.out}/{FOLDER}/{stored['key']}.json, answers beside it.")
    return 0


def table(stored: dict[str, Any]) -> Table:
    found, pictures = stored["agreement"], stored["pictures"]
    files = pictures.get("files") or {}
    own = dict.fromkeys(files[side] for side in ("old", "new") if side in files)
    where = pictures.get("folder") or pictures.get("dataset") or " and ".join(own)
    rows = {
        "method": stored["method"]["name"],
        "old model": stored["old"]["label"],
        **ported_rows(stored["plugin"]),
        "backbone": stored["backbone"]["label"] or "not named",
        "pictures": f"{found['count']} of {where}, without labels",
    }
    rows |= of_scores(found["scores"]) if scored(stored) else of_classes(found)
    shown = Table("", "", show_header=False)
    for name, told in rows.items():
        shown.row(name, told)
    return shown


def of_classes(found: dict[str, Any]) -> dict[str, str]:
    chance = found["chance"]["value"]
    return {
        "same class": f"{part(found['same'], '{:.1f}', 100)} of 100 pictures (95 %); {100 * chance:.1f} by chance",
        "Cohen's kappa": part(found["kappa"], "{:.3f}"),
        "probabilities": f"{part(found['distance'], '{:.3f}')} apart (0: the same, 1: nothing shared)",
    }


def of_scores(found: dict[str, Any]) -> dict[str, str]:
    rows = {}
    for name, score in found.items():
        for id, (label, form) in FIGURES.items():
            rows[f"{name}, {label}"] = part(score[id], form)
        rows[f"{name}, range"] = (
            f"old {score['old_mean']:.3g} with deviation {score['old_std']:.3g}, new {score['new_mean']:.3g} with "
            f"{score['new_std']:.3g}"
        )
    return rows


def part(figure: dict[str, float | None], form: str, times: float = 1) -> str:
    """A figure and its interval."""
    if figure["value"] is None:
        return "not defined: one side does not vary"
    value, low, high = (None if figure[name] is None else form.format(times * (figure[name] or 0.0))
                        for name in ("value", "low", "high"))  # fmt: skip
    return f"{value}, {low} to {high}" if low is not None else f"{value}"
