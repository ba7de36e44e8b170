"""Whether a plug-in fits a backbone and a dataset, and if not, why: all that is wrong at once, before any picture.

No weights are needed: what only a tower can tell (long names, layers, attaching) is tried on one of the backbone's
architecture with random weights, with a few classes and one image.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.backbones.names import differ
from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.host.source_identity import same_scheme
from carryover.bench.host.untouched import OwnDraws
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.ported import is_among
from carryover.bench.ports.base import Ported
from carryover.datasets.base import Dataset
from carryover.methods import source_hash
from carryover.methods.base import METHODS, Classes, Method, TrainConfig

FEW = 3  # classes that a trial binds to, beside the longest
EMPTY = (
    "the file holds no tensor: {} leaves nothing learned to carry over, so what is evaluated is the method as it starts"
)
NAMED = 8  # names that a line lists


class Incompatible(UserError):
    """A plug-in that cannot be evaluated there; ``reasons`` says all why."""

    def __init__(self, plugin: Plugin, tower: Tower, data: Dataset, reasons: Sequence[str]):
        self.reasons = list(reasons)
        super().__init__(
            f"'{plugin.path}' ({plugin.method}) is incompatible with {tower.label} on {data.id} because "
            + "; ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))
        )


def check(plugin: Plugin, tower: Tower, data: Dataset, backbone: Backbone | None = None) -> TrainConfig:
    """The plug-in's config. Raises Incompatible naming every mismatch; needs no weights. ``tower`` with W and D filled
    in, as ``backbones.resolve`` does. ``backbone``: the tower, where it is loaded already."""
    kind, widths, data = METHODS[plugin.method], widths_of(plugin, tower), worded(plugin, data)
    config, wrong = config_of(kind, plugin.header["config"])
    own: dict[str, Tensor] | None = None
    if config is not None:
        try:
            own = made(kind, config, plugin)
            wrong += of_tensors(own, plugin.tensors) + left_open(kind, config, plugin)
        except UserError as error:
            wrong.append(str(error))
    reasons = [*widths, *wrong, *left_home(plugin, backbone or tower)]
    try:
        backbone = backbone or architecture(tower)
        long = too_long(backbone, data.classnames)
        if long:
            most = backbone.text.text.context_length
            reasons.append(f"class names longer than the text tower's {most} tokens: {listed(long)}")
        if config is not None and own is not None and not of_tensors(own, plugin.tensors):
            names = [name for name in data.classnames if name not in long]
            reasons += on_model(kind, config, plugin, data, names, backbone, rows_only=bool(widths or long))
    except UserError as error:  # of the architecture itself: activation, tokenizer, no text tower of CLIP's kind
        reasons.append(str(error))
    if reasons or config is None:
        raise Incompatible(plugin, tower, data, reasons)
    return config


def worded(plugin: Plugin, data: Dataset) -> Dataset:
    """The dataset with the prompts that the plug-in brings along, if any."""
    return replace(data, templates=plugin.templates) if plugin.templates else data


def left_home(plugin: Plugin, backbone: Tower | Backbone) -> list[str]:
    """Why a plug-in cannot be evaluated on the backbone it was trained on, where it is not all that training left."""
    if METHODS[plugin.method].whole or not at_home(plugin, backbone):
        return []
    return [
        f"{plugin.method} trained towers of {backbone.label} too, and what they became is not in the file: it can be "
        "evaluated on other backbones alone"
    ]


def of_source(plugin: Plugin) -> list[str]:
    """Whether the method's code is the one that the plug-in was trained with, where it is not."""
    found, now = [], source_hash(METHODS[plugin.method])
    source = plugin.header["source"]
    if source and not same_scheme(source, now):
        found.append(
            f"whether {plugin.method} has changed since the plug-in was trained is not known: the file names the "
            "method's source by another kind of hash than this version's"
        )
    elif source and source != now:
        was, is_now = (text.rpartition(":")[2][:12] for text in (source, now))
        found.append(
            f"{plugin.method} has changed since the plug-in was trained (source {was}, now {is_now}): the numbers can "
            "differ from those it was trained with"
        )
    return found


