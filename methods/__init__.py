"""Plug-in methods. A file in this folder that registers a ``Method`` is a method; no list to edit.

A method's file takes what it needs from here: ``from carryover.methods import Method, TrainConfig, register``. torch is
imported with the first of these names, not with the package, for plans and tables ask only for options.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from carryover.bench.places import PAPER_ORDER

if TYPE_CHECKING:
    from carryover.methods.base import METHODS, Classes, Method, Shape, Support, TrainConfig, cosine_logits, register
    from carryover.methods.catalogue import Registered, discover, import_file, ordered, source_hash

__all__ = [
    "METHODS",
    "PAPER_ORDER",
    "Classes",
    "Method",
    "Registered",
    "Shape",
    "Support",
    "TrainConfig",
    "cosine_logits",
    "discover",
    "import_file",
    "ordered",
    "register",
    "source_hash",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in ("base", "catalogue"):
            module = importlib.import_module(f"carryover.methods.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'carryover.methods' has no attribute '{name}'")
