"""From parsed flags to the arch, the settings of runs and the plan: what commands ask that read records alone, too."""

from __future__ import annotations

import argparse

from carryover.bench.backbones import arch_files, archs
from carryover.bench.plan import defaults, grid, names, runs, suites


def arch_of(args: argparse.Namespace) -> archs.Arch:
    """The arch of the command line; of a user's own, all that its models say of themselves is filled in."""
    arch = arch_files.find_arch(args.arch, args.base_weights, args.new_weights)
    if not arch.source:
        return arch
    from carryover.bench.backbones.loading import resolve_arch  # which needs open_clip

    return resolve_arch(arch, args.hub_cache)


def settings_of(args: argparse.Namespace, arch: archs.Arch) -> grid.Settings:
    """Methods must have been discovered: their names and options are looked up."""
    protocol = args.protocol or arch.protocol
    views = args.views if args.views is not None else defaults.views(protocol)
    return grid.Settings(args.shots, protocol, args.precision, views, args.limit, names.overrides(args.overrides))


def plan_of(args: argparse.Namespace, arch: archs.Arch) -> list[runs.Run]:
    return grid.grid(
        arch,
        settings_of(args, arch),
        suites_=args.suite,
        methods=list(map(names.method, args.methods)),
        datasets_=args.datasets,
        seeds=args.seeds,
    )


def wants_drift(args: argparse.Namespace, arch: archs.Arch) -> bool:
    """Layer drift is no run; a call for a few methods or a trial does not ask for it unless it says so."""
    return "drift" in args.suite or ("drift" in suites.chosen(arch, args.suite) and not (args.methods or args.limit))
