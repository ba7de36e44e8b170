"""What runs of one process share, each loaded once: backbones, datasets, few-shot draws, feature stores."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from carryover import datasets
from carryover.bench import ports
from carryover.bench.backbones import loading
from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.engine.few_shot import FewShot, at_most
from carryover.bench.engine.options import Options, device_budget
from carryover.bench.errors import quoted
from carryover.bench.features.decoding import Loader, default_workers
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.device import use
from carryover.bench.plan.runs import Run
from carryover.bench.training.resident import allow_graphs
from carryover.datasets import manifests
from carryover.datasets.base import Dataset, Split
from carryover.datasets.fewshot import draw
from carryover.datasets.images import allow_pixels
from carryover.datasets.withheld import withheld
from carryover.methods import discover
from carryover.methods.asks import fits
from carryover.methods.base import METHODS, Shape

NAMED = 3  # groups of classes with one prompt that a line names


class Loaded:
    """Loads each thing once, on first use."""

    def __init__(self, options: Options, progress: Callable[[str, int, int], None] | None = None):
        self.options, self.progress = options, progress
        use(options.cards)
        self._allowed: int | None = None
        ports.discover()
        discover(options.plugin_dirs)
        allow_pixels(options.max_pixels)
        allow_graphs(options.graphs)
        workers = default_workers(options.device) if options.workers is None else options.workers
        self.loader = Loader(workers, pin=options.device == "cuda")
        self._backbones: dict[str, loading.Backbone] = {}
        self._features: dict[str, FeatureStore] = {}
        self._data: dict[str, Dataset] = {}
        self._fewshot: dict[tuple, FewShot] = {}
        self._same: dict[tuple[str, str], list[str]] = {}

    @cached_property
    def full_budget(self) -> int:
        """Bytes that text passes may keep, from the first that is asked for on."""
        return self.options.text_budget or device_budget(self.options.device, self.options.sharing)

    @property
    def text_budget(self) -> int:
        """The same as it is now: less while a run is tried again that ran out of memory."""
        return self._allowed or self.full_budget

    def backbone(self, role: str) -> loading.Backbone:
        if role not in self._backbones:
            options = self.options
            self._backbones[role] = loading.load(
                options.arch.towers[role], options.device, options.hub_cache, self.text_budget, options.precision
            )
        return self._backbones[role]

    def features(self, role: str) -> FeatureStore:
        if role not in self._features:
            self._features[role] = FeatureStore(
                self.options.cache,
                self.backbone(role),
                self.options.precision,
                self.options.image_batch,
                self.progress,
                self.loader,
            )
        return self._features[role]

    def data(self, id: str) -> Dataset:
        """Its test labels put away: what a session holds is what a method could come by."""
        if id not in self._data:
            options = self.options
            self._data[id] = withheld(
                datasets.load(id, options.data_root, make_split=options.make_split, folders=dict(options.folders))
            )
        return self._data[id]

    def same_prompts(self, id: str, role: str) -> list[str]:
        """A line on classes whose prompts are the same tokens to the backbone (it may not tell "Red Fox" from "red
        fox"); empty where there are none."""
        if (id, role) not in self._same:
            data = self.data(id)
            texts = [data.templates[0].format(name) for name in data.classnames]
            groups: dict[tuple[int, ...], list[str]] = {}
            for label, row in enumerate(self.backbone(role).text.tokenizer(texts).tolist()):
                groups.setdefault(tuple(row), []).append(f"{label} {quoted(data.classnames[label])}")
            same = [" = ".join(group) for group in groups.values() if len(group) > 1]
            more = [f"{len(same) - NAMED} more such groups"] if len(same) > NAMED else []
            told = "; ".join(same[:NAMED] + more)
            self._same[id, role] = [f"one prompt for several classes, which no text tells apart: {told}"] * bool(same)
        return self._same[id, role]

    def fewshot(self, run: Run) -> FewShot:
        axes = (run.dataset, run.shots, run.seed, run.limit)
        if axes not in self._fewshot:
            data = self.data(run.dataset)
            given, given_val, files = None, None, {}
            if self.options.manifests:
                given, given_val = manifests.read(self.options.manifests, data, run.shots, run.seed)
                files = manifests.digests(self.options.manifests, run.dataset, run.shots)
            support, val = draw(data.train, data.val, run.shots, run.seed, given)
            val = val if given_val is None else given_val
            self._fewshot[axes] = FewShot(data, support, val, at_most(data.test, run.limit), files)
        return self._fewshot[axes]

    def tested(self, run: Run) -> Dataset:
        """The dataset whose test images the run is evaluated on."""
        return self.data(run.test or run.dataset)

    def test_split(self, run: Run) -> Split:
        return at_most(self.data(run.test).test, run.limit) if run.test else self.fewshot(run).test

    def encoded(self) -> dict[str, tuple[int, float]]:
        """Pictures encoded by this process so far and the seconds it took, by backbone."""
        return {role: store.encoded for role, store in self._features.items()}

    def used(self) -> dict[str, dict[str, str]]:
        """Feature files that were asked for since the last call of this, by backbone: name -> sha256 of the content."""
        found = {role: dict(sorted(store.used.items())) for role, store in self._features.items() if store.used}
        for store in self._features.values():
            store.used.clear()
        return found

    def forget(self) -> None:
        """Drop features held in memory; the files stay."""
        for store in self._features.values():
            store.memory.clear()

    def allow(self, budget: int) -> None:
        """Bound what text passes keep (bytes)."""
        self._allowed = budget
        for backbone in self._backbones.values():
            backbone.text.budget = budget

    def shape_of(self, run: Run) -> Shape:
        """Of the first training of its path, which made the tensors."""
        few = self.fewshot(run.sources[-1] if run.sources else run)
        return Shape.of(self.backbone(run.path[0]), few.data.classnames, len(few.support))

    def evaluated_on(self, run: Run) -> list[str]:
        """``Run.evaluated_on`` but for the backbones that its plug-in cannot be plugged into."""
        return [role for role in run.evaluated_on(self.options.arch.towers) if role not in self.refused(run)]

    def refused(self, run: Run) -> dict[str, str]:
        """The backbones that a plug-in of the base, carried as it is, cannot be plugged into, and why. What a port
        cannot serve it says itself."""
        if run.port or len(run.path) > 1:
            return {}
        kind = METHODS[run.method]
        own = loaded_sizes(self.backbone(run.path[0]))
        there = {role: loaded_sizes(self.backbone(role)) for role in run.evaluated_on(self.options.arch.towers)}
        reasons = {role: fits(kind, run.config, own, sizes) for role, sizes in there.items()}
        return {role: reason for role, reason in reasons.items() if reason}