def warnings_of(plugin: Plugin, backbone: Tower | Backbone) -> list[str]:
    """What is no obstacle but ought to be known."""
    found = of_source(plugin)
    if plugin.ported is not None:
        return found + unsure_of(plugin, backbone)
    if at_home(plugin, backbone) and (port := carried_by(plugin)):
        found.append(f"port {port} carried it to {backbone.label} and left an ordinary plug-in of that backbone")
    elif at_home(plugin, backbone):
        found.append(f"{backbone.label} is the backbone it was trained on: this is its Base, nothing is carried over")
    return found + ([] if plugin.tensors else [EMPTY.format(plugin.method)])


def unsure_of(plugin: Plugin, backbone: Tower | Backbone) -> list[str]:
    """Of a plug-in that was ported from stored features: which backbone gave them is what their user said."""
    new = plugin.header["ported"]["new"]
    if new["fingerprint"] is not None:
        return []
    return [
        f"it was ported from stored features of a backbone named {quoted(new['backbone'])}; whether {backbone.label} "
        "is that very one cannot be checked"
    ]


def misnamed(home: dict[str, Any], label: str) -> str:
    """Why a backbone of that label is not the one that a header names, where the header proves none by fingerprint and
    both names are known; empty where it may be."""
    if home["fingerprint"] is not None or not differ(home["backbone"], label):
        return ""
    return f"it belongs to {quoted(home['backbone'])} by its file, {label} is another one"


def doubt(home: dict[str, Any], label: str) -> list[str]:
    """A note where neither fingerprint nor name can tell whether it is the one that a header names."""
    if home["fingerprint"] is not None or differ(home["backbone"], label) is not None:
        return []
    return [
        f"the file proves no backbone: it names {quoted(home['backbone'])}, and whether {label} is that very one "
        "cannot be checked"
    ]


def at_home(plugin: Plugin, backbone: Tower | Backbone) -> bool:
    """Whether it is the backbone it was trained on: by fingerprint, or where that is not known by name, which tells
    nothing of a local file."""
    if isinstance(backbone, Backbone) and plugin.home["fingerprint"] is not None:
        return plugin.home["fingerprint"] == backbone.fingerprint
    tower = backbone.tower if isinstance(backbone, Backbone) else backbone
    return plugin.home["backbone"] == tower.label and not tower.weights


def carried_by(plugin: Plugin) -> str:
    """The port that left this file of version 1; empty where a run wrote it."""
    told = plugin.header.get("ported")
    port = told.get("port") if isinstance(told, dict) else None
    return quoted(port, 20)[1:-1] if isinstance(port, str) else ""


def check_ported(plugin: Plugin, ported: Ported, tower: Tower, data: Dataset) -> None:
    """Whether a ported plug-in answers there. Raises Incompatible naming every mismatch; needs no weights."""
    reasons, own, given = [], ported.classes.names, data.classnames
    if (dim := plugin.header["ported"]["new"]["dim"]) != tower.dim:
        reasons.append(f"joint width D: it was ported to {dim}, {tower.label} has {tower.dim}")
    if reason := misnamed(plugin.header["ported"]["new"], tower.label):
        reasons.append(reason)
    if strange := [name for name in dict.fromkeys(given) if name not in set(own)]:
        reasons.append(
            f"it was ported with its own {len(own)} classes; {len(strange)} of {data.id} are none of them: "
            f"{listed(strange)}"
        )
    elif own != given and not is_among(given, own):
        reasons.append(
            f"it was ported with its {len(own)} classes, found {len(given)}, with names that stand there twice"
        )
    if ported.needs != "features":
        reasons.append("it looks into the image tower, which no file of a ported plug-in can be evaluated with yet")
    if reasons:
        raise Incompatible(plugin, tower, data, reasons)


