"""Arrays as numpy writes them, from files that nobody vouches for: nothing is unpickled, and no more memory is taken
than a file is large."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

OBJECTS = "holds Python objects, which are not opened; expected arrays of numbers, as numpy.savez writes them"
TABLES = "holds tables; expected arrays of numbers, as numpy.savez writes them"


def of_stream(stream: Any, size: int) -> np.ndarray:
    """One array, once its header is seen to promise no more than there is: ``size`` bytes. Raises ValueError, which
    says what of the file, after its name."""
    try:
        version = np.lib.format.read_magic(stream)
        header: Callable = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, columns, kind = header(stream)
    except Exception as error:  # numpy's, zlib's, a header that is no header
        raise ValueError(damaged(error)) from None
    if kind.hasobject or kind.names or kind.subdtype:
        raise ValueError(OBJECTS if kind.hasobject else TABLES)
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * kind.itemsize > size:
        raise ValueError(f"is damaged: an array {shape} is more than the file holds; get it again")
    try:
        data = stream.read(count * kind.itemsize)
        return np.frombuffer(data, kind, count).reshape(shape, order="F" if columns else "C")
    except Exception as error:
        raise ValueError(damaged(error)) from None


def damaged(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"is damaged ({text[0] if text else type(error).__name__}); get it again"
