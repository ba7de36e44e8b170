"""Which files are pictures: by a picture's ending, and where the ending says nothing, by content, as Pillow sees it."""

from __future__ import annotations

import contextlib
import functools
import os

from PIL import Image

with contextlib.suppress(ImportError):  # optional: it teaches Pillow to read .heic
    import pillow_heif

    pillow_heif.register_heif_opener()

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "MPO", "DIB", "AVIF", "HEIF")  # Pillow's names
NEVER = frozenset(  # text, tables, archives, films and halves of downloads: not opened to look
    ".txt .md .json .jsonl .csv .tsv .xml .yaml .yml .html .htm .pdf .log .py .ipynb .mat .npy .npz .pt .pth .pkl .h5 "
    ".safetensors .db .ini .zip .tar .gz .tgz .7z .rar .mp4 .avi .mov .mp3 .wav .part .crdownload .tmp .bak".split()
)
MISSING = {  # endings of pictures that this Pillow may not read, and what reads them
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif"),
    **dict.fromkeys((".avif", ".avifs"), "pillow>=11.3"),
}


@functools.cache
def readable() -> tuple[str, ...]:
    """Those of `KINDS` that this Pillow opens."""
    Image.init()
    return tuple(kind for kind in KINDS if kind in Image.OPEN)


@functools.cache
def endings() -> frozenset[str]:
    """Of those kinds, in lower case, with the dot."""
    kinds = readable()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in kinds)


def ending_of(name: str) -> str:
    """In lower case, with the dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()


def is_picture(path: str | os.PathLike) -> bool:
    """Whether the file's name or, where that says nothing, its first bytes are a picture's. A file with the ending of
    a picture, or of what is never one, is not opened: folders may hold a million of either."""
    ending = ending_of(os.fspath(path))
    if ending in endings() or ending in NEVER:
        return ending not in NEVER
    try:
        with Image.open(path, formats=readable()):
            return True
    except Image.DecompressionBombError:  # refused when it is read, with what takes it
        return True
    except Exception:  # headers that are none make Pillow's readers raise all kinds
        return False
