"""Map files (``carryover-map``, version 1): safetensors with matrix (Dn, Do), mean_new (Dn,), mean_old (Do,), fp32.

The header has one entry, ``map``: JSON with format, version, about (name, count, widths, rank, strength, …), score (R²
on held-out anchors; null where the map is an inverse or a composition), means ("anchors": both means are those of the
rows that the map was fitted on), and what ``Map.save`` was told: old and new (the backbones: name,
fingerprint, widths), fitted_on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carryover.bench.errors import UserError, printable, quoted
from carryover.bench.host.identity import parse_json
from carryover.bench.host.tensor_files import read_tensors, write_tensors

FORMAT, VERSION = "carryover-map", 1
EXPECTED = f"expected a safetensors file of format {FORMAT}, version {VERSION}, as Map.save writes it"
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save's archive, bare pickles
OPTIONAL = ("old", "new", "fitted_on")
OWN = ("format", "version", "about", "score", "means")


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any], score: float | None, more: dict) -> None:
    if taken := sorted(set(more) & set(OWN)):
        raise UserError(f"save: {', '.join(taken)} of the header cannot be given; expected other names")
    own = {"format": FORMAT, "version": VERSION, "about": about, "score": score, "means": "anchors"}
    try:
        text = json.dumps({**own, **dict.fromkeys(OPTIONAL), **more}, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"save: what the header is to say is no JSON ({error}); expected texts, numbers, lists"
        ) from None
    write_tensors(path, tensors, {"map": text}, "the path given to save")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header. Raises UserError in one line for a file that is no map of this version."""
    where = f"'{path}'"
    try:
        tensors, metadata = read_tensors(path)
    except UserError:
        raise UserError(unreadable(path)) from None
    try:
        header = parse_json(metadata["map"])
    except KeyError:
        raise UserError(f"{where} has no entry 'map' in its header; {EXPECTED}") from None
    except ValueError as error:
        raise UserError(
            f"{where}: the entry 'map' of its header is no JSON ({printable(str(error))}); {EXPECTED}"
        ) from None
    check_header(where, header)
    check_tensors(where, tensors, header["about"])
    return tensors, header


def unreadable(path: Path) -> str:
    if not path.is_file():
        return f"no file '{path}'; {EXPECTED}"
    with open(path, "rb") as file:
        pickled = file.read(4).startswith(PICKLES)
    if pickled:
        return f"'{path}' is a pickle, which is a program and is not opened; {EXPECTED}"
    return f"'{path}' cannot be read as safetensors; {EXPECTED}"


def check_header(where: str, header: Any) -> None:
    form, version = (header.get("format"), header.get("version")) if isinstance(header, dict) else (None, None)
    if form != FORMAT:
        raise UserError(f"{where} has format {quoted(str(form))}; {EXPECTED}")
    if isinstance(version, bool) or version != VERSION:
        raise UserError(f"{where} has version {quoted(str(version))} of {FORMAT}; {EXPECTED}")
    about, score = header.get("about"), header.get("score")
    if not isinstance(about, dict) or not isinstance(about.get("name"), str) or not whole(about.get("count")):
        raise UserError(f"{where}: 'about' of its header does not tell name and count; {EXPECTED}")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise UserError(f"{where}: score is {quoted(str(score))}, no number; {EXPECTED}")


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_tensors(where: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    widths = about.get("new_width"), about.get("old_width")
    shapes = {"matrix": widths, "mean_new": widths[:1], "mean_old": widths[1:]}
    found = {name: tuple(value.shape) for name, value in sorted(tensors.items())}
    if found != shapes:
        raise UserError(f"{where} holds {found}, its header says {shapes}; {EXPECTED}")
    for name, value in tensors.items():
        if value.dtype != torch.float32:
            raise UserError(f"{where}: {name} is {value.dtype}, expected fp32; {EXPECTED}")
        if not value.isfinite().all():
            raise UserError(f"{where}: {name} holds NaN or infinite numbers; {EXPECTED}")
