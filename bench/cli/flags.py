"""The flags of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from carryover.bench.backbones.arch_files import read_toml
from carryover.bench.errors import UserError, unknown
from carryover.bench.host.paths import RESULTS
from carryover.bench.plan.defaults import LIST_DEFAULTS, MICRO_VIEWS, PRECISION, PUBLISHED_VIEWS, SHOTS

COMMANDS = {
    "run": "train, carry over, evaluate, report (the default)",
    "ls": "list methods, datasets or archs",
    "doctor": "check machine, weights, data and disk before a long run, and name all that is wrong",
    "prepare": "download, verify and arrange datasets; with --check only look at what is there",
    "report": "make tables, figures and the report again from stored records alone",
    "check": "recompute every table cell from stored predictions",
    "evaluate": "check that a plug-in file fits a backbone, and measure it there on a dataset",
    "export": "copy plug-ins of finished runs to files for elsewhere, each with a card of what was measured",
    "merge": "join other results folders into --out, then report; refuses conflicts by name",
    "leaderboard": "one HTML page over several groups' results folders, to be published: leaderboard [NAME=]FOLDER…",
}
FURTHER = ("ls", "prepare", "merge", "export", "leaderboard")  # the commands that take further words
OWN = {  # flags that go with some commands alone
    "check": ("prepare",),
    "mirror": ("prepare",),
    "plugin": ("evaluate",),
    "backbone": ("evaluate",),
    "dataset": ("evaluate",),
    "json": ("evaluate",),
    "to": ("export", "leaderboard"),
}


class Parser(argparse.ArgumentParser):
    """argparse with this project's exit: one line, status 2, no usage dump."""

    def error(self, message: str):
        raise UserError(f"{message} (see --help)")


def views(text: str) -> int:
    """--views; 0 stands for a fresh one every epoch (``plan.FRESH_VIEWS``)."""
    if text == "epoch":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more, or 'epoch'")
    return int(text)


