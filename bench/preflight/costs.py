"""Seconds of a method as they grow with classes, tokens, steps and images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from carryover.bench.engine.evaluator import ROWS
from carryover.bench.plan.runs import Run
from carryover.methods.base import METHODS


@dataclass(frozen=True)
class Growth:
    """Seconds at a few class counts: straight lines between them in ``classes ** power`` and beyond them in the same.

    length, by_token  tokens of the names measured, and seconds more for each class and token above that
    """

    points: tuple[tuple[int, float], ...]
    power: int = 1
    length: float = 0.0
    by_token: float = 0.0

    def at(self, classes: int, length: float) -> float:
        (x0, y0), *more = [(count**self.power, seconds) for count, seconds in self.points]
        x, slope = classes**self.power, 0.0
        for x1, y1 in more:
            slope = max(0.0, (y1 - y0) / (x1 - x0))
            if x <= x1 or (x1, y1) == more[-1]:
                break
            x0, y0 = x1, y1
        return max(y0 + slope * (x - x0) + self.by_token * classes * (length - self.length), 0.2 * y0, 0.0)


@dataclass(frozen=True)
class Costs:
    """Seconds of one method: ``start`` and ``finish`` of a fit, a training ``step``, a ``call`` of predict with its
    bind, and an ``image`` predicted; ``largest`` is the largest class count measured, ``tokens`` the method's
    ``own_tokens`` there."""

    start: Growth
    step: Growth
    finish: Growth
    call: Growth
    image: Growth
    largest: int
    tokens: int = 0

    def fit(self, classes: int, length: float, steps: int) -> float:
        ends = self.start.at(classes, length) + self.finish.at(classes, length)
        return ends + (steps * self.step.at(classes, length) if steps else 0.0)

    def evaluation(self, classes: int, length: float, images: int) -> float:
        """On one backbone."""
        return -(-images // ROWS) * self.call.at(classes, length) + images * self.image.at(classes, length)


def cost_key(run: Run) -> tuple:
    """Runs of one key cost the same for the same classes and tokens: numbers such as a learning rate do not change what
    is computed, nor does the number of epochs change a step, nor what the method itself names (``cost_free``)."""
    config, kind = dataclasses.asdict(run.config), METHODS[run.method]
    for name in ("epochs", "steps", "warmup_epochs", *kind.cost_free):
        config.pop(name)
    kept = {name: len(v) if isinstance(v, tuple) else v for name, v in config.items() if not isinstance(v, float)}
    return run.method, run.shots, bool(run.config.epochs), tuple(sorted(kept.items()))
