"""The device that a run is on: its name, how tensors get there, and how much memory the run took."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Sequence

import torch


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def precision_on(device: str, cards: Sequence[int] = ()) -> str:
    """That of frozen towers where nobody names one: "bf16" where each of these CUDA cards (none: the present one) has
    it in hardware, for emulated it is slower than fp32; else "fp32"."""
    return "bf16" if device == "cuda" and all(map(has_bf16, cards or (None,))) else "fp32"


def has_bf16(card: int | None) -> bool:
    with contextlib.nullcontext() if card is None else torch.cuda.device(card):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def use(cards: Sequence[int]) -> None:
    """Makes the first of the CUDA cards the one that "cuda" means in this process; none: as it is."""
    if cards:
        torch.cuda.set_device(cards[0])


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. To a CUDA device it goes from pinned memory, so that nothing waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the run's own peak on a CUDA device, the process's peak resident size elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
