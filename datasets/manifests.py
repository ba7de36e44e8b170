"""Few-shot subsets as files: what every run writes, and what a user brings by ``--manifests DIR``.

JSON lines, a picture each, in the order in which training sees them:

    {"class": "red fox", "key": "fox/0017.jpg", "label": 3, "sha256": "5be…"}

``key`` names the picture in its dataset's list, ``sha256`` is of the file's bytes (left out for rendered pictures), so
that somebody elsewhere can tell whether their images are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from carryover.bench.errors import UserError, quoted
from carryover.bench.host.files import read_text
from carryover.datasets.base import Dataset, Split

MARK = "few-shot images from a manifest of the user's"
FIELDS = {"key": str, "class": str, "label": int}


def name_of(dataset: str, shots: int, seed: int, part: str) -> str:
    """The file's name without its ending; Windows allows no colon."""
    return f"{dataset.replace(':', '-')}-{shots}shot-seed{seed}-{part}"


def text_of(split: Split, classnames: Sequence[str]) -> str:
    """The manifest of a few-shot split. Reads every file of it, once."""
    lines = []
    for index, row in enumerate(split.rows(classnames)):
        digest = split.file_sha256(index)
        row = row if digest is None else {**row, "sha256": digest}
        lines.append(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
    return "".join(lines)


def digests(folder: str | Path, dataset: str, shots: int) -> dict[str, str]:
    """{file name: sha256} of all manifests of the dataset in the folder, whatever their seeds: what tells later whether
    two runs took their images from one folder. Files that cannot be read are passed over."""
    found = {}
    start = name_of(dataset, shots, 0, "").removesuffix("0-")
    for path in sorted(Path(folder).glob("*.jsonl")):
        if path.name.startswith(start):
            with contextlib.suppress(OSError):
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def agree(run: Mapping, own: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two folders' ``digests`` name the same images for that run's seed (a folder may grow by other seeds)."""
    start = name_of(run["dataset"], run["shots"], run["seed"], "")
    mine, theirs = ({n: d for n, d in files.items() if n.startswith(start)} for files in (own, other))
    return mine == theirs and bool(own) == bool(other)


def read(folder: str | Path, data: Dataset, shots: int, seed: int) -> tuple[list[int], Split | None]:
    """(indices of the support set in ``data.train``, few-shot validation or None where there is no such file).

    Training pictures are looked up in the training list, validation pictures in the validation list, then in the
    training list. Raises UserError, naming file and line, for a manifest that is missing or does not fit the data."""
    paths = {part: Path(folder) / f"{name_of(data.id, shots, seed, part)}.jsonl" for part in ("train", "val")}
    if not paths["train"].is_file():
        raise UserError(
            f"--manifests: no file '{paths['train']}' for {data.id}, seed {seed}, {shots} shots; put it there, or "
            "leave the dataset or the seed out, for a table must not mix given images with drawn ones"
        )
    support = find(paths["train"], data, [data.train])
    count = Counter(data.train.labels[support].tolist())
    for label, name in enumerate(data.classnames):
        if not 1 <= count[label] <= shots:
            raise UserError(
                f"--manifests: '{paths['train']}' has {count[label]} images of class {quoted(name)}; expected 1 to "
                f"{shots} of each class"
            )
    if not paths["val"].exists():
        return support, None
    taken = {data.train.keys[index]: paths["train"] for index in support}
    pools = [data.val] if data.val is data.train else [data.val, data.train]
    chosen = find(paths["val"], data, pools, taken)
    return support, (pools[0] if len(pools) == 1 else data.val.join(data.train)).take(chosen)


def find(path: Path, data: Dataset, pools: Sequence[Split], taken: dict[str, Path] | None = None) -> list[int]:
    """Indices of the file's pictures, counted on from one of ``pools`` to the next; none of ``taken``."""
    places: dict[str, list[tuple[int, Split, int]]] = {}
    start = 0
    for pool in pools:
        for index, key in enumerate(pool.keys):
            places.setdefault(key, []).append((start + index, pool, index))
        start += len(pool)
    tests, seen, found = set(data.test.keys), set(), []
    lists = "training list" if pools[0] is data.train else "validation and training lists"
    for number, row in read_lines(path):
        place, key, label = f"--manifests: '{path}' line {number}", row["key"], row["label"]
        if not places.get(key):
            if key in seen:
                raise UserError(f"{place}: {quoted(key, 200)} stands there a second time; name each image once")
            why = "is a test image" if key in tests else f"is not in the {lists}"
            raise UserError(f"{place}: {quoted(key, 200)} {why} of {data.id}; name images of the {lists}")
        if taken and key in taken:
            raise UserError(f"{place}: {quoted(key, 200)} is also in '{taken[key]}'; validate on other images")
        position, pool, index = places[key].pop(0)  # a list that names an image twice lends it twice
        seen.add(key)
        expected = int(pool.labels[index])
        if (label, row["class"]) != (expected, data.classnames[expected]):
            raise UserError(
                f"{place}: {quoted(key, 200)} has label {label}, class {quoted(row['class'])}; in {data.id} it has "
                f"label {expected}, class {quoted(data.classnames[expected])}: take the manifest of these class lists"
            )
        if row.get("sha256") is not None and (digest := pool.file_sha256(index)) != row["sha256"]:
            state = f"the file here has {digest}" if digest else "the picture is rendered and has none"
            raise UserError(
                f"{place}: {quoted(key, 200)} has sha256 {quoted(str(row['sha256']))}, {state}; get the images that "
                "the manifest was made of"
            )
        found.append(position)
    return found


def read_lines(path: Path) -> list[tuple[int, dict]]:
    """(line number, object) of each line that is not empty. Raises UserError for what is no manifest."""
    try:
        lines = read_text(path).removeprefix("\ufeff").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--manifests: cannot read '{path}' as UTF-8 text ({error})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or any(type(row.get(name)) is not kind for name, kind in FIELDS.items()):
            raise UserError(
                f"--manifests: '{path}' line {number} is {quoted(line.strip())}; expected "
                '{"class": name, "key": image, "label": number} and perhaps "sha256"'
            )
        rows.append((number, row))
    if not rows:
        raise UserError(f"--manifests: '{path}' names no image; expected a line an image, or no such file")
    return rows
