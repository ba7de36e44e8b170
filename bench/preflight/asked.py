"""The cost model of a call, measured by a process of its own beside the runs, whose numbers and limits it cannot touch.

What it holds in memory is a second copy of the backbones, for as long as it measures.
"""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.host.spawning import CONTEXT
from carryover.bench.plan.runs import Run
from carryover.bench.preflight import budget
from carryover.bench.preflight.device_speed import Calibration
from carryover.bench.preflight.time_left import Predicted


class Asked:
    """The process that measures; ``answer`` is None until it has ended. since: seconds of the epoch when the call
    began, so that pictures encoded by it meanwhile count as to be encoded."""

    def __init__(self, options: Options, todo: list[tuple[Run, str]], since: float):
        self._pipe, theirs = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=answer, args=(theirs, options, todo, since), daemon=True)
        self._process.start()
        theirs.close()

    def answer(self) -> Predicted | None:
        """What it found; where it died, every run is taken for as long as any other."""
        if not self._pipe.poll():
            return None
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            return Predicted({}, {})

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def answer(pipe: Connection, options: Options, todo: list[tuple[Run, str]], since: float) -> None:
    try:
        found = predicted(Session(replace(options, workers=0)), todo, since)
    except (Exception, SystemExit):  # a method may call exit(); the run that does so says it
        found = Predicted({}, {})
    pipe.send(found)


def predicted(session: Session, todo: list[tuple[Run, str]], since: float = float("inf")) -> Predicted:
    """Measures. A run that cannot be counted or measured is left out."""
    known: dict = {}
    counted: dict[Run, budget.Counts] = {}
    for run, _ in todo:
        try:
            counted[run] = budget.count(session, run, known)
        except UserError:
            continue
    costs: dict[Run, tuple[float, float]] = {}
    images: dict[str, tuple[int, float]] = {}
    for part in budget.priced(Calibration(session, list(counted)), counted.values(), {}, lambda path: old(path, since)):
        if part.fit or part.evaluation:
            costs[part.run] = part.fit, part.evaluation
        for role, (count, seconds) in part.features.items():
            before, spent = images.get(role, (0, 0.0))
            images[role] = before + count, spent + seconds
    each = {role: (count, seconds / max(count, 1)) for role, (count, seconds) in images.items()}
    return Predicted({key: costs[run] for run, key in todo if run in costs}, each)


def old(path: Path, since: float) -> bool:
    """Whether a file was there before that moment."""
    try:
        return path.stat().st_mtime < since
    except OSError:
        return False
