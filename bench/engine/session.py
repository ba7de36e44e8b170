"""One process's working state: loaded backbones, opened datasets, feature stores; what identifies a run, and what it
reads (``bench.engine.one_run`` does it)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from carryover import datasets
from carryover.bench.backbones import archs, loading, probe
from carryover.bench.backbones.archs import Arch
from carryover.bench.cli.options import worthwhile_together
from carryover.bench.engine.few_shot import FewShot, as_labels, at_most, augments, view_count
from carryover.bench.errors import UserError, unknown
from carryover.bench.features.decoding import Loader, default_workers
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FEATURES_VERSION, FeatureStore
from carryover.bench.host.identity import digest
from carryover.bench.plan.runs import FRESH_VIEWS, NUMBERS_VERSION, Run
from carryover.bench.records.store import Store
from carryover.bench.seeds import derive
from carryover.datasets import manifests
from carryover.datasets.base import Dataset, Split
from carryover.datasets.fewshot import draw
from carryover.methods import discover, source_hash
from carryover.methods.base import METHODS, Method, Shape, Support

TEST_VIEWS_SEED = 0  # views of test images are the same for every run, as the images are


@dataclass(frozen=True)
class Options:
    """What every process of one call shares."""

    arch: Arch
    device: str
    out: str
    cache: str
    hub_cache: str | None = None
    data_root: str = ""
    precision: str = "fp32"
    text_budget: int = 4 << 30
    image_batch: int = 128
    plugin_dirs: tuple[str, ...] = ()
    debug: bool = False
    together: int = 1  # runs trained side by side at most (``bench.engine.one_run``)
    asked: bool = False  # that number is the user's own, and holds where it changes last bits too
    make_split: bool = False
    folders: tuple[tuple[str, str], ...] = ()  # (id, path) of each folder:PATH
    manifests: str = ""  # folder of few-shot subsets that are used in place of the draw
    workers: int | None = None  # processes that decode images; None: as many as pay on the device


class Session:
    """Loads each thing once, on first use."""

    def __init__(self, options: Options, progress: Callable[[str, int, int], None] | None = None):
        self.options, self.progress = options, progress
        self.text_budget = options.text_budget
        self.store = Store(options.out, options.arch.id)
        discover(options.plugin_dirs)
        workers = default_workers(options.device) if options.workers is None else options.workers
        self.loader = Loader(workers, pin=options.device == "cuda")
        self._backbones: dict[str, loading.Backbone] = {}
        self._features: dict[str, FeatureStore] = {}
        self._data: dict[str, Dataset] = {}
        self._fewshot: dict[tuple, FewShot] = {}
        self._broken: dict[tuple, UserError] = {}
        self._shifted: dict[tuple, tuple[str, str]] = {}
        self._pixels: dict[tuple, Pictures] = {}

    # -- what runs share -----------------------------------------------------------------------------------------------

    def backbone(self, role: str) -> loading.Backbone:
        if role not in self._backbones:
            options = self.options
            self._backbones[role] = loading.load(
                options.arch.towers[role], options.device, options.hub_cache, self.text_budget, options.precision
            )
            if "base" in self._backbones:
                loading.check_widths(self._backbones["base"], self._backbones[role])
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
        if id not in self._data:
            options = self.options
            self._data[id] = datasets.load(
                id, options.data_root, make_split=options.make_split, folders=dict(options.folders)
            )
        return self._data[id]

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

    def identity(self, run: Run) -> dict:
        """What can change a run's numbers beside its settings; hashed into its key and kept in its record."""
        if run.precision != self.options.precision:
            raise UserError(f"{run} is planned in {run.precision}, this process works in {self.options.precision}")
        loaded = {role: self.backbone(role) for role in self.options.arch.towers}
        for role in run.path:
            if role not in loaded:
                raise unknown(f"backbone of {self.options.arch.id}", role, loaded)
        shared = {
            "backbones": {role: backbone.fingerprint for role, backbone in loaded.items()},
            "transforms": {role: asdict(backbone.preprocess_config) for role, backbone in loaded.items()},
            "method": source_hash(METHODS[run.method]),
            "templates": list(self.tested(run).templates),
            # class names without a picture are in no list, and can be predicted all the same
            "classes": digest([self.data(run.dataset).classnames, self.tested(run).classnames]),
            "numbers": NUMBERS_VERSION,
            "features": FEATURES_VERSION,
        }
        if METHODS[run.method].selects_on_test(run.config):  # it searches on the whole validation list
            data = self.data(run.dataset)
            shared["selection"] = data.val.content_sha256(data.classnames)
        if run.test:
            pictures = [*self.fewshot(run).contents[:2], self.shifted(run)[0]]
            return {**shared, "pictures": pictures, "trained": self.key(run.trained)}
        if run.source:
            shared["carried"] = self.key(run.source)
        return {**shared, "pictures": self.fewshot(run).contents}

    def key(self, run: Run) -> str:
        return run.key(self.identity(run))

    def tested(self, run: Run) -> Dataset:
        """The dataset whose test images the run is evaluated on."""
        return self.data(run.test or run.dataset)

    def test_split(self, run: Run) -> Split:
        return at_most(self.data(run.test).test, run.limit) if run.test else self.fewshot(run).test

    def test_features(self, run: Run, role: str) -> torch.Tensor:
        """Encodes them on first use; later a read."""
        split, names = self.test_split(run), self.tested(run).classnames
        what = ("test", run.test or run.dataset, run.limit, role)
        return self._guarded(what, lambda: self.features(role).features(split, names, f"{what[1]} test, {role}"))

    def inputs(self, run: Run, role: str) -> Any:
        """What ``predict`` is given of the test images: features (N, D) or of views (N, V, D), or pixels."""
        kind, split = METHODS[run.method], self.test_split(run)
        if kind.needs == "pixels":
            return self._pictures(("test", run.test or run.dataset, run.limit, role), role, split, 1, (1.0, 1.0), 0)
        plain = self.test_features(run, role)
        if kind.needs != "views":
            return plain
        count, crop = kind.test_views(run.config)
        names, what = self.tested(run).classnames, ("test views", run.test or run.dataset, run.limit, role, count, crop)
        label = f"{what[1]} test views, {role}"
        views = self._guarded(
            what, lambda: self.features(role).views(split, names, count - 1, crop, TEST_VIEWS_SEED, label)
        )
        return torch.cat([plain[None], views]).transpose(0, 1)

    def _pictures(
        self, what: tuple, role: str, split: Split, views: int, crop: tuple[float, float], seed: int
    ) -> Pictures:
        """Pixels of the split's views for this role's tower; decoded ones are kept for the runs that follow."""
        if what not in self._pixels:
            store = self.features(role)
            self._pixels[what] = Pictures(store, split, views_of(store, views, crop, seed))
        return self._pixels[what]

    def support(self, run: Run) -> Support:
        """Of the backbone that the run is trained on, the last of its path."""
        role = run.path[-1]
        few, store = self.fewshot(run), self.features(role)
        names, device = few.data.classnames, self.backbone(role).device
        what = f"{run.dataset} seed {run.seed}, {role}"

        def make() -> Support:
            leak = None
            if METHODS[run.method].selects_on_test(run.config):
                leak = {"test": (self.test_features(run, role), as_labels(few.test, device))}
                if run.dataset != "imagenet":  # which has no validation split; its published search is only printed
                    leak["selection"] = (store.features(few.data.val, names, what), as_labels(few.data.val, device))
            count, crop = view_count(run, len(few.support)), run.config.crop
            views: torch.Tensor | Pictures
            if METHODS[run.method].needs == "pixels":
                drawn = run.dataset, run.shots, run.seed, run.limit, count, crop
                views = self._pictures(("support", role, *drawn), role, few.support, count, crop, run.seed)
            else:
                views = store.views(few.support, names, count, crop, run.seed, what)
            return Support(
                store.features(few.support, names, what),
                as_labels(few.support, device),
                views,
                store.features(few.val, names, what),
                as_labels(few.val, device),
                leak,
                fresh=run.views == FRESH_VIEWS and augments(run),
            )

        return self._guarded(
            ("support", run.method, run.dataset, run.shots, run.seed, run.views, str(run.training), role), make
        )

    def encoded(self) -> dict[str, tuple[int, float]]:
        """Pictures encoded by this process so far and the seconds it took, by backbone."""
        return {role: store.encoded for role, store in self._features.items()}

    def forget(self) -> None:
        """Drop features and pixels held in memory; the files stay."""
        self._pixels.clear()
        for store in self._features.values():
            store.memory.clear()

    def _guarded(self, what: tuple, make: Callable):
        """A broken image fails the runs that need it once, not after encoding the rest again for each of them."""
        if what in self._broken:
            raise self._broken[what]
        try:
            return make()
        except UserError as error:
            self._broken[what] = error
            raise

    # -- one run -------------------------------------------------------------------------------------------------------

    def allow(self, budget: int) -> None:
        """Bound what text passes keep (bytes)."""
        self.text_budget = budget
        for backbone in self._backbones.values():
            backbone.text.budget = budget

    def write_manifests(self, run: Run) -> None:
        """The few-shot subsets of the run, where they are not there as they should be."""
        for part, text in self.fewshot(run).manifests.items():
            self.store.write_manifest(manifests.name_of(run.dataset, run.shots, run.seed, part), text)

    def shape_of(self, run: Run) -> Shape:
        """Of the first training of its path, which made the tensors; all backbones of an arch have its widths."""
        few = self.fewshot(run.sources[-1] if run.sources else run)
        return Shape.of(self.backbone("base"), few.data.classnames, len(few.support))

    def make(self, run: Run, shape: Shape) -> Method:
        """A method with its initial values, which depend on (dataset, method, seed) alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("init", run.dataset, run.method, run.seed))
            return METHODS[run.method](run.training, shape).to(self.backbone("base").device)

    def shifted(self, run: Run) -> tuple[str, str]:
        """sha256 of a shifted set's content and of its list; as for a few-shot draw, taken once."""
        axes = run.test, run.limit
        if axes not in self._shifted:
            split, names = self.test_split(run), self.tested(run).classnames
            self._shifted[axes] = split.content_sha256(names), split.sha256(names)
        return self._shifted[axes]


def default_together(arch: archs.Arch, device: str) -> int:
    """How many runs go side by side: one on a CPU where they would have other bits than alone, else as many as pay."""
    many = worthwhile_together(arch, device)
    return 1 if many > 1 and device == "cpu" and probe.answer().fewest is None else many
