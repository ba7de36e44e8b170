"""What a record says of a run before it is done, and what was encoded for it."""

from __future__ import annotations

import datetime

import torch

from carryover import datasets
from carryover.bench.engine.session import Session
from carryover.bench.host import environment
from carryover.bench.host.device import device_name
from carryover.bench.plan.runs import Run
from carryover.datasets import manifests
from carryover.methods import ordered
from carryover.methods.base import METHODS

SELECTED_ON_TEST = "epoch or hyper-parameters chosen on test images (its published protocol)"


def describe(session: Session, run: Run, key: str) -> dict:
    """All of a record that is known before the run."""
    few, kind, tested = session.fewshot(run), METHODS[run.method], session.tested(run)
    marks = list(dict.fromkeys([*few.data.notes, *tested.notes]))
    test_hash = {"test_sha256": session.keys.shifted(run)[1]} if run.test else {}
    if session.options.manifests:
        marks.append(manifests.MARK)
    if kind.selects_on_test(run.config):
        marks.append(SELECTED_ON_TEST)
    marks += kind.marks(run.config, session.backbone(run.path[-1]))
    if run.limit:
        marks.append(f"trial: at most {run.limit} test images a class")
    return {
        "key": key,
        "status": "planned",
        "error": None,
        "run": run.canonical(),
        "names": {"dataset": few.data.name, "method": kind.name or run.method, "test": tested.name},
        "depth": kind.depth,
        "order": {"dataset": datasets.order(run.dataset), "method": ordered().index(run.method)},
        "averaged": not run.test and run.dataset in datasets.default(session.options.arch.datasets),
        "identity": session.keys.identity(run),
        "about": tested.about,
        "marks": marks,
        "manifests": few.given,
        "split": {
            **few.hashes,
            "classes": len(tested.classnames),
            "support": len(few.support),
            **test_hash,
        },
        "trained": session.keys.of(run.trained),
        "files": {},
        "targets": {},
        "curve": [],
        "encoded": {},
        "seconds": {"evaluate": {}},
        "versions": environment.versions(),
        "device": device_name(torch.device(session.options.device)),
        "git_commit": environment.git_commit(),
        "git_dirty": environment.git_dirty(),
        "text_budget_bytes": session.text_budget,
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def write_manifests(session: Session, run: Run) -> None:
    """The few-shot subsets of the run, where they are not there as they should be."""
    for part, text in session.fewshot(run).manifests.items():
        session.store.write_manifest(manifests.name_of(run.dataset, run.shots, run.seed, part), text)


def encoded_since(before: dict[str, tuple[int, float]], now: dict[str, tuple[int, float]]) -> dict[str, dict]:
    """As a record holds it: backbone -> images and seconds, of those that encoded anything."""
    found = {}
    for role, (images, seconds) in now.items():
        start = before.get(role, (0, 0.0))
        if images > start[0]:
            found[role] = {"images": images - start[0], "seconds": seconds - start[1]}
    return found


def add_encoded(record: dict, more: dict[str, dict]) -> None:
    """What was encoded for the run before it began: part of what its features took."""
    for role, made in more.items():
        own = record["encoded"].setdefault(role, {"images": 0, "seconds": 0.0})
        own["images"] += made["images"]
        own["seconds"] += made["seconds"]
        record["seconds"]["features"] = record["seconds"].get("features", 0.0) + made["seconds"]
