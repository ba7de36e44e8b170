"""Test labels, where nothing that a method can come by leads to them.

A method runs in the process that scores it, so it can look into every frame above its own and follow what it finds
there. What these hold of a test split are pictures; its labels lie in a file without a name, and are read for a moment:
when runs are told apart, and when all predictions of a run are made. Not while a method is at work (``no_labels``).
Methods are trusted code all the same: they could read the data set from disk, or change this module.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from carryover.datasets.base import Dataset

_at_work = 0  # methods that have the floor


@contextlib.contextmanager
def no_labels() -> Iterator[None]:
    """Within, code of anyone's is run, and reading withheld labels is an error."""
    global _at_work
    _at_work += 1
    try:
        yield
    finally:
        _at_work -= 1


class Withheld:
    """N labels in a file; stands in the place of a split's array (N,) int64. ``np.array`` of it reads them.

    rows  which of the file's labels they are; None: all
    """

    def __init__(self, file, count: int, rows: np.ndarray | None = None):
        self._file, self._count, self._rows = file, count, rows

    @classmethod
    def put(cls, labels: np.ndarray) -> Withheld:
        file = tempfile.TemporaryFile()  # deleted with the last split that knows it
        file.write(np.asarray(labels, dtype=np.int64).tobytes())
        return cls(file, len(labels))

    def __len__(self) -> int:
        return self._count if self._rows is None else len(self._rows)

    def __getitem__(self, chosen: Sequence[int]) -> Withheld:
        """Of these pictures; nothing is read."""
        rows = np.asarray(chosen, dtype=np.int64)
        return Withheld(self._file, self._count, rows if self._rows is None else self._rows[rows])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if _at_work:
            raise PermissionError("test labels are not read while a method is at work")
        self._file.seek(0)
        found = np.frombuffer(self._file.read(), dtype=np.int64)
        found = found.copy() if self._rows is None else found[self._rows]
        return found if dtype is None else found.astype(dtype)

    def __iter__(self) -> Iterator[int]:
        return iter(np.array(self).tolist())


def withheld(data: Dataset) -> Dataset:
    """The dataset, its test labels put away."""
    return replace(data, test=replace(data.test, labels=Withheld.put(data.test.labels)))
