"""Streams of random numbers for training, each of its own seed (``bench.seeds``)."""

from __future__ import annotations

import torch

from carryover.bench.seeds import derive


def generator(*axes: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive(*axes))
