"""Accuracies by the fast text path against open_clip's own blocks at 77 tokens, on a finished results folder of micro.

    python -m tests.benchmarks.reference_path results            # from the checkout, after `python run_all.py`
    python -m tests.benchmarks.reference_path results --train micro_stars --methods coop kgcoop contcoop

First each stored plug-in of the main table is evaluated again with every prompt at 77 tokens through open_clip's blocks
(``TextTower(fast=False)``) and its predictions compared with the stored ones, on both backbones; of CoCoOp, which makes
every class prompt for every picture, the first ``--pictures`` of each test set. ``--train`` fits those datasets' runs
again, seed 1, by the reference path and compares the accuracies. Exit status 1 where an accuracy differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from carryover.bench.backbones import archs
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.engine.carried import make
from carryover.bench.engine.evaluator import predict
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.one_run import execute_together
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.plan import grid
from carryover.bench.plan.runs import Run
from carryover.bench.plan.settings import Settings
from carryover.bench.records.store import Store
from carryover.methods import Registered
from carryover.methods.base import Classes

WHOLE = 10**9


class Slow(Session):
    """A session whose text towers take no short cut."""

    def backbone(self, role: str):
        known = role in self._backbones
        backbone = super().backbone(role)
        if not known:
            backbone.text = TextTower(backbone.model.text, backbone.text.tokenizer, backbone.text.budget, fast=False)
            backbone._zero_shot.clear()
        return backbone


def session_on(out: str, cache: str, kind: type[Session] = Slow) -> Session:
    return kind(Options(archs.ARCHS["micro"], "cpu", out, cache))


def main_runs(methods: Sequence[str]) -> list[Run]:
    settings = Settings(16, "micro", "fp32", 4, None, methods=Registered())
    return grid.grid(archs.ARCHS["micro"], settings, suites_=["main"], methods=methods)


def evaluated(session: Session, run: Run, key: str, pictures: int) -> dict[str, tuple[int, int, int]]:
    """By backbone: predictions that differ, pictures right by the stored predictions, and right by the slow path."""
    method = make(session, run, session.shape_of(run))
    method.load_learned(session.store.read_plugin(key)[0])
    tested, stored, found = session.tested(run), session.store.read_predictions(key), {}
    classes = Classes(tested.id, tested.classnames, tested.templates)
    labels = as_labels(session.test_split(run), "cpu")[:pictures]
    for role in session.options.arch.towers:
        x = session.inputs.test_features(run, role)[:pictures]
        predicted = predict(method, session.backbone(role), classes, x)[0]["predicted"]
        before = torch.from_numpy(stored[role][0][:pictures])
        right = [int((p == labels).sum()) for p in (before, predicted)]
        found[role] = int((predicted != before).sum()), right[0], right[1]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reference_path")
    parser.add_argument("out", help="results folder of a finished `run_all.py --suite main`")
    parser.add_argument("--cache", help="its feature files (default: OUT/cache)")
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--pictures", type=int, default=48, help="of each test set, for CoCoOp (default: 48)")
    parser.add_argument("--train", nargs="+", default=[], metavar="DATASET")
    parser.add_argument("--trained-out", default="", help="folder for the runs of --train")
    asked = parser.parse_args(argv)
    cache = asked.cache or f"{asked.out}/cache"
    fast, slow, wrong, start = session_on(asked.out, cache, Session), session_on(asked.out, cache), 0, time.time()
    cells: dict[str, list[int]] = {}
    for run in main_runs(asked.methods):
        pictures = asked.pictures if run.method == "cocoop" else WHOLE
        for differ, before, after in evaluated(slow, run, fast.keys.of(run), pictures).values():
            counts = cells.setdefault(run.method, [0, 0, 0])
            counts[0] += 1
            counts[1] += differ
            counts[2] += before != after
    print("method: cells (dataset, seed, backbone), predictions that differ, accuracies that differ")
    for method, counts in cells.items():
        print(f"{method}: {counts[0]}, {counts[1]}, {counts[2]}", flush=True)
        wrong += counts[2]
    for run in main_runs(asked.methods) if asked.train else []:
        if run.dataset in asked.train and run.seed == 1:
            trainer = session_on(asked.trained_out or f"{asked.out}/reference-path", cache)
            record = next(execute_together(trainer, [(run, fast.keys.of(run))]))
            stored = Store(asked.out, "micro").read_record(fast.keys.of(run))
            pairs = {r: (stored["targets"][r]["accuracy"], t["accuracy"]) for r, t in record["targets"].items()}
            print(f"{run} trained by the reference path:", *(f"{r} {a:.2f} / {b:.2f}" for r, (a, b) in pairs.items()))
            wrong += sum(a != b for a, b in pairs.values())
    print(f"{wrong} accuracies differ; {time.time() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
