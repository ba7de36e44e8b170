"""Ported plug-ins as files: version 2 of the plug-in format, or version 1 where a port leaves an ordinary plug-in.

Version 2 holds all that is needed to answer on the new backbone: the old plug-in as it was bound (with the class
features that the old text tower made), the map, the class names. Neither the old towers nor the new text tower are
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.engine.plugin_header import FIELDS, described, made_by
from carryover.bench.engine.run_store import PLUGIN_FORMAT, PLUGIN_VERSION
from carryover.bench.errors import UserError, quoted
from carryover.bench.host.identity import canonical
from carryover.bench.host.tensor_files import write_tensors
from carryover.bench.plan.runs import NUMBERS_VERSION
from carryover.bench.plugins.format import PORTED_VERSION, Plugin
from carryover.bench.ports.base import Ported
from carryover.bench.ports.carried import Carried
from carryover.bench.ports.files import ported_of
from carryover.methods import source_hash
from carryover.methods.base import Classes

TRIAL_ROWS = 2  # features on which a file that was read must give logits
ENDING = ".safetensors"


def of_backbone(backbone: Backbone) -> dict[str, Any]:
    """As headers name it."""
    tower = backbone.tower
    return described(backbone.label, backbone.fingerprint, backbone.width, backbone.dim, tower.activation or None)


def header_of(plugin: Plugin, ported: Ported, told: dict[str, Any]) -> dict[str, Any]:
    """Of the file that ``ported`` becomes. ``told``: port, name, needs, anchors, old, new, fit, agreement."""
    own = {name: plugin.header[name] for name in FIELDS}
    own |= {"format": PLUGIN_FORMAT, "made_by": made_by(NUMBERS_VERSION)}
    own |= {"templates": list(plugin.templates)} if plugin.templates else {}
    if isinstance(imported := plugin.header.get("imported"), dict):
        own["imported"] = imported
    told = {**told, "of": plugin.sha256} if plugin.sha256 else told
    before = plugin.header.get("ported")
    if isinstance(before, dict):
        told = {**told, "before": {name: value for name, value in before.items() if name != "state"}}
    if isinstance(ported, Carried):
        return {**own, **carried(plugin, ported, told)}
    _, state = ported.state()
    return {**own, "version": PORTED_VERSION, "ported": {**told, "kind": ported.kind, "state": state}}


def carried(plugin: Plugin, ported: Carried, told: dict[str, Any]) -> dict[str, Any]:
    """What differs where a method itself was carried: it was trained, or its weights moved, to the new backbone, so any
    reader of version 1 takes it."""
    method = ported.method
    return {
        "version": PLUGIN_VERSION,
        "source": source_hash(type(method)),
        "config": asdict(method.config),
        "shape": asdict(method.shape),
        "trained_on": [*plugin.header["trained_on"], told["new"]],
        "ported": {**told, "about": ported.about},
    }


def write(path: str | Path, plugin: Plugin, ported: Ported, told: dict[str, Any]) -> int:
    """Writes the file, whole or not at all; returns its size in bytes. The same plug-in is the same bytes."""
    path = Path(path)
    check_name(path)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in ported.state()[0].items()}
    write_tensors(path, tensors, {"plugin": canonical(header_of(plugin, ported, told))}, "--to")
    return path.stat().st_size


def check_name(path: Path) -> None:
    if path.suffix != ENDING or path.is_dir():
        raise UserError(f"--to {path}: expected a file that ends in {ENDING}")


class Columns(Ported):
    """A ported plug-in asked for some of its classes, or in another order: columns of its logits."""

    columns: Tensor

    def __init__(self, ported: Ported, classes: Classes):
        super().__init__()
        self.ported, self.classes, self.home, self.needs = ported, classes, ported.home, ported.needs
        place = {name: column for column, name in enumerate(ported.classes.names)}
        self.register_buffer("columns", torch.tensor([place[name] for name in classes.names]))

    def logits(self, x: Tensor) -> Tensor:
        return self.ported.logits(x)[:, self.columns]

    def bind(self, backbone: Backbone, classes: Classes) -> None:
        self.ported.bind(backbone, self.ported.classes)
        super().bind(backbone, classes)


def is_among(given: Sequence[str], own: Sequence[str]) -> bool:
    """Whether the names are some of the plug-in's own, in any order, with none twice on either side."""
    return len(set(own)) == len(own) and len(set(given)) == len(given) and set(given) <= set(own)


def for_classes(ported: Ported, classes: Classes) -> Ported:
    """The ported plug-in for these classes, by name; itself where they are its own, or not among them."""
    own = ported.classes.names
    return Columns(ported, classes) if classes.names != own and is_among(classes.names, own) else ported


def restored(plugin: Plugin) -> Ported:
    """The ported plug-in of a file of version 2. Raises UserError in one line for a kind that no port here makes, and
    for tensors or a header that do not make one: nothing of the file is trusted."""
    part = plugin.header["ported"]
    try:
        ported = ported_of(plugin.tensors, part["kind"], part["state"])
        problem = fault(ported, part)
    except Exception as error:  # whoever wrote the header may have put anything there
        problem = f"{type(error).__name__} {error}" if isinstance(error, (KeyError, TypeError)) else first_line(error)
    if problem:
        raise UserError(
            f"--plugin: '{plugin.path}' cannot be read as a ported plug-in of kind {quoted(part['kind'])}: "
            f"{quoted(problem, 300)[1:-1]}"
        )
    return ported.eval()


def fault(ported: Ported, part: dict[str, Any]) -> str:
    """What is wrong with it; empty where it gives logits for features of the new backbone."""
    names = ported.classes.names
    if not names or not all(isinstance(name, str) for name in names):
        return "its class names are no texts"
    if not isinstance(ported.home, str) or ported.home not in ("", part["new"]["fingerprint"]):
        return "it was made for another backbone than its header says"
    if ported.needs != "features":
        return ""
    logits = ported.predict(torch.zeros(TRIAL_ROWS, part["new"]["dim"]))
    if tuple(logits.shape) != (TRIAL_ROWS, len(names)):
        return f"it gives logits of shape {tuple(logits.shape)} for {TRIAL_ROWS} images and {len(names)} classes"
    return "" if finite(logits) else "its logits are not finite"


def finite(logits: Tensor) -> bool:
    return bool(torch.isfinite(logits).all())
