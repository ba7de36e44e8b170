"""Tables from several environments or code versions: the cells that were made elsewhere than most are marked.

Identity (`selection`) keeps apart what is known to change numbers. The rest (packages, kind of device, commit) should
not, but a reader who doubts a cell must see that it was made apart. So must one who expects the same bits: those of a
CPU depend on its kind and on the mode of MKL. The thread count of a CPU is left aside: what it changes is rounding,
below what a table shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from carryover.bench.records.reading import Record, age

MARK = "made elsewhere than most of this table"
COMMIT_SHOWN = 12  # hex digits
PROCESSOR = "processor"
THREADS = re.compile(r" \(\d+ threads?\)")


def traits(record: Record) -> dict[str, str]:
    """What is compared, by name."""
    commit, changes, _ = str(record.get("git_commit") or "unknown").partition("+changes")
    found = {name: str(version) for name, version in sorted((record.get("versions") or {}).items())}
    found["device"] = THREADS.sub("", str(record.get("device") or "unknown"))
    found["commit"] = commit[:COMMIT_SHOWN] + (" with changes" if changes else "")
    own = record.get("processor") or {}
    if own and found["device"].startswith("cpu"):  # records of before do not say, so nothing can be said of them
        found[PROCESSOR] = f"{own.get('kind', 'unknown')} with MKL's mode {own.get('mode', 'unknown')}"
    return found


def usual(records: Iterable[Record]) -> dict[str, str]:
    """The traits that most of the records share, the processor that most of those share that name one; of two as
    frequent, those of the last started."""
    each = [traits(record) for record in sorted(records, key=age)]
    processors = [(PROCESSOR, found.pop(PROCESSOR)) for found in each if PROCESSOR in found]
    return dict(commonest([tuple(found.items()) for found in each]) + commonest([(one,) for one in processors]))


def commonest(found: Sequence[tuple]) -> tuple:
    """The one that is there most often, of two the last; empty of none."""
    counts, last = Counter(found), {one: place for place, one in enumerate(found)}
    return max(counts, key=lambda one: (counts[one], last[one]), default=())


def remark(record: Record, most: dict[str, str]) -> str:
    """Wherein a record's traits differ from the usual ones; empty where they do not."""
    mine = traits(record)
    names = [name for name in {**most, **mine} if mine.get(name) != most.get(name)]
    names = [name for name in names if name != PROCESSOR or (name in mine and name in most)]
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
