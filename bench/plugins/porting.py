"""A plug-in file carried to another backbone: bound to the old one, ported over anchors or through a stored map."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.errors import UserError
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.untouched import OwnDraws
from carryover.bench.plugins.contract import config_of, left_open, made, of_tensors, to_carry, unlike
from carryover.bench.plugins.format import OF_BACKBONE, Plugin, of_kinds
from carryover.bench.plugins.homes import doubt, misnamed
from carryover.bench.plugins.ported import for_classes, of_backbone, restored
from carryover.bench.plugins.scores import correlations, gives_scores, tells_scores
from carryover.bench.ports import words
from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.base import PORTS, Port, Ported, on_features
from carryover.bench.ports.checks import checked
from carryover.bench.ports.frozen import kept
from carryover.bench.ports.mapped import Mapped
from carryover.bench.ports.maps import Linear, Map, Procrustes
from carryover.bench.ports.procrustes import ThroughProcrustes
from carryover.datasets import micro, pictures
from carryover.datasets.base import Dataset, Split
from carryover.datasets.templates import PHOTO, TEMPLATES
from carryover.methods.base import METHODS, Classes, Method

MAPS: dict[str, type[Procrustes] | type[Linear]] = {"procrustes": Procrustes, "linear": Linear}  # ports that are maps


@dataclass(frozen=True)
class Outcome:
    """``told``: what the file's header says of how it was ported."""

    ported: Ported
    told: dict[str, Any]


class TowerNeeded(Exception):
    """A method asks for more of a backbone than a place to compute."""


class NoTower:
    """Stands in for the old backbone where a plug-in may need nothing of it: a classifier on features."""

    device = torch.device("cpu")

    def __getattr__(self, name: str):
        raise TowerNeeded(name)


# ---- the old side ----------------------------------------------------------------------------------------------------


def home_of(plugin: Plugin) -> dict[str, Any]:
    """The backbone that the plug-in answers on now: where it was trained, or was ported to last."""
    return plugin.home if plugin.ported is None else plugin.ported["new"]


def classes_of(plugin: Plugin, data: Dataset | None = None) -> tuple[Classes, str]:
    """Class names and templates that it is ported with, and what is to be said of them. Those of ``data``, if given;
    else the names that it was trained on, with the templates of that dataset where the suite knows them. Templates that
    the plug-in brings along come before any."""
    if plugin.ported is not None:
        return restored(plugin).classes, ""
    if data is not None:
        return Classes(data.id, data.classnames, plugin.templates or data.templates), ""
    id, names = plugin.header["dataset"], plugin.shape.classnames
    if plugin.templates:
        return Classes(id, names, plugin.templates), ""
    if id in micro.IDS or id in micro.OOD_IDS:
        return Classes(id, names, micro.load(id).templates), ""
    if id in TEMPLATES:
        return Classes(id, names, TEMPLATES[id]), ""
    return Classes(id, names, PHOTO), f"the prompts of {id} are not known: class names are read as '{PHOTO[0]}'"


def check_home(plugin: Plugin, old: Backbone) -> None:
    home = home_of(plugin)
    if home["fingerprint"] is not None and home["fingerprint"] != old.fingerprint:
        raise UserError(
            f"the plug-in belongs to {home['backbone']} of fingerprint {home['fingerprint'][:12]}; {old.label} has "
            f"{old.fingerprint[:12]}: name that backbone by --old"
        )
    if home["dim"] != old.dim or (plugin.ported is None and home["width"] != old.width):
        raise UserError(
            f"the plug-in belongs to {home['backbone']} of text and joint width {home['width']}/{home['dim']}; "
            f"{old.label} has {old.width}/{old.dim}: name that backbone by --old"
        )
    if reason := misnamed(home, old.label):
        raise UserError(f"{plugin.method} cannot be carried from {old.label}: {reason}; name that one by --old")


