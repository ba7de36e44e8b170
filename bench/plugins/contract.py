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

from carryover.bench import ports
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.backbones.sizes import Sizes, loaded_sizes, sizes_of
from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.host.untouched import OwnDraws
from carryover.bench.plan.port_specs import carriers
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.homes import left_home, misnamed
from carryover.bench.plugins.ported import is_among
from carryover.bench.ports.base import Ported
from carryover.datasets.base import Dataset
from carryover.methods.asks import fits
from carryover.methods.base import METHODS, Classes, Method, TrainConfig

FEW = 3  # classes that a trial binds to, beside the longest
NAMED = 8  # names that a line lists


class Incompatible(UserError):
    """A plug-in that cannot be evaluated there; ``reasons`` says all why."""

    def __init__(self, plugin: Plugin, tower: Tower, data: Dataset, reasons: Sequence[str], advice: str = ""):
        self.reasons = list(reasons)
        told = [f"({number}) " * (len(reasons) > 1) + reason for number, reason in enumerate(reasons, start=1)]
        super().__init__(
            f"'{plugin.path}' ({plugin.method}) is incompatible with {tower.label} on {data.id} because "
            f"{'; '.join(told)}{advice}"
        )


def check(
    plugin: Plugin, tower: Tower, data: Dataset, backbone: Backbone | None = None, cache_dir: str | None = None
) -> TrainConfig:
    """The plug-in's config. Raises Incompatible naming every mismatch; needs no weights. ``tower`` with W and D filled
    in, as ``backbones.resolve`` does. ``backbone``: the tower, where it is loaded already; else what its config and
    tokenizer need is looked for in ``cache_dir``."""
    kind, data = METHODS[plugin.method], worded(plugin, data)
    config, wrong = config_of(kind, plugin.header["config"])
    widths = unlike(plugin, config, loaded_sizes(backbone) if backbone else sizes_of(tower, cache_dir))
    own: dict[str, Tensor] | None = None
    if config is not None:
        try:
            own = made(kind, config, plugin)
            wrong += of_tensors(own, plugin.tensors) + left_open(kind, config, plugin)
        except UserError as error:
            wrong.append(str(error))
    reasons = [*widths, *wrong, *left_home(plugin, backbone or tower)]
    try:
        backbone = backbone or architecture(tower, cache_dir)
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
        advice = f". {to_carry(plugin.method)}" if widths and not wrong else ""
        raise Incompatible(plugin, tower, data, reasons, advice)
    return config


def to_carry(method: str) -> str:
    """By which ports the command ``port`` carries a method, whose pictures have no labels."""
    ports.discover()  # not all callers have
    ids = [one.id for one in carriers(method) if "labels" not in one.needs]
    return f"To carry it over: port --port {' or '.join(ids)} (docs/ports.md)" if ids else "No port carries it"


def worded(plugin: Plugin, data: Dataset) -> Dataset:
    """The dataset with the prompts that the plug-in brings along, if any."""
    return replace(data, templates=plugin.templates) if plugin.templates else data


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


def unlike(plugin: Plugin, config: TrainConfig | None, sizes: Sizes) -> list[str]:
    """What it needs of a backbone by its shape and config, and what is there; empty where it has that."""
    kind = METHODS[plugin.method]
    reason = fits(kind, config or kind.Config(), plugin.shape, sizes)
    return [reason] if reason else []


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
    if callable(sized := getattr(method, "sized", None)):  # what it learns goes by more than its shape
        sized(plugin.tensors)
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


def architecture(tower: Tower, cache_dir: str | None = None) -> Backbone:
    """The backbone with random weights: shapes, tokenizer and blocks are its own, and nothing is downloaded."""
    with OwnDraws():
        transform = loading.transform_of_tag(tower)
        model = loading.build(tower.model, cache_dir=cache_dir, force_preprocess_cfg=transform)
    loading.check(model, tower)
    return Backbone(model, tower, loading.tokenizer(tower.model, cache_dir))


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
