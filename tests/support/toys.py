"""A session of the tiny towers on a toy dataset that lies in memory, for tests that change one thing at a time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from tiny_caltech import picture
from tiny_fits import short
from tiny_towers import IMAGE_SIZE, NAMES, TEMPLATES

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Arch
from carryover.bench.engine.one_run import execute_together
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.plan.runs import Run
from carryover.datasets.base import Dataset, Split

COUNTS = {"train": 6, "val": 5, "test": 4}  # pictures a class


def pictures(part, change=lambda image, index: image, shown=lambda labels: labels, stamp=""):
    """A split of the toy. ``change`` repaints pictures, ``shown`` relabels them, ``stamp`` is what a file's size and
    time would tell: none of the names changes."""
    labels = np.arange(len(NAMES) * COUNTS[part]) % len(NAMES)

    def read(indices):
        made = [picture(np.random.default_rng([ord(part[1]), i]), i % len(NAMES), (IMAGE_SIZE,) * 2) for i in indices]
        return [change(image, index) for image, index in zip(made, indices, strict=True)]

    keys = tuple(f"{part}/{i}" for i in range(len(labels)))
    return Split(keys, shown(labels).astype(np.int64), read, lambda indices: [f"{stamp}{i}" for i in indices])


def toy(id="toy", **parts):
    """The dataset; ``train``, ``val`` and ``test`` may be given."""
    splits = {part: parts.get(part) or pictures(part) for part in COUNTS}
    return Dataset(id, id.title(), NAMES, TEMPLATES, **splits)


def open_toy(monkeypatch, tiny, folder, data=toy, **options):
    """A Session with its own folders; ``data(id)`` makes each dataset."""
    towers = SimpleNamespace(base=tiny.base, new=tiny.new)
    monkeypatch.setattr(datasets, "load", lambda id, root="", **_: data(id))
    monkeypatch.setattr(loading, "load", lambda tower, *_: getattr(towers, tower.model.split("-")[1]))
    arch = Arch("tiny", tiny.base.tower, tiny.new.tower)
    given = {"arch": arch, "device": "cpu", "out": f"{folder}", "cache": f"{folder}/cache", **options}
    return Session(Options(**given))


def toy_run(name, seed=1, **changes):
    config = changes.pop("config", None) or short(name, epochs=min(2, short(name).epochs))
    fields = {"arch": "tiny", "dataset": "toy", "shots": 4, "protocol": "published", "precision": "fp32", "views": 2}
    return Run(**{**fields, "method": name, "seed": seed, "limit": None, "config": config, **changes})


def execute(session, run, key):
    """The record of one run by itself, a failed one too."""
    return next(execute_together(session, [(run, key)]))


def done(session, run):
    """The finished record of a run, after those that it needs."""
    for needed in [*reversed(run.sources), run]:
        key = session.keys.of(needed)
        if not session.store.read_record(key):
            record = execute(session, needed, key)
            assert record["status"] == "done", record["error"]
            session.store.write_record(record)
    return session.store.read_record(session.keys.of(run))