def bound(plugin: Plugin, old: Any, classes: Classes) -> Method | Ported:
    """The plug-in in eval mode, as it answers on the old backbone. Raises UserError for a file that does not fit."""
    if plugin.ported is not None:
        ported = for_classes(restored(plugin), classes)
        if not isinstance(old, NoTower):
            ported.bind(old, classes)
        return ported
    kind = METHODS[plugin.method]
    config, wrong = config_of(kind, plugin.header["config"])
    if isinstance(old, Backbone):
        wrong = wrong + unlike(plugin, config, loaded_sizes(old))
    if config is not None:
        wrong = wrong + of_tensors(made(kind, config, plugin), plugin.tensors) + left_open(kind, config, plugin)
    if wrong or config is None:
        raise UserError(f"--plugin: '{plugin.path}': {'; '.join(wrong)}")
    with OwnDraws():
        method = kind(config, plugin.shape).to(old.device).eval()
    method.load_learned(plugin.tensors)
    try:
        method.bind(old, classes)
    except (UserError, TowerNeeded):
        raise
    except Exception as error:  # a method of anyone's raises what it likes
        raise UserError(f"{plugin.method} cannot be bound to {old.label}: {first_line(error)}") from error
    return method


def without_tower(plugin: Plugin, classes: Classes) -> Method | Ported | None:
    """The plug-in where it needs nothing of the old backbone to answer; None where it does."""
    try:
        return bound(plugin, NoTower(), classes)
    except TowerNeeded:
        return None


@dataclass(frozen=True)
class Watched(Classes):
    """Knows whether its templates were read."""

    reads: list[str] = field(default_factory=list, compare=False)

    def __getattribute__(self, name: str) -> Any:
        if name == "templates":
            object.__getattribute__(self, "reads").append(name)
        return object.__getattribute__(self, name)


def reads_prompts(plugin: Plugin, backbone: Backbone, classes: Classes) -> bool:
    """Whether the plug-in looks at the templates of the classes that it is bound with; a ported one brings its own."""
    if plugin.ported is not None:
        return False
    watched = Watched(classes.dataset, classes.names, classes.templates)
    with contextlib.suppress(UserError):  # what is wrong with it is said where it is bound to answer
        bound(plugin, backbone, watched)
    return bool(watched.reads)


# ---- anchors ---------------------------------------------------------------------------------------------------------


def anchors_in(split: Split, port: Port, old: FeatureStore, new: FeatureStore) -> Anchors:
    """Pictures without labels, as a port may see them; what is not yet stored is encoded."""
    features = [
        store.features(split, pictures.NAMES, f"{len(split)} pictures, {store.backbone.label}") for store in (old, new)
    ]
    pixels = [partial(pixels_of, store, split) for store in (old, new)]
    nouns = words.nouns(old.backbone) if "texts" in port.needs else ()
    return Anchors("other", frozenset(port.needs), features[0], features[1], None, nouns, (pixels[0], pixels[1]))


def pixels_of(store: FeatureStore, split: Split) -> Tensor:
    """(N, 3, H, H)"""
    return torch.cat(list(Pictures(store, split, views_of(store, 1, (1.0, 1.0), 0)).split(len(split))))


def anchors_of_features(features: tuple[Tensor, Tensor], port: Port, old: Backbone, new: Backbone) -> Anchors:
    """Of features that are there already, (N, Do) and (N, Dn), not normalised."""
    for side, rows, backbone in zip(("old", "new"), features, (old, new), strict=True):
        if rows.dim() != 2 or rows.shape[1] != backbone.dim or len(rows) != len(features[0]):
            raise UserError(
                f"{side} features have shape {tuple(rows.shape)}, expected a row for each of {len(features[0])} "
                f"pictures in the width {backbone.dim} of {backbone.label}"
            )
    placed = [rows.to(backbone.device).float() for rows, backbone in zip(features, (old, new), strict=True)]
    nouns = words.nouns(old) if "texts" in port.needs else ()
    return Anchors("other", frozenset(port.needs), placed[0], placed[1], None, nouns)


