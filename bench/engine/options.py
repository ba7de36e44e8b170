"""What every process of one call shares."""

from __future__ import annotations

from dataclasses import dataclass

from carryover.bench.backbones.archs import Arch


@dataclass(frozen=True)
class Options:
    """What is loaded, where it lies, and how it is computed; the same in the process that plans and in its workers."""

    arch: Arch
    device: str
    out: str
    cache: str
    hub_cache: str | None = None
    data_root: str = ""
    precision: str = "fp32"
    text_budget: int = 4 << 30
    image_batch: int = 128
    plugin_dirs: tuple[str, ...] = ()
    debug: bool = False
    together: int = 1  # runs trained side by side at most (``bench.engine.one_run``)
    make_split: bool = False
    folders: tuple[tuple[str, str], ...] = ()  # (id, path) of each folder:PATH
    manifests: str = ""  # folder of few-shot subsets that are used in place of the draw
    workers: int | None = None  # processes that decode images; None: as many as pay on the device


def default_together(arch: Arch, device: str) -> int:
    """How many runs go side by side: many of micro's small steps, a few where launching kernels is what takes the time,
    one where a CPU multiplies large matrices."""
    return 12 if arch.is_micro else 3 if device == "cuda" else 1
