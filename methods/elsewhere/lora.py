"""LoRA of any matrices of both towers (Hu et al. 2022), as adapters from elsewhere have it; whole changes beside it.

A changed matrix becomes ``W + B A``, A (r, in) and B (out, r), each with a rank of its own and its scale in B. What was
trained whole there (a bias, a norm, a projection) becomes ``w + d``: d is what it has become, less what it was. A, B
and d are the plug-in; the new backbone supplies W and w. Class features are the zero-shot classifier of the changed
text tower.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carryover.bench.backbones.places import PLACE, Spot, spot
from carryover.bench.errors import UserError, quoted
from carryover.methods.base import register
from carryover.methods.parts.spots import SpotsMethod
from carryover.methods.train_config import TrainConfig

CHANGE = re.compile(r"(?P<place>[a-z0-9_.]{1,60}):(?P<size>[1-9]\d{0,5}(x[1-9]\d{0,5})?)(:(?P<rank>[1-9]\d{0,5}))?")
FORM = "PLACE:OUTxIN:RANK or PLACE:SIZE, e.g. text.0.q.weight:512x512:8, image.3.ln_1.bias:768"


@dataclass(frozen=True)
class Change:
    """size (out, in) or (n,); rank 0: a whole change."""

    place: str
    size: tuple[int, ...]
    rank: int = 0

    @property
    def key(self) -> str:
        """Of its tensors: torch takes no dots."""
        return self.place.replace(".", "_")

    def __str__(self) -> str:
        return f"{self.place}:{'x'.join(map(str, self.size))}" + (f":{self.rank}" if self.rank else "")


def change_of(text: str) -> Change:
    """Raises UserError for a text of another form."""
    found = CHANGE.fullmatch(text) if isinstance(text, str) else None
    if found is None or PLACE.fullmatch(found["place"]) is None:
        raise UserError(f"lora.changes holds {quoted(str(text))}, expected {FORM}")
    made = Change(found["place"], tuple(map(int, found["size"].split("x"))), int(found["rank"] or 0))
    if made.rank and len(made.size) == 1:
        raise UserError(f"lora.changes holds {quoted(text)}: a rank is of a matrix; expected {FORM}")
    return made


@dataclass(frozen=True)
class Config(TrainConfig):
    """``changes``: what is changed, as `Change` writes it."""

    changes: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        places = [change.place for change in self.parsed]
        if twice := [place for place in dict.fromkeys(places) if places.count(place) > 1]:
            raise UserError(f"lora.changes: {twice[0]} stands there more than once")

    @property
    def parsed(self) -> list[Change]:
        return [change_of(text) for text in self.changes]


@register("lora")
class Lora(SpotsMethod):
    name = "LoRA"
    paper = "Hu et al. 2022, arXiv 2106.09685"
    trained_here = False
    Config = Config

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.parts = config.parsed
        low = [change for change in self.parts if change.rank]
        self.down = nn.ParameterDict({one.key: nn.Parameter(torch.zeros(one.rank, one.size[1])) for one in low})
        self.up = nn.ParameterDict({one.key: nn.Parameter(torch.zeros(one.size[0], one.rank)) for one in low})
        whole = [change for change in self.parts if not change.rank]
        self.full = nn.ParameterDict({one.key: nn.Parameter(torch.zeros(one.size)) for one in whole})

    @classmethod
    def marks(cls, config, base):
        return []

    def bind(self, backbone, classes):
        super().bind(backbone, classes)
        self.classes, self.spots = classes, self.found(backbone)

    def found(self, backbone) -> list[Spot]:
        """Raises UserError for towers without one of the weights, or of another size."""
        spots, wrong = [], []
        for change in self.parts:
            there = spot(backbone.model, change.place)
            size = tuple(there.value.shape) if there else None
            if there is None or size != change.size:
                wrong.append(f"{change.place} {change.size}, there {size or 'is none'}")
            else:
                spots.append(there)
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(
                f"{self.name}: {backbone.label} has no place for {wrong[0]}{more}: it can only be carried over to "
                "towers like its own"
            )
        return spots

    def deltas(self) -> list[Tensor]:
        return [self.up[one.key] @ self.down[one.key] if one.rank else self.full[one.key] for one in self.parts]
