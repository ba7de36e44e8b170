"""Records of methods whose file is not given in this call: which options are their usual ones cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from carryover.bench.host.identity import canonical
from carryover.bench.plan.run_labels import is_plain
from carryover.bench.plan.settings import Methods
from carryover.bench.records.reading import Record


def of_unclear_options(records: Iterable[Record], known: Methods, asked: Iterable[Sequence[str]]) -> dict[str, str]:
    """Methods that are not registered in this call, and were run with options that a call asked for or with several:
    only their own file tells which are the default ones. Each with a line that says so."""
    found: dict[str, dict[str, set[str]]] = {}
    for run, identity in ((r["run"], r.get("identity") or {}) for r in records):
        if run["method"] not in known and is_plain(run):
            place = canonical([identity.get("method"), run["dataset"], run.get("shots"), run.get("protocol")])
            options = found.setdefault(run["method"], {}).setdefault(place, set())
            options.add(canonical(run.get("config")))
    named = {
        method for changes in asked for method in found if names_any([t for t in changes if t[0] != "*"], [method])
    }
    return {
        method: f"'{method}' was run with several options, and its file, which tells them apart, is not registered in "
        "this call (name its folder by --plugin-dir)"
        for method, places in sorted(found.items())
        if method in named or any(len(options) > 1 for options in places.values())
    }


def unregistered(records: Iterable[Record], known: Methods) -> tuple[str, ...]:
    """A line where a suite's rows are lost, for only a method's own file tells its options."""
    names = sorted({r["run"]["method"] for r in records} - {*known})
    if not names:
        return ()
    which = ", ".join(f"'{name}'" for name in names)
    return (
        f"not registered in this call: {which}; shown in the main table alone: "
        "name the folder of its file by --plugin-dir",
    )


def names_any(changes: Iterable[str], methods: Iterable[str]) -> bool:
    return any(text.startswith(("*.", *(f"{method}." for method in methods))) for text in changes)
