"""The command ``map``: a map between two backbones from any pictures, which then carries every plug-in of the pair."""

from __future__ import annotations

import argparse
import shlex

from carryover.bench.cli import flags
from carryover.bench.cli.backbones import Alone, wanting
from carryover.bench.cli.commands import command_line
from carryover.bench.render.terminal import say

WORDS = ()
FLAGS = (
    "--base",
    "--new",
    "--images",
    "--count",
    "--port",
    "--to",
    "--precision",
    *flags.BACKBONES,
    *flags.FILES,
    *flags.DEVICE,
)
NEEDS = "--base NAME --new NAME --images FOLDER --to FILE"
HELP = {
    "--base": f"the old backbone: {flags.NAMES}",
    "--new": "the new backbone, as --base",
    "--to": "the map to write, .safetensors",
}
EXAMPLES = (
    (
        "map --base micro-base --new micro-update --images FOLDER --to base-to-update.safetensors",
        "one file for the pair: port --map takes it for each plug-in, without pictures",
    ),
    (
        "map --base ViT-B-32-quickgelu/openai --new ViT-B-16-quickgelu/openai --images FOLDER --to MAP.safetensors",
        "of two published models",
    ),
)
FORM = "--base BACKBONE --new BACKBONE --images FOLDER --to FILE.safetensors"


def main(args: argparse.Namespace) -> int:
    """Encodes the pictures with both backbones, fits the map, writes it with what it was fitted on."""
    wanting("map", args, ("base", "new", "images", "to"), FORM)
    from pathlib import Path

    from carryover.bench.cli.registries import discover
    from carryover.bench.host.outputs import MAP, check_output
    from carryover.bench.plugins.ported import check_name, of_backbone
    from carryover.bench.plugins.porting import kind_of_map
    from carryover.datasets import pictures

    discover(args.plugin_dir)
    kind = kind_of_map(args.port)
    check_name(Path(args.to))
    check_output(args.to, [args.base, args.new, args.images], MAP)
    split, alone = pictures.load(args.images, args.count), Alone(args, args.base, args.new)
    old, new = alone.load(args.base), alone.load(args.new)
    features = [
        alone.store(backbone).features(split, pictures.NAMES, f"{len(split)} pictures, {backbone.label}")
        for backbone in (old, new)
    ]
    fitted = kind().fit(features[0], features[1])
    fitted.save(args.to, old=of_backbone(old), new=of_backbone(new), fitted_on=pictures.told(split, args.images))
    for line in (
        f"Map from {new.label} ({new.dim}) to {old.label} ({old.dim}): {kind.name}, fitted on {len(split)} pictures of "
        f"{args.images}",
        f"fit: R² {fitted.score_:.3f} on pictures that it was fitted without (1 is perfect, 0 as good as the mean)",
        few(len(split), max(old.dim, new.dim)),
        f"written: {args.to}. For each plug-in of the pair:",
        f"  {command_line(shlex.join(['port', '--plugin', 'FILE', '--map', args.to, '--to', 'PORTED.safetensors']))}",
    ):
        if line:
            say(line)
    return 0


def few(count: int, dim: int) -> str:
    """What is said where there are fewer pictures than dimensions."""
    if count > dim:
        return ""
    return f"note: {count} pictures show at most {count - 1} of {dim} directions; more pictures make a better map"
