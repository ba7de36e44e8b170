"""The one place where seeds come from: each purpose has its own stream, so adding a method changes no other number."""

from __future__ import annotations

import hashlib


def derive(*axes: object) -> int:
    """A 63-bit seed for these axes, e.g. ``derive("fit", dataset, method, seed)``; the same on every machine."""
    text = "\x1f".join(str(axis) for axis in axes)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
