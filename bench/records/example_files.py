"""Example pictures as they are stored: thumbnails of test pictures under ``examples/``, and a list that says which
picture each is of and what was answered about it.

They are made where the pictures are at hand, after all runs (``bench.cli.examples``); report and check read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from carryover.bench.host.files import read_text, whole, write_text
from carryover.bench.host.identity import parse_json, sealed, sha256_of, unsealed

FOLDER, LIST = "examples", "examples.json"
SIDE, QUALITY = 128, 85  # longest side in pixels, of JPEG; a smaller picture keeps its size
FILE = re.compile(r"[0-9a-f]{16}\.jpg")
AGAIN = "`run_all.py` makes the examples again"


@dataclass(frozen=True)
class Chosen:
    """A test picture whose answers changed, from stored predictions alone.

    picture  its place among the test pictures of ``test``, the sha256 of which records hold
    label    its true class
    answers  method -> class predicted before and after the update, in the order of the tables
    """

    dataset: str
    seed: int
    test: str
    picture: int
    label: int
    answers: dict[str, list[int]]


@dataclass(frozen=True)
class Stored:
    """``key`` names the picture in its dataset; ``names`` are those of the classes of label and answers."""

    of: Chosen
    key: str
    names: dict[int, str]
    jpeg: bytes

    @property
    def file(self) -> str:
        return hashlib.sha256(self.jpeg).hexdigest()[:16] + ".jpg"


def thumbnail(picture: Image.Image) -> bytes:
    """A small JPEG of an RGB picture; nothing of its file but its pixels is in it, so neither place nor comment."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    bare = Image.new("RGB", small.size)
    bare.paste(small)
    made = io.BytesIO()
    bare.save(made, format="JPEG", quality=QUALITY, subsampling=0)
    return made.getvalue()


def write(folder: Path, examples: Sequence[Stored]) -> None:
    """Writes `examples/` under folder (`results/<arch>`), the list last, and takes away thumbnails of no example;
    without examples, all of it."""
    place, keep = Path(folder) / FOLDER, {one.file: one.jpeg for one in examples}
    for name, jpeg in keep.items():
        if sha256_of(place / name) != hashlib.sha256(jpeg).hexdigest():
            with whole(place / name) as unfinished:
                unfinished.write_bytes(jpeg)
    if examples:
        content = sealed({"examples": [entry(one) for one in examples]})
        write_text(place / LIST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    else:
        (place / LIST).unlink(missing_ok=True)
    for path in place.glob("*.jpg"):
        if FILE.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        place.rmdir()


def entry(one: Stored) -> dict[str, Any]:
    def named(label: int) -> dict[str, Any]:
        return {"class": label, "name": one.names[label]}

    answers = [{"method": m, "before": named(b), "after": named(a)} for m, (b, a) in one.of.answers.items()]
    return {
        "dataset": one.of.dataset, "seed": one.of.seed, "test": one.of.test, "picture": one.of.picture, "key": one.key,
        "true": named(one.of.label), "answers": answers, "file": one.file,
        "sha256": hashlib.sha256(one.jpeg).hexdigest(),
    }  # fmt: skip


def load(folder: Path) -> tuple[Stored, ...]:
    """Those whose list and thumbnail are as they were written."""
    found = []
    for listed in entries(folder) or ():
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError, AttributeError):
            found.append(stored(listed, Path(folder) / FOLDER))
    return tuple(found)


def stored(listed: dict[str, Any], place: Path) -> Stored:
    """Raises OSError, KeyError, TypeError, ValueError or AttributeError where it is none."""
    jpeg = (place / listed["file"]).read_bytes()
    names: dict[int, str] = {}

    def label(named: dict[str, Any]) -> int:
        names[int(named["class"])] = str(named["name"])
        return int(named["class"])

    answers = {str(one["method"]): [label(one["before"]), label(one["after"])] for one in listed["answers"]}
    place_of = {name: listed[name] for name in ("dataset", "seed", "test", "picture")}
    of = Chosen(**place_of, label=label(listed["true"]), answers=answers)
    made = Stored(of, str(listed["key"]), names, jpeg)
    if made.file != listed["file"]:
        raise ValueError(f"{listed['file']} was changed")
    return made


def entries(folder: Path) -> list[dict[str, Any]] | None:
    """None where there is no list as it was written."""
    try:
        content = unsealed(parse_json(read_text(Path(folder) / FOLDER / LIST)))
    except (OSError, ValueError):
        return None
    found = content.get("examples") if content else None
    return found if isinstance(found, list) and all(map(is_entry, found)) else None


def is_entry(one: Any) -> bool:
    return isinstance(one, dict) and bool(FILE.fullmatch(str(one.get("file"))))


def differences(folder: Path) -> Iterator[str]:
    """A line for each file of `examples/` that is not as it was written, is gone, or is of no example."""
    place = Path(folder) / FOLDER
    if not place.is_dir():
        return
    listed = entries(folder)
    if listed is None:
        yield f"'{place / LIST}' was changed since it was written, or is not there; {AGAIN}"
        return
    known = {LIST}
    for one in listed:
        path = place / one["file"]
        known.add(path.name)
        if (found := sha256_of(path)) != one.get("sha256"):
            state = f"has sha256 {found}, written was {one.get('sha256')}" if found else "is not there"
            yield f"'{path}' {state}; {AGAIN}"
    for path in sorted(place.iterdir()):
        if path.name not in known and not path.name.startswith("."):
            yield f"'{path}': no example is of this file"
