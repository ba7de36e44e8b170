"""Your own images: ``--datasets folder:PATH``.

PATH holds class folders, or ``train``, ``test`` and perhaps ``val`` folders that do:

    PATH/<class>/*.jpg            split 50/20/30 per class, in an order given by the file names alone; noted
    PATH/{train,val,test}/<class>/*.jpg     without ``val``, a fifth of each training class becomes it; noted

Layouts one step off are read too (`datasets.arrangement`), and files are pictures by content (`datasets.formats`).
Beside them, if wanted: ``classes.txt``, a line per class in the order of the labels, ``folder`` or ``folder = name as a
prompt reads it``; ``templates.txt``, a prompt per line with ``{}`` for the class name. In tables the dataset is
``folder:NAME``, NAME being the folder's own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text
from carryover.datasets.arrangement import PARTS, Arrangement, arrange
from carryover.datasets.base import Dataset, Split
from carryover.datasets.images import split_of_files
from carryover.datasets.listing import Listing
from carryover.datasets.templates import PHOTO

BOM = "\ufeff"  # what some editors start UTF-8 files with
PREFIX = "folder:"
VAL, TEST, HOLDOUT = 0.2, 0.3, 0.2  # shares of a class; HOLDOUT of a training class where no val folder is given
LEAST = 3  # images a class needs to be in train, val and test
Members = dict[str, dict[str, list[str]]]  # part -> class folder -> paths relative to PATH


def identify(given: str) -> str:
    """``folder:NAME`` of ``folder:PATH``. Raises UserError for a path that is no folder or has no printable name."""
    path = path_of(given)
    if not given.removeprefix(PREFIX).strip():
        raise UserError(
            f"--datasets {PREFIX}PATH: no path after '{PREFIX}'; expected a folder of class folders ('{PREFIX}.' for "
            "the one you are in)"
        )
    if not path.is_dir():
        raise UserError(
            f"--datasets {PREFIX}PATH: no folder {quoted(str(path), 200)}; expected a folder of class folders"
        )
    name = path.resolve().name
    if not name or not name.isprintable():
        raise UserError(
            f"--datasets {PREFIX}PATH: {quoted(str(path), 200)} has no name that a table can show; give the folder one"
        )
    return PREFIX + name


def path_of(given: str) -> Path:
    return Path(given.removeprefix(PREFIX)).expanduser()


def paths_of(given: Iterable[str]) -> dict[str, str]:
    """{id: absolute path} of the ``folder:PATH`` among ``given``. Raises UserError for two folders of one name."""
    found: dict[str, str] = {}
    for item in given:
        if item.startswith(PREFIX):
            id, path = identify(item), str(path_of(item).resolve())
            if found.setdefault(id, path) != path:
                raise UserError(
                    f"--datasets: '{found[id]}' and '{path}' would both be '{id}' in the tables; rename one of them"
                )
    return found


def load(id: str, path: str) -> Dataset:
    """Read the folder's lists. Raises UserError for what does not fit; pictures are decoded later."""
    if not Path(path).is_dir():
        raise UserError(f"{id}: no folder '{path}'")
    found = arrange(id, Path(path))
    root, parts = found.root, found.parts
    order, names = read_classes(id, beside(root, path, "classes.txt"), sorted(set().union(*parts.values())))
    notes = list(found.notes)
    paths = {part: {name: pictures(found.listing, folder) for name, folder in parts[part].items()} for part in parts}
    if "" in parts:
        members = spread(found, id, {name: paths[""][name] for name in order})
        notes.append("no train and test folders: split 50/20/30 per class, by hash of the file names")
    else:
        members = {part: {name: paths[part].get(name, []) for name in order} for part in parts}
        if "val" not in parts:
            members = {**members, **hold_out(members["train"])}
            notes.append("no val folder: a fifth of each training class, by hash of the file names")
    for folder in order:
        if not members["train"][folder]:
            raise UserError(f"{id}: class {quoted(folder)} has no training images in '{root}'; add some or remove it")
    for part in PARTS:
        if not any(members[part].values()):
            raise UserError(f"{id}: no images for {part} in '{root}'; add some")
    train, val, test = (split_of(id, root, order, members[part]) for part in PARTS)
    templates = read_templates(id, beside(root, path, "templates.txt"))
    return Dataset(id, id, names, templates, train, val, test, tuple(notes))


