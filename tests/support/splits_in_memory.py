"""A split of pictures that are drawn when they are read."""

from __future__ import annotations

import numpy as np
from tiny_caltech import picture

from carryover.datasets.base import Split


def split(count=7, keys=None, labels=None, size=(50, 38)):
    def read(indices):
        return [picture(np.random.default_rng(i), i % 2, size) for i in indices]

    labels = np.arange(count) % 2 if labels is None else np.array(labels)
    return Split(tuple(keys or (f"p{i}" for i in range(count))), labels, read)
