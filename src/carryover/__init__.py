"""Carryover: does a plug-in trained on one CLIP backbone still work on its update?

In a checkout ``bench``, ``methods`` and ``datasets`` stand at the top and are linked here, so that all code has
one name, ``carryover``, and no other package's name is taken.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from carryover.bench.host import processor

__version__ = "0.2.0"
__all__ = ["__version__", "ports"]

processor.choose()  # before torch is imported, for then its library for products of matrices has taken its mode


def __getattr__(name: str) -> ModuleType:
    """``carryover.ports``, which imports torch, when it is asked for."""
    if name == "ports":
        return importlib.import_module("carryover.ports")
    raise AttributeError(f"module 'carryover' has no attribute '{name}'")
