"""What every kind of map that is fitted on anchors shares: matching of rows, held-out anchors, the score."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from carryover.bench.errors import UserError
from carryover.bench.ports.map_base import Map
from carryover.bench.ports.map_pairs import BLOCK, Pairs, centred, mean, paired, squares

Self = TypeVar("Self", bound="Fitted")


class Fitted(Map):
    """A kind gives ``solve`` and ``leave_out``.

    ids_   ids of the N anchors, in their order; None where rows were matched by place
    """

    ids_: tuple[Any, ...] | None = None
    _pairs: Pairs | None = None

    def fit(self: Self, old, new, old_ids=None, new_ids=None) -> Self:
        """Fit on N pictures that both backbones saw; no label is read.

        old, new          (N, Do), (N, Dn): arrays or tensors of any device; row i of both is one picture
        old_ids, new_ids  with them rows are matched by id, in the order of ``old``; rows without a partner are left out
                          (``about`` counts them)
        Sums are float64 on the CPU, the result fp32. Raises UserError for what no map can be fitted on."""
        self._pairs = paired(old, new, old_ids, new_ids)
        self.ids_, self.header = self._pairs.ids, {}
        self._score: float | None = None
        self._held_out: Tensor | None = None
        self._device = old.device if isinstance(old, Tensor) else None
        means = mean(self._pairs.new), mean(self._pairs.old)
        matrix, found = self.solve(self._pairs, *means)
        about: dict[str, Any] = {"count": len(self._pairs), **found}
        if self.ids_ is not None:
            about["without_partner"] = dict(zip(("old", "new"), self._pairs.alone, strict=True))
        self._take(matrix, *means, about)
        return self

    @abstractmethod
    def solve(self, pairs: Pairs, mean_new: Tensor, mean_old: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The matrix (Dn, Do), in float64, and what ``about`` says of it."""

    @abstractmethod
    def leave_out(self, pairs: Pairs) -> Tensor:
        """(N, Do): each row of ``pairs.new`` through a map that was fitted without it."""

    @property
    def held_out_(self) -> Tensor | np.ndarray:
        """(N, Do), fp32: each anchor through a map that was fitted without it. Worked out when first asked for; an
        array or a tensor, as ``old`` was."""
        held_out = self._left_out().float()
        return held_out.numpy() if self._device is None else held_out.to(self._device)

    def _left_out(self) -> Tensor:
        self._made()
        if self._pairs is None:
            raise UserError(f"held_out_ of this {self.name} map needs its anchors, which only fit() has; fit it again")
        if self._held_out is None:
            self._held_out = self.leave_out(self._pairs)
        return self._held_out

    def _scored(self) -> float | None:
        if self._score is None and self._pairs is not None:
            self._score = determination(self._pairs.old, self._left_out())
        return self._score


def determination(old: Tensor, guessed: Tensor) -> float:
    """R² of guesses (N, Do): 1 - SSE / SST over all entries, SST around the mean of ``old``."""
    parts = zip(old.split(BLOCK), guessed.split(BLOCK), strict=True)
    wrong = sum(float((part.double() - guess).square().sum()) for part, guess in parts)
    return 1 - wrong / squares(old, mean(old))


def likeness(old: Tensor, guessed: Tensor) -> float:
    """Mean cosine of guesses (N, Do) to what they guess, both less the mean of ``old``."""
    middle = mean(old)
    parts = zip(centred(old, middle), centred(guessed, middle), strict=True)
    return sum(float(cosine_similarity(one, other, dim=1).sum()) for one, other in parts) / len(old)


def folds(rows: int, count: int) -> list[Tensor]:
    """Rows of each fold: drawn once for all by a fixed seed, so that neither rows sorted by class nor a period in them
    makes a fold unlike the rest. Of fewer rows than folds, one each."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return [order[start::count].sort().values for start in range(min(count, rows))]
