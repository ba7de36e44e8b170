"""A pool of worker processes that survives its workers: one that dies or hangs costs the item it was at, not the call.

Knows nothing of runs: units are lists of items, a unit goes to one worker, and the worker sends a result an item back,
in order. ``concurrent.futures`` gives a whole pool up when one worker dies, and cannot end a single one.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from carryover.bench.errors import StorageError, UserError
from carryover.bench.host import spawning

CONTEXT: BaseContext = spawning.CONTEXT
READY, RESULT, ENDED, BROKEN, STOPPED = "ready", "result", "ended", "broken", "stopped"


@dataclass(frozen=True)
class Lost:
    """In place of the result of an item that has none: why, in one line."""

    reason: str


@dataclass
class Pending:
    """What of a unit is still without a result.

    tried   where workers died that held them
    begun   whether the first result of those that are done in one go has come
    """

    items: list
    tried: tuple[str, ...] = ()
    begun: bool = False

    def take(self, result: Any) -> tuple[Any, Any]:
        """(item, result) of the next. After one that is lost, the rest are begun anew."""
        self.begun = not isinstance(result, Lost)
        return self.items.pop(0), result

    def patience(self, limit: float) -> float:
        """Seconds that its next result may take: items may be done side by side, so that the first takes as long as
        all."""
        return limit * (1 if self.begun else max(len(self.items), 1))


@dataclass(eq=False)
class Worker:
    process: BaseProcess
    pipe: connection.Connection
    place: int
    unit: Pending | None = None
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)

    def give(self, unit: Pending) -> None:
        self.unit, self.heard = unit, time.monotonic()
        with contextlib.suppress(OSError):  # it died meanwhile: `outcomes` is told by its sentinel
            self.pipe.send(unit.items)

    def silent_until(self, limit: float) -> float:
        """When it is late."""
        return self.heard + (self.unit.patience(limit) if self.unit else limit)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def outcomes(
    draw: Callable[[], list], start: Callable[..., Callable], places: Sequence[tuple], limit: float | None = None
) -> Generator[tuple[Any, Any], None, None]:
    """(item, result or Lost) of every item, as they come.

    draw    called for each free worker after each outcome: the next unit, empty where none can be begun now. The call
            is over when none can and no worker is busy
    start   called in each new worker; returns ``work``, which is called with a unit's items and yields one result an
            item, in their order. An item whose error ends ``work`` is lost, and the rest of its unit goes on; a
            StorageError ends the call, for it concerns every item.
    places  arguments of ``start``, those of one worker each: as many work at a time, and one that follows a dead one
            has its place (a card, say).
    limit   seconds that an item may take; then its worker is killed and it is lost. Of a unit of several, which may be
            done side by side, each is tried by itself first.

    Items that a dying worker held are tried once more at the end, one at a time and with no other worker, as memory is
    the likely reason; then they are lost. Raises UserError where the first worker cannot even start.
    """
    workers: list[Worker] = []
    again: list[Pending] = []  # of units whose worker was killed at its limit
    alone: list[Pending] = []
    started = False  # whether any worker ever was
    try:
        while True:
            spare = [worker for worker in workers if worker.unit is None]
            solitary = any(worker.unit and worker.unit.tried for worker in workers)
            while (
                not solitary
                and len(workers) - len(spare) < len(places)
                and (unit := again.pop(0) if again else drawn(draw))
            ):
                worker = spare.pop() if spare else start_worker(start, places, workers)
                if worker not in workers:
                    workers.append(worker)
                worker.give(unit)
            busy = [worker for worker in workers if worker.unit]
            if not busy:
                if not alone:
                    break
                for worker in workers:  # the memory is for one
                    worker.end()
                workers[:] = [start_worker(start, places, [])]
                workers[0].give(alone.pop(0))
                continue

            for worker in ready(busy, limit):
                unit = worker.unit
                assert unit is not None
                late = not connection.wait([worker.pipe, worker.process.sentinel], 0)
                try:
                    kind, content = worker.pipe.recv() if worker.pipe.poll() else (BROKEN, None)
                except (EOFError, OSError):
                    kind, content = BROKEN, None
                worker.heard = time.monotonic()
                if kind == READY:
                    worker.ready = started = True
                elif kind == RESULT:
                    yield unit.take(content)
                elif kind == ENDED:
                    worker.unit = None
                elif kind == STOPPED:
                    raise StorageError(content)
                elif content is not None:
                    raise UserError(content) if not worker.ready else RuntimeError(f"in a worker process:\n{content}")
                else:
                    workers.remove(worker)
                    worker.end()
                    code = worker.process.exitcode
                    if late:
                        if len(unit.items) > 1:
                            again += [Pending([item]) for item in unit.items]
                            continue
                        for item in unit.items:
                            yield item, Lost(too_late(limit))
                    elif not started:
                        raise UserError(f"a worker process could not start ({ending(code)}); try --jobs 1")
                    elif unit.tried:
                        for item in unit.items:
                            yield item, Lost(f"its worker process died twice ({ending(code)}), the second time alone")
                    else:
                        alone += [Pending([item], ("beside others",)) for item in unit.items]
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in workers:
            worker.process.join(5)
    finally:  # Ctrl-C, --fail-fast too: what runs now is not waited for and will be done again
        for worker in workers:
            worker.end()


def drawn(draw: Callable[[], list]) -> Pending | None:
    items = draw()
    return Pending(list(items)) if items else None


def ready(busy: list[Worker], limit: float | None) -> list[Worker]:
    """Those that have something to say, have ended, or have been silent for too long."""
    timeout = None
    if limit is not None:
        timeout = max(0.0, min([w.silent_until(limit) - time.monotonic() for w in busy if w.ready], default=1.0))
    found = connection.wait([part for w in busy for part in (w.pipe, w.process.sentinel)], timeout)
    return [
        worker
        for worker in busy
        if worker.pipe in found
        or worker.process.sentinel in found
        or (limit is not None and worker.ready and time.monotonic() >= worker.silent_until(limit))
    ]


def too_late(limit: float | None) -> str:
    return f"took longer than --run-limit {limit:g} s; its worker process was ended"


def ending(code: int | None) -> str:
    return f"signal {-code}; out of memory?" if code is not None and code < 0 else f"exit status {code}"


def start_worker(start: Callable, places: Sequence[tuple], workers: Sequence[Worker]) -> Worker:
    """In the first place that none of the workers has."""
    taken = {worker.place for worker in workers}
    place = next(number for number in range(len(places)) if number not in taken)
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(  # type: ignore[attr-defined]  # every context has it; its stub lacks it
        target=serve, args=(theirs, start, places[place])
    )
    process.start()
    theirs.close()
    return Worker(process, ours, place)


def serve(pipe: connection.Connection, start: Callable, args: tuple) -> None:
    """A worker's life."""
    try:
        attend(pipe, start, args)
    except (EOFError, OSError):  # the other end is gone, and with it all that this one was for
        os._exit(1)


def attend(pipe: connection.Connection, start: Callable, args: tuple) -> None:
    try:
        work = start(*args)
    except UserError as error:
        return pipe.send((BROKEN, str(error)))
    except Exception:
        return pipe.send((BROKEN, f"a worker process could not start: {traceback.format_exc(limit=-1).strip()}"))
    pipe.send((READY, None))
    while (items := pipe.recv()) is not None:
        for answer in answers(work, items):
            pipe.send(answer)


def answers(work: Callable, items: list) -> Iterator[tuple[str, Any]]:
    """What a worker says of a unit: (RESULT, it or Lost) for each item, then ENDED; or what stopped it, in one line."""
    left = list(items)
    while left:
        try:
            for result in work(list(left)):
                left.pop(0)
                yield RESULT, result
            break
        except StorageError as error:
            yield STOPPED, str(error)
            return
        except UserError as error:
            said = str(error)
        except Exception as error:
            said = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        left.pop(0)
        yield RESULT, Lost(said)
    yield ENDED, None
