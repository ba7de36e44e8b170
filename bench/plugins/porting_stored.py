"""A plug-in file carried over from stored features alone: neither backbone is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.backbones.archs import Tower
from carryover.bench.engine.plugin_header import described
from carryover.bench.errors import UserError
from carryover.bench.plugins.format import Plugin
from carryover.bench.plugins.porting import Outcome, checked_map, home_of, kind_of_map, usual_port, without_tower
from carryover.bench.plugins.scores import check_length, is_unit
from carryover.bench.plugins.stored_features import Stored
from carryover.bench.ports.base import PORTS
from carryover.bench.ports.frozen import kept
from carryover.bench.ports.mapped import Mapped
from carryover.bench.ports.mapped_unit import UnitMapped
from carryover.methods.base import Classes

NOT_KNOWN = "not known"


def rows_of(side: Stored) -> Tensor:
    """(N, D), fp32"""
    return torch.from_numpy(np.ascontiguousarray(side.features, dtype=np.float32))


def carry_stored(
    plugin: Plugin, classes: Classes, old: Stored, new: Stored, port: str | None, tower: Tower | None
) -> Outcome:
    """Through a map that is fitted on features as they are given, rows matched by id or place. New features of length 1
    make a plug-in that brings all it is given to that length, so that it also answers on the backbone itself. Raises
    UserError for a plug-in that needs its old backbone, for widths that do not fit, and for old features of length 1
    where the plug-in reads their length.

    tower  the new backbone where it is named; its weights are not read, so its fingerprint is not known
    """
    home = home_of(plugin)
    method = without_tower(plugin, classes)
    if method is None:
        raise UserError(
            f"port: {plugin.method} needs its old backbone's text tower to answer; give pictures: port --plugin FILE "
            "--backbone NEW --images FOLDER"
        )
    for flag, side, width, whose in (
        ("--old", old, home["dim"], f"the plug-in's backbone {home['backbone']}"),
        ("--new", new, tower and tower.dim, tower and tower.label),
    ):
        if width and side.features.shape[1] != width:
            raise UserError(
                f"{flag}: '{side.path}' holds features of width {side.features.shape[1]}, {whose} gives {width}"
            )
    check_length(f"--old: '{old.path}'", method, rows_of(old)[:1000])
    id = port or usual_port(plugin)
    fitted: Any = kind_of_map(id)()
    both = old.ids is not None and new.ids is not None
    fitted.fit(rows_of(old), rows_of(new), *((old.ids, new.ids) if both else ()))
    kind = UnitMapped if is_unit(rows_of(new)) else Mapped
    ported = kind.through(fitted, kept(method, classes), classes, "")
    rows = matched(old, new) if both else list(range(len(old.features)))
    found = checked_map(ported, method, rows_of(old)[rows])
    place = described(NOT_KNOWN, None, 0, new.features.shape[1], None)
    if tower is not None:
        place = described(tower.label, None, tower.width, tower.dim, tower.activation or None)
    told = {"port": id, "name": PORTS[id].name, "needs": sorted(PORTS[id].needs), "old": home, "new": place}
    anchors = {"kind": "features", "count": len(rows), "sha256": sha256_of_rows(old, new)}
    anchors |= {"files": [Path(one.path).name for one in (old, new)], "matched": "by id" if both else "by place"}
    return Outcome(ported, {**told, **found, "anchors": anchors})


def matched(old: Stored, new: Stored) -> list[int]:
    """Rows of ``old`` that have a partner, in their order, as maps are fitted on."""
    assert old.ids is not None and new.ids is not None
    theirs = set(new.ids.tolist())
    return [row for row, one in enumerate(old.ids.tolist()) if one in theirs]


def sha256_of_rows(*sides: Stored) -> str:
    """Of their features, whatever files they lie in."""
    found = hashlib.sha256()
    for side in sides:
        found.update(f"{side.features.dtype} {side.features.shape}".encode())
        found.update(np.ascontiguousarray(side.features).tobytes())
    return found.hexdigest()
