"""Finds the ports of this folder; a user's are imported with their methods (``methods.discover``)."""

from __future__ import annotations

import importlib
from pathlib import Path

from carryover.bench.host import source_identity
from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.base import PORTS, Port, Ported


def discover() -> None:
    """Import every port file here."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"carryover.bench.ports.{path.stem}")


def source_hash(id: str) -> str:
    """sha256 over the syntax trees of a port and of all that it reaches in this folder, in method files and in the
    user's own modules; part of the keys of its runs."""
    bases = tuple(one for one in PORTS[id].__mro__ if issubclass(one, Port))
    return source_identity.of_classes((*bases, Ported, Anchors))
