"""What is left to do, as units of runs that are done in one go, and the order that workers take them in."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from carryover.bench.engine.one_run import alike, execute_together
from carryover.bench.engine.options import Options
from carryover.bench.engine.record_draft import add_encoded, encoded_since
from carryover.bench.engine.session import Session
from carryover.bench.errors import StorageError
from carryover.bench.host.claims import POLL, Claims
from carryover.bench.plan.runs import Run
from carryover.methods.base import METHODS

Finished = Generator[tuple[Run, dict], None, None]
Engine = Callable[[Session, "Share", int, "float | None"], Finished]
_dataset = ""  # the one whose features the worker holds


@dataclass
class Unit:
    """Runs of one dataset that are done in one go, side by side where they can be (``bench.engine.one_run``).

    after  keys of runs that must be done before, because this unit evaluates their plug-ins or starts from them
    """

    runs: list[tuple[Run, str]]
    after: frozenset[str] = frozenset()

    @property
    def dataset(self) -> str:
        return self.runs[0][0].dataset


def units(session: Session, todo: list[tuple[Run, str]]) -> list[Unit]:
    """In the plan's order; runs that are alike join the first of them, as many as ``Options.together`` says."""
    keys = {key for _, key in todo}
    found: list[Unit] = []
    open_units: dict[tuple, Unit] = {}
    for run, key in todo:
        kind = alike(run) if session.options.together > 1 else None
        after = {session.keys.of(run.source)} & keys if run.source else set()
        unit = open_units.get(kind) if kind is not None else None
        if unit is not None and len(unit.runs) < session.options.together:
            unit.runs.append((run, key))
            unit.after |= after
            continue
        found.append(Unit([(run, key)], frozenset(after)))
        if kind is not None:
            open_units[kind] = found[-1]
    return found


class Share:
    """What of the plan is left for this process, while others may be at the same plan.

    on_begin  told the keys of the runs that are now begun together
    """

    def __init__(
        self,
        session: Session,
        todo: list[tuple[Run, str]],
        before: dict[str, tuple | None],
        claims: Claims,
        on_begin: Callable[[list[str]], None] = lambda keys: None,
    ):
        self.session, self.claims, self.before, self.left = session, claims, before, todo
        self.on_begin = on_begin
        self._found: list[tuple[Run, dict]] = []  # done by others

    def units(self) -> list[Unit]:
        """What is left, as units; what of them cannot be done here comes back into ``left`` by ``claim``."""
        found, self.left = units(self.session, self.left), []
        return found

    def claim(self, unit: Unit) -> list[tuple[Run, str]]:
        """Its runs that are to be done here and now. A plug-in that another process trains is waited for."""
        elsewhere, mine = {key for _, key in self.left}, []
        for run, key in unit.runs:
            if unit.after & elsewhere or not self.claims.take(key):
                self.left.append((run, key))
            elif not self._settle(run, key):
                self.session.store.begin(key)
                mine.append((run, key))
        if mine:
            self.on_begin([key for _, key in mine])
        return mine

    def settled(self) -> Iterator[tuple[Run, dict]]:
        """What others have done since, each once."""
        for run, key in list(self.left):
            if not self.claims.owner(key) and self._settle(run, key):
                self.left.remove((run, key))
        found, self._found = self._found, []
        yield from found

    def wait(self, say: Callable[[int, str], None]) -> None:
        """Until one of those that are left is given back; its owner may have died. Not of those that need a plug-in
        which is itself waited for."""
        if not self.left:
            return
        say(len(self.left), self.claims.owner(self.left[0][1]))
        keys = {key for _, key in self.left}
        free = [key for run, key in self.left if not (run.source and self.session.keys.of(run.source) in keys)]
        while not any(self.claims.take(key) for key in free):
            time.sleep(POLL)

    def _settle(self, run: Run, key: str) -> bool:
        """Whether its record was written by another process since the plan was made."""
        store = self.session.store
        if store.stamp(key) == self.before[key] or not (record := store.outcome(key)):
            return False
        if record.get("status") == "done" and not store.read_record(key):
            return False
        self.claims.release(key)
        self._found.append((run, record))
        return True


