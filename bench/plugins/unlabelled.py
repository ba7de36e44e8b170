"""A plug-in on a new backbone where no label is: how it answers there, beside how it answers on its old one.

The old answers are those of the plug-in as it was made: on the backbone that it was trained on, or that it was ported
from (a ported file keeps it). What is stored goes beside the results with labels (``bench.plugins.evaluation``).
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.names import differ
from carryover.bench.engine.evaluator import ROWS
from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError, quoted
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FEATURES_VERSION, FeatureStore
from carryover.bench.host import environment
from carryover.bench.host.identity import digest, sealed, sha256_of
from carryover.bench.plan.runs import NUMBERS_VERSION
from carryover.bench.plugins import agreement
from carryover.bench.plugins.evaluation import FOLDER, without_names
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.homes import carried_by, doubt, left_home, misnamed, warnings_of
from carryover.bench.plugins.ported import restored
from carryover.bench.plugins.porting import bound, check_home, without_tower
from carryover.bench.plugins.porting_stored import matched, rows_of, sha256_of_rows
from carryover.bench.plugins.scores import check_length, gives_scores
from carryover.bench.plugins.stored_features import Stored
from carryover.bench.ports.mapped import Mapped
from carryover.datasets.base import Split
from carryover.datasets.withheld import no_labels
from carryover.methods import source_hash
from carryover.methods.base import METHODS, Classes

SEEN = "these are the {} that it was fitted on, so the agreement flatters; give others"


@dataclass(frozen=True)
class Seen:
    """Pictures of one question. ``told``: what the result says of them; ``identity``: what tells them from others."""

    split: Split
    classnames: tuple[str, ...]
    told: dict[str, Any]

    @property
    def identity(self) -> str:
        return self.split.content_sha256(self.classnames)


# ---- both sides ------------------------------------------------------------------------------------------------------


def old_home(plugin: Plugin) -> dict[str, Any]:
    """The backbone of the old answers. Raises UserError for a file that no longer holds the plug-in of it."""
    if plugin.ported is not None:
        return plugin.ported["old"]
    if port := carried_by(plugin):
        raise UserError(
            f"evaluate: port {port} trained or moved '{plugin.path}' to its backbone, and what it was before is not in "
            "the file; agreement with the old model is of plug-ins as they were made, and of those ported through a map"
        )
    return plugin.home


def kept_old(plugin: Plugin) -> tuple[Mapped, Any]:
    """A ported plug-in, and the old one that it keeps."""
    ported = restored(plugin)
    if not isinstance(ported, Mapped):
        raise UserError(f"evaluate: '{plugin.path}' keeps no old plug-in to compare with; its port is no map")
    return ported, ported.head.eval()


def answers(found: Any, inputs: Any) -> Tensor:
    """(N, C) of a bound method or plug-in, on the CPU; ``inputs`` as it needs them."""
    with no_labels(), torch.no_grad():
        return torch.cat([found.predict(part).float().cpu() for part in inputs.split(ROWS)])


def on_pictures(plugin: Plugin, store: FeatureStore, classes: Classes, seen: Seen) -> tuple[Tensor, Any]:
    """Answers (N, C) of the plug-in as it is, bound to the store's backbone."""
    backbone, kind = store.backbone, METHODS[plugin.method]
    if kind.needs == "views":
        raise UserError(
            f"evaluate: {plugin.method} looks at many views of each picture; its agreement without labels is not made"
        )
    method = bound(plugin, backbone, classes)
    what = f"{len(seen.split)} pictures, {backbone.label}"
    if kind.needs == "pixels":
        inputs: Any = Pictures(store, seen.split, views_of(store, 1, (1.0, 1.0), 0))
    else:
        inputs = store.features(seen.split, seen.classnames, what)
    with method.attach(backbone):
        return answers(method, inputs), method


