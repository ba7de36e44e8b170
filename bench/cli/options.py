"""From parsed flags to the options of a process that runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from carryover import datasets
from carryover.bench.cli.device import placed
from carryover.bench.cli.settings import arch_of
from carryover.bench.engine.options import Options, default_together
from carryover.bench.errors import UserError


def text_budget(args: argparse.Namespace) -> int | None:
    return None if args.text_memory is None else int(args.text_memory * 2**30)


def options_of(args: argparse.Namespace, micro: bool | None = None) -> Options:
    """``micro``: whether what is asked is of the micro world; None: as the arch is."""
    arch = arch_of(args)
    named = args.datasets or ([] if isinstance(arch.datasets, str) else arch.datasets)
    if args.manifests and not Path(args.manifests).is_dir():
        raise UserError(
            f"--manifests: no folder '{args.manifests}'; expected one like OUT/ARCH/splits, which runs write"
        )
    device, cards, precision = placed(args, arch.is_micro if micro is None else micro)
    return Options(
        arch,
        device,
        args.out,
        args.cache or f"{args.out}/cache",
        args.hub_cache,
        args.data_root,
        precision,
        text_budget(args),
        plugin_dirs=tuple(args.plugin_dir),
        debug=args.debug,
        together=args.together or default_together(arch, device),
        asked=bool(args.together),
        make_split=args.make_split,
        folders=tuple(datasets.folder.paths_of(named).items()),
        manifests=args.manifests,
        max_pixels=args.max_pixels,
        workers=args.workers,
        cards=cards,
        graphs=getattr(args, "cuda_graphs", "auto") != "off",
    )
