"""Class names in their order, where a file holds them beside its tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import Facts, Foreign

LISTS = ("classes", "class_names", "classnames")
NUMBERS = ("class_to_idx", "label2id")  # of each name
NAMES = ("idx_to_class", "id2label")  # of each number
DEEPEST = 2  # how far below the top they may stand, as in a dictionary of settings


def names_beside(file: Foreign) -> tuple[str, list[str]]:
    """Under which entry, and the names; ("", []) where there are none."""
    return next(found(file.plain, DEEPEST), ("", []))


def found(held: dict[str, Any], levels: int) -> Iterator[tuple[str, list[str]]]:
    for key, value in held.items():
        if names := names_of(str(key).rpartition(".")[2], unpacked(value)):
            yield str(key), names
    for value in held.values():
        if levels and isinstance(value, dict):
            yield from found(value, levels - 1)


def unpacked(value: Any) -> Any:
    """Metadata of safetensors are texts, and lists in them JSON."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def names_of(key: str, value: Any) -> list[str]:
    if key in NUMBERS + NAMES and isinstance(value, dict):
        pairs = value.items() if key in NAMES else ((number, name) for name, number in value.items())
        by_number = {str(number): name for number, name in pairs}
        value = [by_number.get(str(number)) for number in range(len(by_number))]
    elif key not in LISTS:
        return []
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else []


def agreed(file: Foreign, facts: Facts) -> tuple[Facts, tuple[str, ...]]:
    """Facts with the file's own names where the user gave none; what that proves. Raises UserError naming the first on
    which they differ."""
    key, names = names_beside(file)
    if not names:
        return facts, ()
    given = facts.classes
    where = f"import: '{file.path}' names its classes in {quoted(key, 40)}"
    for number, (own, other) in enumerate(zip(names, given, strict=False), start=1):
        if spelled(own) != spelled(other):
            raise UserError(
                f"{where}: number {number} is {quoted(own)}, --classes says {quoted(other)}; leave --classes out to "
                "take the file's"
            )
    if given and len(given) != len(names):
        raise UserError(f"{where}, {len(names)} of them, and --classes names {len(given)}; leave --classes out")
    told = (f"class names in their order, as {quoted(key, 40)} of the file has them",)
    return (facts if given else facts.also(classes=names)), told


def spelled(name: str) -> Sequence[str]:
    return name.replace("_", " ").casefold().split()
