"""Files of torch tensors (safetensors), whole or not there; who has no torch reads arrays (``bench.host.files``)."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from carryover.bench.host.files import OUT, read_arrays, whole


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], flag: str = OUT) -> None:
    with whole(Path(path), flag) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header metadata. Raises UserError for a file that is not whole."""
    return read_arrays(path, "pt")