def anchors_of_texts(port: Port, old: Backbone) -> Anchors:
    return Anchors("texts", frozenset(port.needs), _nouns=words.nouns(old))


# ---- porting ---------------------------------------------------------------------------------------------------------


def port_of(id: str, plugin: Plugin) -> Port:
    """Raises UserError for a port that is not known, cannot carry the plug-in's method, or needs what a folder of
    pictures does not have. Needs no weights."""
    port, method = PORTS[id](), METHODS[plugin.method]
    if id == "reuse":
        raise UserError("port reuse changes nothing: the file is what it would write; evaluate it on the new backbone")
    if "labels" in port.needs:
        raise UserError(
            f"port {id} reads labels of the few-shot pictures, which a folder of pictures does not have; "
            "'run --suite taught' measures it"
        )
    if plugin.ported is not None and not port.closed_form:
        raise UserError(f"port {id} cannot carry what was ported before: port the plug-in that a run trained")
    if plugin.ported is None and (reason := port.works_on(method)):
        raise UserError(f"port {id} cannot carry {plugin.method}: {reason}. {to_carry(plugin.method)}")
    if tells_scores(plugin) and id not in MAPS:
        raise UserError(
            f"port {id} carries answers about classes, and this plug-in scores; expected {' or '.join(MAPS)}"
        )
    return port


def usual_port(plugin: Plugin) -> str:
    """What is taken where no port is named: of scores the map of least squares (docs/ports.md)."""
    return "linear" if tells_scores(plugin) else "procrustes"


def carry(plugin: Plugin, port: Port, old: Backbone, new: Backbone, classes: Classes, anchors: Anchors) -> Outcome:
    """Raises UserError where it cannot be carried over. ``told`` still lacks what the anchors are."""
    check_home(plugin, old)
    method = bound(plugin, old, classes)
    if reason := port.fits(method, old, new):
        raise UserError(f"port {id_of(port)} cannot carry {plugin.method} from {old.label} to {new.label}: {reason}")
    ported = port.fit(method, old, new, classes, anchors)
    ported.bind(new, classes)
    sides = {"old": of_backbone(old), "new": of_backbone(new)}
    if gives_scores(method):
        return Outcome(ported, {**named(port), **sides, **checked_map(ported, method, anchors.old)})
    found = checked(port, ported, method, old, new, classes, anchors)
    told = {name: found.get(name) for name in ("fit", "agreement", "zero_agreement")}
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in told.items()}
    return Outcome(ported, {**named(port), **sides, **finite})


@torch.no_grad()
def checked_map(ported: Any, method: Method | Ported, old: Tensor) -> dict[str, Any]:
    """What is known of a plug-in behind a fitted map, from anchors left out of it: ``fit``; ``agreement``, the share on
    which it names the class that the old one names; of scores the ``correlation`` with the old ones, by their names.
    old (N, Do): the anchors."""
    fitted = ported.fitted
    before, after = method.logits(old), ported.head.logits(torch.as_tensor(fitted.held_out_).to(old.device))
    told: dict[str, Any] = {"fit": fitted.score_, "agreement": None, "zero_agreement": None}
    if gives_scores(method):
        return told | {"correlation": correlations(ported.classes.names, before, after)}
    return told | {"agreement": float((before.argmax(-1) == after.argmax(-1)).float().mean())}


def id_of(port: Port) -> str:
    return next(id for id in PORTS if isinstance(port, PORTS[id]))


def named(port: Port) -> dict[str, Any]:
    return {"port": id_of(port), "name": port.name or id_of(port), "needs": sorted(port.needs)}


