"""A stand-in for one CUDA device, for machines that have none: its rules and its waits, with a CPU's arithmetic.

    with stand_in_cuda() as ledger:
        model.to("cuda")(pixels.to("cuda")).sum().item()
    ledger.kernels, ledger.h2d, ledger.d2h, ledger.syncs; ledger.events["item", "bench/training/trainer.py fit:87"]

A ``DeviceTensor`` says that it is on cuda:0 and keeps its values in a CPU tensor that nothing else sees. Every
operation of aten's passes ``stand_in_tensors.perform``, which holds it to what a device allows: one device for all
operands, a generator of its own, copies as the only way across. Where CUDA would raise, ``DeviceFault`` is raised. The
``Ledger`` counts what a device would be asked for. Backward passes go through ``stand_in_backward``, graphs through
``stand_in_graphs``.

It does not know kernels and their last bits, which attention kernel is chosen, how streams overlap, the memory that is
left, other processes.
"""

from __future__ import annotations

import contextlib
import importlib
from unittest import mock

import stand_in_backward
import stand_in_tensors
import torch
import torch.nn.attention
from stand_in_graphs import Event, Graph, Stream, capturing, on_stream
from stand_in_ledger import DeviceFault, Ledger
from stand_in_tensors import Device, DeviceTensor, Mode

__all__ = ["DeviceFault", "DeviceTensor", "Ledger", "plain_kernels", "stand_in_cuda"]


def fakes(device: Device) -> list:
    """Patches of what torch asks its CUDA library, which is not there."""

    own = Stream()
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device": lambda *_: contextlib.nullcontext(),
        "synchronize": lambda *_: device.sync("synchronize"),
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_name": lambda *_: "stand-in",
        "get_device_capability": lambda *_: (9, 0),
        "mem_get_info": lambda *_: (64 << 30, 80 << 30),
        "max_memory_allocated": lambda *_: 1 << 20,
        "memory_allocated": lambda *_: 1 << 20,
        "reset_peak_memory_stats": lambda *_: None,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: device.capture is not None,
        "graph_pool_handle": lambda: (0, 1),
        "current_stream": lambda *_: device.stream or own,
        "set_stream": lambda stream: setattr(device, "stream", stream),
        "default_stream": lambda *_: own,
        "Stream": Stream,
        "stream": on_stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capturing,
    }
    places = [(torch.cuda, name, answer) for name, answer in answers.items()]
    places += [
        (torch.backends.cuda, "is_built", lambda: True),
        (torch.autograd, "_engine_run_backward", backward),
        (torch._C, "_current_graph_task_id", stand_in_backward.current),
    ]
    return [mock.patch.object(*one) for one in places]


def backward(outputs, *args, torchs_own=torch.autograd._engine_run_backward, **kwargs):
    on_device = any(isinstance(x, DeviceTensor) for x in outputs)
    return (stand_in_backward.run if on_device else torchs_own)(outputs, *args, **kwargs)


@contextlib.contextmanager
def stand_in_cuda():
    """Inside, torch has one CUDA device; yields its ``Ledger``. Tensors of the device must not outlive it."""

    if stand_in_tensors.DEVICE is not None:
        raise RuntimeError("one stand-in at a time")
    torch._C._ensureCUDADeviceGuardSet()
    lift = torch._C._only_lift_cpu_tensors()
    modules = map(importlib.import_module, ("torch.optim.optimizer", "torch.utils._foreach_utils"))
    fast = [module._foreach_supported_types for module in modules]
    try:
        device = stand_in_tensors.DEVICE = Device()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") makes its tensor here, then copies
        for kinds in fast:
            kinds.append(DeviceTensor)  # optimisers then take the path that they take on a device
        with contextlib.ExitStack() as stack:
            for patch in fakes(device):
                stack.enter_context(patch)
            stack.enter_context(plain_kernels())
            stack.enter_context(Mode())
            yield device.ledger
    finally:
        for kinds in fast:
            if DeviceTensor in kinds:
                kinds.remove(DeviceTensor)
        torch._C._set_only_lift_cpu_tensors(lift)
        stand_in_tensors.DEVICE = None


@contextlib.contextmanager
def plain_kernels():
    """Attention in its plain form and no cuDNN, whose choice asks the card; for the CPU's side of a comparison too."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield
