"""Ridge regression with an intercept; its strength is chosen by the exact leave-one-out error (Allen 1974), no label.

With A (N, Dn), B (N, Do) centred, lambda = c |A|^2 / Dn and W = (A^T A + lambda I)^-1 A^T B, row i is guessed without
itself by b_i - e_i / (1 - h_i): e the residuals B - A W, h_i = 1/N + a_i (A^T A + lambda I)^-1 a_i^T. The 1/N is the
intercept's: without it anchors fewer than Dn look perfectly predicted.

Ridge shrinks each direction by how weak it is. That lowers the squared error, but can take away what a classifier
reads: on real CLIP features a `Linear` map has the better R² and the ported linear probe the worse accuracy. So
``score_`` does not choose between a `Linear` and a `Procrustes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports.map_fitted import Fitted
from carryover.bench.ports.map_pairs import BLOCK, Pairs, centred, products, squares

GRID = tuple(10 ** (exponent / 2) for exponent in range(-8, 5))  # of c: 1e-4 to 1e2, never 0
ROUNDING = 1e-10  # of the largest squared singular value


class Linear(Fitted):
    """``x_old = (x_new - mean_new) W + mean_old``; directions in which no anchor varies are dropped.

    strength   c: lambda in units of the mean squared singular value of the centred anchors, so that the scale of the
               features does not matter; None: chosen on ``GRID``

    ``about`` adds rank, strength, and edge: True where the best strength is the first or last of the grid, so a better
    one may lie beyond. ``held_out_`` is exact leave-one-out with that strength.
    """

    name = "linear"

    def __init__(self, strength: float | None = None):
        super().__init__()
        self.strength = strength

    def solve(self, pairs: Pairs, mean_new: Tensor, mean_old: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if self.strength is not None and not 0 < self.strength < float("inf"):
            raise UserError(f"Linear: strength is {self.strength}, expected a number above 0, or None to choose it")
        directions, values, answer = basis(pairs, mean_new, mean_old)
        unit = squares(pairs.new, mean_new) / len(mean_new)
        grid = GRID if self.strength is None else (self.strength,)
        losses = torch.zeros(len(grid), dtype=torch.float64)
        solved = (mean_new, mean_old), directions, values, answer
        if len(grid) > 1:
            for block in errors(pairs, *solved, [c * unit for c in grid], torch.float32):
                losses += torch.stack([error.square().sum() for error in block]).double()
        best = int(losses.argmin())
        self._solved = *solved, [grid[best] * unit]
        about = {"rank": int((values > ROUNDING * values.max()).sum()), "strength": grid[best]}
        about["edge"] = len(grid) > 1 and best in (0, len(grid) - 1)
        return directions @ (answer / (values + grid[best] * unit)[:, None]), about

    def leave_out(self, pairs: Pairs) -> Tensor:
        blocks = zip(pairs.old.split(BLOCK), errors(pairs, *self._solved), strict=True)
        return torch.cat([old.double() - error for old, (error,) in blocks])


def basis(pairs: Pairs, mean_new: Tensor, mean_old: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """V (Dn, r), s^2 (r,) and V^T A^T B (r, Do) for A = U s V^T."""
    if len(pairs) > pairs.new.shape[1]:
        values, directions = torch.linalg.eigh(products(pairs.new, pairs.new, mean_new, mean_new))
        answer = directions.T @ products(pairs.new, pairs.old, mean_new, mean_old)
        return directions, values.clamp(min=0), answer
    _, s, vt = torch.linalg.svd(pairs.new.double() - mean_new, full_matrices=False)
    return vt.T, s.square(), vt @ products(pairs.new, pairs.old, mean_new, mean_old)


def errors(
    pairs: Pairs,
    means: tuple[Tensor, Tensor],
    v: Tensor,
    values: Tensor,
    answer: Tensor,
    strengths: Sequence[float],
    kind: torch.dtype = torch.float64,
) -> Iterator[list[Tensor]]:
    """Leave-one-out errors (rows, Do) at each strength lambda, a block of rows at a time: what a row is, less what the
    others make of it. ``kind``: fp32 is twice as fast and enough to choose by, since no strength is near 0."""
    values, answer = values.to(kind), answer.to(kind)
    for new, old in zip(centred(pairs.new, means[0]), centred(pairs.old, means[1]), strict=True):
        along, old = (new @ v).to(kind), old.to(kind)
        yield [left_out(old, along, along / (values + strength), answer, len(pairs)) for strength in strengths]


def left_out(old: Tensor, along: Tensor, shrunk: Tensor, answer: Tensor, count: int) -> Tensor:
    """e_i / (1 - h_i) of rows old (rows, Do) with A V in ``along`` and A V / (s^2 + lambda) in ``shrunk`` (rows, r)."""
    leverage = 1 / count + (along * shrunk).sum(1)
    return (old - shrunk @ answer) / (1 - leverage)[:, None]