def evaluate_pictures(
    plugin: Plugin, classes: Classes, old: FeatureStore, new: FeatureStore, seen: Seen, out: str, precision: str
) -> dict[str, Any]:
    """The result as it is stored, written with the answers. Raises UserError for other backbones than the plug-in's."""
    start, home = time.perf_counter(), old_home(plugin)
    notes: list[str] = []
    if plugin.ported is None:
        check_home(plugin, old.backbone)
        notes += doubt(home, old.backbone.label)
        for store in (old, new):
            if reasons := left_home(plugin, store.backbone):
                raise UserError(f"evaluate: {reasons[0]}")
        before, method = on_pictures(plugin, old, classes, seen)
        after, _ = on_pictures(plugin, new, classes, seen)
        scores = gives_scores(method)
        if old.backbone.fingerprint == new.backbone.fingerprint:
            notes.append("old and new backbone are one: the agreement is that of the plug-in with itself")
    else:
        ported, head = kept_old(plugin)
        check_side(home, old.backbone, "--old")
        notes += doubt(home, old.backbone.label)
        check_side(plugin.ported["new"], new.backbone, "--backbone")
        if plugin.ported["anchors"].get("sha256") == seen.told.get("sha256", ""):
            notes.append(SEEN.format("pictures"))
        ported.bind(new.backbone, ported.classes)
        classes, scores = ported.classes, gives_scores(ported)
        features = [store.features(seen.split, seen.classnames, f"{len(seen.split)} pictures") for store in (old, new)]
        with no_labels(), torch.no_grad():
            before = head.to(old.backbone.device).logits(features[0]).float().cpu()
        ported.bind(new.backbone, ported.classes)
        after = answers(ported, features[1])
    sides = {"old": of_side(old.backbone), "backbone": of_side(new.backbone)}
    identity = {**{name: side["fingerprint"] for name, side in sides.items()}, "pictures": seen.identity}
    identity |= {"precision": precision, "features": FEATURES_VERSION, "templates": list(classes.templates)}
    told = {**sides, "pictures": seen.told, "precision": precision}
    notes = [*warnings_of(plugin, new.backbone), *notes]
    return written(plugin, classes, scores, (before, after), identity, told, notes, out, start)


def evaluate_stored(
    plugin: Plugin, classes: Classes, old: Stored, new: Stored, out: str, tower: Tower | None = None
) -> dict[str, Any]:
    """The same from stored features, without any backbone; ``tower``: the new one, where it is named."""
    start, home, notes = time.perf_counter(), old_home(plugin), list[str]()
    both = old.ids is not None and new.ids is not None
    rows, chosen = [rows_of(old), rows_of(new)], ""
    if (old.ids is None) != (new.ids is None):
        notes.append("only one of the files has ids: rows were matched by their place")
    if both:
        for flag, side in (("--old", old), ("--new", new)):
            if twice := repeated(side):
                raise UserError(f"evaluate: {flag} '{side.path}' has the id {twice} more than once; expected one a row")
        order = matched(old, new)
        where = {one: row for row, one in enumerate(new.ids.tolist())}  # type: ignore[union-attr]
        theirs = [where[old.ids.tolist()[row]] for row in order]  # type: ignore[union-attr]
        if not order:
            raise UserError(f"evaluate: no row of --old '{old.path}' has an id of --new '{new.path}'")
        rows, chosen = [rows[0][order], rows[1][theirs]], digest([order, theirs])
        if alone := len(old.features) + len(new.features) - 2 * len(order):
            notes.append(f"{alone} rows have no partner and are left out")
    if len(rows[0]) != len(rows[1]) or not len(rows[0]):
        raise UserError(
            f"evaluate: --old '{old.path}' holds {len(rows[0])} rows, --new '{new.path}' {len(rows[1])}; expected the "
            "same pictures in the same order, or ids in both"
        )
    if plugin.ported is None:
        method = without_tower(plugin, classes)
        if method is None:
            raise UserError(
                f"evaluate: {plugin.method} needs a text tower to answer; give --backbone NEW and --images FOLDER"
            )
        one: Any = method
        other: Any = method
        new_side = {"label": tower.label if tower else None, "fingerprint": None, "dim": tower.dim if tower else None}
        new_dim = home["dim"]
    else:
        other, one = kept_old(plugin)
        classes, part = other.classes, plugin.ported["new"]
        new_side, new_dim = {"label": part["backbone"], "fingerprint": part["fingerprint"]}, part["dim"]
        notes += [] if tower is None else check_name(part, tower)
    if tower is not None and tower.dim != new_dim:
        raise UserError(
            f"evaluate: --backbone {tower.label} gives features of width {tower.dim}, the plug-in takes {new_dim} there"
        )
    for flag, side, dim in (("--old", old, home["dim"]), ("--new", new, new_dim)):
        if side.features.shape[1] != dim:
            raise UserError(
                f"evaluate: {flag} '{side.path}' holds features of width {side.features.shape[1]}, the plug-in takes "
                f"{dim} there"
            )
    check_length(f"evaluate: --old '{old.path}'", one, rows[0][:ROWS])
    check_length(f"evaluate: --new '{new.path}'", other, rows[1][:ROWS])
    with no_labels(), torch.no_grad():
        before = torch.cat([one.logits(part).float() for part in rows[0].split(ROWS)])
    after = answers(other, rows[1])
    sha = sha256_of_rows(old, new)
    anchors = plugin.ported["anchors"] if plugin.ported is not None else {}
    notes += [SEEN.format("rows")] if anchors.get("sha256") == sha else []
    files = {"old": Path(old.path).name, "new": Path(new.path).name, "matched": "by id" if both else "by place"}
    told = {
        "old": {"label": home["backbone"], "fingerprint": home["fingerprint"]},
        "backbone": {name: new_side[name] for name in ("label", "fingerprint")},
        "pictures": {"count": len(before), "files": files, "sha256": sha},
    }
    identity = {"rows": sha, "matched": chosen}
    return written(plugin, classes, gives_scores(one), (before, after), identity, told, notes, out, start)


