"""Counter-based randomness: every number of the micro world is a pure function of (key, name of the quantity).

SplitMix64's finaliser on integers alone gives the same numbers on every machine, in every batch, in any order.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@cache
def name_key(name: str) -> np.uint64:
    """64 bits of a name."""
    return np.uint64(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))


def mix(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, elementwise on uint64."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def uniforms(keys: np.ndarray, name: str) -> np.ndarray:
    """(N,) float64 in [0, 1) for (N,) uint64 keys."""
    bits = mix(mix(np.asarray(keys, np.uint64) * GOLDEN) + name_key(name))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stream(seed: int, start: int, count: int) -> np.ndarray:
    """Keys number ``start`` .. ``start + count - 1`` of an endless sequence of pictures."""
    return mix(np.arange(start, start + count, dtype=np.uint64) * GOLDEN + mix(np.array([seed], np.uint64) + GOLDEN))
