"""Carryover: does a plug-in trained on one CLIP backbone still work on its update?

In a checkout ``bench``, ``methods`` and ``datasets`` stand at the top and are linked here, so that all code has
one name, ``carryover``, and no other package's name is taken.
"""

from __future__ import annotations

import importlib
from typing import Any

from carryover.bench.host import processor

__version__ = "0.2.0"
__all__ = ["__version__", "import_plugin", "load_backbone", "load_plugin", "ports", "run"]

processor.choose()  # before torch is imported, for then its library for products of matrices has taken its mode


def __getattr__(name: str) -> Any:
    """``carryover.ports`` and what ``carryover.interface`` offers, which import torch, when they are asked for."""
    if name == "ports":
        return importlib.import_module("carryover.ports")
    if name in __all__:
        return getattr(importlib.import_module("carryover.interface"), name)
    raise AttributeError(f"module 'carryover' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
