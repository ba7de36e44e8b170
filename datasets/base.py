"""What every dataset family hands to the suite: class names, templates and three splits of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

AVERAGE = "average"  # stands in the place of a dataset's id where a number is the average over several


@dataclass(frozen=True)
class Chosen:
    """A reader or stamper of some of the pictures that another one knows."""

    of: Callable[[Sequence[int]], list]
    indices: tuple[int, ...]

    def __call__(self, chosen: Sequence[int]) -> list:
        return self.of([self.indices[i] for i in chosen])


@dataclass(frozen=True)
class Joined:
    """The reader or stamper of two splits, the first of which has ``size`` pictures."""

    first: Callable[[Sequence[int]], list]
    second: Callable[[Sequence[int]], list]
    size: int

    def __call__(self, chosen: Sequence[int]) -> list:
        return [(self.first([i]) if i < self.size else self.second([i - self.size]))[0] for i in chosen]


@dataclass(frozen=True)
class Split:
    """N labelled pictures, read on demand.

    keys    N stable names (a relative path, or a recipe such as ``micro-1/generic/test/17``) that identify the
            pictures in manifests; a recipe's changes with what it renders
    labels  (N,) int64, indices into the dataset's class names; of the test split of a session, ``Withheld``
    reader  maps a list of indices to as many RGB pictures; it may render or decode them together. One that another
            process can use too says ``portable = True`` (``datasets.images.FileReader``).
    stamper for files: maps indices to what changes when a file's content does (size and time of change)
    """

    keys: tuple[str, ...]
    labels: Any  # np.ndarray, or what gives one when it is read (``datasets.withheld``)
    reader: Callable[[Sequence[int]], list[Image.Image]] = field(repr=False)
    stamper: Callable[[Sequence[int]], list[str]] | None = field(default=None, repr=False)

    def __post_init__(self):
        if len(self.keys) != len(self.labels):
            raise ValueError(f"a split needs one label a picture: {len(self.keys)} keys, {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return self.reader(list(indices))

    def take(self, indices: Sequence[int]) -> Split:
        """The same pictures, only these, in this order."""
        indices = list(indices)
        keys = tuple(self.keys[i] for i in indices)
        own: Any = self.reader
        reader = own.take(indices) if self.portable else Chosen(self.reader, tuple(indices))
        stamper = self.stamper and Chosen(self.stamper, tuple(indices))
        return Split(keys, self.labels[indices], reader, stamper)

    def join(self, other: Split) -> Split:
        """These pictures, then the other split's."""
        own: Any = self.reader
        both = self.portable and other.portable
        reader = own.join(other.reader) if both else Joined(own, other.reader, len(self))
        stamper = self.stamper and other.stamper and Joined(self.stamper, other.stamper, len(self))
        return Split(self.keys + other.keys, np.concatenate([self.labels, other.labels]), reader, stamper)

    @property
    def portable(self) -> bool:
        """Whether the reader may be sent to another process: files are, rendered pictures are not worth it."""
        return getattr(self.reader, "portable", False)

    def file_sha256(self, index: int) -> str | None:
        """Of a picture's file; None for one that is rendered. Raises UserError where the file cannot be read."""
        own: Any = self.reader
        return own.sha256(index) if self.portable else None

    def manifest(self, classnames: Sequence[str]) -> str:
        """JSON lines, one picture each: what a feature file or a few-shot subset is made of."""
        lines = self.rows(classnames)
        return "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)

    def rows(self, classnames: Sequence[str]) -> Iterator[dict]:
        for key, label in zip(self.keys, self.labels, strict=True):
            yield {"key": key, "label": int(label), "class": classnames[int(label)]}

    def sha256(self, classnames: Sequence[str]) -> str:
        """Of the manifest: the same wherever the same pictures are drawn."""
        return self._hashed(tuple(classnames)).hexdigest()

    def content_sha256(self, classnames: Sequence[str]) -> str:
        """Of manifest and stamps: another value when a file was replaced. Features and runs are found by it."""
        found = self._hashed(tuple(classnames)).copy()
        for stamp in self.stamper(range(len(self))) if self.stamper else ():
            found.update(f"\n{stamp}".encode())
        return found.hexdigest()

    def _hashed(self, classnames: tuple[str, ...]) -> Any:
        """SHA-256 of the manifest, made once: keys and labels never change, and a session asks for each run."""
        kept = self.__dict__.setdefault("_kept", {})
        if classnames not in kept:
            kept[classnames] = hashlib.sha256(self.manifest(classnames).encode())
        return kept[classnames]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}  # a hash cannot be pickled


@dataclass(frozen=True)
class Dataset:
    """A classification task: C class names, the field's templates for it, and its splits.

    ``templates`` are the prompts of the zero-shot classifier (several = ensemble, averaged after normalisation);
    ``classnames`` are as a prompt reads them (no underscores). ``val`` is the pool that few-shot validation draws from;
    out-of-distribution sets have test pictures only. ``notes`` stand beside the dataset's rows in every table;
    ``about`` says in a few words what it is.
    ``class_ids`` are names that differ where class names do not (ImageNet's wnids): by them the classes of an
    out-of-distribution set are found among those of the set that a plug-in was trained on; empty where there are none.
    """

    id: str
    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    notes: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    about: str = ""
