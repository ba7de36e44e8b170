"""Analyses. A file in this folder that registers an ``Analysis`` is one; no list to edit."""

from __future__ import annotations

import importlib
from pathlib import Path


def discover() -> None:
    """Import every analysis of this folder; those of the user's folders come with `carryover.methods.discover`."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"{__name__}.{path.stem}")
