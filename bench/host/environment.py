"""What a record says of where it was made: versions, device, commit."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from carryover.bench.host import processor
from carryover.bench.host.paths import CHECKOUT

if TYPE_CHECKING:  # imported where it is used, for a look at the versions must not take seconds
    import torch

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip": "open_clip_torch",
    "timm": "timm",
    "numpy": "numpy",
    "pillow": "pillow",
    "pandas": "pandas",
}

CHANGES = "+changes"


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def git_commit() -> str:
    """The checkout's commit, with "+changes" where files differ from it; "unknown" outside a checkout."""
    if CHECKOUT is None:
        return "unknown"

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True
        ).stdout

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + (CHANGES if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git_dirty() -> bool | None:
    """Whether files of the checkout differ from that commit; None outside a checkout."""
    commit = git_commit()
    return None if commit == "unknown" else commit.endswith(CHANGES)


def device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def processor_of(device: torch.device) -> dict[str, str]:
    """What decides the last bits of sums on the CPU: the processor, what torch uses of it, MKL's mode and who chose
    it; where runs are trained on the CPU, whether those side by side have the bits of those alone."""
    found = {"name": processor.name(), "kind": processor.kind(), "mode": processor.mode()}
    found["chosen_by"] = processor.chosen_by()
    if device.type == "cpu":
        from carryover.bench.backbones import probe

        found["side_by_side"] = str(probe.answer())
    return found


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the run's own peak on a CUDA device, the process's peak resident size elsewhere."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
