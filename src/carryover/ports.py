"""Carrying over from Python: maps between the features of two backbones, and plug-ins behind them.

For stored features, numpy arrays or torch tensors with matched rows, old (N, Do) and new (N, Dn):

    import carryover

    fitted = carryover.ports.Procrustes().fit(old, new)  # or Linear(); old_ids=…, new_ids=… match the rows by id
    fitted.transform(new)                                # (B, Dn) -> (B, Do), as given: array or tensor
    fitted.score_                                        # R² on rows that the map was fitted without
    fitted.save("map.safetensors")
    carryover.ports.Map.load("map.safetensors").transform(new)

For a plug-in file, with unlabelled pictures in a folder or with their features on both backbones:

    ported = carryover.ports.fit("procrustes", "probe.safetensors", "micro-base", "micro-update", "PICTURES")
    ported.logits(features)                              # (B, Dn) of the new image tower, not normalised -> (B, C)
    ported.classify(features)                            # names, probabilities
    ported.save("probe-for-update.safetensors")          # `evaluate` and `carryover.load_plugin` take it
    carryover.ports.load("probe-for-update.safetensors").logits(features)

For a linear head and two files of features (docs/plugins.md, stored features):

    carryover.ports.port_head("old.npz", "new.npz", "head.npz", to="head-for-new.npz")

What is wrong with what was given is a ``carryover.bench.errors.UserError`` of one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench import ports as _ports
from carryover.bench.backbones import loading
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.names import tower_of
from carryover.bench.errors import UserError
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.outputs import PLUGIN, check_output
from carryover.bench.host.untouched import draws_untouched, leaves_untouched
from carryover.bench.plugins import format, given, ported, porting, stored_features
from carryover.bench.plugins.answers import BoundPlugin
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.homes import misnamed
from carryover.bench.plugins.scores import gives_scores
from carryover.bench.ports import Anchors as Anchors
from carryover.bench.ports import Port as Port
from carryover.bench.ports import Ported as Ported
from carryover.bench.ports import register as register
from carryover.bench.ports.maps import Linear as Linear
from carryover.bench.ports.maps import Map as Map
from carryover.bench.ports.maps import Procrustes as Procrustes
from carryover.datasets import pictures as _pictures
from carryover.methods import discover
from carryover.methods.base import Classes

__all__ = [
    "Anchors",
    "Linear",
    "Map",
    "Port",
    "Ported",
    "PortedPlugin",
    "Procrustes",
    "fit",
    "load",
    "port_head",
    "register",
]


class PortedPlugin:
    """A plug-in for a new backbone, enough by itself.

    classnames  C names, in the order of the logits
    told        how it was ported: port, name, needs, anchors, old, new, fit (R² of the map on what it was fitted
                without), agreement (share of such pictures on which old and ported plug-in name the same class); None
                where that is not known
    """

    def __init__(self, ported: Ported, plugin: Plugin, told: dict[str, Any]):
        self.ported, self.plugin, self.told = ported, plugin, told

    def __repr__(self) -> str:
        sides = f"{self.told['old']['backbone']} to {self.told['new']['backbone']}"
        return f"PortedPlugin({self.plugin.method}, {sides} by {self.told['name']}, {len(self.classnames)} classes)"

    @property
    def classnames(self) -> tuple[str, ...]:
        return self.ported.classes.names

    def logits(self, features: Tensor | np.ndarray) -> Any:
        """Features (B, Dn) of the new image tower, not normalised -> (B, C), fp32: an array for an array, a tensor, on
        its device, for a tensor. Raises UserError for features of another width."""
        rows = given.rows(features, self.told["new"]["dim"], self.told["new"]["backbone"])
        made = self.ported.to(rows.device).predict(rows.float())
        return made if isinstance(features, Tensor) else made.cpu().numpy()

    def classify(self, features: Tensor | np.ndarray) -> tuple[list[str], Any]:
        """(B, Dn) -> the name of the most probable class of each row, and the probabilities (B, C); of a head of scores
        the name of the largest and the scores, as they are."""
        logits = torch.as_tensor(self.logits(features))
        values = logits if gives_scores(self.ported) else logits.softmax(-1)
        names = [self.classnames[best] for best in values.argmax(-1).tolist()]
        return names, values if isinstance(features, Tensor) else values.numpy()

    def bind(self, backbone: Backbone) -> BoundPlugin:
        """On the backbone that it was ported to, to be asked about pictures. Raises UserError for another one."""
        if reason := misnamed(self.told["new"], given.backbone(backbone).label):
            raise UserError(f"{self.plugin.method} cannot be bound to {backbone.label}: {reason}")
        self.ported.bind(backbone, self.ported.classes)
        return BoundPlugin(self.plugin, backbone, self.ported, self.ported.classes, backbone.text.precision)

    def save(self, path: str | Path) -> None:
        """A plug-in file (docs/plugins.md)."""
        check_output(path, (), PLUGIN, "save:")
        ported.write(path, self.plugin, self.ported, self.told)


def load(path: str | Path) -> PortedPlugin:
    """A file of version 2, as ``save`` and the command ``port`` write it. Raises UserError for any other."""
    found = read(path)
    if found.ported is None:
        raise UserError(f"'{path}' is the plug-in of a backbone, not a ported one; fit() carries it over")
    return PortedPlugin(ported.restored(found), found, found.ported)


@draws_untouched
def fit(
    port: str,
    plugin: str | Path | Plugin,
    old: str | Backbone,
    new: str | Backbone,
    pictures: Any = None,
    *,
    classes: Classes | None = None,
    device: str = "cpu",
    cache: str | Path | None = None,
) -> PortedPlugin:
    """Carry a plug-in file over to another backbone; what the command ``port`` does.

    port       id of a port: "procrustes", "linear", … (`run_all.py ls ports`)
    old, new   the backbone that the plug-in belongs to and the one that it is carried to: loaded, or a name that
               ``--backbone`` takes ("micro-update", "ViT-B-16/openai", "local-dir:PATH"), loaded to ``device``
    pictures   a folder of pictures; or their features on both backbones, (N, Do) and (N, Dn), not normalised; None for
               ports that look at none. No label is read
    classes    names and prompts that it is ported with (default: those it was trained on)
    cache      folder of feature files; None keeps none
    """
    found = plugin if isinstance(plugin, Plugin) else read(plugin)
    place = given.device(device)
    _ports.discover()
    chosen = porting.port_of(port, found)
    first, second = (one if isinstance(one, Backbone) else loading.load(tower_of(one), place) for one in (old, new))
    if "images" not in chosen.needs:
        anchors, told = porting.anchors_of_texts(chosen, first), {"kind": "texts"}
        told |= {"count": len(anchors.nouns) + len(set(found.shape.classnames))}
    elif isinstance(pictures, (str, Path)):
        anchors, told = in_folder(pictures, chosen, first, second, cache)
    elif isinstance(pictures, tuple) and len(pictures) == 2:
        features = torch.as_tensor(pictures[0]), torch.as_tensor(pictures[1])
        anchors = porting.anchors_of_features(features, chosen, first, second)
        told = {"kind": "pictures", "count": len(anchors)}
    else:
        raise UserError(f"port {port} needs pictures: a folder, or a pair of features (old, new)")
    outcome = porting.carry(found, chosen, first, second, classes or porting.classes_of(found)[0], anchors)
    return PortedPlugin(outcome.ported, found, {**outcome.told, "anchors": told})


@leaves_untouched
def port_head(
    old: str | Path, new: str | Path, head: str | Path, to: str | Path, port: str = "procrustes"
) -> dict[str, Any]:
    """A linear head for old features becomes one for new features, in a file; what ``port --head`` does.

    old, new  files with features of the same pictures, matched by ids where both have them; head: its weight and bias
    port      "procrustes" or "linear"
    Returns how many rows were matched, and on rows that the map was fitted without: fit (R²) and agreement (share with
    the same largest output; of a single output the correlation).
    """
    check_output(to, (file for one in (old, new, head) for file in (one, stored_features.split_name(str(one))[0])))
    first, second = stored_features.stored(str(old), "old"), stored_features.stored(str(new), "new")
    own, kind = stored_features.head_of(str(head), "head"), porting.kind_of_map(port)
    ported, told = stored_features.carry_head(first, second, own, kind())
    stored_features.write(ported, str(to))
    return told


def in_folder(
    folder: str | Path, port: Port, old: Backbone, new: Backbone, cache: str | Path | None
) -> tuple[Anchors, dict[str, Any]]:
    import tempfile

    split = _pictures.load(folder)
    with tempfile.TemporaryDirectory() as passing:
        stores = [FeatureStore(cache or passing, one) for one in (old, new)]
        anchors = porting.anchors_in(split, port, *stores)
    return anchors, {"kind": "pictures", **_pictures.told(split, folder)}


def read(path: str | Path) -> Plugin:
    discover()
    return format.read(path)
