"""What a record says of a run before it is done, and what was encoded for it."""

from __future__ import annotations

import datetime
import hashlib

import torch

from carryover import datasets
from carryover.bench.backbones import probe
from carryover.bench.engine.session import Session
from carryover.bench.host import environment, processor
from carryover.bench.host.device import device_name
from carryover.bench.plan.runs import Run
from carryover.datasets import manifests
from carryover.methods import ordered
from carryover.methods.base import METHODS, Method

TRANSDUCTIVE = "transductive, as it declares: other test images help to predict each"
NOT_CHOSEN = "no validation pictures: what they would choose is the first candidate"
SELECTED_ON_TEST = "epoch or hyper-parameters chosen on test images (its published protocol)"


def describe(session: Session, run: Run, key: str) -> dict:
    """All of a record that is known before the run."""
    few, kind, tested = session.fewshot(run), METHODS[run.method], session.tested(run)
    marks = list(dict.fromkeys([*few.data.notes, *tested.notes]))
    for id in dict.fromkeys((run.dataset, run.test or run.dataset)):
        marks += session.same_prompts(id, run.path[-1])
    marks += few.too_few(run.shots)
    test_hash = {"test_sha256": session.keys.shifted(run)[1]} if run.test else {}
    if session.options.manifests:
        marks.append(manifests.MARK)
    if kind.selects_on_test(run.config):
        marks.append(SELECTED_ON_TEST)
    marks += kind.marks(run.config, session.backbone(run.path[-1]))
    if kind.transductive:
        marks.append(TRANSDUCTIVE)
    refused = session.refused(run)
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
            "fewest": min(few.counts),
            **test_hash,
        },
        "trained": session.keys.of(run.trained),
        "files": {},
        "targets": {},
        **({"refused": refused} if refused else {}),
        "curve": [],
        "encoded": {},
        "features": {},
        "seconds": {"evaluate": {}},
        "versions": environment.versions(),
        "device": device_name(torch.device(session.options.device)),
        **({"card": session.options.cards[0]} if len(session.options.cards) == 1 else {}),
        "processor": processor_of(session.options.device),
        "git_commit": environment.git_commit(),
        "git_dirty": environment.git_dirty(),
        "text_budget_bytes": session.text_budget,
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def tell_choice(record: dict, method: Method) -> None:
    """What few-shot validation chose (`results/README.md`); nothing where the method leaves nothing open."""
    if method.tried:
        record.update(chosen=method.chosen, tried=method.tried)
        if len(method.tried) > 1 and not any("validation" in one for one in method.tried):
            record["marks"].append(NOT_CHOSEN)


def begin(session: Session, run: Run, key: str) -> dict:
    """``describe`` of a run that is done now. It has failed already where this process, a worker say, sees other
    weights, pictures or code of the method than the one that planned it: its results would stand under a key that is
    not theirs."""
    session.store.begin(key)
    record = describe(session, run, key)
    if session.keys.of(run) != key:
        what = "weights, pictures or the method's file were replaced after the command began"
        record.update(status="failed", error=f"{what}; run it again")
    return record


def write_manifests(session: Session, run: Run) -> dict[str, str]:
    """The few-shot subsets of the run, where they are not there as they should be. Returns their names and sha256."""
    written = {}
    for part, text in session.fewshot(run).manifests.items():
        name = manifests.name_of(run.dataset, run.shots, run.seed, part)
        session.store.write_manifest(name, text)
        written[name] = hashlib.sha256(text.encode()).hexdigest()
    return written


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


def add_features(record: dict, more: dict[str, dict[str, str]]) -> None:
    """Feature files that a run read once it was trained."""
    for role, files in more.items():
        record["features"][role] = dict(sorted({**record["features"].get(role, {}), **files}.items()))


def processor_of(device: str) -> dict[str, str]:
    """What decides the last bits of sums on the CPU: the processor, what torch uses of it, MKL's mode and who chose it;
    where runs are trained on the CPU, whether those side by side have the bits of those alone."""
    found = {"name": processor.name(), "kind": processor.kind(), "mode": processor.mode()}
    found["chosen_by"] = processor.chosen_by()
    return {**found, "side_by_side": str(probe.answer())} if device == "cpu" else found
