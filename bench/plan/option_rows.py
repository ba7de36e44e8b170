"""Rows of methods that were run with other options than the default ones: their ids and names.

``--set`` and ``--sweep`` give a method other options. Such runs are a row beside the method's own, in the same tables:
a `Variant` without a label, known by what differs, ``contcoop[lam=0.3]``, and shown as "ContCoOp (lam = 0.3)".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from carryover.bench.plan.suites import Variant


def row_id(row: Variant) -> str:
    """The method's own id where nothing differs."""
    changed = ",".join(f"{option}={value}" for option, value in changes(row))
    return f"{row.method}[{changed}]" if changed else row.method


def row_name(row: Variant, method: str) -> str:
    """``method``: the display name."""
    changed = ", ".join(f"{option} = {value}" for option, value in changes(row))
    return f"{method} ({changed})" if changed else method


def changes(row: Variant) -> list[tuple[str, str]]:
    """(option, value) of each option that differs."""
    found = [text.partition(".")[2].partition("=") for text in row.options]
    return [(option, value) for option, _, value in found]


def method_of(id: str) -> str:
    """The method of a row's id."""
    return id.partition("[")[0]


def shown_value(value: object) -> str:
    """A value of a stored config, as ``--set`` takes it."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(tuple(value) if isinstance(value, list) else value)


class WithRows(Mapping[str, Any]):
    """The methods that a call knows, and each row's id as one more behind its method."""

    def __init__(self, known, rows: Iterable[Variant]):
        self.known, self.rows = known, {row_id(row): row.method for row in rows}

    def __getitem__(self, id: str) -> Any:
        return self.known[self.rows.get(id, id)]

    def __iter__(self) -> Iterator[str]:
        for method in self.known:
            yield method
            yield from (id for id, of in self.rows.items() if of == method)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, id: object) -> bool:
        return id in self.rows or id in self.known

    def learns(self, id: str) -> bool:
        return self.known.learns(self.rows.get(id, id))
