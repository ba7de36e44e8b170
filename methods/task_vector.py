"""A task vector (Ilharco et al. 2023; mlfoundations/task_vectors, src/task_vectors.py): fine-tuning as a difference.

Both towers are tuned as ``fine-tuning`` tunes them; what they became less what they were is the plug-in, a tensor a
weight. On the backbone it was trained on that is the tuned towers; on another one each difference is added, times
``share``, to the weight of the same name and shape. One that finds none is left out: a backbone that has no such weight
is its zero-shot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carryover.bench.errors import Unfit, UserError
from carryover.methods.base import register
from carryover.methods.fine_tuning import FineTuning
from carryover.methods.parts.towers import TowersConfig, TowersMethod

ADDED = (
    "on another backbone each difference of its weights is added to the weight of the same name and shape; those that "
    "find none are left out"
)
DOT = "/"  # for the dots of names, which torch keeps for itself


@dataclass(frozen=True)
class Config(TowersConfig):
    """``share``: by how much the differences are taken when it predicts; it trains with all of them."""

    share: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.share < 0:
            raise UserError(f"share is 0 or more; found {self.share}")


class DifferencesMethod(TowersMethod):
    """The differences of the towers' weights are the plug-in."""

    whole = True
    learned_buffers = ("values",)
    values: Tensor

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.differences = nn.ParameterDict()  # by name, once training or a file has made them
        self.register_buffer("values", torch.zeros((), dtype=torch.long))  # how many, so that none can be lost

    @classmethod
    def marks(cls, config, base):
        return [ADDED]

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.place(backbone, self.config.share)

    def fitting(self, backbone) -> dict[str, Tensor]:
        """By name, the differences that have a weight of that name and shape there."""
        shapes = {name: value.shape for name, value in backbone.model.named_parameters()}
        own = {name.replace(DOT, "."): value.detach() for name, value in self.differences.items()}
        return {name: value for name, value in own.items() if shapes.get(name) == value.shape}

    def place(self, backbone, share: float) -> None:
        """The towers that `attach` shows: this backbone's, with a share of the differences that fit it."""
        towers = self.towers()
        found = {name: towers[name].detach() + share * more for name, more in self.fitting(backbone).items()}
        self.home = {backbone.fingerprint: found}

    @contextlib.contextmanager
    def attach(self, backbone):
        if not self.training:
            with super().attach(backbone):
                yield
            return
        self.place(backbone, 1.0)  # a refresh goes on from all of them
        own, start = self.towers(), self.home[backbone.fingerprint]
        begun = {name: start.get(name, value).detach().clone() for name, value in own.items()}
        with super().attach(backbone):
            yield
        before, became = self.fitting(backbone), self.home[backbone.fingerprint]
        self.hold({name: value - begun[name] + before.get(name, 0.0) for name, value in became.items()})
        self.place(backbone, self.config.share)

    def hold(self, differences: dict[str, Tensor]) -> None:
        held = {name.replace(".", DOT): nn.Parameter(value) for name, value in differences.items()}
        self.differences = nn.ParameterDict(held)
        self.values.fill_(sum(value.numel() for value in differences.values()))

    def sized(self, tensors: Mapping[str, Tensor]) -> None:
        """Room for saved tensors of any names and sizes."""
        given = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith("differences.")}
        self.hold({name: self.values.new_zeros(value.shape, dtype=torch.float32) for name, value in given.items()})

    def load_learned(self, tensors):
        """Raises UserError for a file that has lost tensors, too."""
        self.sized(tensors)
        count = int(self.values)
        super().load_learned(tensors)
        if int(self.values) != count:
            raise UserError(
                f"plug-in does not fit {type(self).__name__}: of its {int(self.values)} values {count} are there"
            )


@register("task-vector")
class TaskVector(DifferencesMethod, FineTuning):
    name = "Task vector"
    paper = "Ilharco et al. 2023, arXiv 2212.04089"
    Config = Config
    cost_free = ("share",)
    asks = ("width",)
    micro = FineTuning.micro

    def bind(self, backbone, classes):
        """Raises Unfit where no difference of the text tower could find a place."""
        if backbone.width != self.shape.width:
            need = f"it needs a text width W of {self.shape.width}"
            raise Unfit(f"task-vector: {need}; {backbone.label} has {backbone.width}")
        super().bind(backbone, classes)
