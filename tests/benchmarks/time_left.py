"""Error of the estimated time left over a call that was recorded: ``python -m tests.benchmarks.time_left OUT/ARCH``.

The call is replayed from what its records hold (``started`` and ``seconds``), so nothing is run; the cost model is
measured on this machine, as a call measures it. The records are those of the plan that most of them belong to.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections import Counter
from pathlib import Path

from carryover.bench.cli.options import options_of
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.registries import discover
from carryover.bench.engine.encoded_again import run_of
from carryover.bench.engine.one_run import alike
from carryover.bench.engine.session import Session
from carryover.bench.preflight import asked
from carryover.bench.preflight.time_left import Predicted, TimeLeft
from carryover.bench.records import time_notes
from carryover.bench.records.store import Store

POINTS = (0.1, 0.25, 0.5, 0.75)  # of the time that the runs took
MEASURED = 60.0  # seconds after which a call has its cost model
TOGETHER = 2.0  # seconds within which runs begun together say that they started


def units_of(records: list[dict]) -> list[list[dict]]:
    """Records of runs begun together, by their start."""
    found: list[list[dict]] = []
    last: dict[object, list[dict]] = {}
    for record in sorted(records, key=lambda record: (record["started"], record["key"])):
        kind = alike(run_of(record))
        unit = last.get(kind) if kind is not None else None
        if unit and started(record) - started(unit[0]) <= TOGETHER:
            unit.append(record)
        else:
            found.append([record])
            last[kind] = found[-1]
    return found


def started(record: dict) -> float:
    return datetime.datetime.strptime(record["started"], "%Y-%m-%dT%H:%M:%SZ").timestamp()


def own_seconds(record: dict) -> float:
    """Of the run alone: pictures encoded before it are told in it."""
    spent = record["seconds"]
    encoding = sum(made["seconds"] for made in record["encoded"].values())
    return max(0.0, spent["features"] - encoding) + spent.get("fit", 0.0) + sum(spent["evaluate"].values())


def timeline(records: list[dict], jobs: int) -> list[tuple[float, float, list[dict]]]:
    """(begin, end, records) of each unit, in seconds from the first. Starts are whole seconds, so units of one second
    are spread over it; a worker is at a unit until it begins its next, or as long as the unit's seconds say and a
    little more, where it encoded pictures between."""
    units = units_of(records)
    first, a_second = min(started(unit[0]) for unit in units), Counter(unit[0]["started"] for unit in units)
    place: Counter = Counter()
    spans: list[list] = []
    workers: list[list | None] = [None] * jobs
    for unit in units:
        second = unit[0]["started"]
        begin = started(unit[0]) - first + place[second] / a_second[second]
        place[second] += 1
        ends = [span[1] if span else 0.0 for span in workers]
        free = [worker for worker in range(jobs) if ends[worker] <= begin + 1] or [ends.index(min(ends))]
        worker = max(free, key=lambda worker: ends[worker])
        if before := workers[worker]:
            before[1] = max(before[0], min(begin, before[1] + 1 + len(before[2])))
        workers[worker] = [begin, begin + sum(map(own_seconds, unit)), unit]
        spans.append(workers[worker])
    return [(begin, end, unit) for begin, end, unit in spans]


def as_encoded(predicted: Predicted, records: list[dict]) -> Predicted:
    """With the pictures that the call encoded: some of its feature files may have been there before it."""
    count: Counter = Counter()
    for record in records:
        count.update({role: made["images"] for role, made in record["encoded"].items()})
    each = {role: (count[role], seconds) for role, (_, seconds) in predicted.images.items()}
    return Predicted(predicted.runs, each)


def replay(spans: list, jobs: int, predicted: Predicted, whole: float) -> dict[float, float]:
    """The estimate at each of `POINTS`."""
    now = 0.0
    todo = [(run_of(record), record["key"]) for _, _, unit in spans for record in unit]
    left = TimeLeft(todo, jobs, clock=lambda: now)
    events = [(begin, 0, unit) for begin, _, unit in spans] + [(end, 1, unit) for _, end, unit in spans]
    events += [(whole * point, 2, point) for point in POINTS]
    found = {}
    for now, kind, what in sorted(events, key=lambda event: event[:2]):  # noqa: B020  # the clock
        left.predicted = predicted if now >= MEASURED else None
        if kind == 2:
            found[what] = left.seconds()
        elif kind == 0:
            left.begin([record["key"] for record in what])
        else:
            for record in what:
                left.done(record["key"], record)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of a results folder: OUT/ARCH")
    folder = Path(parser.parse_args().folder)
    store = Store(str(folder.parent), folder.name)
    records = [record for record in store.records() if record["status"] == "done"]
    plan = Counter(record["plan"] for record in records).most_common(1)[0][0]
    records = [record for record in records if record["plan"] == plan]
    call = store.read_note(time_notes.CALL, time_notes.sound_call)
    if not call or call["keys"] != time_notes.digest(record["key"] for record in records):
        sys.exit(f"'{folder}': {time_notes.CALL} is not of the {len(records)} runs of its largest plan")
    with tempfile.TemporaryDirectory() as empty:
        options = options_of(parse(["--arch", folder.name, "--out", empty, "--device", "cpu"]))
        discover(())
        spans, whole = timeline(records, call["jobs"]), call["stages"]["runs"]
        todo = [(run_of(record), record["key"]) for record in records]
        predicted = as_encoded(asked.predicted(Session(options), todo), records)
    print(f"{len(records)} runs, {len(spans)} units, {call['jobs']} workers, {whole:.0f} s")
    for point, estimated in replay(spans, call["jobs"], predicted, whole).items():
        actual = whole * (1 - point)
        told = "none yet" if estimated is None else f"{estimated:.0f} s, {100 * (estimated / actual - 1):+.0f} %"
        print(f"at {100 * point:.0f} %: {actual:.0f} s were left; estimated {told}")


if __name__ == "__main__":
    main()
