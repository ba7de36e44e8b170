"""Checkpoints as Dassl.pytorch saves them, with what makes them hard to read: a live scheduler and its optimiser."""

from __future__ import annotations

import collections

import torch
from torch import nn


class WarmUp(torch.optim.lr_scheduler.LRScheduler):
    """Keeps its successor, and through it the optimiser, in its own state, as Dassl's does."""

    def __init__(self, optimizer, successor):
        self.successor = successor
        super().__init__(optimizer)

    def get_lr(self):
        return [1e-5]


@torch.enable_grad()
def checkpoint(state, solver=torch.optim.SGD, scheduler=torch.optim.lr_scheduler.CosineAnnealingLR, **more):
    """As ``TrainerBase.save_model`` writes one after a step."""
    trained = nn.Parameter(torch.ones(2))
    optimizer = solver([trained], lr=0.1, **({"momentum": 0.9} if solver is torch.optim.SGD else {}))
    warm = WarmUp(optimizer, scheduler(optimizer, 5))
    trained.sum().backward()
    optimizer.step()
    warm.step()
    return {
        "state_dict": collections.OrderedDict(state),
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": warm.state_dict(),
        "val_result": None,
        **more,
    }


def saved(folder, state, learner="prompt_learner", **more):
    """The file, in an output folder."""
    (folder / learner).mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint(state, **more), folder / learner / "model.pth.tar-50")
    return folder / learner / "model.pth.tar-50"