class FromMap(ThroughProcrustes):
    """Procrustes on a few pictures, turned towards a map of the pair as far as left-out pictures say that it helps."""

    def __init__(self, prior: Map):
        self.prior = prior

    def fit(self, plugin, old, new, classes, anchors):
        def fitted() -> Procrustes:
            return Procrustes(prior=self.prior, prior_strength=None).fit(anchors.old, anchors.new)

        made = anchors.once("procrustes from a map", fitted)
        return Mapped.through(made, kept(plugin, classes), classes, new.fingerprint)


# ---- stored maps -----------------------------------------------------------------------------------------------------


def kind_of_map(id: str | None) -> type[Procrustes] | type[Linear]:
    """Raises UserError for a port that is more than a map."""
    if (id or "procrustes") not in MAPS:
        raise UserError(f"--port {id} fits no map by itself; expected {' or '.join(MAPS)}")
    return MAPS[id or "procrustes"]


def check_pair(where: str, fitted: Map, old: dict[str, Any], new: Backbone | None) -> list[str]:
    """Raises UserError for a map of another pair of backbones than the plug-in's and the new one; notes where the
    plug-in's file proves no backbone, and its name cannot tell."""
    for side, wanted, label in (
        ("old", old["fingerprint"], f"the plug-in's backbone {old['backbone']}"),
        ("new", new and new.fingerprint, new and new.label),
    ):
        found = fitted.header[side]
        if wanted and found["fingerprint"] != wanted:
            raise UserError(
                f"{where} has {found['backbone']} of fingerprint {found['fingerprint'][:12]} as its {side} backbone, "
                f"{label} has {wanted[:12]}: expected a map of this very pair (the command map fits one)"
            )
    theirs = fitted.header["old"]
    if old["dim"] != theirs["dim"]:
        raise UserError(
            f"{where} is of an old backbone {theirs['backbone']} of joint width {theirs['dim']}, the plug-in's, "
            f"{old['backbone']}, has {old['dim']}: expected a map of this very pair (the command map fits one)"
        )
    if reason := misnamed(old, theirs["backbone"]):
        raise UserError(
            f"{where} has {theirs['backbone']} as its old backbone, and of the plug-in {reason}: expected a map of "
            "this very pair (the command map fits one)"
        )
    return doubt(old, theirs["backbone"])


def read_map(path: str) -> Map:
    """A map that the command ``map`` wrote. Raises UserError for one that does not say its backbones."""
    fitted = Map.load(path)
    for side in ("old", "new"):
        given, width = fitted.header.get(side), fitted.about[f"{side}_width"]
        told: dict[str, Any] = given if isinstance(given, dict) else {}
        wrong = of_kinds(told, OF_BACKBONE, f"{side}.")
        if not wrong and (told["fingerprint"] is None or told["dim"] != width):
            wrong = [f"{side} is no backbone of joint width {width} with its fingerprint"]
        if wrong:
            raise UserError(
                f"--map '{path}' does not say its {side} backbone ({'; '.join(wrong)}); expected a file that the "
                "command map wrote"
            )
    if not isinstance(fitted.header.get("fitted_on"), dict):
        fitted.header["fitted_on"] = {}
    return fitted


def carry_through(plugin: Plugin, fitted: Map, old: Backbone | None, classes: Classes) -> Outcome | None:
    """Through a map that is there: no picture is needed. ``old`` None: without the old tower, and then None where the
    plug-in needs it. Raises UserError for a method that no map of features carries."""
    if plugin.ported is None and (reason := on_features(METHODS[plugin.method])):
        raise UserError(f"a map cannot carry {plugin.method}: {reason}")
    method = without_tower(plugin, classes) if old is None else bound(plugin, old, classes)
    if method is None:
        return None
    new = fitted.header["new"]
    ported = Mapped.through(fitted, kept(method, classes), classes, new["fingerprint"])
    told = {"port": "map", "name": fitted.about["name"], "needs": ["map"], "agreement": None, "zero_agreement": None}
    sides = {side: {name: fitted.header[side][name] for name in OF_BACKBONE} for side in ("old", "new")}
    return Outcome(ported, {**told, **sides, "fit": fitted.header["score"]})
