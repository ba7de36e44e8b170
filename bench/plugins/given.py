"""What a program hands to the Python interface, seen to be of the kind that is expected: one line where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.backbones.loading import Backbone, first_line
from carryover.bench.errors import UserError, quoted


def names(given: Any, what: str = "classes") -> tuple[str, ...]:
    """Of classes. A text alone would be one name a letter."""
    items = None if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) else tuple(given)
    if items is None or not items or not all(isinstance(one, str) and one.strip() for one in items):
        raise UserError(f"{what}: found {quoted(repr(given), 60)}, expected a list of names")
    return tuple(str(one) for one in items)


def texts(given: Any, what: str) -> list[str]:
    """A text alone is a list of one; nothing, an empty one."""
    items = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else None
    if items is None or not all(isinstance(one, str) and one.strip() for one in items):
        raise UserError(f"{what}: found {quoted(repr(given), 60)}, expected a text or a list of texts")
    return items


def backbone(given: Any) -> Backbone:
    if not isinstance(given, Backbone):
        how = f"load_backbone({given!r})" if isinstance(given, str) else "what load_backbone gives"
        raise UserError(f"backbone: found {quoted(repr(given), 60)}, expected {how}")
    return given


def device(given: Any) -> torch.device:
    try:
        found = torch.device(given)
        torch.empty(1, device=found).cpu()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device: {quoted(str(given), 60)} cannot be used here ({first_line(error)}); expected 'cpu', or 'cuda' "
            "where torch finds one"
        ) from None
    return found


def rows(given: Any, width: int, whose: str) -> Tensor:
    """Features (B, D) as numbers."""
    try:
        found = given if isinstance(given, Tensor) else torch.from_numpy(np.ascontiguousarray(given))
    except (TypeError, ValueError) as error:
        raise UserError(f"features: {first_line(error)}; expected an array of numbers (rows, {width})") from None
    if found.dim() != 2 or found.shape[1] != width:
        raise UserError(f"features have shape {tuple(found.shape)}, expected (rows, {width}) of {whose}")
    if found.is_complex() or found.dtype == torch.bool:
        raise UserError(f"features are of type {found.dtype}; expected real numbers (rows, {width})")
    if not found.isfinite().all():
        raise UserError("features hold NaN or infinite numbers; expected finite ones")
    return found
