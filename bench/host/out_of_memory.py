"""Out of memory in a run's text pass: tried again in smaller pieces before it counts as a failure."""

from __future__ import annotations

from collections.abc import Iterator

import torch

FLOOR = 64 << 20  # bytes; below, a pass keeps so little that its budget is not what takes the memory
SAYS = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA's allocator, the CPU's (two versions)


def ran_out(error: BaseException) -> bool:
    """Whether memory is what was lacking, on the device or the host."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in SAYS)


def budgets(first: int) -> Iterator[int]:
    """What a run's text passes may keep (bytes), try after try: half as much each time, at least the floor."""
    yield first
    while first > FLOOR:
        first = max(first // 2, FLOOR)
        yield first


def let_go(device: torch.device) -> None:
    """Give what a failed try left in the allocator's hands back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def failure(budget: int) -> str:
    """One line for a run that does not fit even so."""
    return (
        f"out of memory, even with text passes that keep {budget / 2**30:.3g} GB; give it more memory, fewer --jobs, "
        "or a smaller method.batch by --set"
    )
