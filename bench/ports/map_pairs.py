"""Rows of two sets of features brought together: what a map is fitted on, and what it refuses in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.errors import UserError, quoted

BLOCK = 8192  # rows that are float64 at a time
FLOATS = {"float16": np.float32, "float32": np.float32, "float64": np.float64}  # what each is kept as
NOTHING = 1e-12  # spread of features, as a part of their size, that is rounding and no variation


@dataclass(frozen=True)
class Pairs:
    """N matched rows on the CPU: old (N, Do), new (N, Dn), floating, as given or fp32; ``ids`` of the rows, if there
    are any; how many rows of each side had no partner."""

    old: Tensor
    new: Tensor
    ids: tuple[Any, ...] | None = None
    alone: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.old)


def paired(old: Any, new: Any, old_ids: Any = None, new_ids: Any = None) -> Pairs:
    """The rows of both sides that belong together: row i with row i, or by their ids, in the order of ``old``.

    old, new   (N, Do) and (N, Dn), or with ids (any number of rows each): arrays or tensors of any device and of any
               real numbers
    Raises UserError where no map can be fitted on them."""
    sides = tensor_of(old, "old"), tensor_of(new, "new")
    if (old_ids is None) != (new_ids is None):
        has, not_has = ("new", "old") if old_ids is None else ("old", "new")
        raise UserError(f"fit: {has}_ids without {not_has}_ids; give both, or none where row i of both belong together")
    if old_ids is None:
        if len(sides[0]) != len(sides[1]):
            raise UserError(
                f"fit: old has {len(sides[0])} rows, new {len(sides[1])}; row i of both must be of the same picture: "
                "give old_ids and new_ids to match them by id"
            )
        found = Pairs(sides[0].clone(), sides[1].clone())  # the caller may change what it gave
    else:
        found = by_id(*sides, ids_of(old_ids, sides[0], "old"), ids_of(new_ids, sides[1], "new"))
    check(found)
    return found


def tensor_of(value: Any, name: str) -> Tensor:
    """(N, D) on the CPU, of a floating type."""
    if not isinstance(value, Tensor):
        try:
            value = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise UserError(f"fit: {name} is no array of numbers; expected (rows, width)") from None
        if value.dtype.kind not in "fiub":
            raise UserError(f"fit: {name} holds {value.dtype}, expected real numbers in an array (rows, width)")
        kind = np.float32 if value.dtype.itemsize < 4 and value.dtype.kind != "f" else np.float64
        value = torch.from_numpy(np.ascontiguousarray(value, FLOATS.get(value.dtype.newbyteorder("=").name, kind)))
    value = value.detach().cpu()
    if value.is_complex() or value.layout != torch.strided:
        raise UserError(f"fit: {name} is a tensor of {value.dtype}, {value.layout}; expected real numbers, dense")
    if value.dim() != 2 or not value.shape[1]:
        raise UserError(f"fit: {name} has shape {tuple(value.shape)}, expected two dimensions: (rows, width)")
    return value if value.dtype in (torch.float32, torch.float64) else value.to(wide_enough(value.dtype))


def wide_enough(kind: torch.dtype) -> torch.dtype:
    """The type that holds numbers of ``kind`` (halves, integers, booleans) as they are."""
    return torch.float32 if kind.is_floating_point or kind.itemsize < 4 else torch.float64


def ids_of(ids: Any, rows: Tensor, name: str) -> dict[Any, int]:
    """Where the row of each id is."""
    listed = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    if len(listed) != len(rows):
        raise UserError(f"fit: {name}_ids has {len(listed)} ids, {name} {len(rows)} rows; expected one id a row")
    try:
        where = {one: row for row, one in enumerate(listed)}
    except TypeError:
        raise UserError(f"fit: {name}_ids are no texts or numbers; expected one id a row") from None
    if len(where) != len(listed):
        twice = next(one for row, one in enumerate(listed) if where[one] != row)
        more = len(listed) - len(where)
        raise UserError(
            f"fit: {name}_ids has {more} ids more than once, the first {quoted(str(twice))}; each may be there once"
        )
    return where


def by_id(old: Tensor, new: Tensor, old_at: dict[Any, int], new_at: dict[Any, int]) -> Pairs:
    both = [one for one in old_at if one in new_at]
    if not both:
        shown = " and ".join(quoted(str(next(iter(side), "none")), 40) for side in (old_at, new_at))
        raise UserError(f"fit: old_ids and new_ids have none in common (the first are {shown}); expected the same ids")
    rows = [[side[one] for one in both] for side in (old_at, new_at)]
    return Pairs(old[rows[0]], new[rows[1]], tuple(both), (len(old_at) - len(both), len(new_at) - len(both)))


def check(pairs: Pairs) -> None:
    """Raises UserError for too few rows, NaN or infinities, and features that do not vary."""
    if len(pairs) < 2:
        raise UserError(f"fit: a map needs 2 pairs of rows or more, found {len(pairs)}")
    for name, rows in (("old", pairs.old), ("new", pairs.new)):
        bad = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            first = f"row {bad[0]}" if pairs.ids is None else f"id {quoted(str(pairs.ids[bad[0]]), 40)}"
            raise UserError(
                f"fit: {len(bad)} of {len(rows)} rows of {name} hold NaN or infinite numbers, the first is {first}; "
                "leave those rows out on both sides"
            )
        if constant(rows):
            raise UserError(f"fit: all {len(rows)} rows of {name} are the same; expected features that vary")


def constant(rows: Tensor) -> bool:
    """Whether (N, D) is N times the same row, but for rounding."""
    spread = max(float(part.abs().max()) for part in centred(rows, mean(rows)))
    return spread <= NOTHING * float(rows.abs().max())


def mean(rows: Tensor) -> Tensor:
    """(N, D) -> (D,), float64."""
    return sum((part.double().sum(0) for part in rows.split(BLOCK)), start=torch.tensor(0.0)) / len(rows)


def centred(rows: Tensor, middle: Tensor) -> Iterator[Tensor]:
    """(N, D) less its mean (D,), in float64, a block of rows at a time."""
    return (part.double() - middle for part in rows.split(BLOCK))


def products(new: Tensor, old: Tensor, mean_new: Tensor, mean_old: Tensor) -> Tensor:
    """new^T old (Dn, Do) of (N, Dn) and (N, Do) less their means, in float64."""
    blocks = zip(centred(new, mean_new), centred(old, mean_old), strict=True)
    return sum((a.T @ b for a, b in blocks), start=torch.tensor(0.0))


def squares(rows: Tensor, middle: Tensor) -> float:
    """Squared Frobenius norm of (N, D) less ``middle`` (D,)."""
    return sum(float(part.square().sum()) for part in centred(rows, middle))
