"""Datasets in the layout that KaiyangZhou/CoOp's DATASETS.md describes, read from their ``split_zhou_*.json``.

A split file holds lists "train", "val" and "test" of ``[path, label, class name]``, paths relative to the image folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from bench.errors import UserError
from datasets.base import Dataset, Split
from datasets.templates import TEMPLATES


@dataclass(frozen=True)
class Layout:
    """Where a dataset lies under the data root, the name that tables show, and the paper's Table 1 (classes, test)."""

    name: str
    folder: str
    images: str
    split: str
    classes: int
    test: int


LAYOUTS = {
    "caltech101": Layout("Caltech101", "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", 100, 2465),
    "oxford_pets": Layout("OxfordPets", "oxford_pets", "images", "split_zhou_OxfordPets.json", 37, 3669),
    "stanford_cars": Layout("StanfordCars", "stanford_cars", ".", "split_zhou_StanfordCars.json", 196, 8041),
    "flowers102": Layout("Flowers102", "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", 102, 2463),
    "food101": Layout("Food101", "food-101", "images", "split_zhou_Food101.json", 101, 30300),
    "sun397": Layout("SUN397", "sun397", "SUN397", "split_zhou_SUN397.json", 397, 19850),
    "dtd": Layout("DTD", "dtd", "images", "split_zhou_DescribableTextures.json", 47, 1692),
    "eurosat": Layout("EuroSAT", "eurosat", "2750", "split_zhou_EuroSAT.json", 10, 8100),
    "ucf101": Layout("UCF101", "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", 101, 3783),
}


def load(id: str, data_root: str) -> Dataset:
    """Read the split file; every image it names must exist. Raises UserError with what is missing and where."""
    layout = LAYOUTS[id]
    if not data_root:
        raise UserError(f"dataset '{id}' needs --data-root: the folder that holds '{layout.folder}/'")
    root = Path(data_root)
    if not root.is_dir():
        raise UserError(f"--data-root: no folder '{data_root}'")
    path = root / layout.folder / layout.split
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{id}: no split file '{path}'; put {layout.split} there (its address is in CoOp's "
                        "DATASETS.md) beside the images") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{id}: split file '{path}' cannot be read as JSON ({error}); get it again") from error
    images = root / layout.folder / layout.images
    classnames = read_classnames(id, path, lists)
    splits = {part: read_split(id, path, lists[part], images) for part in ("train", "val", "test")}
    notes = []
    for what, found, expected in (("classes", len(classnames), layout.classes), ("test images", len(splits["test"]), layout.test)):
        if found != expected:
            notes.append(f"{found} {what}, {expected} in the paper's Table 1")
    return Dataset(id, layout.name, classnames, TEMPLATES[id], notes=tuple(notes), **splits)


def read_classnames(id: str, path: Path, lists) -> tuple[str, ...]:
    """Names in the order of their labels, underscores as spaces. Raises UserError unless labels are 0 .. C-1."""
    names: dict[int, str] = {}
    for part in ("train", "val", "test"):
        if not isinstance(lists, dict) or not isinstance(lists.get(part), list) or not lists[part]:
            raise UserError(f"{id}: split file '{path}' has no list '{part}'; expected train, val and test lists")
        for row in lists[part]:
            if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str)
                    and isinstance(row[1], int) and isinstance(row[2], str)):
                raise UserError(f"{id}: split file '{path}', list '{part}': {str(row)[:80]} is not "
                                "[path, label, class name]")
            if names.setdefault(row[1], row[2]) != row[2]:
                raise UserError(f"{id}: split file '{path}' gives label {row[1]} two names: "
                                f"'{names[row[1]]}' and '{row[2]}'")
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{id}: split file '{path}' has labels {min(names)} to {max(names)} for {len(names)} classes; "
                        "expected 0 to C-1 without a gap")
    return tuple(names[label].replace("_", " ") for label in range(len(names)))


def read_split(id: str, path: Path, rows: list, images: Path) -> Split:
    """The pictures of one list. Raises UserError for a path that leaves the image folder or names no file."""
    for name, _, _ in rows:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise UserError(f"{id}: split file '{path}' names '{name[:80]}', which is outside the image folder")
    missing = [name for name, _, _ in rows if not (images / name).is_file()]
    if missing:
        raise UserError(f"{id}: {len(missing)} of {len(rows)} images that '{path}' names are missing, the first is "
                        f"'{images / missing[0]}'; complete the images or take the split file that belongs to them")
    files = [images / row[0] for row in rows]
    labels = np.array([row[1] for row in rows], dtype=np.int64)
    return Split(tuple(row[0] for row in rows), labels, lambda chosen: [read_image(files[i]) for i in chosen])


def read_image(path: Path) -> Image.Image:
    """Decode to RGB. Raises UserError naming the file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"image '{path}' has vanished") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"image '{path}' cannot be read ({str(error)[:120]}); replace the file") from error
