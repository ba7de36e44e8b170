"""Reuse: the plug-in as it is, which is what the paper asks about."""

from __future__ import annotations

from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.ports.base import Port, register
from carryover.bench.ports.carried import Carried, copied
from carryover.methods.asks import fits


@register("reuse")
class Reuse(Port):
    name = "Reuse"
    source = "arXiv 2412.20895"
    anchors = ()
    closed_form = True
    place = 0.0

    def fits(self, plugin, old, new):
        return fits(type(plugin), plugin.config, plugin.shape, loaded_sizes(new))

    def fit(self, plugin, old, new, classes, anchors):
        ported = Carried(copied(plugin).to(new.device), classes)
        ported.bind(new, classes)
        return ported
