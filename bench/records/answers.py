"""Stored predictions beside those of other runs: what is asked of all runs on the same test pictures is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from carryover.bench.errors import UserError
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.reading import Record
from carryover.bench.records.store import about

SLACK = 1e-5  # of a probability in fp32


def differences(records: Iterable[Record], read: Callable[[str], Mapping[str, Outcome]]) -> list[str]:
    """A line for each done record whose classes or confidences cannot be, or whose true labels are not those that the
    most runs on the same test pictures hold. What cannot be read is passed over: it is missed where it is counted.

    read: a run's key -> its outcomes by role."""
    lines: list[str] = []
    asked: dict[str, dict[str, list[str]]] = {}  # test pictures -> digest of the labels -> places
    for record in records:
        if record.get("status") != "done":
            continue
        try:
            found = read(record["key"])
        except (UserError, OSError, KeyError, ValueError, TypeError):
            continue
        pictures = (record.get("identity") or {}).get("pictures") or []
        for role, outcome in found.items():
            lines += [f"{about(dict(record))} {role}: {wrong}" for wrong in faults(record, outcome)]
            if pictures:
                digest = hashlib.sha256(np.asarray(outcome.label, np.int64).tobytes()).hexdigest()
                asked.setdefault(str(pictures[-1]), {}).setdefault(digest, []).append(f"{about(dict(record))} {role}")
    for labels in asked.values():
        most = max(labels.values(), key=len)
        for places in labels.values():
            if places is not most:
                lines += [
                    f"{place}: true labels other than those of {most[0]}, on the same pictures" for place in places
                ]
    return lines


def faults(record: Record, outcome: Outcome) -> Iterator[str]:
    """What no evaluation leaves."""
    classes = (record.get("split") or {}).get("classes")
    for name, values in (("predicted", outcome.predicted), ("true", outcome.label)):
        values = np.asarray(values)
        if values.dtype.kind not in "iu" or (values.size and values.min() < 0):
            yield f"{name} classes are no whole numbers from 0"
        elif isinstance(classes, int) and values.size and values.max() >= classes:
            yield f"{name} class {values.max()} of {classes} classes"
    if outcome.confidence is None:
        return
    confidence = np.asarray(outcome.confidence, np.float64)
    least = 1 / classes if isinstance(classes, int) and classes else 0.0
    wrong = ~((confidence >= least - SLACK) & (confidence <= 1 + SLACK))  # NaN is wrong too
    if wrong.any():
        yield f"confidence {confidence[wrong][0]:g} of the class with the highest, expected {least:g} to 1"
