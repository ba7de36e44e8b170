"""From parsed flags to what the rest of the suite takes: options of a process, settings of runs, the plan."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from carryover import datasets
from carryover.bench.backbones import arch_files, archs, loading
from carryover.bench.engine.session import Options, default_together
from carryover.bench.errors import UserError
from carryover.bench.plan import defaults, grid, runs, suites


def device_of(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this build of torch has no CUDA device; use --device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: not available here; use --device cpu")
    return name


def arch_of(args: argparse.Namespace) -> archs.Arch:
    """The arch of the command line with all that its models say of themselves filled in."""
    return loading.resolve_arch(arch_files.find_arch(args.arch, args.base_weights, args.new_weights), args.hub_cache)


def options_of(args: argparse.Namespace) -> Options:
    arch = arch_of(args)
    named = args.datasets or ([] if isinstance(arch.datasets, str) else arch.datasets)
    if args.manifests and not Path(args.manifests).is_dir():
        raise UserError(
            f"--manifests: no folder '{args.manifests}'; expected one like OUT/ARCH/splits, which runs write"
        )
    # through Ray this process only plans; its workers' device is theirs
    device = "cpu" if args.engine == "ray" and not args.dry_run else device_of(args.device)
    return Options(
        arch,
        device,
        args.out,
        args.cache or f"{args.out}/cache",
        args.hub_cache,
        args.data_root,
        args.precision,
        int(args.text_memory * 2**30),
        plugin_dirs=tuple(args.plugin_dir),
        debug=args.debug,
        together=args.together or default_together(arch, device),
        asked=bool(args.together),
        make_split=args.make_split,
        folders=tuple(datasets.folder.paths_of(named).items()),
        manifests=args.manifests,
        workers=args.workers,
    )


def worthwhile_together(arch: archs.Arch, device: str) -> int:
    """Many of micro's small steps, a few where launching kernels is what takes the time, one where a CPU multiplies
    large matrices."""
    return 12 if arch.is_micro else 3 if device == "cuda" else 1


def settings_of(args: argparse.Namespace, arch: archs.Arch) -> grid.Settings:
    protocol = args.protocol or arch.protocol
    views = args.views if args.views is not None else defaults.views(protocol)
    return grid.Settings(args.shots, protocol, args.precision, views, args.limit, tuple(args.overrides))


def plan_of(args: argparse.Namespace, arch: archs.Arch) -> list[runs.Run]:
    return grid.grid(
        arch,
        settings_of(args, arch),
        suites_=args.suite,
        methods=args.methods,
        datasets_=args.datasets,
        seeds=args.seeds,
    )


def wants_drift(args: argparse.Namespace, arch: archs.Arch) -> bool:
    """Layer drift is no run; a call for a few methods or a trial does not ask for it unless it says so."""
    return "drift" in args.suite or ("drift" in suites.chosen(arch, args.suite) and not (args.methods or args.limit))
