"""GradFix (Rinaldi et al. 2025): of a change of weights only what the new backbone's own loss would agree with is kept.

At labelled pictures, ``g = sign(-grad)`` of the new backbone's zero-shot cross-entropy; an entry of the change whose
sign is another than g's becomes 0, and the rest is added (fillo-rinaldi/GradFix, grad_sign/gradient_sign_common.py). No
step is taken and no strength chosen: alpha is 1, where the authors report the best of ten on the test set. The authors
carry the image tower alone; here both, with the plug-in's own prompts: of CLIP-LoRA its changes of query, key and
value, of a task vector or WiSE-FT the differences of all weights that the new backbone has by name and shape, whose
alpha is their ``share``.

Letters: N pictures, C classes, D joint width, L blocks, W a tower's own width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.attention import matrices, open_projections, weights
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.errors import UserError
from carryover.bench.ports import frozen
from carryover.bench.ports.base import Port, Ported, register
from carryover.bench.ports.carried import Carried
from carryover.bench.ports.weight_deltas import (
    Masked,
    halves,
    left_out,
    method_of,
    on_weights,
    parts,
    refusal,
    remade,
    stacks,
    strength,
)
from carryover.methods.asks import fits
from carryover.methods.base import Classes, cosine_logits
from carryover.methods.task_vector import DifferencesMethod

VOTES = ("max", "mean")
PICTURES_A_CLASS = 10  # of the authors' README
AT_ONCE = 8  # pictures of one backward pass with vote "mean"


@register("gradfix")
class GradFix(Port):
    """``vote``: "max", as published, takes for each weight the sign that most pictures have (one backward pass a
    picture), "mean" the sign of the mean gradient. ``pictures``: of a class at most, the first ones."""

    name = "GradFix"
    source = "Rinaldi et al. 2025, arXiv 2510.09658"
    needs = ("images", "labels")
    anchors = ("support",)
    place = 8.0

    def __init__(self, vote: str = "max", pictures: int = PICTURES_A_CLASS):
        if vote not in VOTES or pictures < 1:
            raise UserError(
                f"gradfix: vote is one of {', '.join(VOTES)} and pictures 1 or more; found '{vote}' and {pictures}"
            )
        self.vote, self.pictures = vote, pictures

    @classmethod
    def works_on(cls, method):
        return None if issubclass(method, DifferencesMethod) else on_weights(method)

    def fits(self, plugin, old, new):
        if (whole := differences_of(plugin)) is not None:
            if why := fits(type(whole), whole.config, whole.shape, loaded_sizes(new)):
                return why
            fit = not len(whole.differences) or whole.fitting(new)  # one without any is not trained yet
            return None if fit else f"{self.name} needs weights of the same names and shapes; {new.label} has none"
        return refusal(method_of(plugin), new, same, f"{self.name} needs towers of the same shapes")

    def fit(self, plugin, old, new, classes, anchors):
        if why := self.fits(plugin, old, new):
            raise UserError(why)
        if (whole := differences_of(plugin)) is not None:
            return self.of_differences(whole, new, classes, anchors)
        plugin = method_of(plugin)
        wrong = left_out(plugin, new, same)
        own = {tower: part for tower, part in parts(plugin).items() if tower not in wrong}
        chosen = first_of_each(anchors.labels, self.pictures)
        seen = anchors.take(chosen)
        found = signs(new, plugin.classes, seen.pixels_new(), seen.labels, tuple(own), self.vote)
        method = remade(plugin, new, {tower: (part.down.detach(), part.up.detach()) for tower, part in own.items()})
        keep, kept = {}, {}
        for tower, part in own.items():
            change = part(strength(plugin), None).detach()
            keep[tower] = agreeing(change, found[tower].to(change.device))
            kept[tower] = keep[tower].sum().item() / max(1, int(change.count_nonzero()))
        ported = Masked(method, keep, classes, new.fingerprint)
        ported.about = {
            "vote": self.vote,
            "pictures": len(chosen),
            "alpha": 1.0,
            "kept": kept,
            "marks": halves(plugin, wrong),
        }
        ported.bind(new, classes)
        return ported

    def of_differences(self, plugin: DifferencesMethod, new: Backbone, classes: Classes, anchors) -> Carried:
        """A task vector of the new backbone, of the weights that agree by name and shape."""
        chosen, changes = first_of_each(anchors.labels, self.pictures), plugin.fitting(new)
        seen = anchors.take(chosen)
        found = signs_of_weights(new, plugin.classes, seen.pixels_new(), seen.labels, tuple(changes), self.vote)
        keep = {name: agreeing(change, found[name]) for name, change in changes.items()}
        method = frozen.rebuilt(type(plugin), plugin.config, plugin.shape, plugin.learned(), {}).to(new.device)
        assert isinstance(method, DifferencesMethod)
        method.hold({name: change * keep[name] for name, change in changes.items()})
        ported, share = Carried(method, classes), {}
        for tower in ("image", "text"):
            own = [name for name in keep if name.startswith("visual.") == (tower == "image")]
            moved = sum(int(changes[name].count_nonzero()) for name in own)
            if moved:
                share[tower] = sum(int(keep[name].sum()) for name in own) / moved
        ported.about = {
            "vote": self.vote,
            "pictures": len(chosen),
            "alpha": plugin.config.share,
            "kept": share,
            "fitting": len(changes) / max(1, len(plugin.differences)),
        }
        ported.bind(new, classes)
        return ported


def differences_of(plugin) -> DifferencesMethod | None:
    method = plugin.inner() if isinstance(plugin, Ported) else plugin
    return method if isinstance(method, DifferencesMethod) else None


def same(own, there) -> bool:
    return own == there


def agreeing(change: Tensor, sign: Tensor) -> Tensor:
    """Where an entry of the change has that sign, and is not 0."""
    return (change.sign() == sign) & (change != 0)


def first_of_each(labels: Tensor, count: int) -> list[int]:
    """Rows of the first ``count`` of each class, in order."""
    left: dict[int, int] = {}
    rows = []
    for row, label in enumerate(labels.tolist()):
        left[label] = left.get(label, count) - 1
        if left[label] >= 0:
            rows.append(row)
    return rows


def signs(
    backbone: Backbone, classes: Classes, pixels: Tensor, labels: Tensor, towers: tuple[str, ...], vote: str
) -> dict[str, Tensor]:
    """By tower (L, 3 W, W) of -1, 0 and 1: the way in which the zero-shot loss at pixels (N, 3, H, H) of labels (N,)
    falls, in the query, key and value matrices. The towers come out as they were.

    A picture's loss reaches the text tower through the class features (C, D) alone, so its graph is made once and each
    picture sends its gradient through it.
    """
    found = {}
    with contextlib.ExitStack() as opened, torch.enable_grad():
        for tower in towers:
            stack = stacks(backbone)[tower]
            nothing = torch.zeros(len(stack), 3 * stack.width, stack.width, device=backbone.device, requires_grad=True)
            opened.enter_context(open_projections(stack))(nothing)
            found[tower] = [weight for block in stack.blocks for weight in weights(matrices(block))]
        totals = voted(backbone, classes, pixels, labels, found, vote)
    return {
        tower: torch.cat(own).view(-1, 3 * own[0].shape[1], own[0].shape[1]).sign().detach()
        for tower, own in totals.items()
    }


def signs_of_weights(
    backbone: Backbone, classes: Classes, pixels: Tensor, labels: Tensor, names: Sequence[str], vote: str
) -> dict[str, Tensor]:
    """By name, as ``signs``, of weights of the two towers."""
    own = {name: value for name, value in backbone.model.named_parameters() if name in set(names)}
    towers = {"image": [name for name in own if name.startswith("visual.")]}
    towers["text"] = [name for name in own if name not in towers["image"]]
    found = {tower: [own[name].requires_grad_() for name in those] for tower, those in towers.items() if those}
    try:
        with torch.enable_grad():
            totals = voted(backbone, classes, pixels, labels, found, vote)
    finally:
        for value in own.values():
            value.requires_grad_(False)
    return {
        name: total.sign().detach()
        for tower, sums in totals.items()
        for name, total in zip(towers[tower], sums, strict=True)
    }


def voted(
    backbone: Backbone, classes: Classes, pixels: Tensor, labels: Tensor, found: Mapping[str, list[Tensor]], vote: str
) -> dict[str, list[Tensor]]:
    """By tower, for each of its weights that ask for gradients, how many pictures more would have it larger than
    smaller, or the sum of what each would add."""
    labels = labels.to(backbone.device).long()
    totals = {tower: [torch.zeros_like(weight) for weight in own] for tower, own in found.items()}
    classifier = backbone.classifier(classes)
    leaf = classifier.detach().requires_grad_()
    rows = 1 if vote == "max" else AT_ONCE
    for x, y in zip(pixels.split(rows), labels.split(rows), strict=True):
        loss = F.cross_entropy(cosine_logits(backbone.scale, backbone.encode_images(x), leaf), y, reduction="sum")
        # Some weights take no part: the bias of SigLIP's loss, the caption decoder of CoCa.
        at_classes, *gradients = torch.autograd.grad(loss, [leaf, *found.get("image", [])], materialize_grads=True)
        if "text" in found:
            gradients += torch.autograd.grad(
                classifier, found["text"], at_classes, retain_graph=True, materialize_grads=True
            )
        for total, gradient in zip([*totals.get("image", []), *totals.get("text", [])], gradients, strict=True):
            total -= gradient.sign_() if vote == "max" else gradient
    return totals
