"""Delta: the new model's zero-shot answer, plus what the plug-in changed on the old model, through the map.

Emulated fine-tuning (Mitchell et al. 2023) and proxy tuning (Liu et al. 2024) add ``log p_plugged - log p_zero-shot``
of the old model to the new one's, and run the old model at prediction. Here the Procrustes map stands in its place:

    log p_new(x) + log p_plugged(m(x)) - log p_zero-shot(m(x))
"""

from __future__ import annotations

from torch import Tensor

from carryover.bench.ports import frozen
from carryover.bench.ports.base import Port, on_features, register
from carryover.bench.ports.frozen import ClassRows, kept, zero_shot
from carryover.bench.ports.mapped import Mapped, inside
from carryover.bench.ports.maps import Procrustes


class Delta(Mapped):
    """Beside what `Mapped` holds, the zero-shot classifiers of both backbones, (C, Do) and (C, Dn)."""

    kind = "delta"
    zero_old: ClassRows
    zero_new: ClassRows

    def logits(self, x: Tensor) -> Tensor:
        old = self.old(x)
        changed = self.head.logits(old).log_softmax(-1) - self.zero_old.logits(old).log_softmax(-1)
        return self.zero_new.logits(x).log_softmax(-1) + changed

    def state(self):
        tensors, header = super().state()
        for name in ("zero_old", "zero_new"):
            tensors |= {f"{name}.{key}": value for key, value in getattr(self, name).state()[0].items()}
        return tensors, header

    @classmethod
    def restore(cls, tensors, header):
        made = super().restore(tensors, header)
        for name in ("zero_old", "zero_new"):
            setattr(made, name, frozen.restored(inside(name, tensors), {"head": "class rows"}))
        return made


@register("delta")
class ThroughDelta(Port):
    name = "Delta"
    source = "Mitchell et al. 2023, arXiv 2310.12962; Liu et al. 2024, arXiv 2401.08565; old model replaced by a map"
    needs = ("images", "old_model")
    closed_form = True
    place = 3.0

    @classmethod
    def works_on(cls, method):
        return on_features(method)

    def fit(self, plugin, old, new, classes, anchors):
        fitted = anchors.once("procrustes", lambda: Procrustes().fit(anchors.old, anchors.new))
        ported = Delta.through(fitted, kept(plugin, classes), classes, new.fingerprint)
        ported.zero_old, ported.zero_new = zero_shot(old, classes), zero_shot(new, classes)
        return ported
