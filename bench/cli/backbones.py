"""Backbones that a command names by itself, outside an arch: each loaded alone, so their widths may differ."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from carryover.bench.cli.progress import Progress
from carryover.bench.errors import UserError
from carryover.bench.plan.defaults import PRECISION

if TYPE_CHECKING:
    from carryover.bench.backbones.loading import Backbone
    from carryover.bench.features.store import FeatureStore


class Alone:
    """The backbones of one call, with a feature store each, on --device."""

    def __init__(self, args: argparse.Namespace):
        from carryover.bench.cli.options import device_of
        from carryover.bench.features.decoding import Loader, default_workers
        from carryover.datasets.images import allow_pixels

        self.args, self.device = args, device_of(args.device)
        allow_pixels(args.max_pixels)
        workers = default_workers(self.device) if args.workers is None else args.workers
        self.loader, self.progress = Loader(workers, pin=self.device == "cuda"), Progress()

    def tower(self, name: str) -> Any:
        from carryover.bench.backbones.names import tower_of

        args = self.args
        return tower_of(name, args.arch, args.base_weights, args.new_weights, args.hub_cache)

    def load(self, name: str) -> Backbone:
        from carryover.bench.backbones import loading

        budget = int(self.args.text_memory * 2**30)
        return loading.load(
            self.tower(name), self.device, self.args.hub_cache, budget, self.args.precision or PRECISION
        )

    def store(self, backbone: Backbone) -> FeatureStore:
        from carryover.bench.features.store import FeatureStore

        cache = self.args.cache or f"{self.args.out}/cache"
        return FeatureStore(
            cache, backbone, self.args.precision or PRECISION, progress=self.progress, loader=self.loader
        )


def wanting(command: str, args: argparse.Namespace, names: tuple[str, ...], expected: str) -> None:
    """Raises UserError for the first of these flags that is not given."""
    for name in names:
        if not getattr(args, name):
            raise UserError(f"{command}: --{name} is missing; expected {expected}")
