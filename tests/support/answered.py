"""Records with stored predictions, made from whom we say was right: for what counts predictions image by image."""

from __future__ import annotations

import numpy as np
import pytest

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.records import reading
from carryover.bench.records.predictions import Outcome, Outcomes
from carryover.bench.records.selection import Selection
from carryover.bench.stats import pairs

CLASSES = 5


def few_draws(count):
    """A module's fixture: so many draws of the test images, where what is held does not depend on their number
    (`tests/stats/test_comparison.py` has them all)."""

    @pytest.fixture(scope="module", autouse=True)
    def drawn():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairs, "DRAWS", count)
            yield

    return drawn


def answers(right, label, rng):
    """Predicted classes that are right where ``right`` says, else some other class."""
    return np.where(right, label, (label + rng.integers(1, CLASSES, len(label))) % CLASSES)


def record(dataset, method, seed, outcomes, status="done", **others):
    targets = {}
    for role, outcome in outcomes.items():
        hits, count = int(outcome.right.sum()), len(outcome.label)
        targets[role] = {"correct": hits, "count": count, "accuracy": 100 * hits / count}
    return {
        "key": f"{dataset}-{method}-{seed}", "status": status, "names": {"dataset": dataset, "method": method.upper()},
        "run": {"arch": "micro", "dataset": dataset, "method": method, "seed": seed, "shots": 16},
        "targets": targets if status == "done" else {}, "order": {}, "started": "2026-01-01T00:00:00Z", **others,
    }  # fmt: skip


def selection_of(records, stored, **more):
    """``stored``: by key, what its predictions file holds."""
    return Selection(ARCHS["micro"], tuple(reading.select(records)), outcomes=Outcomes(stored.__getitem__), **more)


def world(chances, images=200, seeds=(1, 2, 3), datasets=("a", "b"), rng=0, fails=(), **others):
    """(records, stored): ``chances[method]`` is the chance of being right on each role, e.g. {"base": 0.8, "new": 0.7};
    some images are hard for every method. ``fails``: (dataset, method, seed) of failed runs. ``others``: keys of every
    record."""
    rng = np.random.default_rng(rng)
    records, stored = [], {}
    for place, dataset in enumerate(datasets):
        label, ease = rng.integers(0, CLASSES, images), rng.uniform(-0.3, 0.3, images)
        for order, (method, of_role) in enumerate(chances.items()):
            for seed in seeds:
                found = {}
                for role, chance in of_role.items():
                    right = rng.uniform(size=images) < np.clip(chance + ease + rng.normal(0, 0.02), 0, 1)
                    confidence = rng.uniform(1 / CLASSES, 1, images).astype(np.float32)
                    found[role] = Outcome(answers(right, label, rng), label, confidence)
                one = record(dataset, method, seed, found, "failed" if (dataset, method, seed) in fails else "done")
                one["order"] = {"dataset": place, "method": order}
                records.append({**one, **others})
                stored[one["key"]] = found
    return records, stored