def parser() -> Parser:
    p = Parser(
        prog="run_all.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Carryover: does a plug-in trained on one CLIP backbone still work on its update?",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{max(map(len, COMMANDS))}} {text}" for name, text in COMMANDS.items())
        + "\n\nexamples:\n  python run_all.py\n      the embedded micro world: offline, on a CPU, in minutes\n"
        "  python run_all.py --arch vit-b16 --data-root DATA\n      the paper's main experiment\n"
        "  python run_all.py --arch vit-b16 --data-root DATA --datasets caltech101 --limit 2 --shots 1 \\\n"
        "      --seeds 1 --views 1 --set '*.epochs=2'\n      a trial of the same road\n"
        "  python run_all.py prepare dtd eurosat --data-root DATA\n      fetch two datasets (none named: all "
        "fifteen) and say what must be fetched by hand\n"
        "  python run_all.py prepare --check --data-root DATA\n      is all there? nothing is fetched or changed\n"
        "  python run_all.py export --methods coop --datasets dtd --arch vit-b16 --to plugins\n      the plug-ins of "
        "finished runs, for elsewhere\n"
        "  python run_all.py evaluate --plugin FILE --backbone ViT-B-16/laion2b_s34b_b88k --dataset dtd \\\n"
        "      --data-root DATA\n      does this plug-in work on that backbone? with --dry-run: does it fit at all?\n\n"
        "exit status: 0 every planned run is done, every dataset ready; 1 a run failed, a check found a difference or "
        "a dataset is not ready; 2 bad input; 130 stopped",
    )
    p.add_argument(
        "command", nargs="?", default="run", metavar="COMMAND", help="one of the commands below (default: run)"
    )
    p.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="for ls: methods, datasets or archs; for prepare: dataset ids; for merge: results folders; for export: "
        "keys of runs; for leaderboard: results folders, or NAME=FOLDER (default: --out)",
    )
    what = p.add_argument_group("what to run")
    what.add_argument(
        "--arch",
        default="micro",
        help="a base and its update: micro (default), vit-b16, vit-l14; a base and many targets: micro-all, "
        "vit-b16-all, vit-l14-all; or FILE.toml",
    )
    what.add_argument(
        "--suite",
        nargs="+",
        action="extend",
        help="experiments (default: all the arch has): main, ood, components, lambda, heads, condition, "
        "context_length, layers, drift; beyond the paper: targets, retention, chains",
    )
    what.add_argument(
        "--methods",
        nargs="+",
        action="extend",
        help="method ids, or all (default: those on frozen "
        "features; the others train towers or adapt to each test image, and cost more)",
    )
    what.add_argument(
        "--datasets",
        nargs="+",
        help="dataset ids, or folder:PATH for your own images (default: the arch's)",
    )
    what.add_argument("--seeds", nargs="+", action="extend", type=int, help="few-shot draws (default: 1 2 3)")
    what.add_argument("--shots", type=int, default=SHOTS, help=f"training images a class (default: {SHOTS})")
    what.add_argument(
        "--protocol",
        choices=["published", "micro"],
        help="hyper-parameters: each method's published ones, "
        "or the short schedule of the micro world (default: the arch's)",
    )
    what.add_argument(
        "--views",
        type=views,
        metavar="N|epoch",
        help="augmented views kept of each training image, of which an epoch draws one; or 'epoch': a fresh one every "
        f"epoch, as published (default: {PUBLISHED_VIEWS}, micro {MICRO_VIEWS})",
    )
    what.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="METHOD.OPTION=VALUE",
        dest="overrides",
        help="change a method's option; *.OPTION=VALUE for all methods that have it",
    )
    what.add_argument("--limit", type=int, help="trials: at most so many test images a class; marked in every table")
    plugin = p.add_argument_group("plug-ins in files (evaluate, export; the format: docs/plugins.md)")
    plugin.add_argument("--plugin", metavar="FILE", help="for evaluate: the plug-in, a .safetensors file")
    plugin.add_argument(
        "--backbone",
        metavar="NAME",
        help="for evaluate: a role of --arch (base, new, …); ARCH:ROLE, e.g. vit-b16:new; an embedded model, e.g. "
        "micro-update; MODEL/TAG of open_clip; MODEL=FILE for a local checkpoint; hf-hub:ORG/NAME; local-dir:PATH",
    )
    plugin.add_argument(
        "--dataset", metavar="ID", help="for evaluate: a dataset id or folder:PATH; its test images are used"
    )
    plugin.add_argument(
        "--json", action="store_true", help="for evaluate: print the stored result in place of the table"
    )
    plugin.add_argument(
        "--to",
        metavar="PATH",
        help="for export: a folder, or for one plug-in a file .safetensors; exported are the runs of the keys that are "
        "named, or the done ones of those that the same flags would run (of the main suite, where none is named); for "
        "leaderboard: the page to write (default: leaderboard.html)",
    )
    where = p.add_argument_group("data and weights")
    where.add_argument("--data-root", default="", help="folder of datasets in CoOp's layout")
    where.add_argument(
        "--make-split",
        action="store_true",
        help="where a published split file is missing, make a split by its rule; marked in every table",
    )
    where.add_argument("--check", action="store_true", help="for prepare: only look, fetch and change nothing")
    where.add_argument(
        "--mirror", default="", metavar="URL", help="for prepare: an address under which all files lie by name"
    )
    where.add_argument(
        "--manifests",
        default="",
        metavar="DIR",
        help="few-shot images from manifests (the names and lines of OUT/ARCH/splits) in place of the draw, for every "
        "dataset and seed; without a -val file, validation is drawn; marked in every table",
    )
    where.add_argument("--base-weights", default="", help="local checkpoint of the base (.safetensors or .pt)")
    where.add_argument("--new-weights", default="", help="local checkpoint of the update")
    where.add_argument("--hub-cache", help="where open_clip keeps downloaded weights")
    where.add_argument("--plugin-dir", nargs="+", action="extend", help="folders with method files of your own")
    where.add_argument(
        "--out",
        default=str(RESULTS),
        help="results folder (default: results of the checkout; where installed, ./results)",
    )
    where.add_argument("--cache", help="feature files (default: OUT/cache)")
    how = p.add_argument_group("how")
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    how.add_argument(
        "--precision",
        default=PRECISION,
        choices=["fp32", "bf16"],
        help="of the frozen towers; learned tensors stay fp32",
    )
    how.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="worker processes on the CPU (default: one a core for micro, else 1; with --engine ray as many as the "
        "cluster holds)",
    )
    how.add_argument(
        "--together",
        type=int,
        default=0,
        metavar="N",
        help="runs of one method and dataset (seeds, rows of an ablation) trained side by side as one computation "
        "(default: 12 for micro, 3 on a GPU, else 1); on a CPU the numbers are the same bits; on a processor "
        "where they are not, the default is 1, and runs side by side are marked (doctor says whether)",
    )
    how.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that decode image files, 0: threads of this process; the features are the same (default: on a "
        "GPU one a core but one, 16 at most; on a CPU, where the tower takes the time, 0)",
    )
    how.add_argument(
        "--run-limit",
        type=float,
        metavar="SECONDS",
        help="end a run that takes longer, with the features it has to make or wait for; it fails and the rest go on "
        "(default: no limit); runs side by side have it together, so many times as long",
    )
    how.add_argument(
        "--engine", default="local", choices=["local", "ray"], help="where runs are done (ray: docs/ray.md)"
    )
    how.add_argument(
        "--ray-address",
        default="",
        metavar="ADDR",
        help="a running Ray cluster, 'auto' or HOST:PORT of its head (default: this machine alone)",
    )
    how.add_argument(
        "--ray-gpus",
        type=float,
        metavar="F",
        help="share of a GPU that a run takes, 0 to 1: 0.25 puts four on each (default: 1, without GPUs 0)",
    )
    how.add_argument(
        "--ray-scratch",
        default="",
        metavar="DIR",
        help="folder on every node for its features; variables such as $TMPDIR are the node's (default: --cache where "
        "a node sees it, else its temporary folder)",
    )
    how.add_argument(
        "--text-memory", type=float, default=4.0, metavar="GB", help="bound on what a text pass keeps (default: 4)"
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and what it will take, do no run; for evaluate: the contract check alone",
    )
    how.add_argument("--fresh", action="store_true", help="do runs again that are done")
    how.add_argument("--fail-fast", action="store_true", help="stop at the first run that fails")
    how.add_argument(
        "--config", metavar="FILE.toml", help="flags from a file, e.g. seeds = [1, 2]; the command line wins"
    )
    how.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


