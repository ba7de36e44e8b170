"""Stored predictions of a selection's runs, read once a call: what bootstrap, calibration and flips count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from carryover.bench.errors import UserError
from carryover.bench.records.reading import Record, is_done


class Outcome(NamedTuple):
    """What a run answered on one backbone, an entry an image: predicted and true class, and the probability of the
    predicted one (None where it was not kept)."""

    predicted: np.ndarray
    label: np.ndarray
    confidence: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        return self.predicted == self.label


@dataclass(eq=False)
class Outcomes:
    """``read``: a run's key -> its outcomes by role; it may raise UserError, OSError, KeyError or ValueError. Nothing
    is read before it is asked for, and nothing twice."""

    read: Callable[[str], Mapping[str, Outcome]]
    found: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    def of(self, record: Record) -> dict[str, Outcome]:
        """By role; nothing for a run that is not done or whose predictions cannot be used (`left_out` says why)."""
        key = record["key"]
        if not is_done(record):
            return {}
        if key not in self.found:
            try:
                self.found[key] = {role: sound(outcome) for role, outcome in self.read(key).items()}
                same_images(self.found[key])
            except (UserError, OSError, KeyError, ValueError, TypeError) as error:
                self.found[key], self.lines[key] = {}, str(error)
        return self.found[key]

    def left_out(self, records: Iterable[Record]) -> list[str]:
        """A line for each of the records whose predictions cannot be used."""
        lines = []
        for record in records:
            self.of(record)
            if record["key"] in self.lines:
                run = record["run"]
                where = f"{run['dataset']}, {run['method']}, seed {run['seed']}"
                lines.append(f"{where} has no usable predictions: {self.lines[record['key']]}.")
        return lines


def sound(outcome: Outcome) -> Outcome:
    """The outcome, its parts of one shape. Raises ValueError where they are not."""
    parts = [np.asarray(part) for part in outcome if part is not None]
    if any(part.shape != parts[0].shape or part.ndim != 1 or not part.size for part in parts):
        raise ValueError(f"predictions, labels and confidence have shapes {[part.shape for part in parts]}")
    return outcome


def same_images(found: Mapping[str, Outcome]) -> None:
    """Raises ValueError where a run's backbones were not asked about the same images, by their labels."""
    first, *others = (outcome.label for outcome in found.values())
    if not all(np.array_equal(first, other) for other in others):
        raise ValueError("its backbones were asked about different images")
