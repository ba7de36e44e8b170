"""The affine map from the features of a new backbone to those of an old one, and what every kind of map shares.

Letters: N anchors (pairs of rows that a map is fitted on), Dn and Do widths of the new and the old space, B rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.ports import map_files

ROUNDING = 1e-6  # of the largest singular value: below it is what fp32 made of nothing

Self = TypeVar("Self", bound="Map")


class Map:
    """``x_old = (x_new - mean_new) @ matrix + mean_old``. Made by a kind's ``fit``, by ``load``, ``inverse``, ``then``.

    matrix     (Dn, Do) fp32, on the CPU; its scale is inside
    mean_new   (Dn,), mean_old (Do,): fp32, the means of the anchors
    about      plain values: name, count N, new_width, old_width; of a fitted one rank (how many directions the anchors
               show) and what its kind adds
    header     what ``load`` found in the file beside the tensors; {} otherwise
    """

    name: ClassVar[str] = "map"
    matrix: Tensor
    mean_new: Tensor
    mean_old: Tensor

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self._score: float | None = None

    @classmethod
    def of(cls: type[Self], matrix: Tensor, mean_new: Tensor, mean_old: Tensor, about: dict[str, Any]) -> Self:
        """From its parts, of any device and precision."""
        made = cls()
        made._take(matrix, mean_new, mean_old, about)
        return made

    def _take(self, matrix: Tensor, mean_new: Tensor, mean_old: Tensor, about: dict[str, Any]) -> None:
        parts = [value.detach().cpu().float().contiguous() for value in (matrix, mean_new, mean_old)]
        if not all(value.isfinite().all() for value in parts):
            raise UserError(f"the numbers of this {self.name} map are too large for fp32; scale the features down")
        self.matrix, self.mean_new, self.mean_old = parts
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}
        widths = dict(zip(("new_width", "old_width"), self.matrix.shape, strict=True))
        self.about = {"name": self.name, **about, **widths}

    @property
    def fitted(self) -> bool:
        return hasattr(self, "matrix")

    def _made(self) -> None:
        if not self.fitted:
            raise UserError(f"this {self.name} map is not fitted yet; call fit(old, new)")

    def __repr__(self) -> str:
        if not self.fitted:
            return f"{type(self).__name__}(not fitted)"
        return f"{type(self).__name__}({self.about['new_width']} -> {self.about['old_width']}, {self.about})"

    def transform(self, new):
        """(B, Dn) of the new space, or any leading dimensions -> (B, Do) in the old one.

        Arrays give arrays, tensors give tensors on their device; fp64 gives fp64, all else fp32. Gradients pass."""
        self._made()
        rows = new if isinstance(new, Tensor) else torch.from_numpy(np.ascontiguousarray(new))
        if not rows.dim() or rows.shape[-1] != len(self.mean_new):
            raise UserError(
                f"this map takes features of width {len(self.mean_new)}, found shape {tuple(rows.shape)}: are they of "
                "another backbone?"
            )
        kind = torch.float64 if rows.dtype == torch.float64 else torch.float32
        where = (rows.device, kind)
        if where not in self._placed:
            self._placed[where] = tuple(part.to(*where) for part in (self.matrix, self.mean_new, self.mean_old))
        matrix, mean_new, mean_old = self._placed[where]
        mapped = (rows.to(kind) - mean_new) @ matrix + mean_old
        return mapped if isinstance(new, Tensor) else mapped.numpy()

    @property
    def score_(self) -> float:
        """R² on anchors that the map was fitted without: 1 less the squared error over the squared distances to the old
        mean. 1 is perfect, 0 as good as the mean. It ranks maps of one kind; between kinds it favours the one that
        shrinks (``map_linear``)."""
        self._made()
        if (score := self._scored()) is None:
            raise UserError(f"this {self.about['name']} map was not fitted to these spaces, so it has no score_")
        return score

    def _scored(self) -> float | None:
        return self._score

    def inverse(self) -> Map:
        """From the old space to the new one, by the pseudo-inverse: exact where the matrix is square and of full rank;
        otherwise the least-squares way back, in which directions that the matrix drops stay at the mean. Not the map
        that a fit in the other direction gives."""
        self._made()
        matrix = torch.linalg.pinv(self.matrix.double(), rtol=ROUNDING)
        about = {"name": f"inverse of {self.about['name']}", "count": self.about["count"]}
        return Map.of(matrix, self.mean_old, self.mean_new, about)

    def then(self, other: Map) -> Map:
        """First this map, then ``other``: from this one's new space to the other's old one."""
        self._made()
        other._made()
        if self.about["old_width"] != other.about["new_width"]:
            raise UserError(
                f"this map ends in width {self.about['old_width']}, the next begins with {other.about['new_width']}; "
                "expected maps that meet in one space"
            )
        second = other.matrix.double()
        offset = (self.mean_old.double() - other.mean_new.double()) @ second + other.mean_old.double()
        about = {
            "name": f"{self.about['name']}, then {other.about['name']}",
            "count": min(self.about["count"], other.about["count"]),
        }
        return Map.of(self.matrix.double() @ second, self.mean_new, offset, about)

    def save(self, path: str | Path, **more: Any) -> None:
        """A safetensors file of format carryover-map (``map_files``). ``more``: what else its header says, as JSON:
        ``old`` and ``new``, the backbones, ``fitted_on``, what the anchors were. The ``score_`` of a
        fitted map is worked out for it."""
        self._made()
        tensors = {"matrix": self.matrix, "mean_new": self.mean_new, "mean_old": self.mean_old}
        map_files.write(Path(path), tensors, self.about, self._scored(), more)

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """The map of a file. Raises UserError, in one line, for another format or version, or for numbers that are no
        map; pickles are never opened."""
        tensors, header = map_files.read(Path(path))
        known = {kind.name: kind for kind in kinds(Map)}
        kind = known.get(header["about"]["name"], Map)
        if not issubclass(kind, cls):
            raise UserError(
                f"'{path}' holds a map '{header['about']['name']}', not '{cls.name}'; read it with Map.load"
            )
        made = kind.of(**tensors, about=header["about"])
        made.header, made._score = header, header["score"]
        return made


def kinds(of: type[Map]) -> list[type[Map]]:
    return [one for kind in of.__subclasses__() for one in (kind, *kinds(kind))]
