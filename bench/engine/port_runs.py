"""Ported runs: the plug-in that a run left on the base, carried to each target by a port, evaluated there.

Nothing that a port sees holds a test picture or, unless its ``needs`` say so, a label. What it tells of itself before
any label is read (``Checks``) goes into the record.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from torch import Tensor

from carryover.bench.engine.evaluator import depends_on_company, labelled, predict, score
from carryover.bench.engine.few_shot import as_labels
from carryover.bench.engine.record_draft import tell_choice
from carryover.bench.engine.session import Session
from carryover.bench.errors import Unfit
from carryover.bench.host.device import peak_memory
from carryover.bench.host.identity import sha256_of
from carryover.bench.plan.runs import Run
from carryover.bench.ports.base import PORTS, Port, Ported
from carryover.bench.ports.checks import checked
from carryover.bench.ports.frozen import unchanged
from carryover.bench.training.generators import generator
from carryover.bench.training.refresh import refreshed
from carryover.datasets.withheld import no_labels
from carryover.methods.base import Classes, Method


def port_over(session: Session, run: Run, key: str, record: dict, plugin: Method) -> None:
    """Fill in the record and write the predictions. ``plugin``: as its file gives it, bound to nothing yet."""
    port, few = PORTS[run.port](), session.fewshot(run.unported)
    classes = Classes(run.dataset, few.data.classnames, few.data.templates)
    record["port"] = {"name": port.name or run.port, "needs": sorted(port.needs), "refused": {}}
    found: dict[str, dict[str, Tensor]] = {}
    with contextlib.ExitStack() as held:
        with no_labels():
            plugin.eval()
            plugin.bind(session.backbone("base"), classes)
            held.enter_context(unchanged(plugin, classes))
        for role in run.evaluated_on(session.options.arch.towers):
            found |= on_target(session, run, record, port, plugin, classes, role)
    outcomes: dict[str, Tensor] = {}
    labels = as_labels(session.test_split(run), "cpu")  # all predictions are made
    for role, answers in found.items():
        outcome = labelled(answers, labels)
        record["targets"][role] |= score(outcome)
        outcomes |= {f"{role}.{name}": value.contiguous() for name, value in outcome.items()}
    session.store.write_predictions(key, outcomes)
    record["files"]["predictions"] = sha256_of(session.store.path("predictions", key))
    record["peak_memory_bytes"] = peak_memory(session.backbone("base").device)


def on_target(
    session: Session, run: Run, record: dict, port: Port, plugin: Method, classes: Classes, role: str
) -> dict[str, dict[str, Tensor]]:
    """What ``predict`` gives there, by role; nothing where the port cannot serve that pair, and then the record says
    why."""
    start = time.perf_counter()
    clocks: list[dict[str, float]] = []
    with no_labels():
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
        with no_labels():
            told |= checked(port, ported, plugin, session.backbone("base"), session.backbone(role), classes, anchors)
    if len(run.path) > 1:
        start = time.perf_counter()
        draw = generator("fit", run.dataset, run.method, run.seed)
        support = session.inputs.support(run)
        with no_labels():
            record["curve"] = refreshed(ported, support, run.training, draw)
        if (inner := ported.inner()) is not None:
            tell_choice(record, inner)
        record["seconds"]["fit"] = time.perf_counter() - start
    start = time.perf_counter()
    backbone = session.backbone(role)
    outcome, sample = predict(ported, backbone, classes, tests(session, run, role, ported))
    record["seconds"]["evaluate"][role] = time.perf_counter() - start
    mark = "" if plugin.transductive else depends_on_company(lambda: ported, backbone, classes, sample)
    record["marks"] += [mark] if mark and mark not in record["marks"] else []
    record["targets"][role] = {"backbone": backbone.label, "fingerprint": backbone.fingerprint, "port": told}
    return {role: outcome}


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
        try:
            ported = port.fit(plugin, old, new, classes, anchors)
            ported.bind(new, classes)
        except Unfit as error:
            return None, f"{new.label}: {error}"
        at, plugin = target, ported
    return ported, ""


def tests(session: Session, run: Run, role: str, ported: Ported) -> Any:
    if ported.needs == "features":
        return session.inputs.test_features(run, role)
    return session.inputs.tests(run, role)
