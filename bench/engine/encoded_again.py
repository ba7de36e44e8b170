"""Stored features held against pictures and weights: a sample of each feature file is encoded again.

A feature file says itself what it holds, and records say what they read; both agree where somebody changed the numbers
and hashed them anew before the runs. Only the pictures tell.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.features.store import FeatureStore
from carryover.bench.features.transforms import Recipe
from carryover.bench.host.files import read_arrays
from carryover.bench.plan.runs import Run
from carryover.bench.records.reading import Record, counted
from carryover.datasets.base import Split
from carryover.methods.base import METHODS

# Largest distance of a picture's features from the stored ones, as a share of their length. Batches of another size,
# other threads and kernels round otherwise: TF32 has 10 bits after the point, bf16 has 7. Chosen, not measured.
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}


class Sampled(FeatureStore):
    """In place of a run's store: compares ``count`` pictures of each stored file that is asked for, makes none."""

    count = 0

    def begin(self, count: int) -> None:
        self.count, self.compared = count, 0
        self.lines: list[str] = []
        self.absent: set[str] = set()
        self.seen: set[str] = set()

    def _get(
        self, wanted: list[tuple[dict, Recipe]], split: Split, classnames: tuple[str, ...], what: str
    ) -> list[Tensor]:
        paths = self._find(wanted, split, classnames, what)
        return [torch.zeros(len(split), self.backbone.dim, device=self.backbone.device) for _ in paths]

    def _find(
        self,
        wanted: list[tuple[dict, Recipe]],
        split: Split,
        classnames: tuple[str, ...],
        what: str,
        keep: bool = True,
    ) -> list[Path]:
        shared = self.identity({}, split, classnames)
        paths = [self.path({**shared, **entries}) for entries, _ in wanted]
        for path, (_, recipe) in zip(paths, wanted, strict=True):
            if path.stem not in self.seen:
                self.seen.add(path.stem)
                self._compare(path, split, recipe, what)
        return paths

    def _compare(self, path, split: Split, recipe: Recipe, what: str) -> None:
        if not path.is_file():
            self.absent.add(path.stem)
            return
        try:
            stored = torch.from_numpy(read_arrays(path)[0]["features"]).float()
        except (UserError, KeyError, TypeError) as error:
            self.lines.append(f"feature file '{path}' ({what}) cannot be read: {error}")
            return
        if stored.shape != (len(split), self.backbone.dim):
            self.lines.append(
                f"feature file '{path}' ({what}) has shape {tuple(stored.shape)}, expected "
                f"{(len(split), self.backbone.dim)}"
            )
            return
        rows = sorted(random.Random().sample(range(len(split)), min(self.count, len(split))))
        (fresh,) = self._encode(split.take(rows), [recipe], what)
        apart = (fresh - stored[rows]).norm(dim=1) / fresh.norm(dim=1).clamp_min(1e-12)
        self.compared += 1
        wrong = [
            (row, distance) for row, distance in zip(rows, apart.tolist(), strict=True) if not self._near(distance)
        ]
        if wrong:
            row, distance = max(wrong, key=lambda one: one[1])
            self.lines.append(
                f"feature file '{path}' ({what}): {len(wrong)} of {counted(len(rows), 'picture')} have other features "
                f"when encoded again, '{split.keys[row]}' by {100 * distance:.2g} % of their length"
            )

    def _near(self, distance: float) -> bool:
        return distance <= TOLERANCE[self.precision]


def encoded_again(options: Options, records: Sequence[Record], count: int) -> tuple[list[str], list[str]]:
    """(differences, notes) of the weights and of ``count`` pictures of each feature file that runs of the records
    read. Raises UserError where weights cannot be loaded."""
    session = Session(options)
    lines = weights(session, records)
    stores = {}
    for role in options.arch.towers:
        store = Sampled(
            options.cache, session.backbone(role), options.precision, options.image_batch, loader=session.loader
        )
        store.begin(count)
        session._features[role] = stores[role] = store
    notes: dict[str, None] = {}
    asked = set()
    for record in records:
        if record.get("status") != "done" or record["run"]["method"] not in METHODS.entries:
            continue
        run = run_of(record)
        if (axes := axes_of(run)) not in asked:
            asked.add(axes)
            try:
                read(session, run)
            except UserError as error:
                notes[f"left out: {error}"] = None
    lines += [line for store in stores.values() for line in store.lines]
    compared = sum(store.compared for store in stores.values())
    absent = set().union(*(store.absent for store in stores.values()))
    told = f"{count} pictures of each of {counted(compared, 'feature file')} were encoded again"
    if absent:
        told += (
            f"; {len(absent)} are not in '{options.cache}' for these pictures and weights, this Pillow and a "
            f"{options.device}"
        )
    return lines, [*notes, told]


def weights(session: Session, records: Iterable[Record]) -> list[str]:
    """A line for each backbone whose weights are not those of the records: a fingerprint is a sha256 over every tensor
    as it was loaded just now."""
    lines = []
    for role in session.options.arch.towers:
        here = session.backbone(role)
        noted = [((record.get("identity") or {}).get("backbones") or {}).get(role) for record in records]
        others = sorted({found for found in noted if found and found != here.fingerprint})
        if others:
            lines.append(
                f"weights of {role} ({here.label}) have fingerprint {here.fingerprint}, "
                f"{counted(sum(found in others for found in noted), 'record')} say {' and '.join(others)}"
            )
    return lines


def run_of(record: Record) -> Run:
    """The run that a record is of."""
    stored: dict[str, Any] = dict(record["run"])
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored["config"].items()
    }
    stored |= {name: tuple(stored[name]) for name in ("path", "via") if name in stored}
    try:
        return Run(**{**stored, "config": METHODS[stored["method"]].Config(**config)})
    except TypeError as error:
        raise UserError(
            f"{record['key']}: its options are not those of this version's {stored['method']} ({error})"
        ) from None


def read(session: Session, run: Run) -> None:
    """Asks for every feature file that the run reads."""
    if run.port:
        session.anchors.read(run)
    for role in session.evaluated_on(run):
        session.inputs.tests(run, role)
    if not run.test and (not run.port or len(run.path) > 1):
        session.inputs.support(run)


def axes_of(run: Run) -> tuple:
    """What the feature files that it reads depend on."""
    kind = METHODS[run.method]
    views = run.views, tuple(run.config.crop), run.training.epochs, run.training.steps, run.training.batch
    tests = (
        kind.needs,
        str(kind.test_views(run.config)) if kind.needs == "views" else "",
        kind.selects_on_test(run.config),
    )
    port = run.path, run.port, run.anchors, run.count, run.via, run.carried_shots
    return run.dataset, run.shots, run.seed, run.limit, run.test, views, tests, port
