"""What every dataset family hands to the suite: class names, templates and three splits of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Split:
    """N labelled pictures, read on demand.

    keys    N stable names (a relative path, or a recipe such as ``micro-1/generic/test/17``) that identify the
            pictures in manifests; a recipe's changes with what it renders
    labels  (N,) int64, indices into the dataset's class names.
    reader  maps a list of indices to as many RGB pictures; it may render or decode them together.
    stamper for files: maps indices to what changes when a file's content does (size and time of change)
    """

    keys: tuple[str, ...]
    labels: np.ndarray
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
        stamper = self.stamper and (lambda chosen: self.stamper([indices[i] for i in chosen]))
        return Split(keys, self.labels[indices], lambda chosen: self.reader([indices[i] for i in chosen]), stamper)

    def manifest(self, classnames: Sequence[str]) -> str:
        """JSON lines, one picture each: what a feature file or a few-shot subset is made of."""
        lines = (
            {"key": key, "label": int(label), "class": classnames[int(label)]}
            for key, label in zip(self.keys, self.labels, strict=True)
        )
        return "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)

    def sha256(self, classnames: Sequence[str]) -> str:
        """Of the manifest: the same wherever the same pictures are drawn."""
        return hashlib.sha256(self.manifest(classnames).encode()).hexdigest()

    def content_sha256(self, classnames: Sequence[str]) -> str:
        """Of manifest and stamps: another value when a file was replaced. Features and runs are found by it."""
        stamps = self.stamper(range(len(self))) if self.stamper else []
        return hashlib.sha256("\n".join([self.manifest(classnames), *stamps]).encode()).hexdigest()


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
