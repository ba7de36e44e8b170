"""Tables from several environments or code versions: the cells that were made elsewhere than most are marked.

Identity (`selection`) keeps apart what is known to change numbers. The rest (packages, kind of device, commit) should
not, but a reader who doubts a cell must see that it was made apart. The thread count of a CPU is left aside: what it
changes is rounding, below what a table shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from carryover.bench.records.reading import Record, age

MARK = "made elsewhere than most of this table"
COMMIT_SHOWN = 12  # hex digits
THREADS = re.compile(r" \(\d+ threads?\)")


def traits(record: Record) -> dict[str, str]:
    """What is compared, by name."""
    commit, changes, _ = str(record.get("git_commit") or "unknown").partition("+changes")
    found = {name: str(version) for name, version in sorted((record.get("versions") or {}).items())}
    found["device"] = THREADS.sub("", str(record.get("device") or "unknown"))
    found["commit"] = commit[:COMMIT_SHOWN] + (" with changes" if changes else "")
    return found


def usual(records: Iterable[Record]) -> dict[str, str]:
    """The traits that most of the records share; of two as frequent, those of the last started."""
    records = sorted(records, key=age)
    counts = Counter(tuple(traits(record).items()) for record in records)
    last = {tuple(traits(record).items()): place for place, record in enumerate(records)}
    if not counts:
        return {}
    return dict(max(counts.items(), key=lambda found: (found[1], last[found[0]]))[0])


def remark(record: Record, most: dict[str, str]) -> str:
    """Wherein a record's traits differ from the usual ones; empty where they do not."""
    mine = traits(record)
    names = [name for name in {**most, **mine} if mine.get(name) != most.get(name)]
    return ", ".join(f"{name} {mine.get(name, 'unknown')} (most: {most.get(name, 'unknown')})" for name in names)


def marked(records: Sequence[Record], most: dict[str, str] | None = None) -> list[Record]:
    """The records of one table, those made elsewhere than most with a mark, as tables show marks beside the cells."""
    most = usual(records) if most is None else most
    found = []
    for record in records:
        said = remark(record, most)
        marks = [*(record.get("marks") or ()), f"{MARK}: {said}"]
        found.append({**record, "marks": marks} if said else record)
    return found
