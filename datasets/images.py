"""Pictures on disk: decoding to RGB, and a split made of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.errors import UserError
from datasets.base import Split


def read_image(path: Path) -> Image.Image:
    """Decode to RGB as PIL converts: CMYK, palette, grey, alpha and 16-bit pictures too. EXIF rotation is not applied,
    as in the field's loaders (torchvision, Dassl). Raises UserError naming the file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"image '{path}' has vanished") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"image '{path}' cannot be read ({reason}); replace the file") from error


def split_of_files(root: Path, paths: Sequence[str], labels: Sequence[int], keys: Sequence[str] | None = None) -> Split:
    """A split of N files, ``paths`` relative to ``root``, which are also the keys unless given."""
    paths = tuple(paths)

    def read(chosen: Sequence[int]) -> list[Image.Image]:
        return [read_image(root / paths[i]) for i in chosen]

    def stamp(chosen: Sequence[int]) -> list[str]:
        return [stamp_of(root / paths[i]) for i in chosen]

    return Split(paths if keys is None else tuple(keys), np.asarray(labels, dtype=np.int64), read, stamp)


def stamp_of(path: Path) -> str:
    """A file's size in bytes and time of change in nanoseconds; empty where it has vanished, which fails later."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
