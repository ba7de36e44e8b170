"""Anchors of ported runs: which pictures a port may see, and their features on two backbones.

No kind holds a test picture. ``other`` leaves out the few-shot draw, training and validation; the rest is drawn from
a pool of the dataset's training pictures that is the same for every seed, so that each is encoded once a backbone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from carryover import datasets
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.loaded import Loaded
from carryover.bench.errors import UserError
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.identity import digest
from carryover.bench.plan.runs import Run
from carryover.bench.ports import words
from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.base import PORTS
from carryover.bench.seeds import derive
from carryover.datasets.base import Split

POOL = 2048  # training pictures of a dataset that anchors are drawn from; "all" are at most so many
FOREIGN_POOL = 8192  # the same of all other datasets together
KEEP = 1 << 30  # bytes of anchors that are kept for the runs that follow
COPIES = 12


class RunAnchors:
    """Of the runs that one process plans or does; what several of them share is kept."""

    def __init__(self, loaded: Loaded):
        self.loaded = loaded
        self._pools: dict[str, Split] = {}
        self._chosen: dict[tuple, list[tuple[str, Split, list[int]]]] = {}
        self._contents: dict[tuple, list[str]] = {}
        self._made: dict[tuple, Anchors] = {}

    def chosen(self, run: Run) -> list[tuple[str, Split, list[int]]]:
        """(dataset, a split that is encoded as a whole, rows of it) of the run's anchors, in their order."""
        if (axes := axes_of(run)) not in self._chosen:
            self._chosen[axes] = self._choose(run)
        return self._chosen[axes]

    def content(self, run: Run) -> list[str]:
        """sha256 over the pictures of each part, for the run's key."""
        if (axes := axes_of(run)) not in self._contents:
            parts = self.chosen(run)
            self._contents[axes] = [split.take(rows).content_sha256(self._names(id)) for id, split, rows in parts]
        return self._contents[axes]

    def of(self, run: Run, old: str, new: str) -> Anchors:
        """As the run's port may see them, with features of the backbones ``old`` and ``new`` (roles)."""
        needs = frozenset(PORTS[run.port].needs)
        axes = *axes_of(run), old, new
        made = self._made.pop(axes, None)
        made = self._make(run, old, new) if made is None else made
        self._made[axes] = made  # the last one used
        while len(self._made) > 1 and sum(map(held, self._made.values())) > KEEP:
            del self._made[next(iter(self._made))]
        return replace(
            made,
            needs=needs,
            _labels=made._labels if "labels" in needs else None,
            _nouns=made._nouns if "texts" in needs else (),
        )

    def count(self, run: Run) -> int:
        return sum(len(rows) for _, _, rows in self.chosen(run))

    def nouns_sha256(self, run: Run) -> str:
        """Of the nouns that a port which reads texts is given; empty for others."""
        reads = "texts" in PORTS[run.port].needs
        return digest(list(words.nouns(self.loaded.backbone("base")))) if reads else ""

    def forget(self) -> None:
        self._made.clear()

    def read(self, run: Run) -> None:
        """Encodes what the run's anchors need, on first use."""
        for role in ("base", *run.via, *run.evaluated_on(self.loaded.options.arch.towers)):
            for id, split, _ in self.chosen(run):
                self.loaded.features(role).features(split, self._names(id), f"{id} anchors, {role}")

    def _make(self, run: Run, old: str, new: str) -> Anchors:
        backbone = self.loaded.backbone(old)
        if run.anchors == "texts":
            return Anchors("texts", frozenset(), _nouns=words.nouns(backbone))
        parts = self.chosen(run)
        if not sum(len(rows) for _, _, rows in parts):
            raise UserError(f"{run.dataset} has no pictures for anchors of kind '{run.anchors}'")

        def features(role: str) -> torch.Tensor:
            store = self.loaded.features(role)
            found = [
                store.features(split, self._names(id), f"{id} anchors, {role}")[
                    torch.as_tensor(rows, dtype=torch.long, device=self.loaded.backbone(role).device)
                ]
                for id, split, rows in parts
            ]
            return torch.cat(found)

        chosen, store_of = [split.take(rows) for _, split, rows in parts], self.loaded.features
        labels = None
        if run.anchors == "support":
            ((_, split, rows),) = parts
            labels = as_labels(split.take(rows), backbone.device)
        return Anchors(
            run.anchors,
            frozenset(),
            _old=features(old),
            _new=features(new),
            _labels=labels,
            _nouns=words.nouns(backbone),
            _pixels=(partial(pixels_of, store_of(old), chosen), partial(pixels_of, store_of(new), chosen)),
        )

    def _choose(self, run: Run) -> list[tuple[str, Split, list[int]]]:
        few = self.loaded.fewshot(run.unported)
        if run.anchors == "texts":
            return []
        if run.anchors == "support":
            return [(run.dataset, few.support, drawn(range(len(few.support)), run))]
        if run.anchors == "other":
            pool = self._pool(run.dataset)
            hidden = {*few.support.keys, *few.val.keys, *few.data.test.keys}
            return [(run.dataset, pool, drawn([i for i, key in enumerate(pool.keys) if key not in hidden], run))]
        if run.anchors == "foreign":
            pools = [(id, self._pool(id)) for id in self._others(run.dataset)]
            every = [(place, row) for place, (_, pool) in enumerate(pools) for row in range(len(pool))]
            random.Random(derive("foreign anchors", run.dataset, run.seed)).shuffle(every)
            taken = every[: min(run.count or FOREIGN_POOL, FOREIGN_POOL)]
            parts = [(*one, [row for at, row in taken if at == place]) for place, one in enumerate(pools)]
            return [part for part in parts if part[2]]
        raise UserError(f"no anchors of kind '{run.anchors}'")

    def _pool(self, id: str) -> Split:
        """A sample of the dataset's training pictures, the same for every seed and number of shots."""
        if id not in self._pools:
            train = self.loaded.data(id).train
            order = list(range(len(train)))
            random.Random(derive("anchor pool", id)).shuffle(order)
            self._pools[id] = train.take(sorted(order[:POOL]))
        return self._pools[id]

    def _others(self, id: str) -> list[str]:
        """The arch's other datasets that can be read here."""
        found = []
        for other in datasets.default(self.loaded.options.arch.datasets):
            if other == id:
                continue
            try:
                if len(self._pool(other)):
                    found.append(other)
            except UserError:  # not on this disk
                continue
        return found

    def _names(self, id: str) -> tuple[str, ...]:
        return self.loaded.data(id).classnames


def pixels_of(store: FeatureStore, splits: Sequence[Split]) -> torch.Tensor:
    """(N, 3, H, H) of their pictures, in order, preprocessed for the store's tower."""
    found = [Pictures(store, split, views_of(store, 1, (1.0, 1.0), 0)).split(len(split)) for split in splits]
    return torch.cat([part for parts in found for part in parts])


def held(anchors: Anchors) -> int:
    """Bytes that anchors keep, about: their features, those of each part that is left out, and the maps' own copies."""
    rows = len(anchors)
    return COPIES * rows * anchors.bytes_a_row if rows else 0


def axes_of(run: Run) -> tuple:
    """What its anchors depend on."""
    return run.dataset, run.shots, run.carried_shots, run.seed, run.limit, run.anchors, run.count


def drawn(rows: Sequence[int], run: Run) -> list[int]:
    """As many of the rows as the run counts, another draw for each seed; fewer anchors are among the more."""
    order = list(rows)
    random.Random(derive("anchors", run.dataset, run.anchors, run.seed)).shuffle(order)
    most = POOL if run.anchors == "other" else len(order)
    return order[: min(run.count or most, most)]
