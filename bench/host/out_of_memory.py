"""Out of memory in a run's text pass: tried again in smaller pieces before it counts as a failure."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

FLOOR = 64 << 20  # bytes; below, a pass keeps so little that its budget is not what takes the memory
SAYS = re.compile(
    r"""out[ _]?of[ _]?((host|device)[ _])?memory  # allocators of CUDA, HIP, MPS; oneDNN's and OpenCL's status
    | not\ enough\ memory | can('t|not)\ allocate\ memory | bad_alloc  # the CPU's, mmap's, C++'s
    | alloc(ation)?_?failed | errormemoryallocation  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE, MIOpen; the CUDA runtime
    | invalid\ buffer\ size  # MPS, of one tensor above what the device takes
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A library whose handle cannot be made says so in words that fit a broken installation too. Mostly the memory for its
# workspace is lacking, and a second try tells.
HANDLE = re.compile(
    r"(CUBLAS|CUDNN)_STATUS_NOT_INITIALIZED|when calling `(cublas|cusolver|cusparse|hipblas)\w*Create\(", re.IGNORECASE
)


def ran_out(error: BaseException | None) -> bool:
    """Whether memory is what was lacking, on the device or the host: by the error, or by one it was raised from."""
    if error is None:
        return False
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or ran_out(error.__cause__)
    said = str(error) if isinstance(error, RuntimeError) else ""
    return bool(SAYS.search(said) or HANDLE.search(said)) or ran_out(error.__cause__)


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


def failure(budget: int, said: str) -> str:
    """One line for a run that does not fit even so; ``said`` by the library."""
    return (
        f"out of memory, even with text passes that keep {budget / 2**30:.3g} GB; give it more memory, fewer --jobs, "
        f"or a smaller method.batch by --set ({said})"
    )
