"""Map fitted on texts alone: the class names and common nouns through both text towers; no picture is needed.

Both sides are centred by the means of these texts. The means of pictures, which differ from those of texts, are not
known without pictures: they are left out, and features are only turned, so the length of each stays as it is.
"""

from __future__ import annotations

import torch

from carryover.bench.ports.base import Port, on_features, register
from carryover.bench.ports.frozen import kept
from carryover.bench.ports.mapped import Mapped
from carryover.bench.ports.maps import Procrustes
from carryover.methods.base import Classes


@register("texts")
class ThroughTexts(Port):
    name = "Texts"
    source = "Maiorca et al. 2023, arXiv 2311.00664, on the texts' features"
    needs = ("texts", "old_model")
    anchors = ("texts",)
    closed_form = True
    place = 4.0

    @classmethod
    def works_on(cls, method):
        return on_features(method)

    def fit(self, plugin, old, new, classes, anchors):
        fitted = anchors.once(f"texts of {classes.dataset}", lambda: on_texts(old, new, classes, anchors.nouns))
        turned, still = fitted.matrix / fitted.about["scale"], torch.zeros
        ported = Mapped(turned, still(new.dim), still(old.dim), kept(plugin, classes), classes, new.fingerprint)
        ported.about, ported.fitted = {**fitted.about, "scale": 1.0}, fitted
        return ported


def on_texts(old, new, classes: Classes, nouns: tuple[str, ...]) -> Procrustes:
    """From the features of names and nouns in the dataset's first template."""
    names = tuple(dict.fromkeys((*classes.names, *nouns)))
    read = Classes(classes.dataset, names, classes.templates[:1])
    return Procrustes().fit(old.zero_shot(read), new.zero_shot(read))
