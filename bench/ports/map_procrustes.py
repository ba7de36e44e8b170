"""Orthogonal Procrustes with scale (Schönemann and Carroll 1970), between spaces of any two widths.

With A (N, Dn), B (N, Do) centred by their own means and A^T B = U S V^T: R = U V^T, scale = |B| / |A| or tr(S) / |A|^2.
Reflections are kept: nothing makes the axes of two models right-handed alike.

Widths: R has orthonormal rows or columns, whichever are fewer. Into a wider space this is the least-squares answer.
Into a narrower one it is the R of the largest trace. Cutting the wide side to its principal directions first was never
better: on random anisotropic features (96 to 64, 300 rows, five draws) R² on new rows is 0.67 against 0.66, and on CLIP
text features (768 to 512, 66 rows) both are the same. `Linear` is the least-squares answer there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports.map_base import Map
from carryover.bench.ports.map_fitted import Fitted, folds, likeness
from carryover.bench.ports.map_pairs import Pairs, constant, mean, products, squares, tensor_of

UNSEEN = 1e-10  # of the largest singular value of A^T B: spreads below 1e-5 of the widest are fp32 rounding
STRENGTHS = (0.0, 0.3, 1.0, 3.0, 10.0, 100.0)  # of a prior, where it is chosen
SCALES = ("fit", "spread")

SVD = tuple[Tensor, Tensor, Tensor]  # U (Dn, r), S (r,), V^T (r, Do)


class Procrustes(Fitted):
    """``x_old = scale (x_new - mean_new) R + mean_old``.

    Anchors show at most N - 1 directions. A singular value decomposition fills the others of R with noise, so a prior
    says what becomes of them:

    prior           "drop": what no anchor varies in is left out, so it lands on the old mean. Or R0: a matrix (Dn, Do),
                    or a `Map` between the same backbones, of which the rotation is taken
    prior_strength  0: R0 decides only where no anchor speaks. Above: R is the nearest rotation to
                    A^T B + strength tr(S) / min(Dn, Do) R0, which also turns the directions that were seen towards R0.
                    None: chosen among ``STRENGTHS`` and "drop" by the mean cosine of held-out anchors to themselves,
                    both less the old mean: label-free, and blind to the scale, which would favour strong priors
    scale           "spread": |B| / |A|, so that mapped features have the spread of old ones. "fit": the least-squares
                    scale for R on the anchors, tr(R^T A^T B) / |A|^2; the worse the fit, the more it shrinks features
                    towards the mean, which moves what a head on cosines sees. Both are the same where the fit is exact.
                    Either holds for unseen directions too, whatever the prior
    folds           of ``held_out_``: each anchor is mapped by a map of its own means that was fitted on the other folds

    ``about`` adds rank, scale, scale_by, folds, prior and strength. A rotation does not depend on signs or order of
    singular vectors, so it is the same with every linear algebra library, to rounding.
    """

    name = "procrustes"

    def __init__(
        self,
        prior: str | Map | Tensor | np.ndarray = "drop",
        prior_strength: float | None = 0.0,
        scale: str = "spread",
        folds: int = 5,
    ):
        super().__init__()
        self.prior, self.prior_strength, self.scale, self.folds = prior, prior_strength, scale, folds

    def solve(self, pairs: Pairs, mean_new: Tensor, mean_old: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 2:
            raise UserError(f"Procrustes: folds is {self.folds}, expected a whole number, 2 or more")
        if self.scale not in SCALES:
            raise UserError(f"Procrustes: scale is '{self.scale}', expected {' or '.join(map(repr, SCALES))}")
        self._r0 = prior_of(self.prior, pairs.new.shape[1], pairs.old.shape[1])
        self._strength = self._chosen(pairs)
        parts = decomposed(pairs.new, pairs.old, mean_new, mean_old)
        turn = rotation(parts, self._r0, self._strength)
        scale = self._scale(parts, turn, squares(pairs.new, mean_new), squares(pairs.old, mean_old))
        about = {"rank": int(seen(parts[1]).sum()), "scale": scale, "scale_by": self.scale}
        about["folds"] = min(self.folds, len(pairs))
        return scale * turn, {**about, "prior": "drop" if self._strength is None else "R0", "strength": self._strength}

    def _scale(self, parts: SVD, turn: Tensor, new: float, old: float) -> float:
        """For |A|^2 and |B|^2 in ``new`` and ``old``."""
        u, s, vt = parts
        if not s.max() > 0:
            return 0.0
        return (old / new) ** 0.5 if self.scale == "spread" else float((u * (turn @ vt.T) * s).sum()) / new

    def _chosen(self, pairs: Pairs) -> float | None:
        """The strength of the prior: as given, or the best on held-out anchors; the first of equals."""
        if self._r0 is None:
            return None
        if (given := self.prior_strength) is not None:
            if not given >= 0 or given == float("inf"):
                raise UserError(f"Procrustes: prior_strength is {given}, expected a number of 0 or more, or None")
            return float(given)
        tried = (None, *STRENGTHS)
        likely = [likeness(pairs.old, guess) for guess in self._guesses(pairs, tried)]
        return tried[likely.index(max(likely))]

    def leave_out(self, pairs: Pairs) -> Tensor:
        return self._guesses(pairs, (self._strength,))[0]

    def _guesses(self, pairs: Pairs, strengths: tuple[float | None, ...]) -> list[Tensor]:
        """(N, Do) for each strength: every fold mapped by what the others give."""
        guesses = [torch.empty(pairs.old.shape, dtype=torch.float64) for _ in strengths]
        for fold in folds(len(pairs), self.folds):
            others = torch.ones(len(pairs), dtype=torch.bool)
            others[fold] = False
            new, old = pairs.new[others], pairs.old[others]
            mean_new, mean_old = mean(new), mean(old)
            parts = decomposed(new, old, mean_new, mean_old)
            spreads = squares(new, mean_new), squares(old, mean_old)
            for strength, guess in zip(strengths, guesses, strict=True):
                turn = rotation(parts, self._r0, strength)
                scale = self._scale(parts, turn, *spreads)
                guess[fold] = (pairs.new[fold].double() - mean_new) @ turn * scale + mean_old
        return guesses

    def inverse(self) -> Procrustes:
        """x_new = (x_old - mean_old) R^T / scale + mean_new: exact where R is square and of full rank. It does not
        shrink as a fit in the other direction would."""
        self._made()
        size = float(torch.linalg.matrix_norm(self.matrix.double(), 2))  # the scale, without its sign
        matrix = self.matrix.double().T / (size**2 or 1.0)
        kept: dict[str, Any] = {name: self.about[name] for name in ("count", "rank") if name in self.about}
        about = {**kept, "scale": 1 / size if size else 0.0, "inverse": True}
        return Procrustes.of(matrix, self.mean_old, self.mean_new, about)


def prior_of(prior: Any, new_width: int, old_width: int) -> Tensor | None:
    """R0 (Dn, Do) in float64; None for "drop"."""
    if isinstance(prior, str):
        if prior != "drop":
            raise UserError(f"Procrustes: prior is '{prior}', expected 'drop', a matrix (Dn, Do) or a map")
        return None
    matrix = tensor_of(prior.matrix if isinstance(prior, Map) else prior, "prior").double()
    if matrix.shape != (new_width, old_width) or not matrix.isfinite().all():
        raise UserError(
            f"Procrustes: prior has shape {tuple(matrix.shape)}, expected ({new_width}, {old_width}), the widths of "
            "new and old, all of it finite"
        )
    return polar(torch.linalg.svd(matrix, full_matrices=False)) if isinstance(prior, Map) else matrix


def decomposed(new: Tensor, old: Tensor, mean_new: Tensor, mean_old: Tensor) -> SVD:
    """Singular values and vectors of A^T B."""
    if constant(new) or constant(old):  # of a fold, or its rest
        empty = torch.zeros(new.shape[1] + old.shape[1], 1, dtype=torch.float64)
        return empty[: new.shape[1]], torch.zeros(1, dtype=torch.float64), empty[new.shape[1] :].T
    if 2 * len(new) > min(new.shape[1], old.shape[1]):
        return torch.linalg.svd(products(new, old, mean_new, mean_old), full_matrices=False)
    # Few anchors: A^T B = Qa (Ra Rb^T) Qb^T, and the core is only (N, N).
    (qa, ra), (qb, rb) = (torch.linalg.qr(rows.double().sub(m).T) for rows, m in ((new, mean_new), (old, mean_old)))
    u, s, vt = torch.linalg.svd(ra @ rb.T)
    return qa @ u, s, vt @ qb.T


def seen(values: Tensor) -> Tensor:
    return values > UNSEEN * values.max()


def polar(parts: SVD) -> Tensor:
    """U V^T of the directions that are there: orthogonal between them, nothing elsewhere."""
    u, s, vt = parts
    return u[:, seen(s)] @ vt[seen(s)]


def rotation(parts: SVD, r0: Tensor | None, strength: float | None) -> Tensor:
    """R (Dn, Do) for A^T B in ``parts``; strength None drops the prior."""
    u, s, vt = parts
    if r0 is None or strength is None:
        return polar(parts)
    if strength:
        pull = strength * s.sum() / min(r0.shape)
        return polar(torch.linalg.svd((u * s) @ vt + pull * r0, full_matrices=False))
    u1, v1 = u[:, seen(s)], vt[seen(s)].T
    rest = r0 - u1 @ (u1.T @ r0)
    rest -= rest @ v1 @ v1.T
    ru, rs, rvt = torch.linalg.svd(rest, full_matrices=False)
    there = rs > UNSEEN * r0.norm()
    return u1 @ v1.T + ru[:, there] @ rvt[there]
