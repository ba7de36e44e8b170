"""A pool of Ray actors that survives its workers and nodes, with the manners of ``bench.host.worker_pool``.

Knows nothing of runs. Each actor is bound to one node, so that the pool knows how many a node holds, leaves out nodes
that are not fit or cannot be written on, and tries elsewhere what was lost. Nodes that join are used, those that leave
are not waited for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from carryover.bench.errors import StorageError, UserError
from carryover.bench.host.worker_pool import ENDED, RESULT, STOPPED, Lost, Unit, too_late

TRIES = 3  # of an item whose worker dies, each on another node where there is one
LOOK = 2.0  # seconds between looks at the cluster
PATIENCE = 60.0  # seconds without a fit node before the call ends
GOODBYE = 5.0  # seconds that workers have for tidying up


@dataclass
class Node:
    """Of the cluster; ``room``: workers that its resources hold."""

    id: str
    host: str
    room: int
    failed: int = 0  # workers that did not even start
    full: bool = False  # its disk, or it cannot be written on for another reason


@dataclass(eq=False)
class Hand:
    """A worker: ``waits`` is what it says next, ``unit`` what it is at."""

    actor: Any
    node: Node
    waits: Any
    unit: Unit | None = None
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)

    def late(self, limit: float | None) -> bool:
        if limit is None or self.unit is None:
            return False
        return time.monotonic() >= self.heard + self.unit.patience(limit)


class Pool:
    """
    hire    Node -> a new actor bound to it, with ``ready()`` (why it is not), ``do(items, *more)`` (a stream of what
            ``workers.answers`` gives) and ``leave()``
    nodes   the fit nodes of the cluster now
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
        self.say = say
        self.ray, self.hire, self.nodes, self.more, self.most, self.limit = ray, hire, nodes, more, most, limit
        self.hands: list[Hand] = []
        self.again: list[Unit] = []
        self.known: dict[str, Node] = {}
        self.looked, self.fit = float("-inf"), time.monotonic()

    def outcomes(self, draw: Callable[[], list], waiting: Callable[[], int]) -> Generator[tuple[Any, Any], None, None]:
        """(item, result or Lost) of every item, as they come. draw: the next unit, empty where none can be begun before
        something else is done; waiting: units not yet drawn. An item is tried on `TRIES` workers."""
        try:
            while True:
                self.look()
                self.let_go([hand for hand in self.hands if hand.node.full and hand.unit is None])
                self.fill(waiting())
                while (unit_hand := self.next_unit(draw)) is not None:
                    self.give(*unit_hand)
                idle = not self.again and not any(hand.unit for hand in self.hands)
                if idle and (not waiting() or any(hand.ready for hand in self.hands)):
                    break
                for hand in self.heard():
                    yield from self.answered(hand)
                for hand in [hand for hand in self.hands if hand.late(self.limit)]:
                    yield from self.ended_late(hand)
        finally:
            self.dismiss()

    # -- the cluster ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        now = time.monotonic()
        if now - self.looked < LOOK:
            return
        self.looked, found = now, {node.id: node for node in self.nodes()}
        self.known = {id: self.known.get(id, node) for id, node in found.items()}
        if self.able():
            self.fit = now
        elif now - self.fit > PATIENCE:
            raise UserError("the Ray cluster has no fit node left; what is done is kept: the same command goes on")

    def usable(self) -> list[Node]:
        """Where workers can be hired."""
        return [node for node in self.known.values() if node.failed < TRIES and not node.full]

    def able(self) -> bool:
        """Whether any worker can be hired, or one that started is still there."""
        return bool(self.usable()) or any(hand.ready and not hand.node.full for hand in self.hands)

    def fill(self, waiting: int) -> None:
        """As many workers as there is work and room for, spread over the nodes; what was lost should find another."""
        tried = {id for unit in self.again for id in unit.tried}
        busy = sum(hand.unit is not None for hand in self.hands)
        wanted = min(busy + len(self.again) + waiting, self.most or 1 << 30)
        while len(self.hands) < wanted:
            free = {node.id: node.room - sum(hand.node is node for hand in self.hands) for node in self.usable()}
            roomy = [id for id, count in free.items() if count > 0]
            if not roomy:
                return
            node = self.known[max(roomy, key=lambda id: (id not in tried, free[id]))]
            actor = self.hire(node)
            self.hands.append(Hand(actor, node, actor.ready.remote()))

    # -- units ---------------------------------------------------------------------------------------------------------

    def next_unit(self, draw: Callable[[], list]) -> tuple[Hand, Unit] | None:
        spare = [hand for hand in self.hands if hand.ready and hand.unit is None]
        for unit in self.again:
            for hand in spare:
                if hand.node.id not in unit.tried or not self.elsewhere(unit):
                    self.again.remove(unit)
                    return hand, unit
        if spare and (items := draw()):
            return spare[0], Unit(list(items))
        return None

    def elsewhere(self, unit: Unit) -> bool:
        """Whether a worker on a node where it was not yet tried is there, or was asked for a moment ago."""
        now = time.monotonic()
        others = [hand for hand in self.hands if hand.node.id not in unit.tried and not hand.node.full]
        return any(hand.ready or now - hand.heard < PATIENCE for hand in others)

    def give(self, hand: Hand, unit: Unit) -> None:
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
                    self.end(hand)
                    self.failed(hand.node, fault)
                hand.ready = True
                return
            kind, content = self.ray.get(next(hand.waits))
        except (self.ray.exceptions.RayError, StopIteration) as error:
            yield from self.died(hand, error)
            return
        if kind == RESULT:
            yield unit.take(content)
        elif kind == ENDED:
            hand.unit = None
        elif kind == STOPPED:
            self.leave_out(hand, content)

    def died(self, hand: Hand, error: BaseException) -> Iterator[tuple[Any, Any]]:
        """Each item goes on by itself, so that the one that kills its worker costs no other."""
        self.end(hand)
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        if hand.unit is None:
            return self.failed(hand.node, reason)
        tried = (*hand.unit.tried, hand.node.id)
        if len(tried) < TRIES:
            self.say(f"a Ray worker on {hand.node.host} was lost ({reason}); what it was at is tried again")
        for item in hand.unit.items:
            if len(tried) < TRIES:
                self.again.append(Unit([item], tried))
            else:
                where = f"{len(tried)} times, the last on {hand.node.host}"
                yield item, Lost(f"its Ray worker died {where} ({reason}); out of memory?")

    def leave_out(self, hand: Hand, reason: str) -> None:
        """Its node cannot be written on. That is no fault of the items, so that it counts as no try of theirs; workers
        beside it may end what they are at."""
        node, unit, hand.unit = hand.node, hand.unit, None
        assert unit is not None
        self.again.append(Unit(unit.items, unit.tried))
        said, node.full = node.full, True
        if not self.able():
            raise StorageError(
                f"no node of the Ray cluster is left to write on; the last, {node.host}: {reason}. Free space there or "
                "choose another --ray-scratch; what is done is kept: the same command goes on"
            )
        if not said:
            self.say(f"{node.host} is left out from now on: {reason}; what it was at is tried on another node")

    def failed(self, node: Node, reason: str) -> None:
        """A worker of it could not start."""
        node.failed += 1
        if not self.able():
            raise UserError(f"a Ray worker could not start on {node.host}: {reason}")
        if node.failed == TRIES:
            self.say(f"{node.host} gets no more Ray workers: they could not start there: {reason}")

    def ended_late(self, hand: Hand) -> Iterator[tuple[Any, Any]]:
        """Of several, which may be done side by side, each is tried by itself first."""
        self.end(hand)
        assert hand.unit is not None
        if len(hand.unit.items) > 1:
            self.again += [Unit([item], hand.unit.tried) for item in hand.unit.items]
            return
        for item in hand.unit.items:
            yield item, Lost(too_late(self.limit))

    def end(self, hand: Hand) -> None:
        self.hands.remove(hand)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(hand.actor)

    def dismiss(self) -> None:
        """Ctrl-C, --fail-fast too: what runs now is not waited for and will be done again."""
        self.let_go(self.hands)

    def let_go(self, hands: list[Hand]) -> None:
        """They tidy up where they are idle."""
        self.hands = [hand for hand in self.hands if hand not in hands]
        with contextlib.suppress(Exception):
            idle = [hand.actor.leave.remote() for hand in hands if hand.ready and hand.unit is None]
            self.ray.wait(idle, num_returns=len(idle), timeout=GOODBYE) if idle else None
        for hand in hands:
            with contextlib.suppress(Exception):
                self.ray.kill(hand.actor)
