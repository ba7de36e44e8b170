"""From parsed flags to the options of a process that runs."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from carryover import datasets
from carryover.bench.cli.flag_values import ALL_CARDS
from carryover.bench.cli.settings import arch_of
from carryover.bench.engine.options import Options, default_together
from carryover.bench.errors import UserError
from carryover.bench.plan.defaults import PRECISION
from carryover.bench.records.reading import counted

MANY = ("run", "doctor")  # commands that work on several cards


def device_of(args: argparse.Namespace) -> tuple[str, tuple[int, ...]]:
    """--device as torch names its kind, and the numbers of the cards that it names; none where it names no number."""
    kind, _, numbers = args.device.partition(":")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu", ()
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {args.device}: this machine or this build of torch has no CUDA device; use --device cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: not available here; use --device cpu")
    if not numbers:
        return kind, ()
    there = torch.cuda.device_count()
    cards = tuple(range(there) if numbers == ALL_CARDS else map(int, numbers.split(",")))
    if wrong := [card for card in cards if card >= there]:
        found = f"{counted(there, 'card')}, cuda:0" + (f" to cuda:{there - 1}" if there > 1 else "")
        raise UserError(f"--device {args.device}: no card {wrong[0]}; found {found}")
    if len(cards) > 1 and args.command not in MANY:
        raise UserError(f"--device {args.device}: {args.command} works on one card; name one, e.g. cuda:{cards[0]}")
    return kind, cards


def text_budget(args: argparse.Namespace) -> int | None:
    return None if args.text_memory is None else int(args.text_memory * 2**30)


def options_of(args: argparse.Namespace) -> Options:
    arch = arch_of(args)
    named = args.datasets or ([] if isinstance(arch.datasets, str) else arch.datasets)
    if args.manifests and not Path(args.manifests).is_dir():
        raise UserError(
            f"--manifests: no folder '{args.manifests}'; expected one like OUT/ARCH/splits, which runs write"
        )
    # through Ray this process only plans; its workers' device is theirs
    device, cards = ("cpu", ()) if args.engine == "ray" and not args.dry_run else device_of(args)
    return Options(
        arch,
        device,
        args.out,
        args.cache or f"{args.out}/cache",
        args.hub_cache,
        args.data_root,
        args.precision or PRECISION,
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
