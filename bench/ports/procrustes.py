"""Procrustes (Schönemann 1966; for latent spaces Maiorca et al. 2023): one orthogonal map from the new space into the
old one, and a scale.

Both sides are centred by their own means over the anchors. No label is read and no hyper-parameter chosen. Directions
in which no anchor varies are dropped (``bench.ports.maps``).
"""

from __future__ import annotations

from carryover.bench.ports.base import Port, on_features, register
from carryover.bench.ports.frozen import kept
from carryover.bench.ports.mapped import Mapped
from carryover.bench.ports.maps import Procrustes


@register("procrustes")
class ThroughProcrustes(Port):
    name = "Procrustes"
    source = "Schönemann 1966; Maiorca et al. 2023, arXiv 2311.00664"
    needs = ("images", "old_model")
    closed_form = True
    place = 1.0

    @classmethod
    def works_on(cls, method):
        return on_features(method)

    def fit(self, plugin, old, new, classes, anchors):
        fitted = anchors.once("procrustes", lambda: Procrustes().fit(anchors.old, anchors.new))
        return Mapped.through(fitted, kept(plugin, classes), classes, new.fingerprint)
