"""The local engine: does units in this process or in a few workers of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from carryover.bench.engine.one_run import execute_together
from carryover.bench.engine.options import Options, device_budget
from carryover.bench.engine.record_draft import describe
from carryover.bench.engine.session import Session
from carryover.bench.engine.units import Finished, Pictures, Queue, Share, axes, read_features, run_threads, told, work
from carryover.bench.features.decoding import default_workers
from carryover.bench.host import worker_pool


def in_process(session: Session, share: Share, jobs: int, limit: float | None = None) -> Finished:
    """Test pictures first, with all threads where a run has them all."""
    units, threads, dataset = share.units(), torch.get_num_threads(), ""
    try:
        torch.set_num_threads(run_threads(session.options, threads))
        encoded = {}
        for run in {axes(run): run for unit in units for run, _ in unit.runs}.values():
            encoded[axes(run)] = read_features(session, [run], supports=False)
        for unit in sorted(units, key=lambda unit: len(unit.runs[0][0].sources)):  # what they need comes before them
            if not (mine := share.claim(unit)):
                continue
            if unit.dataset != dataset:
                session.inputs.forget()
                dataset = unit.dataset
            for (run, _), record in zip(mine, execute_together(session, mine), strict=True):
                yield run, told(record, encoded, run)
    finally:
        torch.set_num_threads(threads)


def in_workers(session: Session, share: Share, jobs: int, limit: float | None = None) -> Finished:
    jobs = max(jobs, 1)
    session.inputs.forget()
    session.loader.close()
    threads = 1 if jobs > 1 else run_threads(session.options, torch.get_num_threads())
    places = [(options, threads) for options in options_of_workers(session.options, jobs)]
    queue = Queue(session, share)
    with contextlib.closing(worker_pool.outcomes(queue.draw, start_worker, places, limit)) as found:
        yield from gathered(session, queue, found)


def options_of_workers(options: Options, jobs: int) -> list[Options]:
    """Of each: its share of the decoding processes, one of the cards (neighbours have different ones), and what its
    text passes may keep there, which is the same for all on a card."""
    decoders = default_workers(options.device, jobs) if options.workers is None else options.workers // jobs
    shared = replace(options, workers=decoders)
    if not options.cards:
        return [replace(shared, text_budget=options.text_budget or device_budget(options.device, jobs))] * jobs
    sharing = -(-jobs // len(options.cards))
    budgets = {card: options.text_budget or device_budget(options.device, sharing, card) for card in options.cards}
    placed = [options.cards[place % len(options.cards)] for place in range(jobs)]
    return [replace(shared, cards=(card,), text_budget=budgets[card]) for card in placed]


def gathered(session: Session, queue: Queue, outcomes: Iterable[tuple[Any, Any]]) -> Finished:
    """Runs and records from the (item, result or Lost) that a pool gives of what it drew from the queue."""
    for item, found in outcomes:
        if isinstance(item, Pictures):
            queue.prepared(axes(item.runs[0]), {} if isinstance(found, worker_pool.Lost) else found)
            if session.progress:
                session.progress("features", queue.sets - len(queue.closed), queue.sets)
            continue
        run, key = item
        queue.open.discard(key)
        lost = isinstance(
            found, worker_pool.Lost
        )  # e.g. it could not even read the dataset, which may have gone meanwhile
        yield (
            run,
            {**describe(session, run, key), "status": "failed", "error": found.reason}
            if lost
            else told(found, queue.encoded, run),
        )


def start_worker(options: Options, threads: int) -> Callable:
    """In a new worker process: what does its units."""
    torch.set_num_threads(threads)
    return partial(work, Session(options))
