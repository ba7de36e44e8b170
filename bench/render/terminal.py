"""Text that others named, made fit for a terminal: neither rich's markup nor control characters of the terminal's."""

from __future__ import annotations

from rich import markup

from carryover.bench.errors import printable


def escape(text: str) -> str:
    """``text`` for ``Console.print``: shown as it is, what cannot be printed by its code."""
    return markup.escape(printable(text))
