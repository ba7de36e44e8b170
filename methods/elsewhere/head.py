"""A head on image features that someone trained: one linear layer, or a few with an activation between them.

It names classes, or it scores: a regressor's numbers (an aesthetic score) or probabilities of their own (sigmoid). The
class names of a regressor's ``shape`` are the names of its scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig, register

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
INPUTS = ("unit", "raw")
OUTPUTS = ("classes", "binary", "scores")


@dataclass(frozen=True)
class Config(TrainConfig):
    """``inputs``: what it was trained on, features of length 1 ("unit") or as the backbone gives them ("raw");
    ``hidden``: widths between its layers; ``activation``: after each hidden layer; ``outputs``: "classes", a logit
    each, "binary", one logit z for two classes (their logits are 0 and z), or "scores"; ``sigmoid``: of scores, whether
    a sigmoid ends it."""

    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)
    inputs: str = "unit"
    hidden: tuple[int, ...] = ()
    activation: str = "none"
    outputs: str = "classes"
    sigmoid: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (
            ("inputs", self.inputs, INPUTS),
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("outputs", self.outputs, OUTPUTS),
        ):
            if value not in known:
                raise UserError(f"head: {name} is '{value}', expected {', '.join(known)}")
        if not all(isinstance(width, int) and width > 0 for width in self.hidden):
            raise UserError(f"head: hidden is {self.hidden}, expected widths above 0")
        if self.sigmoid and self.outputs != "scores":
            raise UserError(f"head: sigmoid is of scores, and outputs is '{self.outputs}'; leave it out")


@register("head")
class Head(Method):
    name = "Head"
    paper = "trained elsewhere (the command import)"
    depth = "output"
    trained_here = False
    Config = Config

    def __init__(self, config, shape):
        super().__init__(config, shape)
        names = len(shape.classnames)
        if config.outputs == "binary" and names != 2:
            raise UserError(f"head: one logit tells 2 classes, found {names} names")
        widths = (shape.dim, *config.hidden, 1 if config.outputs == "binary" else names)
        sizes = list(zip(widths[1:], widths, strict=False))
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size[0])) for size in sizes)

    @classmethod
    def tells_scores(cls, config) -> bool:
        """Whether its answers are numbers, no logits of classes."""
        return config.outputs == "scores"

    def bind(self, backbone, classes):
        self.rows = self.class_rows(classes).to(backbone.device)

    def logits(self, x):
        """(B, D), not normalised -> (B, C); of a regressor the scores (B, S)."""
        x = F.normalize(x, dim=-1) if self.config.inputs == "unit" else x
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = ACTIVATIONS[self.config.activation](F.linear(x, weight, bias))
        x = F.linear(x, self.weights[-1], self.biases[-1])
        if self.config.outputs == "binary":
            x = torch.cat([torch.zeros_like(x), x], dim=-1)
        return (x.sigmoid() if self.config.sigmoid else x)[:, self.rows]
