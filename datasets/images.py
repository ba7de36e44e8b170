"""Pictures on disk: decoding to RGB, and a split made of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from carryover.bench.errors import UserError
from carryover.datasets.base import Split


def read_image(path: Path, dataset: str = "") -> Image.Image:
    """Decode to RGB as PIL converts: CMYK, palette, grey, alpha and 16-bit pictures too. EXIF rotation is not applied,
    as in the field's loaders (torchvision, Dassl). Raises UserError naming the dataset and the file."""
    place = f"{dataset}: image '{path}'" if dataset else f"image '{path}'"
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{place} has vanished") from None
    except UnidentifiedImageError as error:
        raise UserError(f"{place} cannot be read (no picture that Pillow knows); replace the file") from error
    except Exception as error:  # damaged files make decoders raise all kinds: struct.error, EOFError, IndexError ...
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{place} cannot be read ({reason}); replace the file") from error


@dataclass(frozen=True)
class FileReader:
    """Reads N files, ``paths`` relative to ``root``. It is plain data, so that worker processes can be given it."""

    root: Path
    paths: tuple[str, ...]
    dataset: str = ""  # named in errors

    portable = True  # see Split; no annotation, so no field

    def __call__(self, chosen: Sequence[int]) -> list[Image.Image]:
        return [read_image(self.root / self.paths[i], self.dataset) for i in chosen]

    def take(self, indices: Sequence[int]) -> FileReader:
        return FileReader(self.root, tuple(self.paths[i] for i in indices), self.dataset)

    def join(self, other: FileReader) -> FileReader:
        """Both readers' files; the other's under its own root."""
        theirs = (
            other.paths if other.root == self.root else [str((other.root / path).absolute()) for path in other.paths]
        )
        return FileReader(self.root, (*self.paths, *theirs), self.dataset)

    def stamps(self, chosen: Sequence[int]) -> list[str]:
        return [stamp_of(self.root / self.paths[i]) for i in chosen]

    def sha256(self, index: int) -> str:
        path = self.root / self.paths[index]
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{self.dataset}: image '{path}' cannot be read ({error.strerror or error})") from error


def split_of_files(
    root: Path, paths: Sequence[str], labels: Sequence[int], keys: Sequence[str] | None = None, dataset: str = ""
) -> Split:
    """A split of N files, ``paths`` relative to ``root``, which are also the keys unless given; ``dataset`` is its id,
    for errors."""
    reader = FileReader(root, tuple(paths), dataset)
    keys = reader.paths if keys is None else tuple(keys)
    return Split(keys, np.asarray(labels, dtype=np.int64), reader, reader.stamps)


def stamp_of(path: Path) -> str:
    """A file's size in bytes and time of change in nanoseconds; empty where it has vanished, which fails later."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
