"""A pool of Ray actors that survives its workers and nodes, with the manners of ``bench.host.worker_pool``.

Knows nothing of runs. Each actor is bound to one node, so that the pool knows how many a node holds, leaves out nodes
that are not fit or cannot be written on, and tries elsewhere what was lost. Nodes that join are used, those that leave
are not waited for. Why actors and not tasks: docs/ray.md.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from carryover.bench.errors import UserError
from carryover.bench.host.worker_pool import RESULT, STOPPED, Lost, Pending, drawn, too_late

TRIES = 3  # of an item whose worker dies, each on another node where there is one
LOOK = 2.0  # seconds between looks at the cluster
PATIENCE = 60.0  # seconds without any node before the call ends


@dataclass
class Node:
    """Of the cluster; ``room``: workers that it holds, none once it is left out."""

    id: str
    host: str
    room: int


@dataclass(eq=False)
class Hand:
    """A worker: ``waits`` is what it says next, ``unit`` what it is at."""

    actor: Any
    node: Node
    waits: Any
    unit: Pending | None = None
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)

    def late(self, limit: float | None) -> bool:
        if limit is None or self.unit is None:
            return False
        return time.monotonic() >= self.heard + self.unit.patience(limit)


class Pool:
    """
    hire    Node -> a new actor bound to it, with ``ready()`` (why it is not, and none of its node will be) and
            ``do(items, *more)`` (a stream of what ``worker_pool.answers`` gives)
    nodes   those of the cluster now
    more    items -> what else their worker is sent
    most    workers at once; None: as many as the nodes hold
    say     told of workers that are lost and nodes that are left out
    """

    def __init__(
        self,
        ray: Any,
        hire: Callable[[Node], Any],
        nodes: Callable[[], list[Node]],
        more: Callable[[list], tuple],
        most: int | None,
        limit: float | None,
        say: Callable[[str], None],
    ):
        self.ray, self.hire, self.nodes, self.more, self.most, self.limit = ray, hire, nodes, more, most, limit
        self.say, self.say_once = say, functools.cache(say)
        self.hands: list[Hand] = []
        self.again: list[Pending] = []
        self.known: dict[str, Node] = {}
        self.looked, self.fit = float("-inf"), time.monotonic()
        self.fault = ""  # of the node that was left out last

    def outcomes(self, draw: Callable[[], list], waiting: Callable[[], int]) -> Generator[tuple[Any, Any], None, None]:
        """(item, result or Lost) of every item, as they come. draw: the next unit, empty where none can be begun before
        something else is done; waiting: units not yet drawn. An item is tried on `TRIES` workers. Raises UserError
        where no node is left."""
        try:
            while True:
                self.look()
                self.fill(waiting())
                for hand in self.idle():
                    if unit := self.next_unit(hand, draw):
                        self.give(hand, unit)
                busy = self.again or any(hand.unit for hand in self.hands)
                if not busy and (not waiting() or self.idle()):
                    break
                for hand in self.heard():
                    yield from self.answered(hand)
                for hand in [hand for hand in self.hands if hand.late(self.limit)]:
                    yield from self.ended_late(hand)
        finally:  # Ctrl-C, --fail-fast too: what runs now is not waited for and will be done again
            for hand in [*self.hands]:
                self.end(hand)

    # -- the cluster ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        now = time.monotonic()
        if now - self.looked >= LOOK:
            self.looked = now
            self.known = {node.id: self.known.get(node.id, node) for node in self.nodes()}
        if any(node.room for node in self.known.values()):
            self.fit = now
        elif self.known or now - self.fit > PATIENCE:
            last = f"; the last, {self.fault}" if self.fault else ""
            raise UserError(
                f"the Ray cluster has no fit node left{last}. What is done is kept: the same command goes on"
            )

    def fill(self, waiting: int) -> None:
        """As many workers as there is work and room for, spread over the nodes; what was lost should find another."""
        for hand in self.idle():
            if not hand.node.room:
                self.end(hand)
        tried = {id for unit in self.again for id in unit.tried}
        busy = sum(hand.unit is not None for hand in self.hands)
        wanted = min(busy + len(self.again) + waiting, self.most or 1 << 30)
        while len(self.hands) < wanted:
            free = {id: node.room - sum(hand.node is node for hand in self.hands) for id, node in self.known.items()}
            roomy = [id for id, count in free.items() if count > 0]
            if not roomy:
                return
            node = self.known[max(roomy, key=lambda id: (id not in tried, free[id]))]
            actor = self.hire(node)
            self.hands.append(Hand(actor, node, actor.ready.remote()))

    def leave_out(self, node: Node, reason: str) -> None:
        """Workers beside the one that says so end what they are at."""
        if node.room:
            node.room, self.fault = 0, f"{node.host}: {reason}"
            if any(other.room for other in self.known.values()):  # else the call ends with that line
                self.say(f"{node.host} is left out from now on: {reason}")

    def not_started(self, node: Node, reason: str) -> None:
        """Its memory may be for fewer workers than its cores are."""
        if node.room:
            node.room -= 1
            self.fault = f"{node.host}: a Ray worker could not start there: {reason}"
            self.say_once(f"{node.host} gets fewer Ray workers, for one could not start there: {reason}")

    # -- units ---------------------------------------------------------------------------------------------------------

    def idle(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.ready and hand.unit is None]

    def next_unit(self, hand: Hand, draw: Callable[[], list]) -> Pending | None:
        for unit in self.again:
            if hand.node.id not in unit.tried or not self.elsewhere(unit):
                self.again.remove(unit)
                return unit
        return drawn(draw)

    def elsewhere(self, unit: Pending) -> bool:
        """Whether a worker on a node where it was not yet tried is there, or was asked for a moment ago."""
        now = time.monotonic()
        others = [hand for hand in self.hands if hand.node.id not in unit.tried and hand.node.room]
        return any(hand.ready or now - hand.heard < PATIENCE for hand in others)

    def give(self, hand: Hand, unit: Pending) -> None:
        hand.unit, hand.heard, unit.begun = unit, time.monotonic(), False
        stream = hand.actor.do.options(num_returns="streaming")
        hand.waits = stream.remote(unit.items, *self.more(unit.items))

    def heard(self) -> list[Hand]:
        """Those that have something to say, after a moment."""
        waits = {hand.waits: hand for hand in self.hands if hand.unit or not hand.ready}
        if not waits:
            time.sleep(LOOK / 10)
            return []
        self.ray.wait(list(waits), num_returns=1, timeout=LOOK)
        found, _ = self.ray.wait(list(waits), num_returns=len(waits), timeout=0)
        return [waits[each] for each in found]

    def answered(self, hand: Hand) -> Iterator[tuple[Any, Any]]:
        hand.heard = time.monotonic()
        unit = hand.unit
        try:
            if unit is None:
                if fault := self.ray.get(hand.waits):
                    self.leave_out(hand.node, fault)
                hand.ready = True
                return
            kind, content = self.ray.get(next(hand.waits))
        except (self.ray.exceptions.RayError, StopIteration) as error:
            yield from self.died(hand, str(error).strip().splitlines() or [type(error).__name__])
            return
        if kind == RESULT:
            yield unit.take(content)
            return
        hand.unit = None
        if kind == STOPPED:  # no fault of the items: it counts as no try of theirs
            self.again.append(Pending(unit.items, unit.tried))
            self.leave_out(hand.node, content)

    def died(self, hand: Hand, said: list[str]) -> Iterator[tuple[Any, Any]]:
        """Each item goes on by itself, so that the one that kills its worker costs no other. said: by Ray, which tells
        at the end why a worker did not start."""
        self.end(hand)
        if hand.unit is None:
            return self.not_started(hand.node, said[-1])
        tried = (*hand.unit.tried, hand.node.id)
        if len(tried) < TRIES:
            self.say(f"a Ray worker on {hand.node.host} was lost ({said[0]}); what it was at is tried again")
            self.again += [Pending([item], tried) for item in hand.unit.items]
            return
        where = f"{len(tried)} times, the last on {hand.node.host}"
        for item in hand.unit.items:
            yield item, Lost(f"its Ray worker died {where} ({said[0]}); out of memory?")

    def ended_late(self, hand: Hand) -> Iterator[tuple[Any, Any]]:
        """Of several, which may be done side by side, each is tried by itself first."""
        self.end(hand)
        assert hand.unit is not None
        if len(hand.unit.items) > 1:
            self.again += [Pending([item], hand.unit.tried) for item in hand.unit.items]
            return
        for item in hand.unit.items:
            yield item, Lost(too_late(self.limit))

    def end(self, hand: Hand) -> None:
        self.hands.remove(hand)
        with contextlib.suppress(Exception):  # Ray may have gone
            self.ray.kill(hand.actor)
