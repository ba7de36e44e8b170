"""Training steps that a GPU takes by itself: an epoch's order, learning rates and losses lie on the device, so that a
step asks nothing of the host, and a counter there says which step it is.

After a few steps such a step is recorded as a CUDA graph and replayed: one launch for its hundreds of kernels. It has
the numbers of a step that is not. Where recording fails, or a step changes something on the host, steps go one by one,
and one line of the log says why.

Letters: R runs, M fits (a run's candidates are fits of their own), N support images, B images of a batch.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carryover.bench.host.device import send
from carryover.methods.base import Method, Support

WARM = 3  # steps before one is recorded: libraries and optimisers make what they keep
WORTH = 20  # steps of one size in a fit, below which recording does not pay
CHANGES = "a step, or an epoch's end, changes the method on the host or draws random numbers there"
_allowed, _told = True, set[str]()


def allow_graphs(allowed: bool) -> None:
    """Whether steps of this process may be recorded."""
    global _allowed
    _allowed = allowed


def possible(supports: Sequence[Support]) -> bool:
    """Whether batches can lie on a GPU whole: those of features can, pictures are decoded as they are asked for."""
    return all(isinstance(one.views, Tensor) and one.views.device.type == "cuda" for one in supports)


class Resident:
    """The steps of a fit.

    update  one step on the batches of R runs, [(B, D)] and [(B,)] -> (M,) losses
    sizes   B of each step of an epoch, of which the last alone can be smaller
    epochs  how many there will be
    """

    def __init__(
        self,
        update: Callable[[list[Tensor], list[Tensor]], Tensor],
        fitted: Sequence[Method],
        supports: Sequence[Support],
        solver: torch.optim.Optimizer,
        sizes: Sequence[int],
        epochs: int,
    ):
        self.update, self.fitted, self.supports, self.solver, self.sizes = update, fitted, supports, solver, sizes
        device, count = supports[0].labels.device, len(supports[0].labels)
        self.order = torch.zeros(len(supports), 2, count, dtype=torch.long, device=device)
        self.rates = torch.zeros(len(sizes), len(solver.param_groups), device=device)
        self.losses = torch.zeros(len(fitted), len(sizes), device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.within = torch.arange(sizes[0], device=device)
        for group in solver.param_groups:  # one kernel an update, which reads its learning rate where it lies
            group.update(lr=torch.zeros((), device=device), fused=True)
        self.steps = Counter({size: epochs * count for size, count in Counter(sizes).items()})
        self.recording = _allowed and all(getattr(one, "capturable", True) for one in fitted)
        self.taken, self.host = Counter[int](), Host(fitted)
        self.stream: torch.cuda.Stream | None = None
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def epoch(self, drawn: Tensor, rates: Tensor) -> Tensor:
        """``drawn`` (R, 2, N): views and images in their order; ``rates`` (steps, groups). Both on the CPU. Returns the
        losses (M, steps), on the device, where the next epoch writes its own."""
        if self.graphs and self.host.changed():
            self.give_up(CHANGES)
        self.order.copy_(send(drawn, self.order.device))
        self.rates.copy_(send(rates, self.rates.device))
        self.at.zero_()
        for size in self.sizes:
            if self.recording and self.steps[size] >= WORTH:
                self.recorded(size)
            else:
                self.step(size)
        return self.losses

    def step(self, size: int) -> None:
        here = self.order.index_select(2, self.at * self.sizes[0] + self.within[:size])
        rates = self.rates.index_select(0, self.at)
        for number, group in enumerate(self.solver.param_groups):
            group["lr"].copy_(rates[0, number])
        xs = [support.views[view, image] for support, (view, image) in zip(self.supports, here, strict=True)]
        ys = [support.labels.index_select(0, image) for support, (_, image) in zip(self.supports, here, strict=True)]
        self.losses.index_copy_(1, self.at, self.update(xs, ys)[:, None])
        self.at += 1

    def recorded(self, size: int) -> None:
        """The first few steps of a size as they are, on a stream of their own as recording wants it, then a replay."""
        if size not in self.graphs and self.taken[size] >= WARM:
            self.record(size)
        if size in self.graphs:
            return self.graphs[size].replay()
        if not self.recording:
            return self.step(size)
        stream = self.stream = self.stream or torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step(size)
        torch.cuda.current_stream().wait_stream(stream)
        self.taken[size] += 1
        if self.taken.total() == 1:  # what is made at first use is there now
            self.host = Host(self.fitted)

    def record(self, size: int) -> None:
        if self.host.changed():
            return self.give_up(CHANGES)
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        pool = next((one.pool() for one in self.graphs.values()), None)  # steps follow one another: one memory for all
        for group in self.solver.param_groups:
            group["capturable"] = True
        try:
            with torch.cuda.graph(graph, pool=pool):
                self.step(size)
        except RuntimeError as error:
            self.end_recording()
            torch.cuda.set_stream(before)
            return self.give_up(str(error).strip().splitlines()[0])
        finally:
            for group in self.solver.param_groups:
                group["capturable"] = False
        self.graphs[size] = graph

    def end_recording(self) -> None:
        """After a recording that failed, torch's random numbers still wait for its end, and its stream is still the
        present one; a recording that does not fail ends the first."""
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            self.at.clone()

    def give_up(self, reason: str) -> None:
        self.graphs, self.recording = {}, False
        name = type(self.fitted[0]).name or type(self.fitted[0]).__name__
        line = f"{name}: steps go one by one, without a CUDA graph: {reason}"
        if line not in _told:
            _told.add(line)
            logging.warning("%s", line)


class Host:
    """What a step could depend on that a recorded one would not see: attributes of the methods, and the random numbers
    of this process."""

    def __init__(self, methods: Sequence[Method]):
        self.methods, self.was = methods, state_of(methods)

    def changed(self) -> bool:
        return state_of(self.methods) != self.was


def state_of(methods: Sequence[Method]) -> list:
    own = [comparable(vars(module)) for method in methods for module in method.modules()]
    return [*own, *map(comparable, (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))]


def comparable(value: Any) -> Any:
    """Equal where the value is: of numbers, texts and arrays, alone or in lists, and of generators. Of all else where
    it is the same object."""
    if isinstance(value, torch.Generator):
        value = value.get_state().numpy()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, (list, tuple)):
        return [comparable(one) for one in value]
    if isinstance(value, dict):
        return [(comparable(key), comparable(one)) for key, one in value.items()]
    return value if isinstance(value, (bool, int, float, str, bytes, type(None))) else Itself(value)


class Itself:
    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value
