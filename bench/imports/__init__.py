"""Plug-ins made elsewhere: one file a format, each read without running anything of it (docs/import.md)."""

from __future__ import annotations

import importlib
from pathlib import Path

NO_FORMATS = ("base", "reading", "writing")


def discover() -> None:
    """Fills ``base.FORMATS``."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if path.stem not in NO_FORMATS:
            importlib.import_module(f"carryover.bench.imports.{path.stem}")