def parse(argv: list[str]) -> argparse.Namespace:
    p = parser()
    args = p.parse_intermixed_args(argv)  # words may stand behind flags: prepare --data-root DATA dtd
    lists = dict(LIST_DEFAULTS)
    if args.config:
        given = {name: getattr(p.parse_args(flags), name) for name, flags in read_config(args.config).items()}
        lists.update({name: given.pop(name) for name in lists if name in given})
        p.set_defaults(**given)
        args = p.parse_intermixed_args(argv)
    for name, default in lists.items():  # not argparse's defaults, for "extend" would add to them
        if getattr(args, name) is None:
            setattr(args, name, list(default))
    if args.command not in COMMANDS:
        raise unknown("command", args.command, COMMANDS)
    if args.what and args.command not in FURTHER:
        raise UserError(
            f"'{args.what[0]}' after '{args.command}': only {' and '.join(FURTHER)} take further words; "
            "name datasets by --datasets"
        )
    if args.command == "ls" and len(args.what) > 1:
        raise UserError(f"'{args.what[1]}' after 'ls {args.what[0]}': ls takes one list at most")
    if args.check and args.command != "prepare":
        raise UserError("--check goes with prepare; the command that recomputes tables is: run_all.py check")
    for name, commands in OWN.items():
        if getattr(args, name) and args.command not in commands:
            also = "; name datasets by --datasets" if name == "dataset" else ""
            told = " or ".join(f"run_all.py {command} … --{name}" for command in commands)
            raise UserError(f"--{name} goes with {' and '.join(commands)}: {told}{also}")
    if args.mirror and not args.mirror.startswith(("http://", "https://")):
        raise UserError(f"--mirror {args.mirror}: expected an address that starts with http:// or https://")
    for name, least in (("shots", 1), ("limit", 1), ("jobs", 0), ("together", 0), ("workers", 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)}: expected {least} or more")
    if min(args.seeds) < 0:
        raise UserError(f"--seeds {min(args.seeds)}: expected 0 or more (a negative seed draws what its positive does)")
    if args.engine != "ray":
        for name in ("ray_address", "ray_gpus", "ray_scratch"):
            if getattr(args, name) not in ("", None):
                raise UserError(f"--{name.replace('_', '-')} goes with --engine ray")
    if args.ray_gpus is not None and not 0 <= args.ray_gpus <= 1:
        raise UserError(f"--ray-gpus {args.ray_gpus:g}: expected a share of one GPU, 0 to 1")
    if args.run_limit is not None and not args.run_limit > 0:
        raise UserError(f"--run-limit {args.run_limit}: expected seconds, more than 0")
    if not 0.01 <= args.text_memory <= 1e6:
        raise UserError(f"--text-memory {args.text_memory}: expected gigabytes, 0.01 or more")
    return args


def read_config(path: str) -> dict[str, list[str]]:
    """Flags of a TOML file, e.g. ``data-root = "DATA"``, as {attribute: command line}: they are checked like one."""
    values = read_toml(Path(path), "--config")
    actions = {flag[2:]: action for action in parser()._actions for flag in action.option_strings if flag[:2] == "--"}
    flags: dict[str, list[str]] = {}
    for name, value in values.items():
        flag = name.replace("_", "-")
        if flag not in actions or flag in ("config", "help"):
            raise unknown("flag in --config", name, actions)
        if actions[flag].nargs == 0:
            if not isinstance(value, bool):
                raise UserError(f"--config: {name} = {value!r}: expected true or false")
            flags[actions[flag].dest] = [f"--{flag}"] if value else []
        else:
            many = value if isinstance(value, list) else [value]
            flags[actions[flag].dest] = [f"--{flag}", *map(str, many)]
    return flags
