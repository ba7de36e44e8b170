"""Which class of ported plug-in a file's header names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports.base import Ported


def kinds() -> dict[str, type[Ported]]:
    """By name, of all that are imported."""
    found: dict[str, type[Ported]] = {}
    left = list(Ported.__subclasses__())
    while left:
        one = left.pop()
        left += one.__subclasses__()
        if "kind" in vars(one):
            found[one.kind] = one
    return found


def ported_of(tensors: dict[str, Tensor], kind: str, header: dict[str, Any]) -> Ported:
    """Raises UserError for a kind that no port here makes."""
    known = kinds()
    if kind not in known:
        raise UserError(f"a ported plug-in of kind '{kind}', which no port here makes ({', '.join(sorted(known))})")
    return known[kind].restore(tensors, header)
