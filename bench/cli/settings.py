"""From parsed flags to the arch, the settings of runs and the plan: what commands ask that read records alone, too."""

from __future__ import annotations

import argparse

from carryover.bench.backbones import arch_files, archs
from carryover.bench.plan import defaults, grid, names, runs, suites
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered


def arch_of(args: argparse.Namespace) -> archs.Arch:
    """The arch of the command line; of a user's own, all that its models say of themselves is filled in."""
    arch = arch_files.find_arch(args.arch, args.base_weights, args.new_weights)
    if not arch.source:
        return arch
    from carryover.bench.backbones.loading import resolve_arch  # which needs open_clip

    return resolve_arch(arch, args.hub_cache)


def settings_of(args: argparse.Namespace, arch: archs.Arch) -> Settings:
    """The registries must have been filled (`registries.discover`): names and options are looked up."""
    protocol = args.protocol or arch.protocol
    views = args.views if args.views is not None else defaults.views(protocol)
    methods = Registered()
    changes = names.overrides(args.overrides, methods)
    return Settings(args.shots, protocol, args.precision, views, args.limit, changes, methods=methods)


def plan_of(args: argparse.Namespace, arch: archs.Arch) -> list[runs.Run]:
    """All runs that the command line asks for."""
    settings = settings_of(args, arch)
    return grid.grid(
        arch,
        settings,
        suites_=suites_of(args),
        methods=[names.method(given, settings.methods) for given in args.methods],
        datasets_=args.datasets,
        seeds=args.seeds,
    )


def wants_drift(args: argparse.Namespace, arch: archs.Arch) -> bool:
    """Layer drift is no run; a call for a few methods or a trial does not ask for it unless it says so."""
    asked = suites_of(args)
    return "drift" in asked or ("drift" in suites.chosen(arch, asked) and not (args.methods or args.limit))


def suites_of(args: argparse.Namespace) -> list[str]:
    return [names.suite(given, suites.SUITES) for given in args.suite]
