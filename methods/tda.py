"""TDA (Karmanov et al. 2024, CVPR; kdiAAA/TDA, tda_runner.py): zero-shot with two caches of the test images so far.

For each predicted class a cache keeps the images of lowest entropy. A positive one adds to the class of its images what
is near them; a negative one, of images that are neither sure nor unsure, takes from the classes that those hold
possible. Nothing is learned and nothing travels; an answer depends on the images before it (`bench.engine.evaluator`
fixes their order).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.datasets.templates import IMAGENET_SEVEN
from carryover.methods.base import Method, TrainConfig, register

LOGIT_SCALE = 100.0  # the published code writes it out instead of reading the backbone's
ENSEMBLE = ("imagenet", "caltech101", "stanford_cars", "sun397")  # told by ImageNet's seven templates
PUBLISHED = {  # alpha and beta of the positive cache (kdiAAA/TDA, configs); where they come from is not said
    "imagenet": (2.0, 5.0), "caltech101": (5.0, 5.0), "oxford_pets": (2.0, 7.0), "stanford_cars": (1.0, 7.0),
    "flowers102": (1.0, 5.0), "food101": (1.0, 1.0), "fgvc_aircraft": (2.0, 2.0), "sun397": (2.0, 3.0),
    "dtd": (2.0, 3.0), "eurosat": (4.0, 8.0), "ucf101": (3.0, 8.0),
}  # fmt: skip
AT_ONCE = 512  # images


@dataclass(frozen=True)
class Config(TrainConfig):
    """Of each cache its images a class, weight and sharpness; 0 images leave the cache out.

    unsure     between which shares of log2(C) an image's entropy, in nats, lies that the negative cache may keep
    possible   between which probabilities a class lies from which such an image takes
    ensemble   ImageNet's seven templates in place of the dataset's own
    """

    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)
    size: int = 3
    alpha: float = 2.0
    beta: float = 5.0
    negative_size: int = 2
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    unsure: tuple[float, float] = (0.2, 0.5)
    possible: tuple[float, float] = (0.03, 1.0)
    ensemble: bool = False

    def __post_init__(self):
        super().__post_init__()
        if min(self.size, self.negative_size) < 0 or any(len(one) != 2 for one in (self.unsure, self.possible)):
            raise UserError(
                "tda.size and tda.negative_size are 0 or more, tda.unsure and tda.possible two numbers; found "
                f"{self.size}, {self.negative_size}, {self.unsure} and {self.possible}"
            )


@register("tda")
class TDA(Method):
    name = "TDA"
    paper = "Karmanov et al. 2024, arXiv 2403.18293"
    depth = "none"
    transductive = True
    usual = False
    Config = Config
    micro = {}

    @classmethod
    def published(cls, dataset, shots):
        alpha, beta = PUBLISHED.get(dataset, PUBLISHED["imagenet"])
        return {"alpha": alpha, "beta": beta, "ensemble": dataset in ENSEMBLE}

    def bind(self, backbone, classes):
        """Starts with empty caches."""
        worded = replace(classes, templates=IMAGENET_SEVEN) if self.config.ensemble else classes
        self.classifier = backbone.zero_shot(worded)
        self.positive, self.negative = (
            Cache(size, self.classifier) for size in (self.config.size, self.config.negative_size)
        )

    def logits(self, x):
        """Zero-shot's, before any cache."""
        return LOGIT_SCALE * F.normalize(x, dim=-1) @ self.classifier.T

    @torch.no_grad()
    def predict(self, x):
        """The next images of the stream, (B, D) -> (B, C)."""
        return torch.cat([self.next(part) for part in x.split(AT_ONCE)])

    def next(self, x: Tensor) -> Tensor:
        config, own, found = self.config, F.normalize(x, dim=-1), self.logits(x)
        chances, sure = found.softmax(-1), found.argmax(-1)
        entropy = -(chances * found.log_softmax(-1)).sum(-1)
        low, high = (share * math.log2(found.shape[1]) for share in config.unsure)
        least, most = config.possible
        unsure, possible = (low < entropy) & (entropy < high), (least < chances) & (chances < most)
        near = self.positive.near(own, F.one_hot(sure, found.shape[1]), sure, entropy, config.beta)
        entropy = entropy.where(unsure, math.inf)
        against = self.negative.near(own, possible, sure, entropy, config.negative_beta)
        return found + config.alpha * near - config.negative_alpha * against


class Cache:
    """Of each predicted class the S images of lowest entropy so far, of equal ones the earliest. What it keeps hangs on
    classes and entropies alone, not on its answers, so that many images in a row are one computation."""

    def __init__(self, size: int, classifier: Tensor):
        classes, dim = classifier.shape
        self.size = size
        self.entropy = classifier.new_full((classes * size,), math.inf)  # C rows of S, the lowest first; inf: no image
        self.keys, self.values = (
            classifier.new_zeros(classes * size, dim),
            classifier.new_zeros(classes * size, classes),
        )

    def near(self, x: Tensor, values: Tensor, predicted: Tensor, entropy: Tensor, beta: float) -> Tensor:
        """(B, C): for each image the sum of exp(-beta (1 - cos)) times the values of those that the cache holds when it
        is answered; it is itself offered before. Keeps what it then holds.

        x (B, D) with rows of length 1, values (B, C), predicted classes (B,), entropy (B,), inf where not offered."""
        slots, count = len(self.entropy), len(x)
        rank = torch.arange(slots, device=x.device)
        come = torch.arange(count, device=x.device)
        classes = torch.cat([rank // max(self.size, 1), predicted])  # of the M = C S + B that may be held
        place = torch.cat([rank.new_full((slots,), -1), come])
        kept = self.entropy.view(-1, self.size) if self.size else self.entropy.new_zeros(self.keys.shape[1], 0)
        ahead = torch.cat([rank % max(self.size, 1), (kept[predicted] <= entropy[:, None]).sum(1)])
        whole = torch.cat([self.entropy, entropy])
        lower = (entropy[:, None] < whole) | ((entropy[:, None] == whole) & (come[:, None] < place))
        ahead = ahead + ((predicted[:, None] == classes) & lower).cumsum(0)  # (B, M) that go before, when b has come
        held = (ahead < self.size) & (place <= come[:, None]) & whole.isfinite()
        keys, values = torch.cat([self.keys, x]), torch.cat([self.values, values.to(x.dtype)])
        near = ((-beta * (1 - x @ keys.T)).exp() * held) @ values
        slot = (classes * self.size + ahead[-1]).where(held[-1], slots)  # the last is for all that is not held
        for name, fill, given in (("entropy", math.inf, whole), ("keys", 0.0, keys), ("values", 0.0, values)):
            filled = given.new_full((slots + 1, *given.shape[1:]), fill)
            filled[slot] = given
            setattr(self, name, filled[:-1])
        return near
