"""Values of options that few-shot validation chooses: each candidate is fitted as a method of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from carryover.methods.base import Method, Support, TrainConfig


def retrained(own: TrainConfig, training: TrainConfig) -> TrainConfig:
    """A plug-in's own options with another training's: of chosen values those of the plug-in itself stay, those of its
    training are chosen anew."""
    return replace(own, **{name: getattr(training, name) for name in TrainConfig.__dataclass_fields__})


def spread(method: Method) -> list[Method]:
    """The methods that are fitted in its place: itself where it leaves nothing open, else a copy a candidate."""
    candidates = method.candidates()
    if candidates == [{}]:
        return [method]
    copies = [copy.deepcopy(method) for _ in candidates]
    for one, values in zip(copies, candidates, strict=True):
        one.choose(values)
    return copies


@torch.no_grad()
def keep_best(method: Method, fitted: Sequence[Method], alive: Sequence[bool], support: Support) -> int:
    """The method takes what the best of the candidates learned, and its values; returns which that is. Best is the
    highest accuracy on few-shot validation; of equals, which so few pictures often leave, the lowest cross-entropy
    there, then the first. ``alive``: whose loss stayed finite, at least one."""
    scores: list[tuple[int, float]] = []
    losses, counts = [], []
    for one in fitted:
        one.eval()
        logits = one.logits(support.val_features)
        losses.append(F.cross_entropy(logits, support.val_labels))
        counts.append((logits.argmax(-1) == support.val_labels).sum())
    reached_by_each = zip(fitted, alive, torch.stack(losses).tolist(), torch.stack(counts).tolist(), strict=True)
    for one, lives, loss, right in reached_by_each:
        share = 100 * right / max(1, len(support.val_labels))
        reached = {"validation": share, "validation_loss": loss} if lives and math.isfinite(loss) else {}
        method.tried.append({**one.chosen, **reached})
        scores.append((right, -loss) if reached else (-1, -math.inf))
    best = max(range(len(fitted)), key=scores.__getitem__)
    method.load_state_dict(fitted[best].state_dict())
    method.choose(fitted[best].chosen)
    return best
