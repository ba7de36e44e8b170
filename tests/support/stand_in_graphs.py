"""CUDA graphs, streams and events of the stand-in for a CUDA device (``stand_in_cuda``).

A graph records the operations that are asked for while it captures, with the tensors that they read and write; a replay
does them again on the same memory, results into the memory of the recorded results. As on a device, a capture computes
nothing: when it ends, memory that was there before has its old values, and what was made within has none (NaN). Raised
as DeviceFault: a wait of the host or a copy from it within a capture, a replay that reads memory freed since.
"""

from __future__ import annotations

import contextlib
import weakref

import stand_in_tensors
import torch
from stand_in_ledger import DeviceFault
from stand_in_tensors import each, leaves_of


class Graph:
    """``torch.cuda.CUDAGraph``"""

    def __init__(self, keep_graph: bool = False):
        self.steps: list[tuple] = []
        self.before_it: dict[int, torch.Tensor] = {}  # address -> the bytes that were there
        self.made: dict[int, torch.Tensor] = {}  # address -> a tensor that the capture made there
        self.read: dict[int, weakref.ref] = {}  # address -> memory of others that a replay reads or writes
        self.ended = False

    # -- capture -------------------------------------------------------------------------------------------------------

    def capture_begin(self, *_, **__) -> None:
        device = stand_in_tensors.DEVICE
        if device.capture is not None or self.ended:
            raise DeviceFault("a graph is captured once, and one at a time")
        device.capture = self

    def before(self, func, args, kwargs) -> None:
        """Called with the values that an operation is about to read and write."""
        for tensor in tensors((args, kwargs)):
            address = tensor.untyped_storage().data_ptr()
            block = stand_in_tensors.DEVICE.blocks.get(address)
            if address not in self.made and block is not None:
                self.read[address] = weakref.ref(block)
        for tensor in written(func, args, kwargs):
            address = tensor.untyped_storage().data_ptr()
            if address not in self.made and address not in self.before_it:
                self.before_it[address] = whole(tensor).clone()

    def after(self, func, args, kwargs, made) -> None:
        known = {x.untyped_storage().data_ptr() for x in tensors((args, kwargs))}
        for tensor in tensors(made):
            if tensor.untyped_storage().data_ptr() not in known:
                self.made.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        if func.is_view:
            return
        # A number on the CPU is handed over as it is now.
        args, kwargs = each((args, kwargs), self.as_now)
        # What is written in place, or is a view, is there already.
        results = [None if x.untyped_storage().data_ptr() in known else x for x in tensors(made)]
        self.steps.append((func, args, kwargs, results))

    def as_now(self, x):
        on_device = isinstance(x, torch.Tensor) and (
            x.untyped_storage().data_ptr() in self.made or x.untyped_storage().data_ptr() in self.read
        )
        return x.clone() if isinstance(x, torch.Tensor) and not x.dim() and not on_device else x

    def capture_end(self) -> None:
        stand_in_tensors.DEVICE.capture, self.ended = None, True
        with stand_in_tensors.unseen():
            for tensor in self.made.values():
                if tensor.is_floating_point() and tensor.numel():
                    flat = whole(tensor)
                    flat.view(tensor.dtype)[: flat.numel() // tensor.element_size()].fill_(float("nan"))
            for address, old in self.before_it.items():
                restored = self.tensor_at(address)
                whole(restored).copy_(old)

    def tensor_at(self, address: int) -> torch.Tensor:
        for _, args, kwargs, _ in self.steps:
            for tensor in tensors((args, kwargs)):
                if tensor.untyped_storage().data_ptr() == address:
                    return tensor
        raise KeyError(address)

    # -- replay --------------------------------------------------------------------------------------------------------

    def replay(self) -> None:
        if not self.ended:
            raise DeviceFault("replay of a graph that was not captured")
        if any(block() is None for block in self.read.values()):
            raise DeviceFault("replay of a graph that reads memory which was freed since its capture")
        stand_in_tensors.DEVICE.ledger.note("replay")
        with stand_in_tensors.unseen():
            for func, args, kwargs, results in self.steps:
                made = func(*args, **kwargs)
                for kept, value in zip(results, tensors(made), strict=True):
                    if kept is not None:
                        kept.copy_(value)

    def reset(self) -> None:
        self.__init__()

    def pool(self):
        return (0, 1)


@contextlib.contextmanager
def capturing(cuda_graph: Graph, pool=None, stream=None, capture_error_mode: str = "global", **_):
    """``torch.cuda.graph``, which leaves its own stream the present one where what it captures fails."""
    device = stand_in_tensors.DEVICE
    before, device.stream = device.stream, Stream()
    cuda_graph.capture_begin()
    try:
        yield
    finally:
        cuda_graph.capture_end()
    device.stream = before


def tensors(given) -> list[torch.Tensor]:
    return [x for x in leaves_of(given) if isinstance(x, torch.Tensor)]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All bytes of the memory that it lies in."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def written(func, args, kwargs) -> list[torch.Tensor]:
    """The tensors that an operation changes in place."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found += tensors(given)
    return found


# ---- streams and events: all is done in order ------------------------------------------------------------------------


class Stream:
    """``torch.cuda.Stream``"""

    device, cuda_stream = stand_in_tensors.CUDA, 0

    def __init__(self, *_, **__):
        pass

    def wait_stream(self, stream) -> None:
        pass

    def wait_event(self, event) -> None:
        pass

    def record_event(self, event=None):
        return event or Event()

    def synchronize(self) -> None:
        stand_in_tensors.DEVICE.sync("synchronize")

    def query(self) -> bool:
        return not stand_in_tensors.DEVICE.later


class Event:
    """``torch.cuda.Event``"""

    def __init__(self, *_, **__):
        pass

    def record(self, *_) -> None:
        pass

    def wait(self, *_) -> None:
        pass

    def synchronize(self) -> None:
        stand_in_tensors.DEVICE.sync("synchronize")

    def query(self) -> bool:
        return not stand_in_tensors.DEVICE.later

    def elapsed_time(self, end) -> float:
        return 1.0


@contextlib.contextmanager
def on_stream(stream):
    device = stand_in_tensors.DEVICE
    before, device.stream = device.stream, stream
    try:
        yield
    finally:
        device.stream = before
