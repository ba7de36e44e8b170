"""Where a dataset lies under the user's data root, and what must be put there."""

from __future__ import annotations

from pathlib import Path

from carryover.bench.errors import UserError
from carryover.datasets.layouts import LAYOUTS
from carryover.datasets.sources import SOURCES


def find_folder(id: str, data_root: str) -> Path:
    """The dataset's folder. Raises UserError where no data root was given or nothing is there."""
    layout = LAYOUTS[id]
    if not data_root:
        raise UserError(f"dataset '{id}' needs --data-root: the folder that holds '{layout.folder}/'")
    root = Path(data_root)
    if not root.is_dir():
        raise UserError(f"--data-root: no folder '{data_root}'")
    folder = root / layout.folder
    if not folder.is_dir():
        raise UserError(f"{id}: no folder '{folder}'; put there {needed(id)}, or leave {id} out of --datasets")
    return folder


def needed(id: str) -> str:
    """What the dataset's folder must hold, each thing with its own address: the end of a sentence."""
    things = []
    for source in SOURCES.get(id, ()):
        if not source.extra:
            places = " and ".join(place for _, place in source.gives)
            why = f": {source.by_hand}" if source.by_hand else ""
            things.append(f"{places} (from {source.url}{why})")
    return ", ".join(things) or "its pictures"
