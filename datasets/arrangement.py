"""Where the parts and classes of a user's folder lie: as they should, or one step off where only one reading is left.

    PATH/[images/]{train,val,test}/[images/]<class>/[images/]*.jpg

Part names are taken in any case and with their usual synonyms. A folder between is passed where it stands alone, as in
archives with one folder on top. What has two readings is refused with what to do, and nothing is read twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.datasets.listing import Listing

PARTS = ("train", "val", "test")
WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
JUNK = "__MACOSX"  # of archives made on a Mac


@dataclass(frozen=True)
class Arrangement:
    """What is relative to ``root``, which is PATH or a folder below it.

    parts   part -> class -> folder of its pictures; one part "" where the folders are classes
    notes   what was read otherwise than it stands, and what was passed over
    """

    root: Path
    listing: Listing
    parts: dict[str, dict[str, str]]
    notes: tuple[str, ...] = ()


def arrange(id: str, path: Path) -> Arrangement:
    """Raises UserError for what is no folder of class folders, or can be read in two ways."""
    listing = Listing(path)
    notes = []
    while (inner := only_folder(listing, "")) and not one_part(listing, inner):
        notes.append(f"read from its folder {quoted(inner)}")
        listing = Listing(listing.root / inner)
    found = parts_in(id, listing)
    parts = {part: classes_in(id, listing, folder) for part, folder in (found or {"": ""}).items()}
    renamed = [f"{quoted(folder)} as {part}" for part, folder in found.items() if folder != part]
    notes += [f"folders read as parts: {', '.join(renamed)}"] if renamed else []
    return Arrangement(listing.root, listing, parts, (*notes, *passed_over(listing, found, parts)))


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def subfolders(listing: Listing, folder: str = "") -> list[str]:
    return [name for name in listing.subfolders(folder) if name != JUNK]


def only_folder(listing: Listing, folder: str) -> str:
    """The name of the one folder in it, where it holds no picture, and that one none but folders; else empty."""
    found = subfolders(listing, folder)
    if len(found) != 1 or listing.pictures(folder):
        return ""
    inner = join(folder, found[0])
    return found[0] if subfolders(listing, inner) and not listing.pictures(inner) else ""


def one_part(listing: Listing, folder: str) -> bool:
    """Whether this is a part without the others, not a folder around them."""
    inside = {WORDS.get(name.lower()) for name in subfolders(listing, folder)}
    return folder.lower() in WORDS and not {"train", "test"} <= inside


def parts_in(id: str, listing: Listing) -> dict[str, str]:
    """part -> folder; empty where the folders are classes (one of them may be trains)."""
    found = subfolders(listing)
    named: dict[str, list[str]] = {}
    for folder in found:
        if part := WORDS.get(folder.lower()):
            named.setdefault(part, []).append(folder)
    others = [folder for folder in found if folder.lower() not in WORDS]
    if not {"train", "test"} <= named.keys():
        if found and not others:
            raise UserError(
                f"{id}: '{listing.root}' has only {', '.join(found)}; expected train and test, {cure(named)}"
            )
        return {}
    folders = [folder for several in named.values() for folder in several]
    if others and not any(subfolders(listing, folder) for folder in folders):
        return {}  # classes that are called so
    for part, several in named.items():
        if len(several) > 1:
            raise UserError(
                f"{id}: '{listing.root}' has {' and '.join(map(quoted, several))}, which all read as {part}; join "
                "them or rename one"
            )
    for folder in others:
        if holds_pictures(listing, folder):
            raise UserError(
                f"{id}: '{listing.root}' has train and test and also {quoted(folder)}; expected either train, val and "
                "test or class folders: rename it to val if it is for validation, or put it beside "
                f"{quoted(listing.root.name)}, not into it, if it is no part of this"
            )
    return {part: named[part][0] for part in PARTS if part in named}


def cure(named: dict[str, list[str]]) -> str:
    """What to do where parts are missing, that loses no picture."""
    if named.keys() == {"train", "val"}:
        return "or class folders: to test on the pictures of val, rename it to test (a fifth of train then validates)"
    (part,) = list(named)[:1]
    return f"or class folders: to split what is in {named[part][0]}, give that folder itself as folder:PATH"


def holds_pictures(listing: Listing, folder: str) -> bool:
    """In it or in its folders."""
    return any(listing.pictures(place) for place in (folder, *(join(folder, n) for n in subfolders(listing, folder))))


def classes_in(id: str, listing: Listing, part: str) -> dict[str, str]:
    """class -> folder of its pictures."""
    place = part
    while inner := only_folder(listing, place):
        place = join(place, inner)
    found = subfolders(listing, place)
    if not found:
        loose = len(listing.pictures(place))
        flat = f" but {loose} pictures, which nothing gives a class" if loose else ""
        raise UserError(
            f"{id}: no class folders in '{listing.root / place}'{flat}; expected one folder of pictures a class"
        )
    return {name: home(id, listing, join(place, name)) for name in found}


def home(id: str, listing: Listing, folder: str) -> str:
    """Where a class's pictures are: in its folder, or in the one folder in it that holds any."""
    if listing.pictures(folder):
        return folder
    filled = [name for name in subfolders(listing, folder) if listing.pictures(join(folder, name))]
    if len(filled) > 1:
        raise UserError(
            f"{id}: '{listing.root / folder}' holds no pictures but {len(filled)} folders that do "
            f"({quoted(filled[0])}, {quoted(filled[1])}, …); expected one folder of pictures a class: if these "
            f"are the classes, give folder:{listing.root / folder}"
        )
    return join(folder, filled[0]) if filled else folder


def passed_over(listing: Listing, found: dict[str, str], parts: dict[str, dict[str, str]]) -> list[str]:
    """What lies there and is in no part: counted, for it may be what somebody meant to use."""
    homes = [folder for classes in parts.values() for folder in classes.values()]
    notes = []
    if passed := listing.passed_over(homes):
        notes.append(f"passed over, as no pictures: {passed}")
    inner = [join(folder, name) for folder in homes for name in subfolders(listing, folder)]
    if deep := sum(len(listing.pictures(folder)) for folder in inner):
        notes.append(f"passed over: {deep} pictures in folders within class folders")
    between = {"", *found.values(), *(folder.rpartition("/")[0] for folder in homes)} - set(homes)
    if loose := sum(len(listing.pictures(folder)) for folder in between):
        notes.append(f"passed over: {loose} pictures in no class folder")
    return notes
