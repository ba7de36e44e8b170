"""Every flag of the command line, once: a flag means the same for each command that reads it.

A command names those that it reads (``FLAGS``), and its ``--help`` shows these. The others are taken and not read, so
that the flags of a run can stand behind ``report`` and ``check`` too; but for those of ``ONLY``, which would be a
mistake there.
"""

from __future__ import annotations

from typing import Any

from carryover.bench.cli import flag_values as values
from carryover.bench.host.paths import RESULTS
from carryover.bench.plan.defaults import (
    ARCH,
    MICRO_VIEWS,
    PRECISION,
    PUBLISHED_VIEWS,
    SHOTS,
    TEXT_BESIDE,
    TEXT_MEMORY,
    TEXT_SHARE,
)

Group = dict[str, dict[str, Any]]
NAMES = (
    "MODEL/TAG of open_clip, MODEL=FILE for a local checkpoint, hf-hub:ORG/NAME, local-dir:PATH, an embedded model "
    "such as micro-update, a role of --arch (base, new, …), or ARCH:ROLE, e.g. vit-b16:new"
)

CHOICE: Group = {
    "--suite": dict(
        nargs="+",
        action=values.MoreLists,
        type=values.items,
        help="experiments (default: all the arch has; of micro: main, maps, drift): main, ood, components, lambda, "
        "heads, condition, context_length, layers, drift; beyond the paper: maps, targets, retention, chains, ports, "
        "taught; all: every one that the arch has",
    ),
    "--methods": dict(
        nargs="+",
        action=values.MoreLists,
        type=values.items,
        help="method ids or names, or all (default: the paper's, RAda, TaskRes, and yours on frozen features; all "
        "adds newer ones, and those that train towers or adapt to each test image, which cost more); zero-shot "
        "(zs-clip) runs with them, named or not",
    ),
    "--datasets": dict(
        nargs="+",
        action=values.Lists,
        type=values.datasets,
        help="dataset ids, or folder:PATH for your own images (default: the arch's)",
    ),
    "--seeds": dict(nargs="+", action=values.MoreLists, type=values.integers, help="few-shot draws (default: 1 2 3)"),
}
SETTINGS: Group = {
    "--shots": dict(type=int, help=f"training images a class (default: {SHOTS})"),
    "--protocol": dict(
        type=str.lower,
        choices=["published", "micro"],
        help="hyper-parameters: each method's published ones, or the short schedule of the micro world (default: the "
        "arch's)",
    ),
    "--views": dict(
        type=values.views,
        metavar="N|epoch",
        help="augmented views kept of each training image, of which an epoch draws one; or 'epoch': a fresh one every "
        f"epoch, as published (default: {PUBLISHED_VIEWS}, micro {MICRO_VIEWS})",
    ),
    "--set": dict(
        nargs="+",
        action="extend",
        metavar="METHOD.OPTION=VALUE",
        dest="overrides",
        help="change a method's option; *.OPTION=VALUE for all methods that have it; a row of its own in every table",
    ),
    "--sweep": dict(
        nargs="+",
        action="extend",
        metavar="METHOD.OPTION=VALUE,VALUE,…",
        help="the main suite with each value of an option, e.g. contcoop.lam=0,0.3,1: a row each, and a figure; of the "
        "methods that are swept, unless --methods names more",
    ),
    "--limit": dict(type=int, help="trials: at most so many test images a class; marked in every table"),
    "--precision": dict(
        type=str.lower,
        choices=[PRECISION, "fp32", "bf16"],
        help=f"of the frozen towers; learned tensors stay fp32 (default: {PRECISION}, bf16 on a GPU that has it in "
        "hardware, else fp32; of stored records that of the records); fp32 is without tf32, and takes a GPU longer",
    ),
}
BACKBONES: Group = {
    "--arch": dict(
        type=values.arch,
        default=ARCH,
        help="a base and its update: micro (default), vit-b16, vit-l14, siglip-b16; a base and many targets: "
        "micro-all, vit-b16-all, vit-l14-all, vit-h14-all; or FILE.toml",
    ),
    "--base-weights": dict(default="", help="local checkpoint of the base (.safetensors or .pt)"),
    "--new-weights": dict(default="", help="local checkpoint of the update"),
    "--hub-cache": dict(help="where open_clip keeps downloaded weights"),
}
DATA: Group = {
    "--data-root": dict(default="", help="folder of datasets in CoOp's layout"),
    "--make-split": dict(
        action="store_true",
        help="where a published split file is missing, make a split by its rule; marked in every table",
    ),
    "--manifests": dict(
        default="",
        metavar="DIR",
        help="few-shot images from manifests (the names and lines of OUT/ARCH/splits) in place of the draw, for every "
        "dataset and seed; without a -val file, validation is drawn; marked in every table",
    ),
}
FILES: Group = {
    "--plugin-dir": dict(nargs="+", action="extend", help="folders with method files of your own"),
    "--out": dict(
        default=str(RESULTS),
        help="results folder (default: results of the checkout; where installed, ./results)",
    ),
    "--cache": dict(help="feature files (default: OUT/cache)"),
}
EXAMPLES: Group = {
    "--no-examples": dict(
        action="store_true",
        help="keep no thumbnails of test pictures for the report, and take away those kept before",
    ),
}
CHECKING: Group = {
    "--encode": dict(
        type=int,
        metavar="N",
        help="encode N pictures of each feature file again and compare, and the weights with the records' (needs torch "
        "and the pictures)",
    ),
}
PREPARATION: Group = {
    "--check": dict(action="store_true", help="only look, fetch and change nothing"),
    "--mirror": dict(default="", metavar="URL", help="an address under which all files lie by name"),
}
PLUGINS: Group = {
    "--plugin": dict(
        metavar="FILE", help="the plug-in, a .safetensors file; hf://ORG/NAME[@REV]/FILE fetches it from the hub"
    ),
    "--backbone": dict(metavar="NAME", help=NAMES),
    "--dataset": dict(metavar="ID", type=values.dataset, help="a dataset id or folder:PATH"),
    "--push": dict(
        metavar="ORG/NAME",
        help="for export: make of the folder --to what the hub's own client can send there, with a page of what was "
        "measured; nothing is sent",
    ),
    "--top": dict(type=int, metavar="N", help="how many names are shown of each picture"),
    "--json": dict(action="store_true", help="print JSON in place of the table"),
    "--markdown": dict(action="store_true", help="print Markdown in place of the table"),
    "--to": dict(metavar="PATH", help="what to write"),
}
PORTS: Group = {
    "--port": dict(
        metavar="ID", type=str.lower, help="how it is carried over: 'ls ports' names them (default: procrustes)"
    ),
    "--images": dict(metavar="FOLDER", help="pictures, in any folders below it; no label is read"),
    "--count": dict(
        type=int, default=0, metavar="N", help="at most so many of the pictures, the same ones each time (default: all)"
    ),
    "--map": dict(metavar="FILE", help="a map that the command map wrote, in place of pictures or beside a few"),
    "--base": dict(metavar="NAME", help="the old backbone, as --backbone takes it"),
    "--old": dict(metavar="NAME|FILE", help="the old backbone, or stored features of it"),
    "--new": dict(metavar="NAME|FILE", help="the new backbone, or stored features of it"),
    "--head": dict(metavar="FILE", help="a linear head on old features: 'weight' (outputs, width), 'bias' (outputs,)"),
}
IMPORTS: Group = {
    "--kind": dict(metavar="FORMAT", type=str.lower, default="", help="which format it is"),
    "--classes": dict(metavar="FILE", help="class names, a name a line"),
    "--template": dict(nargs="+", metavar="TEXT", help="prompts of the text classifier, with {} for the class name"),
    "--fact": dict(
        nargs="+",
        action="extend",
        metavar="NAME=VALUE",
        help="what the file does not say; import names all that is missing",
    ),
    "--facts": dict(metavar="FILE.toml", help="the same from a file: backbone, classes, templates and facts by name"),
}
DEVICE: Group = {
    "--device": dict(
        type=values.device,
        default="auto",
        metavar="auto|cpu|cuda|mps",
        help="cuda is one card; cuda:2 that one; cuda:0,1,2,3 or cuda:all runs on several, a worker process each "
        "(default: auto, a card where there is one; for the micro world the CPU, since its small "
        "steps gain nothing by a card)",
    ),
    "--workers": dict(
        type=int,
        metavar="N",
        help="processes that decode image files, 0: threads of this process; the features are the same (default: on a "
        "GPU one a core but one, 16 at most; on a CPU, where the tower takes the time, 0)",
    ),
    "--max-pixels": dict(
        type=int,
        default=0,
        metavar="N",
        help="largest picture that is read, width times height (default: 178956970, Pillow's bound against files that "
        "unpack to more than the memory)",
    ),
    "--text-memory": dict(
        type=float,
        metavar="GB",
        help=f"bound on what a text pass keeps (default: {TEXT_MEMORY:g}; on a GPU {100 * TEXT_SHARE:.0f} %% of what "
        f"is free beside {TEXT_BESIDE:g} GB, parted among the processes that share it)",
    ),
}
ENGINE: Group = {
    "--jobs": dict(
        type=int,
        default=0,
        help="worker processes, on each card where there are several (default: one a core for micro on the CPU, else "
        "1; with --engine ray as many as the cluster holds)",
    ),
    "--together": dict(
        type=int,
        default=0,
        metavar="N",
        help="runs of one method and dataset (seeds, rows of an ablation) trained side by side as one computation "
        "(default: 12 for micro, 3 on a GPU, else 1); on a CPU the numbers are the same bits; on a "
        "processor where they are not, the default is 1, and runs side by side are marked (doctor says whether)",
    ),
    "--cuda-graphs": dict(
        type=str.lower,
        choices=["auto", "off"],
        default="auto",
        help="on a CUDA card training steps are recorded once and replayed, with the same numbers; a method whose step "
        "cannot be recorded goes on without, and one line says why (default: auto)",
    ),
    "--fresh": dict(action="store_true", help="do runs again that are done"),
    "--fail-fast": dict(action="store_true", help="stop at the first run that fails"),
    "--run-limit": dict(
        type=float,
        metavar="SECONDS",
        help="end a run that takes longer, with the features it has to make or wait for; it fails and the rest go on "
        "(default: no limit); runs side by side have it together, so many times as long",
    ),
    "--engine": dict(
        type=str.lower, default="local", choices=["local", "ray"], help="where runs are done (ray: docs/ray.md)"
    ),
    "--ray-address": dict(
        default="",
        metavar="ADDR",
        help="a running Ray cluster, 'auto' or HOST:PORT of its head (default: this machine alone)",
    ),
    "--ray-gpus": dict(
        type=float,
        metavar="F",
        help="share of a GPU that a run takes, 0 to 1: 0.25 puts four on each (default: 1, without GPUs 0)",
    ),
    "--ray-scratch": dict(
        default="",
        metavar="DIR",
        help="folder on every node for its features; variables such as $TMPDIR are the node's (default: --cache where "
        "a node sees it, else its temporary folder)",
    ),
}
LOOK: Group = {
    "--dry-run": dict(action="store_true", help="print the plan and what it will take, do nothing of it"),
}
CURVES: Group = {
    "--log-dir": dict(
        default="",
        metavar="DIR",
        help="write each run's loss curve and accuracies there, as TensorBoard event files (needs tensorboard)",
    ),
    "--wandb": dict(
        default="",
        metavar="PROJECT",
        help="send each run's loss curve and accuracies to this project of Weights & Biases (needs wandb; "
        "WANDB_MODE=offline keeps them in --log-dir, or in --out)",
    ),
}
CALL: Group = {
    "--config": dict(metavar="FILE.toml", help="flags from a file, e.g. seeds = [1, 2]; the command line wins"),
    "--debug": dict(action="store_true", help="show tracebacks"),
    "--help": dict(action="store_true", help="show this and end; before or behind a command: that command's"),
    "--version": dict(action="store_true", help="show the version, and those of torch and open_clip, and end"),
    "--print-completion": dict(
        choices=["bash", "zsh"], metavar="SHELL", help="print what makes bash or zsh complete commands and flags"
    ),
}
GROUPS: dict[str, Group] = {
    "what to run": CHOICE,
    "settings of the runs": SETTINGS,
    "backbones": BACKBONES,
    "data": DATA,
    "files": {**FILES, **EXAMPLES},
    "checking": CHECKING,
    "getting the data": PREPARATION,
    "plug-ins in files (docs/plugins.md)": PLUGINS,
    "carrying over (docs/plugins.md)": PORTS,
    "files made elsewhere (docs/import.md)": IMPORTS,
    "device": DEVICE,
    "how": {**ENGINE, **LOOK, **CURVES},
    "this call": CALL,
}
RECORDS = (*SETTINGS, *BACKBONES, "--manifests", "--plugin-dir", "--out")  # which records, of which folder
ONLY = {  # flags that are a mistake with any other command
    "check": ("prepare",),
    "encode": ("check",),
    "mirror": ("prepare",),
    "plugin": ("evaluate", "port", "classify"),
    "backbone": ("evaluate", "port", "import", "classify", "ls"),
    "dataset": ("evaluate", "port", "import"),
    "kind": ("import",),
    "classes": ("import", "classify"),
    "template": ("import", "classify"),
    "fact": ("import",),
    "facts": ("import",),
    "json": ("evaluate", "classify"),
    "markdown": ("ls",),
    "push": ("export",),
    "top": ("classify",),
    "to": ("export", "leaderboard", "port", "map", "compare", "import", "classify"),
    "port": ("port", "map"),
    "images": ("port", "map", "evaluate"),
    "count": ("port", "map", "evaluate"),
    "map": ("port",),
    "base": ("map",),
    "old": ("port", "evaluate"),
    "new": ("port", "map", "evaluate"),
    "head": ("port",),
}
LEAST = {
    "shots": 1,
    "limit": 1,
    "jobs": 0,
    "together": 0,
    "workers": 0,
    "max_pixels": 0,
    "count": 0,
    "encode": 1,
    "top": 1,
}
