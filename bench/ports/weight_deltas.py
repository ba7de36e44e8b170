"""What a plug-in adds to the weights of the towers, and how that becomes a plug-in of another backbone.

Of the suite's methods CLIP-LoRA's is carried: ``s B A`` on the query, key and value matrices of every block
of both towers (`methods.clip_lora.Updates`). A tower that a port cannot serve is left out, and said to be.

Letters: L blocks, r rank, W a tower's own width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carryover.bench.backbones.attention import Stack
from carryover.bench.backbones.loading import Backbone
from carryover.bench.ports import frozen
from carryover.bench.ports.base import Ported
from carryover.bench.ports.frozen import KeptMethod
from carryover.bench.ports.mapped import classes_of, inside, told
from carryover.methods.base import Classes, Method, Shape
from carryover.methods.clip_lora import ClipLora, Updates
from carryover.methods.elsewhere.lora import Lora
from carryover.methods.layer_norm import LayerNormTuning
from carryover.methods.prolip import ProLIP
from carryover.methods.task_vector import DifferencesMethod

TOWERS = ("text", "image")
Size = tuple[int, int]  # L, W
Factors = tuple[Tensor, Tensor]  # A (L, 3, r, W) and B (L, 3, W, r)
OTHER_CHANGES: dict[type[Method], str] = {
    Lora: "it may change any weight",
    LayerNormTuning: "it changes norms",
    DifferencesMethod: "it changes every weight",
    ProLIP: "it changes the last matrix alone",
}


def on_weights(method: type[Method]) -> str | None:
    """``Port.works_on`` of ports that carry a change of weights."""
    if issubclass(method, ClipLora):
        return None
    for kind, other in OTHER_CHANGES.items():
        if issubclass(method, kind):
            return f"what is carried is CLIP-LoRA's change of every query, key and value, and {other}"
    if not method.whole:
        return "what it changed in the towers is not kept in its plug-in, so there is no change of weights to carry"
    return "it changes no weight of the towers"


def method_of(plugin: Any) -> ClipLora:
    """The plug-in itself, or what an earlier port left of it."""
    method = plugin.inner() if isinstance(plugin, Ported) else plugin
    assert isinstance(method, ClipLora)
    return method


def stacks(backbone: Backbone) -> dict[str, Stack]:
    """By tower; those that have attention blocks."""
    found = {"text": backbone.text_stack, "image": backbone.image_stack}
    return {tower: stack for tower, stack in found.items() if stack is not None}


def parts(plugin: ClipLora) -> dict[str, Updates]:
    """By tower, what the plug-in adds to it."""
    return {tower: part for tower in TOWERS if (part := getattr(plugin, tower)) is not None}


def size(part: Updates) -> Size:
    return part.down.shape[0], part.down.shape[-1]


def left_out(plugin: ClipLora, new: Backbone, fit: Callable[[Size, Size], bool]) -> dict[str, str]:
    """By tower, why the plug-in's half of it cannot be carried: its first tensor and both shapes. ``fit`` says whether
    blocks of the plug-in's size can go into blocks of the new tower's."""
    found = {}
    for tower, part in parts(plugin).items():
        there, shape = stacks(new).get(tower), tuple(part.down.shape)
        if there is None:
            found[tower] = f"{tower}.down is {shape}, {new.label} has no attention blocks in its {tower} tower"
        elif not fit(size(part), (len(there), there.width)):
            wanted = (len(there), 3, shape[2], there.width)
            found[tower] = f"{tower}.down is {shape}, {new.label} takes {wanted}"
    return found


def refusal(plugin: ClipLora, new: Backbone, fit: Callable[[Size, Size], bool], need: str) -> str | None:
    """``Port.fits``: None where at least one tower's half can be carried; ``need`` says what it takes."""
    wrong = left_out(plugin, new, fit)
    if new.text_stack is None:
        return f"{new.label} has a text tower without attention blocks, which {plugin.name} needs"
    return f"{need}: {'; '.join(wrong.values())}" if set(wrong) == set(parts(plugin)) else None


