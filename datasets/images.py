"""Pictures on disk: decoding to RGB, and a split made of files."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from carryover.bench.errors import UserError
from carryover.datasets import formats  # noqa: F401  lets Pillow read .heic, in workers too
from carryover.datasets.base import Split

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # at half of what is refused, in a line of ours
WHITE_IS_ZERO, BITS, PHOTOMETRIC = 0, 258, 262  # of TIFF


def read_image(path: Path, dataset: str = "") -> Image.Image:
    """Decode to RGB as Pillow converts (CMYK, palette, grey, alpha), grey of 16 bits by `to_rgb`. EXIF rotation is not
    applied, as in the field's loaders (torchvision, Dassl). Raises UserError naming the dataset and the file."""
    place = f"{dataset}: image '{path}'" if dataset else f"image '{path}'"
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{place} has vanished") from None
    except UnidentifiedImageError as error:
        raise UserError(f"{place} cannot be read (no picture that Pillow knows); replace the file") from error
    except NoWhite as error:
        raise UserError(f"{place} {error}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{place} {too_large(str(error))}") from error
    except Exception as error:  # damaged files make decoders raise all kinds: struct.error, EOFError, IndexError ...
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{place} cannot be read ({reason}); replace the file") from error


class NoWhite(Exception):
    """The picture's numbers have no largest one, which would be white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB (8 bits). Grey of 16 bits becomes its high byte, as Pillow makes 16-bit colour, where Pillow's own conversion
    would make all above 255 white. Raises NoWhite for modes I and F, whose white no standard defines, but where I
    stands for 16 bits (PGM; PNG in older Pillow)."""
    deep = image.mode.startswith("I;16")
    if not deep and image.mode not in ("I", "F"):
        return image.convert("RGB")
    bits = 16
    if not deep and not (image.mode == "I" and image.format in ("PPM", "PNG")):
        kind = "whole numbers of 32 bits or with a sign" if image.mode == "I" else "floating-point numbers"
        raise NoWhite(f"holds {kind} (mode {image.mode}), whose white is not defined; save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        bits = tags.get(BITS, (bits,))[0]
    values = np.asarray(image)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 2**bits - 1 - values
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")


def too_large(reason: str) -> str:
    """What is said of a picture that Pillow refuses for its size, in pixels."""
    found = re.search(r"\d+", reason)
    count = int(found.group()) if found else 0
    return (
        f"has {count or 'too many'} pixels; expected at most {most_pixels()}: make it smaller, or take it with "
        f"--max-pixels {count or 'N'} if you trust the file"
    )


def most_pixels() -> int | None:
    """Of a picture that is read; None: no bound. Pillow warns at half of it."""
    return Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS


def allow_pixels(count: int | None) -> None:
    """Pictures of up to ``count`` pixels are read, in this process; None and 0 leave the bound as it is."""
    if count:
        Image.MAX_IMAGE_PIXELS = -(-count // 2)


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
