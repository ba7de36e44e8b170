"""Results that others have, from a CSV file: a method's accuracies on a dataset, or its predictions by picture.

They become records beside ours, so that the same code counts both; a method of theirs bears ``MARK`` in id and name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from carryover.bench.errors import UserError, quoted, unknown
from carryover.bench.host.files import read_text
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.reading import TARGETS, Record

MARK = " (theirs)"
ACCURACIES = ("dataset", "method", "base", "new")
PREDICTIONS = ("dataset", "method", "backbone", "image", "predicted")
OPTIONAL = ("seed", "label")
ONE_SEED = 1  # of a file without a column of that name


@dataclass
class Theirs:
    """records   as `bench.records.reading` takes them
    outcomes  of a file of predictions: a record's key -> outcomes by role
    unread    columns that mean nothing here
    left_out  what of a folder of results is no row, and why
    """

    records: list[Record] = field(default_factory=list)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read(path: str, labels: Mapping[str, np.ndarray | None], about: Mapping[str, Record]) -> Theirs:
    """labels: our datasets -> true classes of their test pictures in order (None where no predictions are kept);
    about: a record of ours for each. Raises UserError, a line that says what was found where and what to do."""
    header, rows = table_of(path)
    if missing := [name for name in ACCURACIES if name not in header]:
        if "predicted" in header or "image" in header:
            missing = [name for name in PREDICTIONS if name not in header]
        if missing:
            raise UserError(
                f"{path}: no column {', '.join(map(repr, missing))}; expected {','.join(ACCURACIES)}[,seed] with "
                f"accuracies in percent, or {','.join(PREDICTIONS)}[,label][,seed]; found {quoted(','.join(header))}"
            )
        make, wanted = by_picture, set(PREDICTIONS)
    else:
        make, wanted = by_accuracy, set(ACCURACIES)
    if not rows:
        raise UserError(f"{path}: a header and no rows; expected a row for each result")
    for line, row in rows:
        for name in ("dataset", "method"):
            if not row[name]:
                raise UserError(f"{path}, line {line}: no {name}; expected a name in each row")
        if row["dataset"] not in labels:
            raise UserError(f"{path}, line {line}: {unknown('dataset', row['dataset'], labels)}")
    found = make(path, rows, labels, about)
    found.unread = tuple(name for name in header if name not in {*wanted, *OPTIONAL})
    return found


def table_of(path: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns in small letters, and each row with its line."""
    try:
        text = read_text(Path(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read '{path}': {reason}; expected a CSV file in UTF-8") from error
    lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    header = [name.strip().lower() for name in lines[0]] if lines else []
    if double := [name for name in header if name and header.count(name) > 1]:
        raise UserError(f"{path}: column '{double[0]}' stands there twice; keep one")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise UserError(f"{path}, line {number}: {len(cells)} cells, expected the header's {len(header)}")
        rows.append((number, dict(zip(header, map(str.strip, cells), strict=True))))
    return header, rows


Rows = Sequence[tuple[int, dict[str, str]]]


def by_accuracy(path: str, rows: Rows, labels: Mapping, about: Mapping[str, Record]) -> Theirs:
    found = Theirs()
    seen: dict[tuple, int] = {}
    for line, row in rows:
        cell = row["dataset"], row["method"], whole(path, line, "seed", row.get("seed") or str(ONE_SEED))
        once(path, line, seen, cell, f"{cell[0]}, {cell[1]}, seed {cell[2]}")
        points = {role: percent(path, line, role, row[role]) for role in TARGETS}
        found.records.append(record_of(about[cell[0]], *cell, points))
    most: dict[str, float] = {}  # of a method; on the update alone a module may well be below 1 %
    for record in found.records:
        method = record["run"]["method"].removesuffix(MARK)
        most[method] = max(most.get(method, 0.0), *(target["accuracy"] for target in record["targets"].values()))
    for method, accuracy in most.items():
        if accuracy <= 1:
            raise UserError(
                f"{path}: no accuracy of {method} above {accuracy:g}; expected percent, these look like fractions: "
                "multiply them by 100"
            )
    return found


def by_picture(path: str, rows: Rows, labels: Mapping, about: Mapping[str, Record]) -> Theirs:
    given: dict[tuple, dict[str, dict[int, int]]] = {}
    seen: dict[tuple, int] = {}
    for line, row in rows:
        dataset, role = row["dataset"], row["backbone"].lower()
        if role not in TARGETS:
            raise UserError(f"{path}, line {line}: backbone {quoted(row['backbone'])}, expected base or new")
        if (ours := labels[dataset]) is None:
            raise UserError(f"{path}, line {line}: our runs on {dataset} keep no predictions; run it again")
        seed = whole(path, line, "seed", row.get("seed") or str(ONE_SEED))
        image, answer = (whole(path, line, name, row[name]) for name in ("image", "predicted"))
        if image >= len(ours):
            raise UserError(
                f"{path}, line {line}: image {image}, expected a test picture's place, 0 to {len(ours) - 1}"
            )
        if (classes := (about[dataset].get("split") or {}).get("classes")) and answer >= classes:
            raise UserError(
                f"{path}, line {line}: predicted {answer}, expected a class of {dataset} by number, 0 to {classes - 1}"
            )
        if row.get("label") and whole(path, line, "label", row["label"]) != ours[image]:
            raise UserError(
                f"{path}, line {line}: label {row['label']}, but test picture {image} of {dataset} is of class "
                f"{ours[image]}; expected the pictures and classes in our order"
            )
        cell = dataset, row["method"], seed
        once(path, line, seen, (*cell, role, image), f"{dataset}, {row['method']}, seed {seed}, {role}, image {image}")
        given.setdefault(cell, {}).setdefault(role, {})[image] = answer
    found = Theirs()
    for cell, roles in given.items():
        ours, outcomes = labels[cell[0]], {}
        for role in TARGETS:
            answers = roles.get(role, {})
            if absent := sorted(set(range(len(ours))) - set(answers)):
                raise UserError(
                    f"{path}: {cell[0]}, {cell[1]}, seed {cell[2]} has {len(answers)} of {len(ours)} pictures on "
                    f"{role}, image {absent[0]} is missing; expected all, on base and new"
                )
            outcomes[role] = Outcome(np.array([answers[image] for image in range(len(ours))]), ours, None)
        points = {role: 100 * float(outcome.right.mean()) for role, outcome in outcomes.items()}
        record = record_of(about[cell[0]], *cell, points)
        found.records.append(record)
        found.outcomes[record["key"]] = outcomes
    return found


def record_of(ours: Record, dataset: str, method: str, seed: int, points: Mapping[str, float]) -> Record:
    """As one of ours, with what comparisons read of it."""
    name = method + MARK
    return {
        "key": f"theirs {dataset} {method} {seed}",
        "status": "done",
        "run": {"dataset": dataset, "method": name, "seed": seed},
        "names": {"dataset": (ours.get("names") or {}).get("dataset", dataset), "method": name},
        "order": {"dataset": (ours.get("order") or {}).get("dataset")},
        "averaged": ours.get("averaged", True),
        "targets": {role: {"accuracy": accuracy} for role, accuracy in points.items()},
    }


def once(path: str, line: int, seen: dict[tuple, int], cell: tuple, told: str) -> None:
    if cell in seen:
        raise UserError(f"{path}, line {line}: {told} stands in line {seen[cell]} too; expected it once")
    seen[cell] = line


def whole(path: str, line: int, name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{path}, line {line}: {name} {quoted(text)}, expected a whole number from 0")
    return int(text)


def percent(path: str, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UserError(f"{path}, line {line}: {name} {quoted(text)}, expected an accuracy in percent, 0 to 100")
    return value