def halves(plugin: ClipLora, wrong: Mapping[str, str]) -> list[str]:
    """Marks: what a table says beside the numbers of a port that left out a tower."""
    return [f"{plugin.name}'s {tower} half is left out: {why}" for tower, why in wrong.items()]


def remade(plugin: ClipLora, new: Backbone, factors: Mapping[str, Factors]) -> ClipLora:
    """A plug-in of the new backbone that adds these; a text tower without any keeps its weights, and an image tower is
    then no part of the plug-in."""
    shape = Shape.of(new, plugin.shape.classnames, plugin.shape.support)
    if "image" not in factors:
        shape = replace(shape, image_layers=0, image_width=0)
    tensors: dict[str, Tensor] = {}
    for tower, (down, up) in {"text": nothing(shape, plugin.config.rank), **factors}.items():
        tensors |= {f"{tower}.down": down.float().cpu(), f"{tower}.up": up.float().cpu()}
    made = frozen.rebuilt(type(plugin), plugin.config, shape, tensors, {}).to(new.device)
    assert isinstance(made, ClipLora)
    return made


def nothing(shape: Shape, rank: int) -> Factors:
    """Of a text tower, as a training starts: B is 0, A is not, so that a refresh can still learn."""
    bound, generator = 1 / math.sqrt(shape.width), torch.Generator().manual_seed(0)
    down = torch.rand(shape.text_layers, 3, rank, shape.width, generator=generator)
    return bound * (2 * down - 1), torch.zeros(shape.text_layers, 3, shape.width, rank)


def strength(plugin: ClipLora) -> float:
    """s"""
    return plugin.config.alpha / math.sqrt(plugin.config.rank)


class MaskedUpdates(Updates):
    """Updates of which some entries are 0: ``keep`` (L, 3 W, W)."""

    keep: Tensor

    def __init__(self, whole: Updates, keep: Tensor):
        nn.Module.__init__(self)  # not Updates', which would draw anew
        self.down, self.up = whole.down, whole.up
        self.register_buffer("keep", keep.to(whole.down.device))

    def forward(self, scale, seen):
        return super().forward(scale, seen) * self.keep


class Masked(Ported):
    """CLIP-LoRA of the new backbone with entries of its updates left out. They are full matrices then; kept are their
    factors and one bit an entry."""

    needs = "pixels"
    kind = "masked updates"

    def __init__(self, method: ClipLora, keep: Mapping[str, Tensor], classes: Classes, home: str):
        super().__init__()
        for tower, part in parts(method).items():
            if tower in keep:
                setattr(method, tower, MaskedUpdates(part, keep[tower]))
        self.method, self.classes, self.home = method.eval(), classes, home

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.method.bind(backbone, classes)

    def attach(self, backbone):
        return self.method.attach(backbone)

    def logits(self, x):
        return self.method.logits(x)

    def predict(self, x):
        return self.method.predict(x)

    def inner(self):
        return self.method

    def state(self):
        tensors, own = KeptMethod(self.method).state()
        for tower, part in parts(self.method).items():
            if isinstance(part, MaskedUpdates):
                bits = np.packbits(part.keep.cpu().numpy().reshape(-1))
                tensors[f"keep.{tower}"] = torch.from_numpy(bits)
        return tensors, {**own, **told(self)}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Masked:
        head = frozen.restored({n: one for n, one in tensors.items() if not n.startswith("keep.")}, header)
        assert isinstance(head, KeptMethod) and isinstance(head.method, ClipLora)
        method = head.method
        keep = {}
        for tower, bits in inside("keep", tensors).items():
            layers, width = size(getattr(method, tower))
            flat = np.unpackbits(bits.numpy(), count=3 * layers * width * width).astype(bool)
            keep[tower] = torch.from_numpy(flat).view(layers, 3 * width, width)
        made = cls(method, keep, classes_of(header), header["home"])
        made.about = dict(header["about"])
        return made
