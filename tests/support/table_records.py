"""Made-up records of a few cells, and predictions with as many right answers as they say."""

from __future__ import annotations

import numpy as np

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection

IMAGES = 200


def record(dataset, method, seed, base, new, place=(0, 0), marks=(), depth="shallow", names=None, status="done"):
    right = {"base": base, "new": new}
    targets = {t: {"correct": n, "count": IMAGES, "accuracy": 100 * n / IMAGES} for t, n in right.items()}
    return {
        "key": f"{dataset}/{method}/{seed}", "status": status, "depth": depth, "marks": list(marks),
        "run": {"arch": "micro", "dataset": dataset, "method": method, "seed": seed, "shots": 16},
        "names": names or {"dataset": dataset.upper(), "method": method.upper()},
        "order": {"dataset": place[0], "method": place[1]}, "targets": targets if status == "done" else {},
        "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def chosen(records):
    """A selection whose main suite is these records."""
    return Selection(ARCHS["micro"], tuple(reading.select(records)))


def predictions_of(records):
    """Stored predictions with as many right answers as each record says."""
    truth = np.arange(IMAGES) % 7
    answers = {n: (np.where(np.arange(IMAGES) < n, truth, truth + 1), truth) for n in range(IMAGES + 1)}
    return {r["key"]: {t: answers[v["correct"]] for t, v in r["targets"].items()} for r in records}
