"""From parsed flags to the arch, the settings of runs and the plan: what commands ask that read records alone, too."""

from __future__ import annotations

import argparse

from carryover.bench.backbones import arch_files, archs
from carryover.bench.plan import defaults, grid, names, runs, suites, sweeps
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered


def arch_of(args: argparse.Namespace) -> archs.Arch:
    """The arch of the command line; of a user's own, all that its models say of themselves is filled in."""
    arch = arch_files.find_arch(args.arch, args.base_weights, args.new_weights)
    if not arch.source:
        return arch
    from carryover.bench.backbones.loading import resolve_arch  # which needs open_clip

    return resolve_arch(arch, args.hub_cache)


def settings_of(args: argparse.Namespace, arch: archs.Arch, precision: str = "") -> Settings:
    """The registries must have been filled (`registries.discover`): names and options are looked up. ``precision``:
    where the command line names none; empty: what the device of the call has (`device.placed`)."""
    protocol = args.protocol or arch.protocol
    views = args.views if args.views is not None else defaults.views(protocol)
    shots = args.shots if args.shots is not None else defaults.SHOTS
    methods = Registered()
    changes = names.overrides(args.overrides, methods)
    precision = args.precision or precision
    if not precision:
        from carryover.bench.cli.device import placed  # which needs torch

        _, _, precision = placed(args, arch.is_micro)
    return Settings(shots, protocol, precision, views, args.limit, changes, methods=methods)


def says_settings(args: argparse.Namespace) -> bool:
    """Whether any flag of the settings that all runs of a call share is given."""
    return any(getattr(args, name) is not None for name in ("shots", "protocol", "precision", "views", "limit"))


def plan_of(args: argparse.Namespace, arch: archs.Arch, zero_shot: bool = True) -> list[runs.Run]:
    """All runs that the command line asks for. ``zero_shot``: also where it names other methods alone."""
    settings = settings_of(args, arch)
    methods = methods_of(args, settings)
    swept = sweeps_of(args, settings)
    if swept and not args.methods:  # what was swept and nothing else
        methods = list(swept)
    methods = list(dict.fromkeys([*methods, *swept]))
    return grid.grid(
        arch,
        settings,
        suites_=suites_of(args) or (["main"] if swept else []),
        methods=methods,
        datasets_=args.datasets,
        seeds=args.seeds,
        sweeps=swept,
        zero_shot=zero_shot and bool(methods),
    )


def methods_of(args: argparse.Namespace, settings: Settings) -> list[str]:
    return [names.method(given, settings.methods) for given in args.methods]


def sweeps_of(args: argparse.Namespace, settings: Settings) -> dict[str, list[tuple[str, ...]]]:
    """Method -> the options of each of its rows (`bench.plan.sweeps`)."""
    methods = methods_of(args, settings)
    chosen = list(settings.methods) if "all" in methods else methods or grid.default_methods(settings.methods)
    return sweeps.swept(args.sweep, settings.methods, [id for id in chosen if id in settings.methods])


def changes_of(args: argparse.Namespace, settings: Settings) -> list[tuple[str, ...]]:
    """The changes of options that the command line names, those of one row each; none where it names none."""
    swept = [row for rows in sweeps_of(args, settings).values() for row in rows]
    if swept:
        return [(*settings.overrides, *row) for row in swept]
    return [settings.overrides] if settings.overrides else []


def wants_drift(args: argparse.Namespace, arch: archs.Arch) -> bool:
    """Layer drift is no run; a call for a few methods or a trial does not ask for it unless it says so."""
    asked = suites_of(args)
    few = args.methods or args.limit or args.sweep
    return "drift" in asked or ("drift" in suites.chosen(arch, asked) and not few)


def suites_of(args: argparse.Namespace) -> list[str]:
    return [names.suite(given, suites.SUITES) for given in args.suite]
