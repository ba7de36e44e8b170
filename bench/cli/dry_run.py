"""The plan and its estimate, in place of the runs."""

from __future__ import annotations

from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.plan.runs import Run
from carryover.bench.preflight import budget
from carryover.bench.records import time_notes
from carryover.bench.render.terminal import Table, say


def dry_run(options: Options, runs: list[Run], jobs: int, fresh: bool = False) -> int:
    """The plan, and what it will take; weights or data that cannot be had are no error here, ``doctor`` says more."""
    shown = Table(
        "dataset",
        "methods",
        "seeds",
        "runs",
        title=f"{len(runs)} runs on {options.arch.label}, {options.device}"
        + (f", cards {', '.join(map(str, options.cards))}" if len(options.cards) > 1 else "")
        + f", {options.precision}",
    )
    for id in dict.fromkeys(run.dataset for run in runs):
        mine = [run for run in runs if run.dataset == id]
        shown.row(
            id,
            " ".join(dict.fromkeys(r.method for r in mine)),
            " ".join(map(str, dict.fromkeys(r.seed for r in mine))),
            str(len(mine)),
        )
    shown.show()
    try:
        session = Session(options)
        found = budget.estimate(session, runs, jobs, fresh)
        report = [*budget.lines(found), *(f"not estimated: {line}" for line in found.missing)]
        if found.runs:
            session.store.write_note(time_notes.ESTIMATE, found.stored())
            report.append("stored with the records; the report will compare it with the actual time")
    except UserError as error:
        report = [f"no estimate: {error}"]
    for line in report:
        say(line)
    return 0
