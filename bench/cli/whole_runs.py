"""The command ``run`` from Python: its flags by name in, the main table out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from carryover.bench.cli import run as command
from carryover.bench.cli.parsing import parse
from carryover.bench.errors import UserError, unknown
from carryover.bench.render.terminal import aside, console

if TYPE_CHECKING:
    import pandas as pd


def frame_of(given: dict[str, Any], quiet: bool) -> pd.DataFrame:
    """Raises UserError where a run failed."""
    from carryover.bench.analyses.main_table import main_table
    from carryover.bench.cli.results import choice_of, selection_of
    from carryover.bench.cli.running import run
    from carryover.bench.cli.settings import arch_of, plan_of
    from carryover.bench.engine.possible import Possible
    from carryover.bench.engine.run_store import RunStore
    from carryover.bench.host.identity import canonical
    from carryover.bench.records.printed import read_paper

    args = parse(["run", *words_of(given)])
    with silent(quiet):
        status = run(args)
    arch = arch_of(args)
    planned = {canonical(one.canonical()) for one in Possible(arch, args.hub_cache).parted(plan_of(args, arch))[0]}
    stored = [one for one in RunStore(args.out, arch.id).records() if canonical(one["run"]) in planned]
    if status:
        failed = [one["error"] for one in stored if one.get("status") == "failed"]
        first = f", the first: {failed[0]}" if failed else ""
        raise UserError(f"run: {len(failed)} of {len(planned)} runs failed{first}")
    main, keys = selection_of(args, arch, choice_of(args, arch)).main, {one["key"] for one in stored}
    return main_table([one for one in main if one["key"] in keys], read_paper(arch.id))


def words_of(given: dict[str, Any]) -> list[str]:
    """Flags as a command line has them. Raises UserError for a name that the command ``run`` does not read."""
    known = [flag.removeprefix("--").replace("-", "_") for flag in command.FLAGS]
    words = [] if "suite" in given else ["--suite", "main"]
    for name, value in given.items():
        if name not in known:
            raise unknown("flag of run", name, known)
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value is not None and value != []:
            many = value if isinstance(value, (list, tuple)) else [value]
            words += [flag, *map(str, many)]
    return words


@contextlib.contextmanager
def silent(quiet: bool) -> Iterator[None]:
    """Without a word, where it is asked for; and Pillow's bound on pictures (--max-pixels) is as before."""
    before = console.quiet, aside.quiet, Image.MAX_IMAGE_PIXELS
    console.quiet = aside.quiet = quiet
    try:
        yield
    finally:
        console.quiet, aside.quiet, Image.MAX_IMAGE_PIXELS = before
