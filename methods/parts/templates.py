"""The text that stands for a class, where a method's authors wrote another than the dataset's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carryover.datasets.templates import PHOTO
from carryover.methods.base import Classes
from carryover.methods.train_config import TrainConfig


@dataclass(frozen=True)
class TemplateConfig(TrainConfig):
    """``single_template``: "a photo of a {}." instead of the dataset's own templates."""

    single_template: bool = False

    def worded(self, classes: Classes) -> Classes:
        return replace(classes, templates=PHOTO) if self.single_template else classes
