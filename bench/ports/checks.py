"""What a port tells of itself before any label is read: from these numbers its accuracy is forecast.

The anchors are left out in five parts, each in turn: the port is fitted on the rest, and the old plug-in and the ported
one are asked about the same pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.base import Port, Ported
from carryover.bench.ports.frozen import zero_shot
from carryover.methods.base import Classes

FOLDS = 5


def checked(
    port: Port, ported: Ported, plugin: Any, old: Any, new: Any, classes: Classes, anchors: Anchors
) -> dict[str, float]:
    """agreement       share of anchors on which both give the same class, ported without them
    zero_agreement  share of anchors on which the new zero-shot model gives the old plug-in's class
    entropy         mean entropy (nats) of the ported plug-in's answers on them
    confidence      mean probability of its answers
    fit             of a map, R² on anchors that it was fitted without (``Map.score_``)
    Nothing for ports that are no closed form, for each fit is dear; the fit alone where anchors are no pictures."""
    fitted = getattr(ported, "fitted", None)
    told = {} if fitted is None else {"fit": fitted.score_}
    if not port.closed_form or "images" not in anchors.needs or len(anchors) < 2:
        return told
    before = answers(plugin, anchors.old)
    zero = answers(zero_shot(new, classes), anchors.new) == before
    agreed, entropy, confidence = [], [], []
    for rows, rest in anchors.folds(FOLDS):
        other = port.fit(plugin, old, new, classes, rest)
        other.bind(new, classes)
        with torch.no_grad():
            logits = other.predict(anchors.new[rows]).float()
        log = logits.log_softmax(-1)
        agreed.append(logits.argmax(-1) == before[rows])
        entropy.append(-(log.exp() * log).sum(-1))
        confidence.append(log.max(-1).values.exp())
    found = {"agreement": agreed, "zero_agreement": [zero], "entropy": entropy, "confidence": confidence}
    return told | {name: float(torch.cat(parts).float().mean()) for name, parts in found.items()}


@torch.no_grad()
def answers(plugin: Any, x: Tensor) -> Tensor:
    """(N,) classes."""
    return plugin.logits(x).argmax(-1)
