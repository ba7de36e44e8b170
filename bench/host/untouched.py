"""What belongs to the whole process, for calls from another program: set for a while, and put back."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Within, products and convolutions of fp32 numbers are of fp32 numbers on a GPU too (no TF32)."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Torch's switches, threads and random numbers on the CPU and the log's handlers are afterwards as before, whatever
    libraries do within: ``logging.info`` alone, which open_clip calls, makes a handler where there is none."""
    root, threads = logging.getLogger(), torch.get_num_threads()
    handlers, level = list(root.handlers), root.level
    try:
        with full_precision(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for handler in [one for one in root.handlers if one not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def leaves_untouched(call: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(call)
    def within(*given: P.args, **more: P.kwargs) -> R:
        with untouched():
            return call(*given, **more)

    return within
