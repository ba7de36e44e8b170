"""A plug-in behind a map that was fitted on new features of length 1: whatever comes is brought to that length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from carryover.bench.ports.mapped import Mapped


class UnitMapped(Mapped):
    """``head((x / |x| - mean_new) @ matrix + mean_old)``: x (B, Dn) of any length."""

    kind = "mapped-unit"

    def old(self, x: Tensor) -> Tensor:
        return super().old(F.normalize(x, dim=-1))
