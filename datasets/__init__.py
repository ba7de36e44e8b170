"""Datasets by id. Micro sets are rendered, the others read from a data root in CoOp's layout.

This folder shares its name with a package that many people have installed; nothing here imports that one.
"""

from __future__ import annotations

from bench.errors import unknown
from datasets import coop_format, micro
from datasets.base import Dataset

PAPER_ORDER = ("imagenet", "caltech101", "oxford_pets", "stanford_cars", "flowers102", "food101", "fgvc_aircraft", "sun397",
               "dtd", "eurosat", "ucf101")


def ids() -> list[str]:
    return [*(id for id in PAPER_ORDER if id in coop_format.LAYOUTS), *micro.IDS, *micro.OOD_IDS]


def default(kind: str) -> list[str]:
    """The datasets of the main suite: "micro" or "paper"."""
    return list(micro.IDS) if kind == "micro" else [id for id in PAPER_ORDER if id in coop_format.LAYOUTS]


def order(id: str) -> int:
    """Position in the tables; unknown ids last."""
    return ids().index(id) if id in ids() else len(ids())


def load(id: str, data_root: str = "") -> Dataset:
    """Raises UserError for an unknown id or data that is missing or damaged."""
    if id in (*micro.IDS, *micro.OOD_IDS):
        return micro.load(id)
    if id in coop_format.LAYOUTS:
        return coop_format.load(id, data_root)
    raise unknown("dataset", id, ids())
