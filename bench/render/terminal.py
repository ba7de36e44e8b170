"""Text that others named, made fit for a terminal: neither rich's markup nor control characters of the terminal's."""

from __future__ import annotations

import re

from carryover.bench.errors import printable

TAG = re.compile(r"(\\*)\[([a-z#/@][^\[]*?\])?")  # as rich finds them; also a bracket that opens none


def escape(text: str) -> str:
    r"""``text`` for ``Console.print``: shown as it is, what cannot be printed by its code. Rich's own ``escape`` leaves
    ``\[`` alone, which ``print`` then shows without its backslash."""
    made = TAG.sub(_bracket, printable(text))
    return made + "\\" if made.endswith("\\") and not made.endswith("\\\\") else made  # or it would escape what follows


def _bracket(found: re.Match[str]) -> str:
    slashes, tag = found[1], found[2]
    if tag:
        return f"{slashes * 2}\\[{tag}"
    return f"{slashes}\\[" if slashes else "["
