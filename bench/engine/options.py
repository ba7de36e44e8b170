"""What every process of one call shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from carryover.bench.backbones import probe
from carryover.bench.backbones.archs import Arch
from carryover.bench.host import out_of_memory
from carryover.bench.plan.defaults import TEXT_BESIDE, TEXT_MEMORY, TEXT_SHARE

GIB = 1 << 30


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
    text_budget: int | None = None  # bytes that a text pass may keep; None: what the device has for it
    image_batch: int = 128
    plugin_dirs: tuple[str, ...] = ()
    debug: bool = False
    together: int = 1  # runs trained side by side at most (``bench.engine.one_run``)
    asked: bool = False  # that number is the user's own, and holds where it changes last bits too
    make_split: bool = False
    folders: tuple[tuple[str, str], ...] = ()  # (id, path) of each folder:PATH
    manifests: str = ""  # folder of few-shot subsets that are used in place of the draw
    max_pixels: int = 0  # of a picture that is read; 0: Pillow's own bound
    workers: int | None = None  # processes that decode images; None: as many as pay on the device
    cards: tuple[int, ...] = ()  # of CUDA, by number: of a worker its own, of the call all, the first this process's
    graphs: bool = True  # training steps may be recorded as CUDA graphs
    sharing: int = 1  # processes of the call that share one GPU


def device_budget(device: str, sharing: int = 1, card: int | None = None) -> int:
    """Bytes that a text pass may keep where nobody names them. On a GPU (``card``, else the present one) it is a share
    of what is free there, parted among the processes that share it, in whole GB, so that passes are cut alike from call
    to call."""
    if device != "cuda":
        return int(TEXT_MEMORY * GIB)
    free, _ = torch.cuda.mem_get_info(card)
    found = int(TEXT_SHARE * (free / sharing - TEXT_BESIDE * GIB))
    return max(found // GIB * GIB or found, out_of_memory.FLOOR)


def worthwhile_together(arch: Arch, device: str) -> int:
    """Many of micro's small steps, a few where launching kernels is what takes the time, one where a CPU multiplies
    large matrices."""
    return 12 if arch.is_micro else 3 if device == "cuda" else 1


def default_together(arch: Arch, device: str) -> int:
    """How many runs go side by side: one on a CPU where they would have other bits than alone, else as many as pay."""
    many = worthwhile_together(arch, device)
    return 1 if many > 1 and device == "cpu" and probe.answer().fewest is None else many