def other_home(plugin: Plugin, ported: Ported, backbone: Backbone) -> list[str]:
    """Why a ported plug-in does not belong to the backbone, now that its weights are read."""
    if ported.home in ("", backbone.fingerprint):
        return []
    new = quoted(plugin.header["ported"]["new"]["backbone"])
    return [
        f"it was ported to {new} of fingerprint {ported.home[:12]}, {backbone.label} has {backbone.fingerprint[:12]}: "
        "port the plug-in that it was made of to this one (its own old backbone needs no port)"
    ]


def widths_of(plugin: Plugin, tower: Tower) -> list[str]:
    found = []
    for what, own, theirs in (
        ("text width W", plugin.shape.width, tower.width),
        ("joint width D", plugin.shape.dim, tower.dim),
    ):
        if own != theirs:
            found.append(f"{what}: the plug-in is for {own}, {tower.label} has {theirs}")
    return found


def config_of(kind: type[Method], given: dict[str, Any]) -> tuple[TrainConfig | None, list[str]]:
    """The method's config with those values, the method's defaults elsewhere; None and why where it cannot be."""
    default = kind.Config()
    values, wrong = {}, []
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    for name, value in given.items():
        if name not in known:
            wrong.append(f"config: {unknown('option', name, known)}")
            continue
        value, usual = tuple(value) if isinstance(value, list) else value, known[name]
        if isinstance(usual, float) and type(value) is int and abs(value) <= sys.float_info.max:
            value = float(value)
        if type(value) is not type(usual) or (isinstance(value, float) and not math.isfinite(value)):
            wrong.append(
                f"config: {name} is {quoted(repr(value))}, expected a value like {usual!r} ({type(usual).__name__})"
            )
        values[name] = value
    if wrong:
        return None, wrong
    try:
        return replace(default, **values), []
    except (UserError, TypeError, ValueError) as error:
        return None, [f"config: {first_line(error)}"]


def made(kind: type[Method], config: TrainConfig, plugin: Plugin) -> dict[str, Tensor]:
    """What the method learns with that config and shape, by name, for shapes and types alone. Raises UserError where it
    cannot be made."""
    method = built(kind, config, plugin)
    learned: dict[str, Tensor] = {name: value for name, value in method.named_parameters() if value.requires_grad}
    return learned | {name: value for name, value in method.named_buffers() if name in kind.learned_buffers}


def left_open(kind: type[Method], config: TrainConfig, plugin: Plugin) -> list[str]:
    """What the config leaves to few-shot validation, other than how to train: there is none here, and the method's
    default stands for no value at all."""
    try:
        candidates = built(kind, config, plugin).candidates()
    except UserError:
        raise
    except Exception as error:  # a method of anyone's raises what it likes
        raise UserError(f"{plugin.method} cannot tell its candidates: {first_line(error)}") from error
    own = sorted({name for values in candidates for name in values} - {one.name for one in fields(TrainConfig)})
    return [
        f"config: {name} is {getattr(config, name):g} or left out, which leaves it to few-shot validation; expected "
        "the value that was chosen when this was trained"
        for name in own
        if any(values.get(name) != getattr(config, name) for values in candidates)
    ]


def built(kind: type[Method], config: TrainConfig, plugin: Plugin) -> Method:
    """On torch's meta device where the method can, so that a header's large numbers take no memory."""
    try:
        try:
            with torch.device("meta"), OwnDraws():
                return kind(config, plugin.shape)
        except (NotImplementedError, RuntimeError):
            with OwnDraws():
                return kind(config, plugin.shape)
    except Exception as error:  # a method of anyone's raises what it likes
        raise UserError(f"{plugin.method} cannot be made with that config and shape: {first_line(error)}") from error


