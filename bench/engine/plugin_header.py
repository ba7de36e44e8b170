"""What a plug-in file's header says of the run and the backbones that made it (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carryover.bench.backbones.loading import Backbone
from carryover.bench.plan.runs import NUMBERS_VERSION, Run
from carryover.methods import source_hash
from carryover.methods.base import Method

NULL = type(None)
# Each must be there; those with NULL may be null, which says that whoever wrote the file does not know.
FIELDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "source": (str, NULL),
    "config": (dict,),
    "shape": (dict,),
    "trained_on": (list,),
    "dataset": (str,),
    "shots": (int, NULL),
    "seed": (int, NULL),
    "made_by": (str,),
}


def header_of(run: Run, method: Method, backbones: Sequence[Backbone]) -> dict[str, Any]:
    """What the header of a run's plug-in says beside format, version and key. ``backbones`` it was trained on, in
    order. Nothing of machine or time: the same plug-in is the same bytes."""
    refreshed = {"refresh": run.refresh} if len(run.path) > 1 else {}
    chosen = {"chosen": method.chosen} if method.chosen else {}
    return {
        **refreshed,
        **chosen,
        "method": run.method,
        "source": source_hash(type(method)),
        "config": {**asdict(run.config), **method.chosen},
        "shape": asdict(method.shape),
        "trained_on": [
            described(b.label, b.fingerprint, b.width, b.dim, b.tower.activation or None) for b in backbones
        ],
        "dataset": run.dataset,
        "shots": run.shots,
        "seed": run.seed,
        "made_by": made_by(NUMBERS_VERSION),
    }


def described(label: str, fingerprint: str | None, width: int, dim: int, activation: str | None) -> dict[str, Any]:
    """A backbone as a header names it; of a directory its name alone, wherever it lay."""
    kind, colon, path = label.partition("local-dir:")
    shown = f"{colon}{Path(path).name}" if colon and not kind else label
    return {"backbone": shown, "fingerprint": fingerprint, "width": width, "dim": dim, "activation": activation}


def made_by(numbers: int) -> str:
    return f"Carryover, numbers version {numbers}"
