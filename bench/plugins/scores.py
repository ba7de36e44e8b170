"""What a plug-in answers with: logits of classes, or scores; and how alike two columns of scores are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.plugins.contract import config_of
from carryover.bench.plugins.format import Plugin
from carryover.bench.ports.base import Ported
from carryover.bench.ports.frozen import KeptMethod, Nested
from carryover.bench.ports.mapped import Mapped
from carryover.methods.base import METHODS

UNIT = 1e-2  # how far from 1 the length of a row of length 1 may be: half precision is 1e-3
LENGTHS = 10.0  # by how much rows are lengthened to see whether a plug-in reads their length
ALIKE = 1e-3


def gives_scores(found: Any) -> bool:
    """Of a method, a ported plug-in or what it keeps."""
    while True:
        if isinstance(found, Mapped):
            found = found.head
        elif isinstance(found, Nested):
            found = found.ported
        elif isinstance(found, KeptMethod):
            found = found.method
        else:
            tells = getattr(type(found), "tells_scores", None)
            return bool(tells and tells(found.config))


def tells_scores(plugin: Plugin) -> bool:
    """Of a file, ported or not: the header's method and config are those of the plug-in that was ported."""
    kind = METHODS[plugin.method]
    tells, (config, _) = getattr(kind, "tells_scores", None), config_of(kind, plugin.header["config"])
    return bool(tells and config is not None and tells(config))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, of (N,) each; NaN where one does not vary."""
    if min(np.ptp(one), np.ptp(other)) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def correlations(names: tuple[str, ...], before: Tensor, after: Tensor) -> dict[str, float | None]:
    """Of scores (N, S), by the name of each; None where one does not vary."""
    columns = before.double().cpu().numpy().T, after.double().cpu().numpy().T
    found = {name: correlation(one, other) for name, one, other in zip(names, *columns, strict=True)}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def is_unit(rows: Tensor) -> bool:
    """Whether all of (N, D) have length 1."""
    return bool(((rows.float().norm(dim=-1) - 1).abs() < UNIT).all())


@torch.no_grad()
def reads_length(found: Ported | Any, rows: Tensor) -> bool:
    """Whether it answers otherwise for rows (N, D) that are longer."""
    one, other = found.logits(rows), found.logits(rows * LENGTHS)
    return not torch.allclose(one, other, rtol=ALIKE, atol=ALIKE * float(one.abs().max()))


def check_length(where: str, found: Ported | Any, rows: Tensor) -> None:
    """Raises UserError for rows of length 1 where the plug-in reads features as the backbone gives them: nothing in
    the rows says how long these were."""
    if is_unit(rows) and reads_length(found, rows):
        raise UserError(
            f"{where} holds features of length 1, and the plug-in reads them as the backbone gives them, whose lengths "
            "differ; expected those. If it was trained on features of length 1: import FILE --fact inputs=unit"
        )
