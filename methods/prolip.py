"""ProLIP (Fahes et al. 2024; astra-vision/ProLIP, methods/ProLIP.py): the image tower's last matrix learns.

Of x, what the tower holds before its last matrix M0, a feature is x M. The loss is ``CE + strength * sum (M - M0)^2``
over all support images, each step on the next of their stored views. What travels is M - M0, to be added to the new
tower's own matrix. A tower of another width V before it has no place for that: there the features f take what of it
the joint space sees, ``f + f A``, where A makes ``M0 A`` nearest to M - M0.

Letters: B, N images, V width before the last matrix, D joint width, H pixels a side.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.backbones.places import bias_of, open_spots, spot, unprojected
from carryover.bench.errors import Unfit, UserError
from carryover.methods.base import Method, TrainConfig, cosine_logits, register
from carryover.methods.parts.optimizer import optimizer

AT_ONCE = 128  # images that the tower is asked about together
SEEN = (
    "where the width before the new image tower's last matrix is another, "
    "features get what the joint space sees of its change"
)


@dataclass(frozen=True)
class Config(TrainConfig):
    """``strength`` of the pull to M0, 1 / shots; ``iterations``: steps; ``absolute``: the plug-in holds M itself, not
    M - M0, and goes to towers of the same V alone."""

    optimizer: str = "adam"
    lr: float = 1e-5
    eps: float = 1e-4
    weight_decay: float = 0.0
    epochs: int = 0
    crop: tuple[float, float] = (0.5, 1.0)
    iterations: int = 300
    strength: float = 1 / 16
    absolute: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.iterations < 1 or self.strength < 0:
            raise UserError(
                "prolip: iterations is 1 or more, strength is not negative; found "
                f"{self.iterations} and {self.strength}"
            )


@register("prolip")
class ProLIP(Method):
    name = "ProLIP"
    paper = "Fahes et al. 2024, arXiv 2410.05270"
    depth = "inner"
    needs = "pixels"
    least_views = 300
    cost_free = ("strength", "absolute")
    learned_buffers = ("joint",)
    joint: Tensor
    Config = Config
    micro = {"lr": 1e-3, "crop": (0.7, 1.0)}

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.matrix = nn.Parameter(torch.zeros(shape.dim, 0))  # (D, V), once a tower or a file says V
        self.register_buffer("joint", torch.zeros(shape.dim, shape.dim))  # A^T

    @classmethod
    def published(cls, dataset, shots):
        return {"strength": 1 / shots}

    @classmethod
    def marks(cls, config, base):
        return [] if config.absolute else [SEEN]

    def sized(self, tensors: Mapping[str, Tensor]) -> None:
        """Room for saved tensors of any V."""
        given = tensors.get("matrix", self.matrix)
        if given.dim() == 2 and len(given) == len(self.matrix):
            self.matrix = nn.Parameter(self.matrix.new_zeros(given.shape))

    def load_learned(self, tensors):
        self.sized(tensors)
        super().load_learned(tensors)

    def bind(self, backbone, classes):
        """Raises Unfit where the image tower does not end in a matrix, or M itself is carried to one of another V."""
        place = spot(backbone.model, "image.projection.weight")
        if place is None or place.value.shape[0] != self.shape.dim:
            ends = f"of {place.value.shape[0]} rows, not {self.shape.dim}" if place else "in none that can be told"
            raise Unfit(f"prolip: what it learns is an image tower's last matrix; {backbone.label} ends {ends}")
        self.backbone, self.place, self.own = backbone, place, place.value.detach()
        if not self.matrix.numel():
            self.matrix = nn.Parameter(self.own.new_zeros(self.own.shape))
        self.same = self.matrix.shape == self.own.shape
        if self.config.absolute and not self.same:
            have = f"its last matrix is {tuple(self.matrix.shape)}; {backbone.label} takes {tuple(self.own.shape)}"
            raise Unfit(f"prolip: {have}; prolip.absolute=False goes there")
        self.classifier = backbone.zero_shot(classes)

    def change(self) -> Tensor:
        """M - M0, (D, V)."""
        return self.matrix - self.own if self.config.absolute else self.matrix

    @contextlib.contextmanager
    def attach(self, backbone):
        with open_spots([self.place] if self.same else []) as add:
            if self.same:
                add([self.change().detach()])
            yield

    def logits(self, x):
        features = self.backbone.encode_images(x)
        if not self.same:
            features = features + (features - bias_of(self.place)) @ self.joint.T
        return cosine_logits(self.backbone.scale, features, self.classifier)

    def start(self, support):
        """All of the training. Raises UserError where the trainer is to go on after it."""
        if self.config.epochs:
            raise UserError(
                f"prolip: iterations tells its steps, each on all images; epochs is 0, found {self.config.epochs}"
            )
        if self.config.absolute:
            with torch.no_grad():
                self.matrix.copy_(self.own)
        count, bias = len(support.views), bias_of(self.place)
        kept: dict[int, Tensor] = {}  # of views that come again: with a fresh one a step, ImageNet's would be 15 GB
        solver = optimizer(self.config, [(self.config.lr, 1.0, [self.matrix])])
        for step in range(self.config.iterations):
            solver.param_groups[0]["lr"] = self.config.lr * (1 + math.cos(math.pi * step / self.config.iterations)) / 2
            solver.zero_grad()
            view = step % count
            x = kept[view] if view in kept else self.before(support, view)
            if view + count < self.config.iterations:
                kept[view] = x
            self.objective(x, bias, support.labels).backward()
            solver.step()
        solver.zero_grad()
        with torch.no_grad():
            seen = torch.linalg.pinv(self.own.T.cpu().double()) @ self.change().T.cpu().double()
            self.joint.copy_(seen.T)

    def objective(self, x: Tensor, bias: Tensor | float, y: Tensor) -> Tensor:
        """x (N, V) before the last matrix, y (N,)."""
        change = self.change()
        logits = cosine_logits(self.backbone.scale, F.linear(x, self.own + change) + bias, self.classifier)
        return F.cross_entropy(logits, y) + self.config.strength * change.square().sum()

    @torch.no_grad()
    def before(self, support, view: int) -> Tensor:
        """(N, V): what the tower holds of that view of the support images before its last matrix."""
        images = torch.arange(len(support.labels)).split(AT_ONCE)
        drawn = [(torch.full_like(part, view), part) for part in images]
        if hasattr(support.views, "expect"):
            support.views.expect(drawn)
        with unprojected(self.place):
            return torch.cat([self.backbone.encode_images(support.views[one]) for one in drawn])
