"""What runs read: tensors of test images, and the few-shot images that a method learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from carryover.bench.engine.few_shot import as_labels, augments, view_count
from carryover.bench.engine.loaded import Loaded
from carryover.bench.errors import UserError
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.plan.runs import FRESH_VIEWS, Run
from carryover.datasets.base import Split
from carryover.methods.base import METHODS, Support

TEST_VIEWS_SEED = 0  # views of test images are the same for every run, as the images are


class RunInputs:
    """Of the runs that one process does; what several of them read is kept in memory."""

    def __init__(self, loaded: Loaded):
        self.loaded = loaded
        self._broken: dict[tuple, UserError] = {}
        self._pixels: dict[tuple, Pictures] = {}

    def test_features(self, run: Run, role: str) -> torch.Tensor:
        """Encodes them on first use; later a read."""
        split, names = self.loaded.test_split(run), self.loaded.tested(run).classnames
        what = ("test", run.test or run.dataset, run.limit, role)
        return self._guarded(what, lambda: self.loaded.features(role).features(split, names, f"{what[1]} test, {role}"))

    def tests(self, run: Run, role: str) -> Any:
        """What ``predict`` is given of the test images: features (N, D) or of views (N, V, D), or pixels; of the last
        two a batch at a time."""
        kind, split = METHODS[run.method], self.loaded.test_split(run)
        if kind.needs == "pixels":
            return self._pictures(("test", run.test or run.dataset, run.limit, role), role, split, 1, (1.0, 1.0), 0)
        plain = self.test_features(run, role)
        if kind.needs != "views":
            return plain
        count, crop = kind.test_views(run.config)
        names, what = (
            self.loaded.tested(run).classnames,
            ("test views", run.test or run.dataset, run.limit, role, count, crop),
        )
        label = f"{what[1]} test views, {role}"
        return self._guarded(
            what, lambda: self.loaded.features(role).rows(split, names, count - 1, crop, TEST_VIEWS_SEED, label)
        )

    def _pictures(
        self, what: tuple, role: str, split: Split, views: int, crop: tuple[float, float], seed: int
    ) -> Pictures:
        """Pixels of the split's views for this role's tower; decoded ones are kept for the runs that follow."""
        if what not in self._pixels:
            store = self.loaded.features(role)
            self._pixels[what] = Pictures(store, split, views_of(store, views, crop, seed))
        return self._pixels[what]

    def support(self, run: Run) -> Support:
        """Of the backbone that the run is trained on, the last of its path."""
        role = run.path[-1]
        few, store = self.loaded.fewshot(run), self.loaded.features(role)
        names, device = few.data.classnames, self.loaded.backbone(role).device
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

    def forget(self) -> None:
        """Drop pixels and features held in memory; the files stay."""
        self._pixels.clear()
        self.loaded.forget()

    def _guarded(self, what: tuple, make: Callable):
        """A broken image fails the runs that need it once, not after encoding the rest again for each of them."""
        if what in self._broken:
            raise self._broken[what]
        try:
            return make()
        except UserError as error:
            self._broken[what] = error
            raise
