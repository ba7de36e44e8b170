"""The cross-backbone evaluator. Test labels are read here alone; the one exception is a protocol that publishes numbers
chosen on test images (Tip-Adapter's option), which is marked in every table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports.base import Ported
from carryover.methods.base import Classes, Method

ROWS = 4096  # test features handed to a method at a time; a method that makes prompts an image chunks further itself


def evaluate(
    method: Method | Ported, backbone: Backbone, classes: Classes, inputs: Any, labels: Tensor
) -> dict[str, Tensor]:
    """Bind the plug-in, ported or not, to this backbone and predict.

    inputs as the method ``needs`` them: features (N, D), of views (N, V, D), or ``bench.features.pixels.Pictures``;
    labels (N,) -> {"predicted" (N,) int32, "label" (N,) int32, "confidence" (N,) fp32}.
    Raises UserError for logits of the wrong shape or that are not finite.
    """
    method.eval()
    method.bind(backbone, classes)
    predicted, confidence = [], []
    with method.attach(backbone), torch.no_grad():
        for part in inputs.split(ROWS):
            logits = method.predict(part).float()
            if logits.shape != (len(part), len(classes)):
                raise UserError(
                    f"{type(method).__name__} gave logits of shape {tuple(logits.shape)}, "
                    f"expected {(len(part), len(classes))} (images, classes)"
                )
            if not torch.isfinite(logits).all():
                raise UserError(f"{type(method).__name__} gave logits that are not finite on {backbone.label}")
            best = logits.softmax(-1).max(-1)
            predicted.append(best.indices.int().cpu())
            confidence.append(best.values.cpu())
    return {"predicted": torch.cat(predicted), "label": labels.int().cpu(), "confidence": torch.cat(confidence)}


def score(outcome: dict[str, Tensor]) -> dict:
    """Top-1 accuracy over all test images, in percent, with its counts."""
    correct, count = int((outcome["predicted"] == outcome["label"]).sum()), len(outcome["label"])
    return {"correct": correct, "count": count, "accuracy": 100 * correct / count}
