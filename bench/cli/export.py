"""The command ``export``: plug-ins of done runs as files for elsewhere."""

from __future__ import annotations

import argparse
import shlex

from carryover.bench.cli import flags
from carryover.bench.cli.commands import program
from carryover.bench.cli.evaluate import show_warnings
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import say

WORDS = (
    "[KEY …]",
    "keys of runs (none: the done ones of those that the same flags would run; of the main suite where none is named); "
    "runs that ported a plug-in keep none: export that of the base, the command port carries it over",
)
FLAGS = ("--to", "--push", *flags.CHOICE, *flags.RECORDS)
NEEDS = "--to PATH"
HELP = {"--to": "a folder, or for one plug-in a file .safetensors"}
EXAMPLES = (
    ("export --methods coop --datasets micro_stars --seeds 1 --to plugins", "one plug-in of the micro world"),
    (
        "export --arch vit-b16 --methods coop --datasets dtd --to plugins",
        "the plug-ins of finished runs, for elsewhere",
    ),
    (
        "export --methods coop --datasets micro_stars --seeds 1 --to page --push ORG/NAME",
        "a folder for the hub; the command that sends it is printed",
    ),
)
FEW = 10  # files that are named


def main(args: argparse.Namespace) -> int:
    """Copies plug-ins of --arch's done runs, each with a card beside it: those of the keys that are named, or those
    that the same flags would run (of the main suite, where no other is named)."""
    if not args.to:
        raise UserError(f"export: --to is missing; expected {program()} export KEY… --to FILE.safetensors or a folder")
    from carryover.bench.cli.registries import discover
    from carryover.bench.cli.settings import arch_of, plan_of, settings_of
    from carryover.bench.engine.run_store import RunStore
    from carryover.bench.host.tensor_files import read_tensors
    from carryover.bench.plan.defaults import PLAIN_PRECISION
    from carryover.bench.plugins import model_card
    from carryover.bench.plugins.export import ENDING, name_of, of_keys, of_runs, write
    from carryover.bench.plugins.homes import EMPTY
    from carryover.bench.records.reading import counted, is_done, precision_of, precisions
    from carryover.bench.report import written as report_files

    discover(args.plugin_dir)
    arch = arch_of(args)
    store = RunStore(args.out, arch.id)
    if args.what:
        records = of_keys(store, args.what)
    else:
        args.suite = args.suite or ["main"]
        settings = settings_of(args, arch, PLAIN_PRECISION)
        found = precisions([record for record in store.records() if is_done(record)], settings.of_runs)
        if not args.precision:
            args.precision = precision_of(found, report_files.made_by(store.folder).get("settings"))
            others = [f"--precision {one}" for one in found if one != args.precision]
            show_warnings([f"of {args.precision} alone; {' and '.join(others)} exports the others"] * bool(others))
        records = of_runs(store, plan_of(args, arch, zero_shot=False))
    if args.push:
        names = [f"{name_of(record)}{ending}" for record in records for ending in (ENDING, ".json")]
        folder = model_card.check_folder(args.to, args.push, names)
    written = write(store, arch, records, args.to)
    for path in written[:FEW]:
        say(str(path))
    more = f", of which {FEW} are named here" if len(written) > FEW else ""
    say(f"{counted(len(written), 'plug-in')} written{more}; a card (.json) beside each")
    if args.push:
        model_card.write(folder, args.push, written)
        say(f"{folder / model_card.PAGE}: what was measured. Nothing is sent; this does it, after 'hf auth login':")
        say(f"  {shlex.join(['hf', 'upload', args.push, str(folder), '.'])}")
    bare = [record["run"]["method"] for record, path in zip(records, written, strict=True) if not read_tensors(path)[0]]
    show_warnings([EMPTY.format(method) for method in dict.fromkeys(bare)])
    return 0
