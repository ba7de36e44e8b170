"""The cross-backbone evaluator. Predictions are made first, where no label is at hand; test labels are read when all
predictions of a run are there. The one exception is a protocol that publishes numbers chosen on test images
(Tip-Adapter's option), which is marked in every table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone
from carryover.bench.errors import UserError
from carryover.bench.ports.base import Ported
from carryover.bench.seeds import derive
from carryover.datasets.withheld import no_labels
from carryover.methods.base import Classes, Method

ROWS = 4096  # test features handed to a method at a time; a method that makes prompts an image chunks further itself

SAMPLE = 8  # test images that are asked about a second time, in other company
# How far logits may then lie apart, for kernels round otherwise for other numbers of rows: parts of the largest one's
# distance from the median, and of themselves; and the lead in probability below which that may decide a class. Wide,
# for what the batch decides moves them by far more.
ROUNDING = {"fp32": (1e-2, 1e-3, 0.03), "bf16": (5e-2, 1e-2, 0.25)}
DEPENDS = "its answer for an image depends on the other images of the batch"
VARIES = "its answer for an image is another when it is asked again"


@dataclass(frozen=True)
class Sample:
    """Some of the test images and what was answered about them among all: inputs (K, …), logits (K, C)."""

    inputs: Tensor
    logits: Tensor


def predict(
    method: Method | Ported, backbone: Backbone, classes: Classes, inputs: Any
) -> tuple[dict[str, Tensor], Sample]:
    """Bind the plug-in, ported or not, to this backbone and predict.

    inputs as the method ``needs`` them: features (N, D), of views (N, V, D), or ``bench.features.pixels.Pictures``
    -> {"predicted" (N,) int32, "confidence" (N,) fp32}, and the sample that ``depends_on_company`` asks about again.
    A method that says ``transductive`` and reads features is given the images in the order of ``stream_of``, in parts
    of ROWS one after the other; the answers are in the order of ``inputs``.
    Raises UserError for logits of the wrong shape or that are not finite.
    """
    found, drawn = [], {}
    order = stream_of(len(inputs)) if isinstance(inputs, Tensor) and getattr(method, "transductive", False) else None
    if order is not None:
        inputs = inputs[order.to(inputs.device)]
    start, shuffled = 0, sample_of(len(getattr(inputs, "pictures", inputs))).tolist()
    with no_labels():
        method.eval()
        method.bind(backbone, classes)
        with method.attach(backbone), torch.no_grad():
            for part in inputs.split(ROWS):
                logits = method.predict(part).float()
                if logits.shape != (len(part), len(classes)):
                    raise UserError(
                        f"{type(method).__name__} gave logits of shape {tuple(logits.shape)}, "
                        f"expected {(len(part), len(classes))} (images, classes)"
                    )
                best, finite = logits.softmax(-1).max(-1), torch.isfinite(logits).all(-1)
                found.append(torch.stack([best.indices.int(), best.values.view(torch.int32), finite.int()]))
                here = [image for image in shuffled if start <= image < start + len(part)]
                drawn.update({image: (part[image - start].clone(), logits[image - start].clone()) for image in here})
                start += len(part)
    predicted, bits, finite = torch.cat(found, dim=1).cpu()  # once, so that the device is not kept waiting
    if not finite.all():
        raise UserError(f"{type(method).__name__} gave logits that are not finite on {backbone.label}")
    if order is not None:
        predicted, bits = (one[order.argsort()] for one in (predicted, bits))
    sample = Sample(*map(torch.stack, zip(*(drawn[image] for image in shuffled), strict=True)))
    return {"predicted": predicted.contiguous(), "confidence": bits.contiguous().view(torch.float32)}, sample


def stream_of(count: int) -> Tensor:
    """(N,) the order in which test images come to a method that predicts some with the help of others. Drawn by their
    number alone, so that every backbone and seed sees the same one: files lie class by class, and a stream does not."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive("stream", count)))


def sample_of(count: int) -> Tensor:
    """(K,) of ``count`` images in a shuffled order: less than half of them, so that most of their company is gone."""
    drawn = torch.Generator().manual_seed(derive("company", count))
    return torch.randperm(count, generator=drawn)[: max(1, min(SAMPLE, count // 3))]


def depends_on_company(
    fresh: Callable[[], Method | Ported], backbone: Backbone, classes: Classes, sample: Sample
) -> str:
    """The mark of a method by which the images of the sample are answered otherwise by themselves, in another order,
    than among all: it makes use of the batch, or of what it was asked before, or of chance. "" where they are not.
    Asked when all predictions are made.

    fresh: gives the method as it was before any question, for what it keeps of its first answers it would repeat.
    """

    def alone() -> Tensor:
        method = fresh()
        with no_labels():
            method.eval()
            method.bind(backbone, classes)
            with method.attach(backbone), torch.no_grad():
                return method.predict(sample.inputs).float()

    def other(one: Tensor, two: Tensor) -> bool:
        return one.shape != two.shape or differ(one, two, backbone.text.precision)

    found = alone()
    if not other(sample.logits, found):
        return ""
    return VARIES if other(found, alone()) else DEPENDS


def differ(one: Tensor, other: Tensor, precision: str) -> bool:
    """Whether logits (K, C) of the same images are more than rounding apart, or say another class by more than that."""
    near, of_itself, tie = ROUNDING[precision]
    distance = one.max(-1, keepdim=True).values - one.median(-1, keepdim=True).values
    apart = (one - other).abs() > near * distance + of_itself * one.abs()
    lead = torch.minimum(*(lead_of(logits, one.argmax(-1)) for logits in (one, other)))
    return bool(apart.any() or (lead < -tie).any())


def lead_of(logits: Tensor, predicted: Tensor) -> Tensor:
    """(K,) probability of that class, less that of the best other one."""
    shares = logits.softmax(-1)
    own = shares.gather(-1, predicted[:, None])[:, 0]
    return own - shares.scatter(-1, predicted[:, None], -1.0).max(-1).values


def labelled(outcome: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """With the labels (N,) as "label", int32."""
    return {"predicted": outcome["predicted"], "label": labels.int().cpu(), "confidence": outcome["confidence"]}


def score(outcome: dict[str, Tensor]) -> dict:
    """Top-1 accuracy over all test images, in percent, with its counts."""
    correct, count = int((outcome["predicted"] == outcome["label"]).sum()), len(outcome["label"])
    return {"correct": correct, "count": count, "accuracy": 100 * correct / count}
