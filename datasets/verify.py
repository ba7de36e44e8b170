"""Is a dataset on disk what it should be? Nothing is changed: the lists are read, counted, a sample is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.datasets.data_root import find_folder
from carryover.datasets.layouts import LAYOUTS, count_notes
from carryover.datasets.splits import made_path

SAMPLE = 20  # pictures decoded, spread over the splits
NAMED = 3  # broken pictures that are named; the others are counted


@dataclass(frozen=True)
class Finding:
    """What was found of one dataset: ``problems`` must be mended, ``notes`` stand beside its rows in every table."""

    id: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    summary: str = ""

    @property
    def ready(self) -> bool:
        return not self.problems


def check_dataset(id: str, data_root: str, make_split: bool = False) -> Finding:
    """Every picture that the split names exists, the counts are those of the paper's Table 1, and a sample decodes.

    make_split  use the split that ``--make-split`` made earlier, where the published one is missing; none is made here

    Raises UserError for an id that is not one of the paper's sets; all that is wrong on disk is in the answer.
    """
    if id not in LAYOUTS:
        raise UserError(f"dataset '{id}' has no files under --data-root; expected one of: {', '.join(LAYOUTS)}")
    try:
        made = make_split and made_path(id, find_folder(id, data_root)).exists()
        data = datasets.load(id, data_root, make_split=made)
    except UserError as error:
        return Finding(id, (str(error),))
    splits = {"train": data.train, "val": data.val, "test": data.test}
    counts = count_notes(LAYOUTS[id], len(data.classnames), splits)
    problems = [f"{id}: {note}" for note in counts] + broken_pictures(list(splits.values()))
    numbers = " / ".join(str(len(split)) for split in splits.values())
    summary = f"{len(data.classnames)} classes, {numbers} images"
    return Finding(id, tuple(problems), tuple(note for note in data.notes if note not in counts), summary)


def broken_pictures(splits: list) -> list[str]:
    """One line for each picture of the sample that does not decode: the same sample each time."""
    filled = [split for split in splits if len(split)]
    lines = []
    for split in filled:
        for i in np.unique(np.linspace(0, len(split) - 1, -(-SAMPLE // len(filled))).astype(int)):
            try:
                split.read([int(i)])
            except UserError as error:
                lines.append(str(error))
    more = len(lines) - NAMED
    return lines[:NAMED] + ([f"and {more} more of the {SAMPLE} pictures tried"] if more > 0 else [])
