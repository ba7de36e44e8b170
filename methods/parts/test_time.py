"""What the methods share that adapt to each test image by itself, as TPT (Shu et al. 2022) does.

Of V views of an unlabelled image, the first its test transform, the most confident are kept. What is adapted goes a
step down the entropy of their mean probabilities, and the test transform alone is then classified. The next image
starts where this one did.

Letters: K confident views of V.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carryover.bench.errors import UserError
from carryover.methods.base import Method, TrainConfig
from carryover.methods.parts.optimizer import optimizer

PER_IMAGE = "adapts to each test image alone, from views of it without its label (inductive: no image sees another)"


@dataclass(frozen=True)
class TestTimeConfig(TrainConfig):
    """Nothing is trained; ``optimizer``, ``lr``, ``weight_decay`` and ``eps`` are those of each test image.

    views       V of each test image, its test transform included
    area        range of the views' random resized crops
    confident   share of the views that is kept (one at least)
    updates     steps on each image; the views chosen for the first are kept
    """

    __test__ = False  # no test case, whatever its name says to pytest

    optimizer: str = "adamw"
    lr: float = 5e-3
    weight_decay: float = 0.01
    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)
    views: int = 64
    area: tuple[float, float] = (0.08, 1.0)
    confident: float = 0.1
    updates: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.views < 1 or not 0 < self.confident <= 1 or self.updates < 0:
            raise UserError(
                "views is 1 or more, confident above 0 and at most 1, updates 0 or more; found "
                f"{self.views}, {self.confident}, {self.updates}"
            )
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise UserError(f"area is two numbers above 0 and at most 1, the smaller first; found {self.area}")

    @property
    def kept(self) -> int:
        """K, rounded down as azshue/TPT does."""
        return max(1, int(self.views * self.confident))


class TestTimeMethod(Method):
    """A method whose ``predict`` adapts to each image."""

    __test__ = False
    needs = "views"
    micro = {"views": 16, "confident": 0.25, "area": (0.7, 1.0)}

    @classmethod
    def test_views(cls, config):
        return config.views, config.area

    def trained(self):
        return []

    @classmethod
    def marks(cls, config, base):
        return [PER_IMAGE]


def confident_views(logits: Tensor, kept: int) -> Tensor:
    """Which views have the lowest entropy, lowest first; of equal ones the first: (B, V, C) -> (B, K)."""
    logs = logits.log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return entropy.argsort(dim=1, stable=True)[:, :kept]


def take(x: Tensor, chosen: Tensor) -> Tensor:
    """(B, V, ...) by (B, K) -> (B, K, ...)"""
    return x[torch.arange(len(x), device=x.device)[:, None], chosen]


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean over views of their probabilities: (B, K, C) -> (B,)"""
    mean = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
    return -(mean.exp() * mean).sum(-1)


def adapted(config: TestTimeConfig, start: Sequence[Tensor], objective: Callable[..., Tensor]) -> list[Tensor]:
    """The tensors (B, ...) after ``updates`` steps. ``objective`` of them is (B,), each image's of its own rows alone:
    so the gradient of the sum is each image's own, and as optimisers work elementwise, B images at once take the steps
    that each takes by itself."""
    with torch.enable_grad():
        values = [nn.Parameter(value.detach().clone()) for value in start]
        solver = optimizer(config, [(config.lr, 1.0, values)])
        for _ in range(config.updates):
            found = torch.autograd.grad(objective(*values).sum(), values)  # of nothing else
            for value, gradient in zip(values, found, strict=True):
                value.grad = gradient
            solver.step()
    return [value.detach() for value in values]


def cosines(views: Tensor, classes: Tensor) -> Tensor:
    """Of views (B, K, D) and the image's own class features (B, C, D) -> (B, K, C)."""
    return F.normalize(views, dim=-1) @ F.normalize(classes, dim=-1).transpose(1, 2)