def axes(run: Run) -> tuple[str, str]:
    """Runs that read the same test pictures."""
    return run.dataset, run.test


def told(record: dict, encoded: dict[tuple[str, str], dict], run: Run) -> dict:
    """The first finished run that needed pictures encoded before it tells what that took."""
    if record["status"] == "done":
        add_encoded(record, encoded.pop(axes(run), {}))
    return record


def run_threads(options: Options, available: int) -> int:
    """Threads of one run: one for micro on the CPU, so that its numbers do not depend on the machine's cores."""
    return 1 if options.arch.is_micro and options.device == "cpu" else available


@dataclass(frozen=True, eq=False)
class Pictures:
    """In place of a run: a worker is to make the feature files that these runs of one ``axes`` read."""

    runs: tuple[Run, ...]


class Queue:
    """What the workers do, in which order: one of them encodes the pictures of a dataset or shifted set; then its units
    go to whichever is free, the largest first, those that need another's plug-in once that is there."""

    def __init__(self, session: Session, share: Share):
        self.share = share
        self.pending = sorted(share.units(), key=lambda unit: -size(session, unit))
        self.unprepared = list(dict.fromkeys(axes(unit.runs[0][0]) for unit in self.pending))
        self.closed = set(self.unprepared)  # pictures are still to be encoded
        self.sets = len(self.unprepared)
        self.open = {key for unit in self.pending for _, key in unit.runs}
        self.encoded: dict[tuple[str, str], dict] = {}

    def draw(self) -> list:
        """What can be begun now; empty where nothing can, before something else is done."""
        for unit in list(self.pending):
            if axes(unit.runs[0][0]) in self.closed or unit.after & self.open:
                continue
            self.pending.remove(unit)
            mine = self.share.claim(unit)
            self.open -= {key for _, key in unit.runs} - {key for _, key in mine}
            if mine:
                return mine
        if not self.unprepared:
            return []
        which = self.unprepared.pop(0)
        return [Pictures(tuple(run for unit in self.pending for run, _ in unit.runs if axes(run) == which))]

    def prepared(self, which: tuple[str, str], encoded: dict) -> None:
        self.closed.discard(which)
        self.encoded[which] = encoded


def size(session: Session, unit: Unit) -> int:
    """Classes of all its runs: what its time goes by, roughly."""
    return sum(len(session.tested(run).classnames) for run, _ in unit.runs)


def work(session: Session, items: list) -> Iterator[dict]:
    first = items[0]
    if isinstance(first, Pictures):
        hold(session, first.runs[0].dataset)
        yield read_features(session, first.runs)
    else:
        hold(session, first[0].dataset)
        yield from execute_together(session, items)


def read_features(session: Session, runs: Sequence[Run], supports: bool = True) -> dict[str, dict]:
    """Makes the feature files that runs of one ``axes`` read; what is wrong with a picture, each run says itself.
    Returns what was encoded (``encoded_since``)."""
    before = session.encoded()
    tests = {(METHODS[run.method].needs, role): run for run in reversed(runs) for role in session.evaluated_on(run)}
    wanted: list[Callable[[], object]] = [partial(session.inputs.tests, run, role) for (_, role), run in tests.items()]
    fitted = [run for run in runs if supports and not run.test]
    wanted += [partial(session.inputs.support, run) for run in fitted if not run.port]
    wanted += [partial(session.anchors.read, run) for run in fitted if run.port]
    for read in wanted:
        try:
            read()
        except StorageError:
            raise
        except Exception:
            continue
    return encoded_since(before, session.encoded())


def hold(session: Session, dataset: str) -> None:
    global _dataset
    if _dataset != dataset:
        session.inputs.forget()
        _dataset = dataset
