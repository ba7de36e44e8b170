"""Zero-shot CLIP (Radford et al. 2021): the text classifier of the dataset's templates; nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carryover.datasets.templates import PHOTO
from carryover.methods.base import Method, TrainConfig, cosine_logits, register


@dataclass(frozen=True)
class Config(TrainConfig):
    """``single_template``: "a photo of a {}." instead of the dataset's own, as in the paper's Table 3."""

    single_template: bool = False
    epochs: int = 0
    crop: tuple[float, float] = (1.0, 1.0)


@register("zs-clip")
class ZeroShotCLIP(Method):
    name = "ZS-CLIP"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    depth = "none"
    Config = Config
    micro = {}

    def bind(self, backbone, classes):
        if self.config.single_template:
            classes = replace(classes, templates=PHOTO)
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):
        return cosine_logits(self.scale, x, self.classifier)
