"""Optimisers as a ``TrainConfig`` asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from carryover.methods.train_config import TrainConfig


def optimizer(
    config: TrainConfig, trained: Sequence[tuple[float, float, list[torch.nn.Parameter]]]
) -> torch.optim.Optimizer:
    """Over (learning rate, factor on it, parameters): the ``lr`` of a method's config, and what ``Method.trained``
    gives. Each group keeps the two as ``peak`` and ``factor``."""
    grouped: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for peak, factor, parameters in trained:
        grouped.setdefault((peak, factor), []).extend(parameters)
    groups: list[dict] = [
        {"params": params, "peak": peak, "factor": factor} for (peak, factor), params in grouped.items() if params
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)
    return torch.optim.Adam(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)
