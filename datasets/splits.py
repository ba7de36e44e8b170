"""``--make-split``: the split of a dataset whose published split file is not there, made by the same published rule.

The rules are those of KaiyangZhou/CoOp (datasets/*.py). For Caltech101, Flowers102, Food101, DTD and EuroSAT, half, a
fifth and the rest of each class are drawn; the others keep the official test list and give a fifth of each class of the
official training list to validation. CoOp shuffles with python's ``random`` seeded by the run, starting from the file
system's order, so no one can draw its very split again: here the seed is 1 (CoOp's first) and the start is the sorted
order, or that of the official list. The result is stored beside the images under a name of its own.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text, write_text
from carryover.datasets.layouts import LAYOUTS
from carryover.datasets.listing import Listing

NOTE = "not the published split: made by --make-split, by the published rule"
SEED = 1
TRAIN, VAL, HOLDOUT = 0.5, 0.2, 0.2  # shares of a class; HOLDOUT of an official training list
Row = tuple[str, int, str]  # path under the image folder, label, class name: as in a split file

CALTECH_IGNORED = ("BACKGROUND_Google", "Faces_easy")
CALTECH_NAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}


def made_path(id: str, folder: Path) -> Path:
    return folder / f"split_carryover_{id}.json"


def ensure_made(id: str, folder: Path) -> Path:
    """The made split's file, written now unless it is there. Raises UserError where the rule's inputs are missing."""
    path = made_path(id, folder)
    if path.exists():
        return path
    images = folder / LAYOUTS[id].images
    if not images.is_dir():
        raise UserError(f"{id}: no image folder '{images}'; --make-split needs the images: complete them")
    try:
        lists = RULES[id](id, folder, Listing(images))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{id}: --make-split: the official lists in '{folder}' are not as expected ({type(error).__name__}: "
            f"{quoted(str(error))}); take all of them from one place"
        ) from error
    for part, rows in lists.items():
        if not rows:
            raise UserError(f"{id}: --make-split: no image for '{part}' in '{folder}'; complete the dataset")
    text = json.dumps({"made_by": f"carryover --make-split, seed {SEED}", **lists}, indent=0)
    try:
        write_text(path, text)
    except UserError as error:
        raise UserError(
            f"{id}: cannot write the made split '{path}' ({error.__cause__}); make the folder writable once, or get "
            f"{LAYOUTS[id].split} from {LAYOUTS[id].source}"
        ) from error
    return path


# ---- the two ways to split -------------------------------------------------------------------------------------------


def shares(id: str, classes: list[tuple[int, str, list[str]]]) -> dict[str, list[Row]]:
    """Half, a fifth and the rest of each (label, name, files), in the order given."""
    generator = random.Random(SEED)
    lists: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    for label, name, files in classes:
        files = list(files)
        generator.shuffle(files)
        first, second = round(len(files) * TRAIN), round(len(files) * VAL)
        parts = files[:first], files[first : first + second], files[first + second :]
        if not all(parts):
            raise UserError(
                f"{id}: --make-split: class {quoted(name)} has {len(files)} images, too few for train, val and test; "
                "complete the dataset"
            )
        for rows, part in zip(lists.values(), parts, strict=True):
            rows += [(file, label, name) for file in part]
    return lists


def holdout(rows: list[Row], test: list[Row]) -> dict[str, list[Row]]:
    """A fifth of each class of ``rows`` becomes the validation split; classes in the order of their first image."""
    generator = random.Random(SEED)
    members: dict[int, list[Row]] = {}
    for row in rows:
        members.setdefault(row[1], []).append(row)
    lists: dict[str, list[Row]] = {"train": [], "val": [], "test": test}
    for group in members.values():
        generator.shuffle(group)
        count = round(len(group) * HOLDOUT)
        lists["val"] += group[:count]
        lists["train"] += group[count:]
    return lists


# ---- one rule a dataset ----------------------------------------------------------------------------------------------


def class_folders(ignored: tuple[str, ...] = (), renamed: dict[str, str] | None = None) -> Callable:
    """Class folders in sorted order are the classes; ``renamed`` gives some another name, at the same label."""

    def rule(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
        kept = [name for name in listing.subfolders() if name not in ignored]
        return shares(
            id,
            [
                (label, (renamed or {}).get(name, name), [f"{name}/{file}" for file in listing.pictures(name)])
                for label, name in enumerate(kept)
            ],
        )

    return rule


def flowers(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
    names = json.loads(read(id, folder / "cat_to_name.json"))
    members: dict[int, list[str]] = {}
    for number, label in enumerate(np.atleast_1d(matlab(id, folder / "imagelabels.mat", "labels")).tolist(), 1):
        members.setdefault(int(label), []).append(f"image_{number:05}.jpg")
    return shares(id, [(label - 1, names[str(label)], files) for label, files in members.items()])


def pets(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
    def rows(name: str) -> list[Row]:
        found = []
        for line in read(id, folder / "annotations" / name).splitlines():
            if fields := line.split():
                image, label = fields[0], int(fields[1]) - 1
                found.append((f"{image}.jpg", label, image.rpartition("_")[0].lower()))
        return found

    return holdout(rows("trainval.txt"), rows("test.txt"))


def cars(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
    names = [str(name) for name in matlab(id, folder / "devkit" / "cars_meta.mat", "class_names")]

    def rows(images: str, path: Path) -> list[Row]:
        found = []
        for item in np.atleast_1d(matlab(id, path, "annotations")):
            label = int(item["class"]) - 1
            model, _, year = names[label].rpartition(" ")
            found.append((f"{images}/{item['fname']}", label, f"{year} {model}"))
        return found

    train = rows("cars_train", folder / "devkit" / "cars_train_annos.mat")
    return holdout(train, rows("cars_test", folder / "cars_test_annos_withlabels.mat"))


def sun(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
    labels = {line.strip(): label for label, line in enumerate(read(id, folder / "ClassName.txt").split())}

    def rows(name: str) -> list[Row]:
        found = []
        for line in read(id, folder / name).split():
            kind = line.rpartition("/")[0]
            # "/a/apse/indoor": the letter goes, and the words are turned round: "indoor apse".
            found.append((line.lstrip("/"), labels[kind], " ".join(reversed(kind.split("/")[2:]))))
        return found

    return holdout(rows("Training_01.txt"), rows("Testing_01.txt"))


def ucf(id: str, folder: Path, listing: Listing) -> dict[str, list[Row]]:
    lists = folder / "ucfTrainTestlist"
    pairs = [line.split() for line in read(id, lists / "classInd.txt").splitlines() if line.strip()]
    labels = {action: int(number) - 1 for number, action in pairs}

    def rows(name: str) -> list[Row]:
        found = []
        for line in read(id, lists / name).splitlines():
            if line.strip():
                action, _, video = line.split()[0].partition("/")
                words = "_".join(re.findall("[A-Z][^A-Z]*", action))
                found.append((f"{words}/{video.removesuffix('.avi')}.jpg", labels[action], words))
        return found

    return holdout(rows("trainlist01.txt"), rows("testlist01.txt"))


RULES: dict[str, Callable[[str, Path, Listing], dict[str, list[Row]]]] = {
    "caltech101": class_folders(CALTECH_IGNORED, CALTECH_NAMES),
    "oxford_pets": pets,
    "stanford_cars": cars,
    "flowers102": flowers,
    "food101": class_folders(),
    "sun397": sun,
    "dtd": class_folders(),
    "eurosat": class_folders(renamed=EUROSAT_NAMES),
    "ucf101": ucf,
}


# ---- the official lists ----------------------------------------------------------------------------------------------


def read(id: str, path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{id}: --make-split reads the official list '{path}': {reason}; put it there, or get "
            f"{LAYOUTS[id].split} from {LAYOUTS[id].source}"
        ) from error


def matlab(id: str, path: Path, name: str):
    """A variable of a MATLAB file, single entries unwrapped."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(
            f"{id}: --make-split reads '{path.name}' with scipy, which is missing: pip install scipy"
        ) from None
    try:
        return loadmat(path, squeeze_me=True)[name]
    except Exception as error:  # scipy has many kinds of them for a damaged file
        raise UserError(
            f"{id}: --make-split reads '{name}' of '{path}': {quoted(str(error))}; put the official file there, or get "
            f"{LAYOUTS[id].split} from {LAYOUTS[id].source}"
        ) from error
