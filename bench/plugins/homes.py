"""Whose backbone it is: the one that a plug-in was trained on or ported to, another one, or one that cannot be told;
and what else ought to be known of the file, though it is no obstacle."""

from __future__ import annotations

from typing import Any

from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.names import differ
from carryover.bench.errors import quoted
from carryover.bench.host.source_identity import same_scheme
from carryover.bench.plugins.format import Plugin
from carryover.bench.ports.base import Ported
from carryover.methods import source_hash
from carryover.methods.base import METHODS

EMPTY = (
    "the file holds no tensor: {} leaves nothing learned to carry over, so what is evaluated is the method as it starts"
)


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


def other_home(plugin: Plugin, ported: Ported, backbone: Backbone) -> list[str]:
    """Why a ported plug-in does not belong to the backbone, now that its weights are read."""
    if ported.home in ("", backbone.fingerprint):
        return []
    new = quoted(plugin.header["ported"]["new"]["backbone"])
    return [
        f"it was ported to {new} of fingerprint {ported.home[:12]}, {backbone.label} has {backbone.fingerprint[:12]}: "
        "port the plug-in that it was made of to this one (its own old backbone needs no port)"
    ]
