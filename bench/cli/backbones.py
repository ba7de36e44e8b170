"""Backbones that a command names by itself, outside an arch: each loaded alone, so their widths may differ."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from carryover.bench.cli.progress import Progress
from carryover.bench.errors import UserError
from carryover.bench.render.terminal import aside, say

if TYPE_CHECKING:
    from carryover.bench.backbones.loading import Backbone
    from carryover.bench.features.store import FeatureStore
    from carryover.bench.plugins.format import Plugin


class Alone:
    """The backbones of one call, with a feature store each, on --device.

    names      of all that it loads, which say whether they are of the micro world alone; none: that is not asked
    precision  of their towers; empty: as --precision says
    """

    def __init__(self, args: argparse.Namespace, *names: str, precision: str = ""):
        from carryover.bench.cli.device import placed
        from carryover.bench.features.decoding import Loader, default_workers
        from carryover.bench.host.device import use
        from carryover.datasets.images import allow_pixels

        micro = bool(names) and all(tower(args, name).is_micro for name in names)
        self.args, (self.device, cards, usual) = args, placed(args, micro)
        use(cards)
        self.precision = precision or usual
        allow_pixels(args.max_pixels)
        workers = default_workers(self.device) if args.workers is None else args.workers
        self.loader, self.progress = Loader(workers, pin=self.device == "cuda"), Progress()

    def load(self, name: str) -> Backbone:
        from carryover.bench.backbones import loading
        from carryover.bench.cli.options import text_budget
        from carryover.bench.engine.options import device_budget

        budget = text_budget(self.args) or device_budget(self.device)
        return loading.load(tower(self.args, name), self.device, self.args.hub_cache, budget, self.precision)

    def store(self, backbone: Backbone) -> FeatureStore:
        from carryover.bench.features.store import FeatureStore

        cache = self.args.cache or f"{self.args.out}/cache"
        return FeatureStore(cache, backbone, self.precision, progress=self.progress, loader=self.loader)


def tower(args: argparse.Namespace, name: str) -> Any:
    """The tower that a flag names. Raises UserError."""
    from carryover.bench.backbones.names import tower_of

    return tower_of(name, args.arch, args.base_weights, args.new_weights, args.hub_cache)


def wanting(command: str, args: argparse.Namespace, names: tuple[str, ...], expected: str) -> None:
    """Raises UserError for the first of these flags that is not given."""
    for name in names:
        if not getattr(args, name):
            raise UserError(f"{command}: --{name} is missing; expected {expected}")


def not_read(command: str, args: argparse.Namespace, flags: tuple[str, ...], beside: str) -> None:
    """Raises UserError for the first of these flags that is given where nothing reads it. Those of a --config stand for
    every command."""
    for flag in () if args.config else flags:
        if getattr(args, flag[2:].replace("-", "_")):
            raise UserError(f"{command}: {flag} is not read {beside}; leave it out")


def named_home(
    args: argparse.Namespace,
    command: str,
    given: str | None,
    plugin: Plugin,
    flag: str,
    home: dict[str, Any] | None = None,
) -> str:
    """What ``flag`` gives, or the name that the plug-in's file has for the backbone that it belongs to (``home``: for
    another one that it names). Raises UserError where none is found by that name."""
    from carryover.bench.plugins.porting import home_of

    if given:
        return given
    name = (home or home_of(plugin))["backbone"]
    try:
        tower(args, name)
    except UserError as error:
        which = "old" if home else "own"
        raise UserError(
            f"{command}: the plug-in's {which} backbone is '{name}', which cannot be found by that name ({error}); "
            f"name it by {flag}"
        ) from None
    return name


def local(given: str, args: argparse.Namespace) -> str:
    """A file's name; of an ``hf://`` address that of the copy on this machine, of which commit and sha256 are told."""
    if not given.lower().startswith("hf://"):
        return given
    from carryover.bench.plugins.hub import local_file

    found = local_file(given, args.hub_cache)
    say(f"{given}: commit {found.commit}, sha256 {found.sha256}", to=aside)
    return found.path
