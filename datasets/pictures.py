"""All pictures below a folder, whatever its layout, without labels: what maps between backbones are fitted on."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.seeds import derive
from carryover.datasets.base import Split
from carryover.datasets.images import split_of_files
from carryover.datasets.listing import Listing

NAMES = ("picture",)  # the one class that pictures without labels are of
DEEPEST = 20  # folders within each other; a link may lead back up


def load(path: str | Path, count: int = 0) -> Split:
    """The pictures of a folder and its folders, sorted by path; ``count`` of them, always the same, where it is not 0
    and there are more. Raises UserError for a path that is no folder or holds no picture."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"--images: no folder {quoted(str(path), 200)}; expected a folder of pictures")
    paths = found_in(Listing(root))
    if not paths:
        raise UserError(f"--images: no picture in {quoted(str(path), 200)} or its folders")
    if count and count < len(paths):
        paths = sorted(random.Random(derive("pictures", count)).sample(paths, count))
    keys = [f"{one}#{(root / one).stat().st_size}" for one in paths]  # as those of folder:PATH
    return split_of_files(root, paths, [0] * len(paths), keys, f"--images {root.name or root}")


def found_in(listing: Listing, folder: str = "", level: int = 0) -> list[str]:
    """Paths relative to the root, of each folder first its own."""
    start = f"{folder}/" if folder else ""
    found = [start + name for name in listing.pictures(folder)]
    if level < DEEPEST:
        for name in listing.subfolders(folder):
            found += found_in(listing, start + name, level + 1)
    return found


def told(split: Split, path: str | Path) -> dict:
    """What files say of them: how many, the folder's own name, and the sha256 of the list."""
    listed = hashlib.sha256("\n".join(split.keys).encode()).hexdigest()
    return {"count": len(split), "folder": Path(path).expanduser().resolve().name, "sha256": listed}
