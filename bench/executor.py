"""The local engine: does the runs that are not done, in this process or in a few worker processes.

Whatever the number of workers, only this process writes records, and a run's numbers do not depend on its neighbours.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

import torch

from bench.errors import UserError
from bench.plan import Run
from bench.processes import cores, follow_parent
from bench.session import Options, Session

_session: Session | None = None  # a worker's own
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
    for run in runs:
        key = session.key(run)
        if not fresh and session.store.read_record(key):
            tally.already += 1
        else:
            todo.append((run, key))
    on_start(len(todo), tally.already)
    if not todo:
        return tally
    encode_tests(session, todo)
    engine = in_process if jobs <= 1 else in_workers
    for run, record in engine(session, todo, jobs):
        session.store.write_record(record)
        if record["status"] == "done":
            tally.done += 1
        else:
            tally.failures.append((run, record["error"]))
        on_done(run, record)
        if fail_fast and tally.failures:
            break
    return tally


def encode_tests(session: Session, todo: list[tuple[Run, str]]) -> None:
    """Test features first, with all threads; a picture that cannot be read fails the runs that need it, later."""
    for run, _ in {(run.dataset, run.test, run.limit): (run, key) for run, key in todo}.values():
        for role in session.options.arch.towers:
            try:
                session.test_features(run, role)
            except UserError:
                continue


def groups(todo: list[tuple[Run, str]]) -> list[list[tuple[Run, str]]]:
    """Runs that share features stay together: one group a (dataset, seed)."""
    found: dict[tuple, list] = {}
    for run, key in todo:
        found.setdefault((run.dataset, run.seed, run.shots), []).append((run, key))
    return list(found.values())


def in_process(session: Session, todo: list[tuple[Run, str]], jobs: int) -> Iterator[tuple[Run, dict]]:
    threads = torch.get_num_threads()
    for group in groups(todo):
        for run, key in group:
            torch.set_num_threads(run_threads(session.options, threads))
            yield run, session.execute(run, key)
        session.forget()
    torch.set_num_threads(threads)


def run_threads(options: Options, available: int) -> int:
    """Threads of one run: one for micro on the CPU, so that its numbers do not depend on the machine's cores."""
    return 1 if options.arch.id == "micro" and options.device == "cpu" else available


def in_workers(session: Session, todo: list[tuple[Run, str]], jobs: int) -> Iterator[tuple[Run, dict]]:
    """Each worker takes a group at a time and sends its records back run by run."""
    context = multiprocessing.get_context("spawn")
    session.forget()
    options = replace(session.options, workers=session.loader.workers // jobs)
    session.loader.close()
    # The largest first, so that no worker is left alone with a long group at the end.
    queue = sorted(groups(todo), key=lambda group: -len(session.data(group[0][0].dataset).classnames))
    with ProcessPoolExecutor(min(jobs, len(queue)), context, initializer=start_worker, initargs=(options,)) as pool:
        waiting = {}
        try:
            pending = [list(group) for group in queue]
            while pending or waiting:
                while pending and len(waiting) < jobs:
                    group = pending.pop(0)
                    waiting[pool.submit(work, *group[0])] = group
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    group = waiting.pop(future)
                    run, key = group.pop(0)
                    if group:  # the group goes on; whichever worker is free finds its features on disk
                        waiting[pool.submit(work, *group[0])] = group
                    yield run, result_of(future, session, run, key)
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


def result_of(future: Future, session: Session, run: Run, key: str) -> dict:
    """The worker's record; a failed one where it could not even read the dataset, which may have gone meanwhile."""
    try:
        return future.result()
    except UserError as error:
        return {**session.describe(run, key), "status": "failed", "error": str(error)}


def start_worker(options: Options) -> None:
    global _session
    follow_parent()
    torch.set_num_threads(1)
    _session = Session(options)


def work(run: Run, key: str) -> dict:
    global _dataset
    if _dataset != run.dataset:
        _session.forget()
        _dataset = run.dataset
    return _session.execute(run, key)
