"""Datasets in the layout that KaiyangZhou/CoOp's DATASETS.md describes, read from their ``split_zhou_*.json``.

A split file holds lists "train", "val" and "test" of ``[path, label, class name]``, paths relative to the image folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text
from carryover.datasets import layouts
from carryover.datasets.base import Dataset, Split
from carryover.datasets.data_root import find_folder
from carryover.datasets.images import split_of_files
from carryover.datasets.listing import Listing
from carryover.datasets.splits import NOTE, ensure_made, made_path
from carryover.datasets.templates import TEMPLATES

LAYOUTS = {id: layout for id, layout in layouts.LAYOUTS.items() if layout.split}


def load(id: str, data_root: str, make_split: bool = False) -> Dataset:
    """Read the split file; every image it names must exist. Where there is none and ``make_split`` asks for it, a split
    is made by the published rule and noted. Raises UserError with what is missing and where."""
    layout, folder = LAYOUTS[id], find_folder(id, data_root)
    path, notes = folder / layout.split, []
    if not path.exists():
        made = made_path(id, folder)
        if not make_split:
            use = f"use '{made.name}', made earlier" if made.exists() else "make one by the same rule"
            raise UserError(
                f"{id}: no split file '{path}'; get it from {layout.source} and put it there beside the images, or let "
                f"--make-split {use} (marked in every table)"
            )
        path, notes = ensure_made(id, folder), [NOTE]
    lists = read_lists(id, path)
    classnames = read_classnames(id, path, lists)
    listing = Listing(folder / layout.images)
    splits = {part: read_split(id, path, lists[part], listing) for part in ("train", "val", "test")}
    notes += layouts.count_notes(layout, len(classnames), splits)
    return Dataset(
        id, layout.name, classnames, TEMPLATES[id], splits["train"], splits["val"], splits["test"], tuple(notes)
    )


def is_split(id: str, path: Path) -> bool:
    """Whether the file's content is a split; True for one that cannot be opened, which loading says better."""
    try:
        read_classnames(id, path, read_lists(id, path))
    except UserError as error:
        return isinstance(error.__cause__, OSError)
    return True


def read_lists(id: str, path: Path) -> dict:
    """Raises UserError for a file that is no JSON (a download page, say)."""
    try:
        return json.loads(read_text(path))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{id}: split file '{path}' cannot be read as JSON ({error}){again(id)}") from error


def is_utf8(text: str) -> bool:
    """Whether it can be written: JSON may hold halves of characters, which no prompt and no file can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def again(id: str) -> str:
    return f"; delete that file and get it again by prepare or from {LAYOUTS[id].source}"


def read_classnames(id: str, path: Path, lists) -> tuple[str, ...]:
    """Names in the order of their labels, underscores as spaces. Raises UserError unless labels are 0 .. C-1."""
    names: dict[int, str] = {}
    for part in ("train", "val", "test"):
        if not isinstance(lists, dict) or not isinstance(lists.get(part), list) or not lists[part]:
            raise UserError(
                f"{id}: split file '{path}' has no list '{part}'; expected train, val and test lists{again(id)}"
            )
        for row in lists[part]:
            if not (
                isinstance(row, list)
                and len(row) == 3
                and isinstance(row[0], str)
                and type(row[1]) is int
                and isinstance(row[2], str)
            ):
                raise UserError(
                    f"{id}: split file '{path}', list '{part}': {quoted(str(row))} is not [path, label, class name]"
                    f"{again(id)}"
                )
            if not row[2].replace("_", " ").strip() or not is_utf8(row[0] + row[2]):
                raise UserError(
                    f"{id}: split file '{path}', list '{part}': {quoted(str(row))} has a class name without letters or "
                    f"text that is not UTF-8{again(id)}"
                )
            if names.setdefault(row[1], row[2]) != row[2]:
                raise UserError(
                    f"{id}: split file '{path}' gives label {row[1]} two names: "
                    f"{quoted(names[row[1]])} and {quoted(row[2])}{again(id)}"
                )
    if sorted(names) != list(range(len(names))):
        raise UserError(
            f"{id}: split file '{path}' has labels {min(names)} to {max(names)} for {len(names)} classes; "
            f"expected 0 to C-1 without a gap{again(id)}"
        )
    return tuple(names[label].replace("_", " ") for label in range(len(names)))


def read_split(id: str, path: Path, rows: list, listing: Listing) -> Split:
    """The pictures of one list. Raises UserError for a path that leaves the image folder or names no file."""
    paths = [row[0] for row in rows]
    listing.check(id, path, paths)
    return split_of_files(listing.root, paths, [row[1] for row in rows], dataset=id)
