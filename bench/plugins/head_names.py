"""By which names a file of somebody's head says that an array is the bias of a weight."""

from __future__ import annotations

import re

BIAS = re.compile(r"(?:^|_)(?:bias(?:es)?|intercepts?|b)(?:[_:\d]|$)", re.I)
TWINS = (("weight", "bias"), ("coef", "intercept"), ("kernel", "bias"), ("w", "b"), ("W", "b"), ("W", "B"))


def is_bias(name: str, weight: str) -> bool:
    """Whether an array is by its name the bias of that weight: the weight's name with the other word, or a bias
    without a home (what stands before the last dot) or of the weight's own."""
    for one, other in TWINS:
        start, found, end = weight.rpartition(one)
        if found and name == start + other + end:
            return True
    home, _, own = name.rpartition(".")
    return home in ("", weight.rpartition(".")[0]) and BIAS.search(own) is not None
