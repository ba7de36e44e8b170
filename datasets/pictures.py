"""Pictures without labels: all below a folder, whatever its layout, or those that a user hands over one by one."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from carryover.bench.errors import UserError, quoted
from carryover.bench.seeds import derive
from carryover.datasets.base import Split
from carryover.datasets.images import NoWhite, read_image, split_of_files, to_rgb
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


# ---- handed over -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixed:
    """Reads pictures of which some are files and some are Pillow's own."""

    pictures: tuple[Path | Image.Image, ...]

    def __call__(self, chosen: Sequence[int]) -> list[Image.Image]:
        return [self.read(i) for i in chosen]

    def read(self, index: int) -> Image.Image:
        one = self.pictures[index]
        if isinstance(one, Path):
            return read_image(one)
        try:
            return to_rgb(one)
        except NoWhite as error:
            raise UserError(f"picture {index} {error}") from error


def given(what: Any) -> tuple[Split, list[str | int]]:
    """Pictures and what each is called: files, folders with all pictures below them, Pillow pictures, or a list of
    such. A file is called by its path, a Pillow picture by its place. Files are not opened. Raises UserError for a path
    that is not there and a folder without a picture."""
    if not isinstance(what, (str, os.PathLike, Image.Image, Iterable)):
        raise UserError(f"pictures: found {quoted(repr(what), 60)}, expected paths, a folder or Pillow pictures")
    items = [what] if isinstance(what, (str, os.PathLike, Image.Image)) else list(what)
    pictures: list[Path | Image.Image] = []
    names: list[str | int] = []
    keys = []
    for item in items:
        if isinstance(item, Image.Image):
            keys.append(f"{len(pictures)}")
            names.append(len(pictures))
            pictures.append(item)
        elif isinstance(item, (str, os.PathLike)):
            for path, key in files_at(Path(item).expanduser()):
                keys.append(key)
                names.append(str(path))
                pictures.append(path)
        else:
            raise UserError(f"a picture is {type(item).__name__}, expected a path, a folder or a Pillow picture")
    if not pictures:
        raise UserError("no picture: expected paths, a folder or Pillow pictures")
    labels = [0] * len(pictures)
    if all(isinstance(one, Path) for one in pictures):
        return split_of_files(Path(), [str(one) for one in pictures], labels, keys), names
    return Split(tuple(keys), np.asarray(labels, dtype=np.int64), Mixed(tuple(pictures))), names


def files_at(place: Path) -> list[tuple[Path, str]]:
    """The file, or the pictures of the folder and its folders; each with its key, as those of ``folder:PATH``."""
    try:
        if not place.is_dir():
            if not place.is_file():
                raise UserError(f"no picture or folder {quoted(str(place), 200)}")
            return [(place, f"{place.name}#{place.stat().st_size}")]
        found = found_in(Listing(place))
    except OSError as error:
        raise UserError(f"{quoted(str(place), 200)} cannot be read: {error.strerror or error}") from error
    if not found:
        raise UserError(f"no picture in {quoted(str(place), 200)} or its folders")
    return [(place / one, f"{one}#{(place / one).stat().st_size}") for one in found]
