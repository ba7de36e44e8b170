"""A ported plug-in trained on: what it learned on the old backbone goes on learning behind the map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from carryover.bench.errors import UserError
from carryover.bench.training.chosen import retrained
from carryover.bench.training.trainer import FitError, fit_together
from carryover.methods.base import Method, Support, TrainConfig


class Behind(Method):
    """A ported plug-in as the trainer sees it: new features pass the map, the rest is the method's own training."""

    def __init__(self, ported: Any, inner: Method, config: TrainConfig):
        super().__init__(config, inner.shape)
        self.ported, self.inner = ported, inner
        inner.config = retrained(inner.config, config)

    def logits(self, x):
        return self.ported.logits(x)

    @classmethod
    def losses(cls, methods, xs, ys):
        xs = [method.ported.old(x) for method, x in zip(methods, xs, strict=True)]
        return type(methods[0].inner).losses([method.inner for method in methods], xs, ys)

    def candidates(self):
        return self.inner.candidates()

    def choose(self, values):
        super().choose(values)
        self.inner.choose(values)

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
    behind = Behind(ported, inner, config)
    (outcome,) = fit_together([behind], [support], [generator], resume=True)
    ported.eval()
    if isinstance(outcome, FitError):
        raise outcome
    inner.tried = behind.tried
    return outcome
