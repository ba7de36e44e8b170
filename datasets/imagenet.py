"""ImageNet and its four out-of-distribution test sets: class folders named by wnid (ImageNetV2: by number).

ImageNet's validation folder is the test split. CoOp makes it the validation split too, but draws nothing from it; here
few-shot validation is drawn from the training images that the support set leaves, so that no method sees a test image.
A class's label is the place of its wnid in sorted order among the classes that are there, so ImageNet-A and -R are
classified among their own 200 names. CLIP's names call two pairs of classes alike ("missile", "sunglasses"): kept, as
in all published numbers. Within a class, files are in sorted order (CoOp takes the file system's).
"""

from __future__ import annotations

import pkgutil
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text
from carryover.datasets.base import Dataset, Split
from carryover.datasets.data_root import find_folder
from carryover.datasets.images import split_of_files
from carryover.datasets.layouts import LAYOUTS, count_notes, drive
from carryover.datasets.listing import Listing
from carryover.datasets.templates import TEMPLATES

OOD = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")
IDS = ("imagenet", *OOD)
CLASSNAMES = drive("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF")
SHARED_VAL = "few-shot validation is drawn from the training images that the support set leaves"


def load(id: str, data_root: str) -> Dataset:
    """The classes' wnids are the dataset's ``class_ids``. Raises UserError for folders or names that do not fit."""
    layout, folder = LAYOUTS[id], find_folder(id, data_root)
    names, notes = class_names(id, folder)
    listing = Listing(folder / layout.images)
    if id == "imagenet":
        present = wnids_in(id, listing, names, "val")
        also = wnids_in(id, listing, names, "train")
        if present != also:
            odd = sorted(set(present) ^ set(also))[0]
            raise UserError(
                f"{id}: '{listing.root}' has {len(also)} class folders in train and {len(present)} in val, of which "
                f"'{odd}' is in one alone; expected the same wnids in both: complete them"
            )
        train, test = (split_of(id, listing, [f"{part}/{wnid}" for wnid in present]) for part in ("train", "val"))
        splits = {"train": train, "val": train, "test": test}
        notes.append(SHARED_VAL)
    else:
        if id == "imagenet_v2":
            present, folders = sorted(names), numbers_in(id, listing, len(names))
        else:
            present = folders = wnids_in(id, listing, names)
        splits = {
            "train": split_of(id, listing, []),
            "val": split_of(id, listing, []),
            "test": split_of(id, listing, folders),
        }
        notes += subset_notes(id, layout.name, present)
    for part, split in splits.items():
        if not len(split) and (part == "test" or id == "imagenet"):
            raise UserError(f"{id}: no pictures in the class folders of '{listing.root}' ({part}); complete them")
    return Dataset(
        id,
        layout.name,
        tuple(names[wnid] for wnid in present),
        TEMPLATES[id],
        splits["train"],
        splits["val"],
        splits["test"],
        notes=(*notes, *count_notes(layout, len(present), splits)),
        class_ids=tuple(present),
    )


def class_names(id: str, folder: Path) -> tuple[dict[str, str], list[str]]:
    """({wnid: name}, notes): from the folder's ``classnames.txt`` ("wnid name" a line) or, without it, CLIP's names,
    which open_clip and timm ship. A file with other names is used and noted: lists that look alike are about."""
    clip = packaged_names()
    path = folder / "classnames.txt"
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        return clip, []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{id}: cannot read '{path}' ({error}); get it again from {CLASSNAMES}") from error
    names = {}
    for number, line in enumerate(lines, 1):
        wnid, _, name = line.strip().partition(" ")
        if not wnid:
            continue
        if wnid in names or not name.strip():
            raise UserError(
                f"{id}: '{path}' line {number} is {quoted(line)}; expected 'wnid name', each wnid once: get the file "
                f"again from {CLASSNAMES}, or delete it and CLIP's own names are used"
            )
        names[wnid] = name.strip()
    if set(names) != set(clip):
        raise UserError(
            f"{id}: '{path}' names {len(names)} classes that are not ImageNet's {len(clip)} wnids; get it from "
            f"{CLASSNAMES}, or delete it and CLIP's own names are used"
        )
    other = sum(names[wnid] != clip[wnid] for wnid in clip)
    return names, [f"{other} class names of its classnames.txt are not CLIP's"] if other else []


def packaged_names() -> dict[str, str]:
    """{wnid: CLIP's name}, wnids sorted. Imported late: both packages are slow to load."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return dict(zip(sorted(ImageNetInfo("imagenet-1k").label_names()), IMAGENET_CLASSNAMES, strict=True))


def published_subset(id: str) -> set[str]:
    """The 200 wnids of ImageNet-A or -R, from timm's lists; empty for other sets, or where timm ships no such list."""
    letter = {"imagenet_a": "a", "imagenet_r": "r"}.get(id)
    try:
        data = pkgutil.get_data("timm.data", f"_info/imagenet_{letter}_synsets.txt") if letter else None
    except OSError:
        data = None
    return set((data or b"").decode().split())


def wnids_in(id: str, listing: Listing, names: dict[str, str], under: str = "") -> list[str]:
    """The sorted class folders; loose files such as README.txt are passed over."""
    found, place = listing.subfolders(under), listing.root / under
    if not found:
        flat = f" but {len(listing.pictures(under))} loose pictures" if listing.pictures(under) else ""
        raise UserError(
            f"{id}: no class folders{flat} in '{place}'; expected one folder a wnid (n01440764, …): "
            f"{'sort the pictures into them' if flat else 'get them from ' + LAYOUTS[id].source}"
        )
    for folder in found:
        if folder not in names:
            raise UserError(
                f"{id}: folder {quoted(folder)} in '{place}' is no ImageNet wnid; expected folders such as n01440764: "
                "move it away"
            )
    return found


def numbers_in(id: str, listing: Listing, classes: int) -> list[str]:
    """Folders "0" to "999" in the order of the numbers (as strings they would sort 0, 1, 10, 100, …)."""
    found = listing.subfolders()
    expected = [str(number) for number in range(classes)]
    if set(found) != set(expected):
        odd = sorted(set(found) ^ set(expected), key=lambda name: (not name.isdigit(), len(name), name))[0]
        state = "missing" if odd in expected else "not one of them"
        raise UserError(
            f"{id}: expected the folders 0 to {classes - 1} in '{listing.root}', found {len(found)}; {quoted(odd)} is "
            f"{state}: get them from {LAYOUTS[id].source}"
        )
    return expected


def subset_notes(id: str, name: str, present: list[str]) -> list[str]:
    """ImageNet-A and -R each have 200 classes, but not the same ones."""
    published = published_subset(id)
    others = len(set(present) - published) if published else 0
    return [f"{others} of its classes are not {name}'s"] if others else []


def split_of(id: str, listing: Listing, folders: list[str]) -> Split:
    """All pictures of the class folders; the i-th folder has label i."""
    paths, labels = [], []
    for i, folder in enumerate(folders):
        pictures = listing.pictures(folder)
        paths += [f"{folder}/{name}" for name in pictures]
        labels += [i] * len(pictures)
    return split_of_files(listing.root, paths, labels, dataset=id)