def beside(root: Path, path: str, name: str) -> Path:
    """The file among the parts or classes; where it is not there, that of the folder given."""
    return root / name if (root / name).exists() else Path(path) / name


def pictures(listing: Listing, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in listing.pictures(folder)]


def read_classes(id: str, path: Path, folders: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """(folders in the order of the labels, names). Without ``classes.txt``: sorted, underscores as spaces."""
    lines = read_lines(id, path)
    if lines is None:
        return folders, tuple(" ".join(folder.replace("_", " ").split()) for folder in folders)
    names: dict[str, str] = {}
    for line in lines:
        # A folder whose own name holds "=" may stand alone in its line.
        folder, _, name = (line, "", "") if line in folders else line.partition("=")
        folder, name = folder.strip(), " ".join((name.strip() or folder.strip().replace("_", " ")).split())
        if folder not in folders or folder in names:
            why = "stands there twice" if folder in names else "is no class folder"
            raise UserError(
                f"{id}: {quoted(folder)} of '{path}' {why}; expected each of the {len(folders)} class "
                "folders once, as 'folder' or 'folder = name'"
            )
        names[folder] = name
    if missing := [folder for folder in folders if folder not in names]:
        raise UserError(f"{id}: '{path}' lacks the class folder {quoted(missing[0])}; add it")
    return list(names), tuple(names.values())


def read_templates(id: str, path: Path) -> tuple[str, ...]:
    lines = read_lines(id, path)
    for line in lines or ():
        if line.count("{}") != 1 or set("{}") & set(line.replace("{}", "")):
            raise UserError(
                f"{id}: template {quoted(line)} of '{path}': expected {{}} once, for the class name, "
                "and no other braces"
            )
    return tuple(lines) if lines else PHOTO


def read_lines(id: str, path: Path) -> list[str] | None:
    """Lines that are not empty; None where there is no such file."""
    try:
        return [line.strip() for line in read_text(path).removeprefix(BOM).splitlines() if line.strip()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{id}: cannot read '{path}' as UTF-8 text ({error}); save it as that") from error


def shuffled(paths: list[str]) -> list[str]:
    """An order that depends on nothing but each path, so that a new image moves no other across by much."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())


def spread(found: Arrangement, id: str, classes: dict[str, list[str]]) -> Members:
    members: Members = {part: {} for part in PARTS}
    for folder, paths in classes.items():
        if len(paths) < LEAST:
            also = found.listing.passed_over([found.parts[""][folder]])
            also = f", and what is no picture: {also}" if also else ""
            raise UserError(f"{id}: class {quoted(folder)} has {len(paths)} images; expected {LEAST} or more{also}")
        paths = shuffled(paths)
        val, test = max(1, round(len(paths) * VAL)), max(1, round(len(paths) * TEST))
        members["test"][folder] = paths[:test]
        members["val"][folder] = paths[test : test + val]
        members["train"][folder] = paths[test + val :]
    return members


def hold_out(train: dict[str, list[str]]) -> Members:
    """A fifth of each class goes from train to val; a class of one or two images keeps them."""
    counts = {folder: round(len(paths) * HOLDOUT) for folder, paths in train.items()}
    ordered = {folder: shuffled(paths) for folder, paths in train.items()}
    return {
        "val": {folder: paths[: counts[folder]] for folder, paths in ordered.items()},
        "train": {folder: paths[counts[folder] :] for folder, paths in ordered.items()},
    }


def split_of(id: str, root: Path, order: list[str], members: dict[str, list[str]]) -> Split:
    """Keys are the paths with the files' sizes in bytes: unlike published data, a user's folder changes under its name,
    and features are found by key."""
    paths = [path for folder in order for path in members[folder]]
    labels = [label for label, folder in enumerate(order) for _ in members[folder]]
    keys = [f"{path}#{(root / path).stat().st_size}" for path in paths]
    return split_of_files(root, paths, labels, keys, id)
