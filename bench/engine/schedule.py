"""What every engine shares, and the local one: does the runs that are not done, in this process or in a few workers.

Whatever the number of workers, only this process writes records, and a run's numbers do not depend on its neighbours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from carryover.bench.engine.local import in_process, in_workers
from carryover.bench.engine.options import Options
from carryover.bench.engine.record_draft import write_manifests
from carryover.bench.engine.session import Session
from carryover.bench.engine.units import Engine, Share
from carryover.bench.errors import UserError
from carryover.bench.host.claims import Claims
from carryover.bench.host.processes import cores
from carryover.bench.plan.runs import Run
from carryover.bench.records import plans


@dataclass
class Tally:
    """What came of a call: counts, and each failure as (run, one line)."""

    planned: int = 0
    already: int = 0
    done: int = 0
    elsewhere: int = 0  # by another process on the same results folder, while this call ran
    failures: list[tuple[Run, str]] = field(default_factory=list)


def workers_of(options: Options, jobs: int = 0) -> int:
    """How many do the runs: ``jobs`` on each card that is named. 0: one, but a core each of micro's on a CPU, whose
    tensors are too small for several threads."""
    most = min(cores(), 8) if options.arch.is_micro and options.device == "cpu" else 1
    return (jobs or most) * max(1, len(options.cards))


def run_all(
    session: Session,
    runs: list[Run],
    jobs: int,
    fresh: bool = False,
    fail_fast: bool = False,
    on_start: Callable[[list[tuple[Run, str]], int], None] = lambda todo, already: None,
    on_done: Callable[[Run, dict], None] = lambda run, record: None,
    limit: float | None = None,
    on_wait: Callable[[int, str], None] = lambda count, owner: None,
    engine: Engine | None = None,
    on_begin: Callable[[list[str]], None] = lambda keys: None,
    changes: Sequence[Sequence[str]] = (),
) -> Tally:
    """Do every run that has no finished record (all of them with ``fresh``). Raises UserError only for what concerns
    every run (weights, data root, a full disk, a results folder that was taken away); a run that fails is recorded and
    the rest go on, unless ``fail_fast``.

    Runs that another process on the same results folder is at are left to it, waited for, and done here where it died.
    limit: seconds that one run may take; its worker process is then ended.
    engine: what does the runs; None: this machine, in processes of its own.
    changes: options of each row that the call asked for, which its plan keeps.
    on_start, on_begin, on_done, on_wait: told what is to be done and how many runs are done already; the keys of runs
    begun together; each run with its record; how many runs are left to whom."""
    todo: list[tuple[Run, str]] = []
    tally = Tally(planned=len(runs))
    before: dict[str, tuple | None] = {}
    drawn: dict[tuple, Run] = {}
    again: set[str] = set()
    written: list[str] = []  # keys of records that are there
    for run in runs:
        key = session.keys.of(run)
        before[key] = session.store.stamp(key)
        # the plug-in that it needs may come out with other bytes
        outdated = run.source is not None and session.keys.of(run.source) in again
        if not fresh and not outdated and session.store.read_record(key):
            tally.already += 1
            written.append(key)
            drawn[run.dataset, run.shots, run.seed] = run
        else:
            todo.append((run, key))
            again.add(key)
    planned = {session.keys.of(run): str(run) for run in runs}
    plan = plans.write(session.store.folder, planned, changes=changes)
    on_start(list(todo), tally.already)

    def count(run: Run, record: dict) -> None:
        if record["status"] != "done":
            tally.failures.append((run, record["error"]))
        on_done(run, record)

    for run in drawn.values():  # a manifest that was lost or damaged since is told from nothing else
        with contextlib.suppress(UserError):
            write_manifests(session, run)
    if not todo:
        plans.write(session.store.folder, planned, recorded=True, changes=changes)
        return tally
    with Claims(session.store.folder / "claims") as claims:
        share = Share(session, todo, before, claims, on_begin)
        while share.left:
            chosen = engine or (in_process if jobs <= 1 and limit is None else in_workers)
            with contextlib.closing(
                chosen(session, share, jobs, limit)
            ) as outcomes:  # ended before claims are given back
                for run, record in outcomes:
                    key = record["key"]
                    if not session.store.still_ours(key):
                        share.left.append((run, key))
                        continue
                    session.store.check_there(written[-1:])
                    session.store.write_record({**record, "plan": plan})
                    written.append(key)
                    claims.release(key)
                    tally.done += record["status"] == "done"
                    count(run, record)
                    if fail_fast and tally.failures:
                        return tally
            for run, record in share.settled():
                tally.elsewhere += record["status"] == "done"
                written.append(record["key"])
                count(run, record)
            share.wait(on_wait)
    session.store.check_there(written)
    plans.write(session.store.folder, planned, recorded=True, changes=changes)
    return tally
