"""Optimisers as a ``TrainConfig`` asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from carryover.methods.train_config import TrainConfig


def optimizer(config: TrainConfig, trained: Sequence[tuple[float, list[torch.nn.Parameter]]]) -> torch.optim.Optimizer:
    """Over (factor on the learning rate, parameters), as ``Method.trained`` gives them."""
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    for factor, parameters in trained:
        by_factor.setdefault(factor, []).extend(parameters)
    groups: list[dict] = [{"params": params, "factor": factor} for factor, params in by_factor.items() if params]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)
    return torch.optim.Adam(groups, config.lr, eps=config.eps, weight_decay=config.weight_decay)
