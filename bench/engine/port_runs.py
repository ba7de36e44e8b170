"""Ported runs: the plug-in that a run left on the base, carried to each target by a port, evaluated there.

Nothing that a port sees holds a test picture or, unless its ``needs`` say so, a label. What it tells of itself before
any label is read (``Checks``) goes into the record.
"""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from carryover.bench.engine.evaluator import evaluate, score
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.session import Session
from carryover.bench.host.device import peak_memory
from carryover.bench.host.identity import sha256_of
from carryover.bench.plan.runs import Run
from carryover.bench.ports.base import PORTS, Port, Ported
from carryover.bench.ports.checks import checked
from carryover.bench.ports.frozen import unchanged
from carryover.bench.training.generators import generator
from carryover.bench.training.refresh import refreshed
from carryover.methods.base import Classes, Method


def port_over(session: Session, run: Run, key: str, record: dict, plugin: Method) -> None:
    """Fill in the record and write the predictions. ``plugin``: as its file gives it, bound to nothing yet."""
    port, few = PORTS[run.port](), session.fewshot(run.unported)
    classes = Classes(run.dataset, few.data.classnames, few.data.templates)
    record["port"] = {"name": port.name or run.port, "needs": sorted(port.needs), "refused": {}}
    plugin.eval()
    plugin.bind(session.backbone("base"), classes)
    outcomes: dict[str, Tensor] = {}
    with unchanged(plugin, classes):
        for role in run.evaluated_on(session.options.arch.towers):
            outcomes |= on_target(session, run, record, port, plugin, classes, role)
    session.store.write_predictions(key, outcomes)
    record["files"]["predictions"] = sha256_of(session.store.path("predictions", key))
    record["peak_memory_bytes"] = peak_memory(session.backbone("base").device)


def on_target(
    session: Session, run: Run, record: dict, port: Port, plugin: Method, classes: Classes, role: str
) -> dict[str, Tensor]:
    """Its predictions there by name; nothing where the port cannot serve that pair, and then the record says why."""
    start = time.perf_counter()
    clocks: list[dict[str, float]] = []
    ported, reason = carried(session, run, port, plugin, classes, role, clocks)
    if ported is None:
        record["port"]["refused"][role] = reason
        return {}
    spent = time.perf_counter() - start + sum(clock["saved"] for clock in clocks)
    about = dict(ported.about)
    record["marks"] += [mark for mark in about.pop("marks", []) if mark not in record["marks"]]
    told: dict[str, Any] = {"seconds": spent, "anchors": session.anchors.count(run), **about}
    if not run.via and len(run.path) == 1:
        anchors = session.anchors.of(run, "base", role)
        told |= checked(port, ported, plugin, session.backbone("base"), session.backbone(role), classes, anchors)
    if len(run.path) > 1:
        start = time.perf_counter()
        draw = generator("fit", run.dataset, run.method, run.seed)
        record["curve"] = refreshed(ported, session.inputs.support(run), run.training, draw)
        record["seconds"]["fit"] = time.perf_counter() - start
    start = time.perf_counter()
    outcome = evaluate(
        ported, session.backbone(role), classes, tests(session, run, role, ported), labels(session, run, role)
    )
    record["seconds"]["evaluate"][role] = time.perf_counter() - start
    backbone = session.backbone(role)
    named = {"backbone": backbone.label, "fingerprint": backbone.fingerprint}
    record["targets"][role] = {**named, **score(outcome), "port": told}
    return {f"{role}.{name}": value.contiguous() for name, value in outcome.items()}


def carried(
    session: Session, run: Run, port: Port, plugin: Any, classes: Classes, role: str, clocks: list[dict[str, float]]
) -> tuple[Ported | None, str]:
    """The plug-in ported to that backbone, by way of those of ``via``; else None and why not. ``clocks`` are told what
    was made before for other plug-ins: a map that several share costs each of them what it took."""
    at = "base"
    ported: Ported | None = None
    if run.anchors != "texts" and not session.anchors.count(run):
        return None, f"the dataset leaves no pictures for anchors of kind '{run.anchors}'"
    for target in (*run.via, role):
        old, new = session.backbone(at), session.backbone(target)
        if reason := port.fits(plugin, old, new):
            return None, reason
        anchors = session.anchors.of(run, at, target)
        anchors.clock["saved"] = 0.0
        clocks.append(anchors.clock)
        ported = port.fit(plugin, old, new, classes, anchors)
        ported.bind(new, classes)
        at, plugin = target, ported
    return ported, ""


def tests(session: Session, run: Run, role: str, ported: Ported) -> Any:
    if ported.needs == "features":
        return session.inputs.test_features(run, role)
    return session.inputs.tests(run, role)


def labels(session: Session, run: Run, role: str) -> Tensor:
    return as_labels(session.test_split(run), session.backbone(role).device)