def of_tensors(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """A line for each tensor that is not the method's by name, shape, type or finite numbers. Where the method has
    floating-point numbers any width of them will do: they are taken in its own."""
    found = []
    for name, like in own.items():
        shape, dtype, one = tuple(like.shape), like.dtype, given.get(name)
        if one is None:
            found.append(f"tensor '{name}' {shape} is missing")
        elif tuple(one.shape) != shape:
            found.append(f"tensor '{name}' has shape {tuple(one.shape)}, the method's has {shape}")
        elif one.dtype != dtype and not (one.is_floating_point() and like.is_floating_point()):
            found.append(f"tensor '{name}' is of type {type_of(one)}, the method's of {type_of(like)}")
        elif not torch.isfinite(one.to(dtype)).all():
            found.append(f"tensor '{name}' holds NaN or infinity" + (f" as {type_of(like)}" * (one.dtype != dtype)))
    known = ", ".join(own) or "none"
    found += [f"tensor {quoted(name)} is none of the method's ({known})" for name in given if name not in own]
    return found


def type_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def architecture(tower: Tower) -> Backbone:
    """The backbone with random weights: shapes, tokenizer and blocks are its own, and nothing is downloaded."""
    with OwnDraws():
        model = loading.build(tower.model)
    loading.check(model, tower)
    return Backbone(model, tower, loading.tokenizer(tower.model))


def too_long(backbone: Backbone, names: Sequence[str]) -> list[str]:
    """Class names that do not fit the tower's context length."""
    try:
        backbone.text.tokens([f"{name}." for name in names])
        return []
    except UserError:
        pass
    long = []
    for name in dict.fromkeys(names):
        try:
            backbone.text.tokens([f"{name}."])
        except UserError:
            long.append(name)
    return long


def on_model(
    kind: type[Method],
    config: TrainConfig,
    plugin: Plugin,
    data: Dataset,
    names: Sequence[str],
    backbone: Backbone,
    rows_only: bool,
) -> list[str]:
    """What binding, attaching and a prediction show with some of the classes ``names``. ``rows_only``: only whether
    rows for the classes are missing, as what is wrong already would make the rest fail."""
    trained = set(plugin.shape.classnames)
    with OwnDraws():
        method = kind(config, plugin.shape).to(backbone.device).eval()
    method.load_learned(plugin.tensors)

    def bind(names: Sequence[str]) -> str:
        try:
            method.bind(backbone, Classes(data.id, tuple(names), data.templates))
            return ""
        except Exception as error:
            return first_line(error)

    strange = [name for name in dict.fromkeys(names) if name not in trained]
    usual = list(dict.fromkeys(plugin.shape.classnames))[:FEW]
    rows = bool(strange and usual) and bool(bind(strange[:FEW])) and not bind(usual)
    if rows:
        return [
            f"{plugin.method} has weights of its own for each class, and none for {len(strange)} of the "
            f"{len(data.classnames)} classes of {data.id}: {listed(strange)}"
        ]
    if rows_only:
        return []
    longest = max(names, key=lambda name: len(backbone.text.tokens([f"{name}."])[0]))
    few = list(dict.fromkeys([*names[:FEW], longest]))
    if wrong := bind(few):
        return [f"{plugin.method} cannot be bound to {backbone.label}: {wrong}"]
    try:
        with torch.no_grad(), method.attach(backbone):
            logits = method.predict(trial(kind, config, backbone))
    except Exception as error:
        return [f"{plugin.method} cannot be attached to the towers of {backbone.label}: {first_line(error)}"]
    if tuple(logits.shape) != (1, len(few)):
        return [f"{plugin.method} gives logits of shape {tuple(logits.shape)} for one image and {len(few)} classes"]
    return []


def trial(kind: type[Method], config: TrainConfig, backbone: Backbone) -> Tensor:
    """One image as the method ``needs`` it, of no meaning."""
    generator = torch.Generator().manual_seed(0)
    if kind.needs == "pixels":
        size = backbone.preprocess_config.size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        shape: tuple[int, ...] = (1, 3, height, width)
    elif kind.needs == "views":
        views: Any = kind
        shape = (1, views.test_views(config)[0], backbone.dim)
    else:
        shape = (1, backbone.dim)
    return torch.randn(shape, generator=generator).to(backbone.device)


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(quoted(name) for name in names[:NAMED]) + more
