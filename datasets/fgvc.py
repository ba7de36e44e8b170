"""FGVCAircraft: the official lists are the split (no split file exists), its names hold "/" and are never paths."""

from __future__ import annotations

from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text
from carryover.datasets.base import Dataset
from carryover.datasets.data_root import find_folder
from carryover.datasets.images import split_of_files
from carryover.datasets.layouts import LAYOUTS, count_notes
from carryover.datasets.listing import Listing
from carryover.datasets.templates import TEMPLATES

IDS = ("fgvc_aircraft",)


def load(id: str, data_root: str) -> Dataset:
    """A class's label is its line in ``variants.txt``, counted from 0. Raises UserError for lists or images that are
    missing or do not fit each other."""
    layout, folder = LAYOUTS[id], find_folder(id, data_root)
    classnames = [line for line in read_lines(folder / "variants.txt") if line]
    labels = {name: label for label, name in enumerate(classnames)}
    if not labels or len(labels) != len(classnames):
        raise UserError(
            f"{id}: '{folder / 'variants.txt'}' has {len(classnames)} lines, {len(labels)} of them different; expected "
            f"a variant a line, each once: take it from {layout.source}"
        )
    listing = Listing(folder / layout.images)
    splits = {}
    for part in ("train", "val", "test"):
        path = folder / f"images_variant_{part}.txt"
        rows = []
        for line in read_lines(path):
            number, _, variant = line.partition(" ")
            if not number:
                continue
            if variant.strip() not in labels:
                raise UserError(
                    f"{id}: '{path}' has the line {quoted(line)}; expected 'image variant' with a variant of "
                    f"variants.txt: take both from {layout.source}"
                )
            rows.append((f"{number}.jpg", labels[variant.strip()]))
        if not rows:
            raise UserError(f"{id}: '{path}' names no image; take it from {layout.source}")
        listing.check(id, path, [name for name, _ in rows])
        paths, numbers = [path for path, _ in rows], [label for _, label in rows]
        splits[part] = split_of_files(listing.root, paths, numbers, dataset=id)
    # CoOp turns underscores in names into spaces, for this dataset too.
    names = tuple(name.replace("_", " ") for name in classnames)
    notes = tuple(count_notes(layout, len(names), splits))
    return Dataset(id, layout.name, names, TEMPLATES[id], splits["train"], splits["val"], splits["test"], notes)


def read_lines(path: Path) -> list[str]:
    """Stripped lines. Raises UserError for a file that is not there or no text."""
    source = LAYOUTS["fgvc_aircraft"].source
    try:
        return [line.strip() for line in read_text(path).splitlines()]
    except FileNotFoundError:
        inner = path.parent / "data" / path.name
        hint = f"unpack the data folder of {source} there"
        if inner.exists():  # the archive's "data" is to become "fgvc_aircraft"
            hint = f"move what is in '{inner.parent}' up into it"
        raise UserError(f"fgvc_aircraft: no list '{path.name}' in '{path.parent}'; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"fgvc_aircraft: cannot read '{path}' ({error}); take it from {source}") from error
