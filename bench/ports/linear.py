"""Linear map by ridge regression from the new space into the old one; its strength is chosen by the exact leave-one-out
error on the anchors, so no label is read."""

from __future__ import annotations

from carryover.bench.ports.base import Port, on_features, register
from carryover.bench.ports.frozen import kept
from carryover.bench.ports.mapped import Mapped
from carryover.bench.ports.maps import Linear


@register("linear")
class ThroughLinear(Port):
    name = "Ridge"
    source = "Hoerl and Kennard 1970; strength by leave-one-out, Allen 1974"
    needs = ("images", "old_model")
    closed_form = True
    place = 2.0

    @classmethod
    def works_on(cls, method):
        return on_features(method)

    def fit(self, plugin, old, new, classes, anchors):
        fitted = anchors.once("linear", lambda: Linear().fit(anchors.old, anchors.new))
        return Mapped.through(fitted, kept(plugin, classes), classes, new.fingerprint)
