"""Which methods a suite can take: what there is to carry, to retrain or to refresh of each."""

from __future__ import annotations

import functools

from carryover.methods.base import METHODS, Shape

ANY_SHAPE = Shape(512, 512, ("one", "two"), 2, 12, 12, 768)  # which tensors a method learns goes by no size


def learns(method: str) -> bool:
    """Whether there is anything to carry: not in zero-shot, nor in what adapts to each test image by itself, nor where
    all that was trained stays at home (its plug-in is empty, so that reused it is zero-shot)."""
    return METHODS[method].depth != "none" and METHODS[method].needs != "views" and not is_empty(method)


@functools.lru_cache(maxsize=64)
def is_empty(method: str) -> bool:
    """Whether a plug-in holds no tensor. One that is whole holds all that training left, so it is not asked."""
    made = METHODS[method]
    return not made.whole and not made(made.Config(), ANY_SHAPE).learned()


def has_steps(method: str) -> bool:
    """Whether the trainer trains it, so that a refresh can be of few steps, and its plug-in is all that it learned."""
    return learns(method) and METHODS[method].whole and METHODS[method].Config().epochs > 0


NEEDS = {  # `Suite.needs`
    "": lambda method: True,
    "whole": lambda method: METHODS[method].whole,
    "learns": learns,
    "steps": has_steps,
}
