"""Files of torch tensors (safetensors), whole or not there; who has no torch reads arrays (``bench.host.files``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.host.files import OUT, read_arrays, whole


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], flag: str = OUT) -> None:
    with whole(Path(path), flag) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header metadata. Raises UserError for a file that is not whole."""
    return read_arrays(path, "pt")


def rows_of(paths: Sequence[Path], name: str, rows: int) -> Iterator[Tensor]:
    """The tensor (N, ...) of that name in each of the files, ``rows`` at a time at most: (files, b, ...). No more than
    that is read of the mapped files, or held. Raises UserError for a file that is gone or not whole."""
    with contextlib.ExitStack() as stack:
        try:
            files = [stack.enter_context(safe_open(path, "np")).get_slice(name) for path in paths]
        except (SafetensorError, OSError) as error:
            raise UserError(f"'{paths[0].parent}': a file is gone or damaged ({error}); run again") from error
        count, *shape = files[0].get_shape()
        for start in range(0, count, rows):
            part = torch.empty(len(files), min(rows, count - start), *shape)
            for place, file in zip(part, files, strict=True):
                place.copy_(torch.from_numpy(file[start : start + len(place)]))
            yield part
