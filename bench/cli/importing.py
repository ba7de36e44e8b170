"""The command ``import``: a plug-in that someone else's code wrote, as a file of the suite's own format."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from carryover.bench.cli import flags
from carryover.bench.cli.backbones import Alone, local, tower
from carryover.bench.cli.commands import command_line
from carryover.bench.cli.evaluate import show_warnings
from carryover.bench.errors import UserError
from carryover.bench.plan.defaults import PLAIN_PRECISION
from carryover.bench.render.terminal import say

WORDS = ("FILE", "a checkpoint of CoOp's family, a Tip-Adapter cache, a LoRA adapter or a head (docs/import.md)")
FLAGS = (
    "--kind",
    "--backbone",
    "--classes",
    "--template",
    "--fact",
    "--facts",
    "--dataset",
    "--to",
    *flags.BACKBONES,
    "--data-root",
    "--make-split",
    "--plugin-dir",
    "--device",
    "--text-memory",
)
NEEDS = "--backbone NAME --to FILE"
HELP = {
    "--backbone": f"the model that it was trained on: {flags.NAMES}",
    "--dataset": "what it was trained on, for its class names and prompts; of a part of its classes give --classes",
    "--classes": "class names in the order of training, a name a line",
    "--kind": "which format it is, where it may be several: coop, cocoop, kgcoop, maple, clip-adapter, tip-adapter, "
    "clip-lora, peft, head",
    "--to": "the plug-in file to write, .safetensors",
}
EXAMPLES = (
    (
        "import prompt_learner/model.pth.tar-50 --backbone ViT-B-16-quickgelu/openai --fact position=end --to "
        "coop.safetensors",
        "a context that CoOp trained; class names are read from the file",
    ),
    (
        "import sa_0_4_vit_b_32_linear.pth --backbone ViT-B-32-quickgelu/openai --fact inputs=unit "
        "outputs=scores --to aesthetic.safetensors",
        "a head on image features; then: port, evaluate, classify",
    ),
)


def main(args: argparse.Namespace) -> int:
    """Reads the file without running anything of it, asks for what it does not say, writes a plug-in."""
    from carryover.bench import imports
    from carryover.bench.cli.registries import discover
    from carryover.bench.host.outputs import PLUGIN, check_output
    from carryover.bench.imports import writing
    from carryover.bench.imports.base import FORMATS, Facts
    from carryover.bench.imports.reading import read
    from carryover.bench.plugins.ported import check_name
    from carryover.bench.plugins.scores import tells_scores

    if len(args.what) != 1:
        raise UserError(f"import: expected one FILE, found {len(args.what)}")
    if not args.to:
        raise UserError("import: --to is missing; expected import FILE --to PLUGIN.safetensors")
    check_name(Path(args.to))
    discover(args.plugin_dir)
    imports.discover()
    args.what = [local(args.what[0], args)]
    check_output(args.to, [*args.what, args.backbone, args.classes, args.facts], PLUGIN)
    file = read(args.what[0])
    kind = writing.format_of(file, args.kind)
    alone = Alone(args, precision=PLAIN_PRECISION)  # what a file proves it proves to the rounding of fp32
    given, dataset, listed = given_in(args)
    if args.template or (args.facts and "templates" in from_toml(args.facts)):
        writing.check_templates(file, kind)
    plugin = writing.imported(file, kind, Facts(given, partial(tower, args), alone.load, dataset, listed))
    size = writing.write(plugin, args.to)
    told, home = plugin.header["imported"], plugin.home["backbone"]
    format = next(id for id in FORMATS if FORMATS[id] is kind)
    names, scores = plugin.shape.classnames, tells_scores(plugin)
    what = f"scores {', '.join(names)}" if scores else f"{len(names)} {'class' if len(names) == 1 else 'classes'}"
    asked = ["--images", "FOLDER"] if scores else ["--dataset", "DATASET"]
    for line in (
        f"{args.what[0]}: {kind.name} ({format}) of {home}; {what}",
        f"proven by the file: {', '.join(told['proven'])}" if told["proven"] else "",
        f"written: {args.to}, {size / 1024:.0f} KB. Next:",
        f"  {command_line(shlex.join(['evaluate', '--plugin', args.to, '--backbone', 'NEW', *asked]))}",
    ):
        if line:
            say(line)
    show_warnings(told["notes"])
    return 0


def given_in(args: argparse.Namespace) -> tuple[dict[str, Any], str, list[str]]:
    """Facts of --facts FILE.toml, of --fact and of their own flags, the later over the earlier; the dataset's id and
    class names."""
    given = from_toml(args.facts) if args.facts else {}
    said: dict[str, str] = {}
    for item in args.fact or ():
        name, equals, value = item.partition("=")
        if not (equals and name.strip()):
            raise UserError(f"--fact {item}: expected NAME=VALUE, e.g. alpha=1.17")
        name, value = name.strip(), value.strip()
        if said.setdefault(name, value) != value:
            raise UserError(f"--fact {item}: {name} is {said[name]} by another --fact; expected one value")
        given[name] = value
    if args.backbone:
        given["backbone"] = args.backbone
    if args.classes:
        given["classes"] = names_in(args.classes)
    if args.template:
        given["templates"] = list(args.template)
    dataset, listed = "", []
    if args.dataset:
        from carryover import datasets

        dataset = datasets.identify(args.dataset)
        folders = datasets.folder.paths_of([args.dataset])
        data = datasets.load(dataset, args.data_root, make_split=args.make_split, folders=folders)
        listed = list(data.classnames)
        given.setdefault("classes", listed)
        given.setdefault("templates", list(data.templates))
    return given, dataset, listed


def names_in(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Windows writes a mark first
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--classes: '{path}' cannot be read ({error}); expected a text file, a class name a line"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def from_toml(path: str) -> dict[str, Any]:
    from carryover.bench.backbones.arch_files import read_toml

    return read_toml(Path(path), "--facts")
