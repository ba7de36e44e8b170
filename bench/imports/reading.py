"""Foreign files as tensors and plain values. Nothing in them is run: no pickle makes an object of a class of its own."""

from __future__ import annotations

from pathlib import Path

from carryover.bench.errors import UserError
from carryover.bench.imports.base import Foreign


def read(path: str | Path) -> Foreign:
    """Raises UserError, in one line, for a file that is not there or cannot be read without running it."""
    raise UserError(f"import: '{path}': no reader yet")