def of_side(backbone: Backbone) -> dict[str, Any]:
    return {"label": backbone.label, "fingerprint": backbone.fingerprint}


def check_side(home: dict[str, Any], backbone: Backbone, flag: str) -> None:
    """Raises UserError for another backbone than the ported file's header names on that side."""
    if home["fingerprint"] not in (None, backbone.fingerprint) or home["dim"] != backbone.dim:
        own = f"fingerprint {home['fingerprint'][:12]}" if home["fingerprint"] else "no fingerprint"
        raise UserError(
            f"evaluate: the plug-in belongs to {home['backbone']} there ({own}, joint width {home['dim']}), "
            f"{flag} gave {backbone.label} ({backbone.fingerprint[:12]}, {backbone.dim})"
        )
    if reason := misnamed(home, backbone.label):
        raise UserError(f"evaluate: {flag} {backbone.label} is not the plug-in's: {reason}")


def repeated(side: Stored) -> str:
    """An id that stands twice, as a message has it; empty where none does."""
    assert side.ids is not None
    found, times = np.unique(side.ids, return_counts=True)
    return quoted(str(found[times > 1][0]), 60) if (times > 1).any() else ""


def check_name(home: dict[str, Any], tower: Tower) -> list[str]:
    """Raises UserError where --backbone names another backbone than the ported file's header, whose weights are not
    read; notes where the names cannot tell."""
    other = differ(home["backbone"], tower.label)
    if other:
        raise UserError(
            f"evaluate: the plug-in belongs to {home['backbone']}, --backbone gave {tower.label}: leave it out, or "
            "name that one"
        )
    if other is None:
        return [f"whether {tower.label} is {quoted(home['backbone'])}, which the plug-in belongs to, cannot be checked"]
    return []


# ---- what is stored --------------------------------------------------------------------------------------------------


def written(
    plugin: Plugin,
    classes: Classes,
    scores: bool,
    made: tuple[Tensor, Tensor],
    identity: dict[str, Any],
    told: dict[str, Any],
    notes: list[str],
    out: str,
    start: float,
) -> dict[str, Any]:
    for name, one in zip(("old", "plugin"), made, strict=True):
        if not torch.isfinite(one).all():
            raise UserError(f"evaluate: the answers of the {name} model are not finite")
    kind = METHODS[plugin.method]
    identity = {"agreement": 1, "plugin": plugin.sha256, "method": source_hash(kind), **identity}
    identity |= {"classes": digest(list(classes.names)), "numbers": NUMBERS_VERSION}
    key, store = digest(identity)[:16], RunStore(out, FOLDER)
    store.write_predictions(key, tensors_of(scores, *made))
    stored = {
        "key": key,
        "plugin": {"sha256": plugin.sha256, "file": plugin.path.rsplit("/", 1)[-1], **without_names(plugin.header)},
        "method": {"id": plugin.method, "name": kind.name or plugin.method},
        **told,
        "agreement": agreement.of(classes.names, scores, *made),
        "warnings": notes,
        "identity": identity,
        "files": {"predictions": sha256_of(store.path("predictions", key))},
        "seconds": time.perf_counter() - start,
        "versions": environment.versions(),
        "git_commit": environment.git_commit(),
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    store.write_note(f"{key}.json", sealed(stored))
    return stored


def tensors_of(scores: bool, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Of both models: ``scores`` (N, S), or ``predicted`` (N,) and its probability, ``confidence``."""
    found = {}
    for name, one in (("old", before), ("plugin", after)):
        if scores:
            found[f"{name}.scores"] = one.contiguous()
        else:
            best = one.softmax(-1).max(-1)
            found |= {f"{name}.predicted": best.indices.int(), f"{name}.confidence": best.values.contiguous()}
    return found
