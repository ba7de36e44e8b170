"""Canonical JSON and sha256: what every identity is hashed over, and seals that show a change by hand."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np

from carryover.bench.errors import quoted


def canonical(value) -> str:
    """Canonical JSON: sorted keys, no spaces; what every identity is hashed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sealed(content: dict) -> dict:
    """The content with its own sha256: changed by hand, it is refused. No signature: whoever changes it can seal it
    anew."""
    return {**content, "sha256": digest(content)}


def unsealed(stored) -> dict | None:
    """What was sealed; None where the seal is missing or another content's."""
    if not isinstance(stored, dict):
        return None
    content = {name: value for name, value in stored.items() if name != "sha256"}
    return content if stored.get("sha256") == digest(content) else None


def sha256_of(path: Path) -> str:
    """Of a file's bytes; empty where there is no such file, or a pipe or a folder of its name."""
    found = hashlib.sha256()
    if not path.is_file():
        return ""
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except FileNotFoundError:
        return ""
    return found.hexdigest()


def content_of(array: np.ndarray) -> str:
    """sha256 of an array's type, shape and bytes; types by torch's names."""
    found = hashlib.sha256(f"torch.{array.dtype} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def parse_json(text: str):
    """As ``json.loads``; NaN, infinities, numbers beyond a float and nesting without end are a ValueError too: what is
    read can be written again."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):
            raise ValueError(f"{quoted(number, 20)} is more than a float holds")
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
