"""Plug-ins that cannot be plugged into a backbone: which cells are dashes for that, and the reasons in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, Record

SHOWN = {"base": "the base", "new": "the update"}  # further targets by their own names
Refusal = tuple[str, str, str]  # dataset, or the average; method, role


def cells(records: Sequence[Record]) -> set[Refusal]:
    """Those without a number because the plug-in is refused. An average is, where any of its datasets is."""
    over, found = set(reading.averaged(records)), set()
    for record in records:
        dataset, method = record["run"]["dataset"], record["run"]["method"]
        for role in reading.refused(record):
            found |= {(name, method, role) for name in (dataset, AVERAGE) if name != AVERAGE or dataset in over}
    return found


def told(records: Iterable[Record], roles: Collection[str] = ()) -> list[str]:
    """A sentence for each backbone (of those roles, where any are given) and reason, which names the methods; and the
    datasets, where it is not all that the method was run on."""
    records = list(records)
    names, sets = reading.names(records, "method"), reading.names(records, "dataset")
    ran: dict[str, set[str]] = {}
    where: dict[tuple[str, str], dict[str, dict[str, None]]] = {}  # role, reason -> method -> datasets
    for record in records:
        dataset, method = record["run"]["dataset"], record["run"]["method"]
        ran.setdefault(method, set()).add(dataset)
        for role, reason in reading.refused(record).items():
            if roles and role not in roles:
                continue
            where.setdefault((role, " ".join(reason.split())), {}).setdefault(method, {})[dataset] = None
    said = []
    for (role, reason), methods in where.items():
        parts = []
        for method, on in methods.items():
            some = f" ({', '.join(sets[name] for name in on)})" if set(on) != ran[method] else ""
            parts.append(names[method] + some)
        into = SHOWN.get(role, f"'{role}'")
        said.append(f"{', '.join(parts)} cannot be plugged into {into}: {reason.rstrip('.')}.")
    return said
