"""The local engine: does the runs that are not done, in this process or in a few worker processes.

Whatever the number of workers, only this process writes records, and a run's numbers do not depend on its neighbours.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

import torch

from bench.errors import UserError
from bench.execution import alike, execute_together
from bench.plan import Run
from bench.processes import cores, follow_parent
from bench.session import Options, Session, add_encoded, encoded_since

_session: Session  # a worker's own, made by `start_worker`
_dataset = ""  # the one whose features the worker holds


@dataclass
class Tally:
    """What came of a call: counts, and each failure as (run, one line)."""

    planned: int = 0
    already: int = 0
    done: int = 0
    failures: list[tuple[Run, str]] = field(default_factory=list)


def default_jobs(options: Options) -> int:
    """Micro's tensors are too small for several threads each: one single-threaded worker a core is faster."""
    return min(cores(), 8) if options.arch.id == "micro" and options.device == "cpu" else 1


def run_all(
    session: Session,
    runs: list[Run],
    jobs: int,
    fresh: bool = False,
    fail_fast: bool = False,
    on_start: Callable[[int, int], None] = lambda todo, already: None,
    on_done: Callable[[Run, dict], None] = lambda run, record: None,
) -> Tally:
    """Do every run that has no finished record (all of them with ``fresh``). Raises UserError only for what concerns
    every run (weights, data root); a run that fails is recorded and the rest go on, unless ``fail_fast``."""
    todo: list[tuple[Run, str]] = []
    tally = Tally(planned=len(runs))
    again: set[str] = set()
    for run in runs:
        key = session.key(run)
        retrained = run.test and session.key(run.trained) in again  # its plug-in may come out with other bytes
        if not fresh and not retrained and session.store.read_record(key):
            tally.already += 1
        else:
            todo.append((run, key))
            again.add(key)
    on_start(len(todo), tally.already)
    if not todo:
        return tally
    encoded = encode_tests(session, todo)
    engine = in_process if jobs <= 1 else in_workers
    for run, record in engine(session, todo, jobs):
        if record["status"] == "done":  # the first that needed them tells what its test features took
            add_encoded(record, encoded.pop((run.dataset, run.test, run.limit), {}))
        session.store.write_record(record)
        if record["status"] == "done":
            tally.done += 1
        else:
            tally.failures.append((run, record["error"]))
        on_done(run, record)
        if fail_fast and tally.failures:
            break
    return tally


def encode_tests(session: Session, todo: list[tuple[Run, str]]) -> dict[tuple, dict[str, dict]]:
    """Test features first, with all threads; a picture that cannot be read fails the runs that need it, later. Returns
    what was encoded (``encoded_since``) by dataset, shifted set and limit."""
    made = {}
    for axes, run in {(run.dataset, run.test, run.limit): run for run, _ in todo}.items():
        before = session.encoded()
        for role in session.options.arch.towers:
            try:
                session.test_features(run, role)
            except UserError:
                continue
        made[axes] = encoded_since(before, session.encoded())
    return made


@dataclass
class Unit:
    """Runs of one dataset that are done in one go, side by side where they can be (``bench.execution``).

    after  keys of runs that must be done before, because this unit evaluates their plug-ins
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
        unit = open_units.get(kind) if kind is not None else None
        if unit is not None and len(unit.runs) < session.options.together:
            unit.runs.append((run, key))
            continue
        after = {session.key(run.trained)} & keys if run.test else set()
        found.append(Unit([(run, key)], frozenset(after)))
        if kind is not None:
            open_units[kind] = found[-1]
    return found


def in_process(session: Session, todo: list[tuple[Run, str]], jobs: int) -> Iterator[tuple[Run, dict]]:
    threads, dataset = torch.get_num_threads(), ""
    for unit in sorted(units(session, todo), key=lambda unit: bool(unit.after)):
        if unit.dataset != dataset:
            session.forget()
            dataset = unit.dataset
        torch.set_num_threads(run_threads(session.options, threads))
        for (run, _), record in zip(unit.runs, execute_together(session, unit.runs), strict=True):
            yield run, record
    torch.set_num_threads(threads)


def run_threads(options: Options, available: int) -> int:
    """Threads of one run: one for micro on the CPU, so that its numbers do not depend on the machine's cores."""
    return 1 if options.arch.id == "micro" and options.device == "cpu" else available


def in_workers(session: Session, todo: list[tuple[Run, str]], jobs: int) -> Iterator[tuple[Run, dict]]:
    """A dataset's views are made by one worker; then its units go to whichever worker is free, the largest first."""
    context = multiprocessing.get_context("spawn")
    session.forget()
    options = replace(session.options, workers=session.loader.workers // jobs)
    session.loader.close()
    pending = sorted(units(session, todo), key=lambda unit: -size(session, unit))
    unprepared = list(dict.fromkeys(unit.dataset for unit in pending))
    left = {key for _, key in todo}
    with ProcessPoolExecutor(min(jobs, len(pending)), context, initializer=start_worker, initargs=(options,)) as pool:
        waiting: dict[Future, Unit | str] = {}
        try:
            while pending or waiting:
                while len(waiting) < jobs:
                    busy = {dataset for dataset in waiting.values() if isinstance(dataset, str)}
                    closed = busy | set(unprepared)
                    ready = next((u for u in pending if u.dataset not in closed and not u.after & left), None)
                    if ready is not None:
                        pending.remove(ready)
                        waiting[pool.submit(work, ready.runs)] = ready
                    elif unprepared:
                        dataset = unprepared.pop(0)
                        waiting[pool.submit(read_support, [run for run, _ in todo if run.dataset == dataset])] = dataset
                    else:
                        break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    unit = waiting.pop(future)
                    if isinstance(unit, str):
                        continue
                    for (run, key), record in zip(unit.runs, results_of(future, session, unit), strict=True):
                        left.discard(key)
                        yield run, record
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?); what is done is kept: the same command goes on from "
                "here, with --jobs 1 if it happens again"
            ) from error
        except BaseException:  # Ctrl-C, --fail-fast: what runs now is not waited for and will be done again
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def size(session: Session, unit: Unit) -> int:
    """Classes of all its runs: what its time goes by, roughly."""
    return sum(len(session.tested(run).classnames) for run, _ in unit.runs)


def results_of(future: Future, session: Session, unit: Unit) -> list[dict]:
    """The worker's records; failed ones where it could not even read the dataset, which may have gone meanwhile."""
    try:
        return future.result()
    except UserError as error:
        return [{**session.describe(run, key), "status": "failed", "error": str(error)} for run, key in unit.runs]


def start_worker(options: Options) -> None:
    global _session
    follow_parent()
    torch.set_num_threads(1)
    _session = Session(options)


def work(runs: list[tuple[Run, str]]) -> list[dict]:
    hold(runs[0][0].dataset)
    return list(execute_together(_session, runs))


def read_support(runs: list[Run]) -> None:
    """Makes the feature files that a dataset's runs read; what is wrong with them, each run says itself."""
    hold(runs[0].dataset)
    for run in runs:
        if not run.test:
            with contextlib.suppress(Exception):
                _session.support(run)


def hold(dataset: str) -> None:
    global _dataset
    if _dataset != dataset:
        _session.forget()
        _dataset = dataset
