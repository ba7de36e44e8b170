"""A ported plug-in trained on: what it learned on the old backbone goes on learning behind the map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from carryover.bench.errors import UserError
from carryover.bench.training.trainer import FitError, fit_together
from carryover.methods.base import Method, Support, TrainConfig


class Behind(Method):
    """A ported plug-in as the trainer sees it: new features pass the map, the rest is the method's own training."""

    def __init__(self, ported: Any, inner: Method, config: TrainConfig):
        super().__init__(config, inner.shape)
        self.ported, self.inner = ported, inner

    def logits(self, x):
        return self.ported.logits(x)

    def loss(self, x, y):
        return self.inner.loss(self.ported.old(x), y)

    def trained(self):
        return self.inner.trained()

    def end_epoch(self, support):
        self.inner.end_epoch(self.mapped(support))

    def finish(self, support):
        self.inner.finish(self.mapped(support))

    @torch.no_grad()
    def mapped(self, support: Support) -> Support:
        old = self.ported.old
        return replace(support, features=old(support.features), val_features=old(support.val_features))


def refreshed(ported: Any, support: Support, config: TrainConfig, generator: torch.Generator) -> list[dict]:
    """Trains it in place; returns the learning curve. Raises UserError where nothing of it can be trained on."""
    inner = ported.inner()
    if inner is None:
        raise UserError("its old text tower is gone once it is ported, so what it learned cannot be trained on")
    (outcome,) = fit_together([Behind(ported, inner, config)], [support], [generator], resume=True)
    ported.eval()
    if isinstance(outcome, FitError):
        raise outcome
    return outcome
