"""Zero-shot CLIP (Radford et al. 2021): the text classifier of the dataset's templates; nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass

from carryover.methods.base import Method, cosine_logits, register
from carryover.methods.parts.templates import TemplateConfig


@dataclass(frozen=True)
class Config(TemplateConfig):
    """``single_template`` is what the paper's Table 3 has."""

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
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(self.config.worded(classes))

    def logits(self, x):
        return cosine_logits(self.scale, x, self.classifier)
