"""LayerNorm tuning (Farina et al. 2025, CVPR; FarinaMatteo/rethinking_fewshot_vlms, fs/ln_only.py).

Gain and bias of the two norms in every block of both towers learn, on the prompts' cross-entropy. All else is frozen,
the norms outside the blocks too: the released code hands them to its optimiser and then freezes them. A plug-in holds
what the values became and what they were. The norms of another backbone get the difference, so that nothing learned is
zero-shot everywhere, as with a low-rank update.

Letters: L blocks and W width of each tower; M = 4 (L W + L W) values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from carryover.bench.backbones.places import spot
from carryover.bench.errors import Unfit, UserError
from carryover.datasets.templates import TEMPLATES
from carryover.methods.base import Method, register
from carryover.methods.parts.spots import SpotsMethod
from carryover.methods.parts.templates import TemplateConfig

ITERATIONS = 300  # published, for each shot
IN_BLOCK = ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")


@dataclass(frozen=True)
class Config(TemplateConfig):
    """``carry``: "change" adds what training changed to another backbone's norms, "value" puts the learned values in
    their place."""

    optimizer: str = "adamw"
    lr: float = 2e-4
    weight_decay: float = 0.01
    schedule: str = "iteration"
    drop_last: bool = False
    carry: str = "change"

    def __post_init__(self):
        super().__post_init__()
        if self.carry not in ("change", "value"):
            raise UserError(f"carry is 'change' or 'value'; found '{self.carry}'")


@register("layer-norm")
class LayerNormTuning(SpotsMethod):
    """``values`` and ``were`` (M,): text tower, then image tower, block after block, in the order of ``IN_BLOCK``."""

    name = "LayerNorm"
    paper = "Farina et al. 2025, arXiv 2503.11609"
    learned_buffers = ("were",)
    were: Tensor
    Config = Config
    micro = {**Method.micro, "lr": 0.03}
    cost_free = ("carry",)

    def __init__(self, config, shape):
        super().__init__(config, shape)
        count = len(IN_BLOCK) * (shape.text_layers * shape.width + shape.image_layers * shape.image_width)
        self.values = nn.Parameter(torch.zeros(count))
        self.register_buffer("were", torch.zeros(count))

    @classmethod
    def published(cls, dataset, shots):
        return {"steps": ITERATIONS * shots, "single_template": dataset in TEMPLATES}

    def bind(self, backbone, classes):
        """Raises Unfit for blocks without two norms that have a gain and a bias."""
        super().bind(backbone, classes)
        self.classes = replace(classes, templates=self.config.worded(classes).templates[:1])
        blocks = [f"text.{i}" for i in range(self.shape.text_layers)]
        blocks += [f"image.{i}" for i in range(self.shape.image_layers)]
        places = [f"{block}.{part}" for block in blocks for part in IN_BLOCK]
        found = {place: spot(backbone.model, place) for place in places}
        self.spots = [one for one in found.values() if one is not None]
        if lacks := next((place for place, one in found.items() if one is None), None):
            raise Unfit(f"{self.name}: it needs {lacks}, which {backbone.label} has not: choose another backbone")
        self.here = torch.cat([one.value.detach() for one in self.spots])

    @torch.no_grad()
    def start(self, support):
        self.values.copy_(self.here)
        self.were.copy_(self.here)

    def deltas(self):
        change = self.values - (self.were if self.config.carry == "change" else self.here)
        return change.split([len(one.value) for one in self.spots])
