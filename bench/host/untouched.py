"""What belongs to the whole process, for calls from another program: set for a while, and put back.

Several threads may be within at once: the first sets, and the last that leaves puts back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Shared(Generic[T]):
    """take: sets what is to hold within, and returns what was before; put_back: of that."""

    def __init__(self, take: Callable[[], T], put_back: Callable[[T], None]):
        self.take, self.put_back = take, put_back
        self.lock, self.within, self.before = threading.Lock(), 0, list[T]()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.within:
                self.before = [self.take()]
            self.within += 1
        try:
            yield
        finally:
            with self.lock:
                self.within -= 1
                if not self.within:
                    self.put_back(self.before.pop())


def without_tf32() -> tuple[bool, bool]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    return before


def with_tf32(before: tuple[bool, bool]) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# Within, products and convolutions of fp32 numbers are of fp32 numbers on a GPU too (no TF32).
full_precision = Shared(without_tf32, with_tf32)


def seen() -> tuple[list[logging.Handler], int, int]:
    """The log's handlers and level, and torch's number of threads."""
    root = logging.getLogger()
    return list(root.handlers), root.level, torch.get_num_threads()


def as_seen(before: tuple[list[logging.Handler], int, int]) -> None:
    root, (handlers, level, threads) = logging.getLogger(), before
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


process = Shared(seen, as_seen)


@contextlib.contextmanager
def untouched(draws: bool = False) -> Iterator[None]:
    """Torch's switches and threads and the log's handlers are afterwards as before, whatever libraries do within:
    ``logging.info`` alone, which open_clip calls, makes a handler where there is none. ``draws``: random numbers on the
    CPU too, which are rewound, so that another thread meanwhile would draw some twice."""
    with process(), full_precision(), contextlib.ExitStack() as stack:
        if draws:
            stack.enter_context(torch.random.fork_rng(devices=[]))
        yield


def leaves_untouched(call: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(call)
    def within(*given: P.args, **more: P.kwargs) -> R:
        with untouched():
            return call(*given, **more)

    return within


def draws_untouched(call: Callable[P, R]) -> Callable[P, R]:
    """``leaves_untouched``, of a call that draws random numbers."""

    @functools.wraps(call)
    def within(*given: P.args, **more: P.kwargs) -> R:
        with untouched(draws=True):
            return call(*given, **more)

    return within


class OwnDraws(TorchDispatchMode):
    """Within, in this thread alone, what torch draws on the CPU comes of a generator of its own: a model is made with
    random weights before its own are read, and nobody's random numbers are touched."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and on_cpu(args, given) and given.get("generator") is None:
            wanted = getattr(func.overloadpacket, "generator", func)  # randn has it in a form of its own
            if any(one.name == "generator" for one in wanted._schema.arguments):
                return wanted(*args, **{**given, "generator": self.generator})
        return func(*args, **given)


def on_cpu(args: tuple, given: dict[str, Any]) -> bool:
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    place = tensors[0].device if tensors else given.get("device")
    return place is None or torch.device(place).type == "cpu"
