"""The plug-in format (``carryover-plugin``, versions 1 and 2): what a file's header says, and how one is read.

A plug-in is a safetensors file of learned tensors whose header has one entry, ``plugin``: JSON with the ``FIELDS``
below. Version 2 is a ported plug-in: the header is the old plug-in's, with a part ``ported`` (``OF_PORTED``), and the
tensors are all that it needs to answer on the new backbone (``bench.plugins.ported``). ``docs/plugins.md`` documents
both for other programs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from carryover.bench.engine.plugin_header import FIELDS, NULL
from carryover.bench.engine.run_store import FIRST_FORMAT, PLUGIN_FORMAT, PLUGIN_VERSION
from carryover.bench.errors import UserError, printable, quoted, unknown
from carryover.bench.host.identity import parse_json, sha256_of
from carryover.bench.host.tensor_files import read_tensors
from carryover.methods.base import METHODS, Shape

DOCUMENT = "docs/plugins.md"
PORTED_VERSION = 2
VERSIONS = (PLUGIN_VERSION, PORTED_VERSION)
EXPECTED = f"expected a safetensors file of format {PLUGIN_FORMAT}, version 1 or 2 ({DOCUMENT})"
OF_SHAPE: dict[str, tuple[type, ...]] = {"width": (int,), "dim": (int,), "classnames": (list,), "support": (int,)}
OF_BACKBONE: dict[str, tuple[type, ...]] = {
    "backbone": (str,),
    "fingerprint": (str, NULL),
    "width": (int,),
    "dim": (int,),
    "activation": (str, NULL),
}
OF_PORTED: dict[str, tuple[type, ...]] = {
    "port": (str,),
    "name": (str,),
    "kind": (str,),
    "needs": (list,),
    "anchors": (dict,),
    "old": (dict,),
    "new": (dict,),
    "fit": (int, float, NULL),
    "agreement": (int, float, NULL),
    "state": (dict,),
}
# Of the towers' attention blocks, for methods inside them: 0 where they are left out.
MAY_BE_IN_SHAPE = ("text_layers", "image_layers", "image_width")
DEEPEST = 1000  # blocks of a tower
DEEPEST_HEADER = 50  # objects and lists within each other
LARGEST = 10**7  # of a number in "shape": beyond it a header is no plug-in's
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save's archive, bare pickles


@dataclass(frozen=True)
class Plugin:
    """A plug-in file as it was read: learned tensors, and its header with all ``FIELDS`` there and of their kinds."""

    path: str
    sha256: str
    tensors: dict[str, Tensor]
    header: dict[str, Any]

    @property
    def ported(self) -> dict[str, Any] | None:
        """The part of the header that says how it was ported; None where it is the plug-in that a run trained, or was
        trained on by a port (version 1)."""
        return self.header["ported"] if self.header["version"] == PORTED_VERSION else None

    @property
    def method(self) -> str:
        return self.header["method"]

    @property
    def shape(self) -> Shape:
        own = self.header["shape"]
        given = {field.name: own[field.name] for field in fields(Shape) if field.name in own}
        return Shape(**{**given, "classnames": tuple(own["classnames"])})

    @property
    def home(self) -> dict[str, Any]:
        """The backbone that it was trained on, the last one where there were several."""
        return self.header["trained_on"][-1]


def read(path: str | Path) -> Plugin:
    """Raises UserError, in one line, for a file that is not there, no safetensors file (a pickle is never opened), of
    another format or version, with a field missing or of another kind, or of a method that is not registered."""
    path = Path(path)
    try:
        tensors, metadata = read_tensors(path)
    except UserError as error:
        if not path.is_file():
            raise UserError(f"--plugin: no file '{path}'; {EXPECTED}") from None
        raise UserError(f"--plugin: {not_tensors(path, error)}") from None
    where = f"--plugin: '{path}'"
    if "plugin" not in metadata:
        raise UserError(f"{where} has no entry 'plugin' in its header; {EXPECTED}")
    try:
        header = parse_json(metadata["plugin"])
        json.dumps(header, ensure_ascii=False).encode()  # "\\ud800" is JSON, and no text
    except ValueError as error:
        raise UserError(
            f"{where}: the entry 'plugin' of its header is not JSON in UTF-8 ({printable(str(error))}); {EXPECTED}"
        ) from None
    if not isinstance(header, dict):
        raise UserError(f"{where}: the entry 'plugin' of its header is no JSON object; {EXPECTED}")
    if nested(header, DEEPEST_HEADER):
        raise UserError(f"{where}: its header is nested more than {DEEPEST_HEADER} deep; {EXPECTED}")
    check_version(where, header)
    if wrong := faults(header):
        raise UserError(f"{where}: {'; '.join(wrong)}; {EXPECTED}")
    if header["version"] == PORTED_VERSION:
        check_numbers(where, tensors)
    if header["method"] not in METHODS:
        line = unknown("method", header["method"], METHODS)
        raise UserError(f"{where}: {line}. A method of your own is found by --plugin-dir FOLDER")
    return Plugin(str(path), sha256_of(path), tensors, header)


def check_numbers(where: str, tensors: dict[str, Tensor]) -> None:
    """Raises UserError for NaN and infinities. Of version 1 the contract check says it, with what else is wrong."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{where}: tensor {quoted(name)} holds NaN or infinity; have the plug-in ported again")


def nested(value: Any, levels: int) -> bool:
    """Whether there is more than so many levels of objects and lists: what result files could not be written with."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (not levels or any(nested(one, levels - 1) for one in inner))


def not_tensors(path: Path, error: UserError) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(PICKLES):
        return (
            f"'{path}' is a pickle, which is a program and is not opened; {EXPECTED}. The command import makes "
            "one of a checkpoint (docs/import.md)"
        )
    return f"'{path}' cannot be read as safetensors; {EXPECTED}"


def check_version(where: str, header: dict[str, Any]) -> None:
    form, version = header.get("format"), header.get("version")
    if form == FIRST_FORMAT and version is None:
        raise UserError(
            f"{where} is of the format that runs wrote before it had a version; "
            f"'run_all.py export {quoted(str(header.get('key')))[1:-1]} --to FILE' in its results folder completes it"
        )
    if form != PLUGIN_FORMAT:
        raise UserError(f"{where} has format {quoted(str(form))}; {EXPECTED}")
    if version is None or isinstance(version, bool) or version not in VERSIONS:
        raise UserError(
            f"{where} has version {quoted(str(version))} of {PLUGIN_FORMAT}, this program reads versions "
            f"{' and '.join(map(str, VERSIONS))}: use a program of its time, or have it written again"
        )


def faults(header: dict[str, Any]) -> list[str]:
    """What is missing of a header or of another kind, all of it, in a few words each."""
    wrong = of_kinds(header, FIELDS, "")
    shape, trained_on = header.get("shape"), header.get("trained_on")
    if isinstance(shape, dict):
        wrong += of_kinds(shape, OF_SHAPE, "shape.")
        names = shape.get("classnames")
        if isinstance(names, list) and not all(isinstance(name, str) for name in names):
            wrong.append("shape.classnames are not text")
        wrong += of_kinds(shape, {name: (int,) for name in MAY_BE_IN_SHAPE if name in shape}, "shape.")
        for name in ("width", "dim", "support", *MAY_BE_IN_SHAPE):
            value = shape.get(name)
            least = 1 if name in ("width", "dim") else 0
            if isinstance(value, int) and not least <= value <= (DEEPEST if name.endswith("layers") else LARGEST):
                wrong.append(f"shape.{name} is {value}")
    if header.get("version") == PORTED_VERSION:
        wrong += faults_of_ported(header.get("ported"))
    if isinstance(trained_on, list):
        wrong += [] if trained_on else ["trained_on names no backbone"]
        for number, one in enumerate(trained_on):
            if isinstance(one, dict):
                wrong += of_kinds(one, OF_BACKBONE, f"trained_on[{number}].")
            else:
                wrong.append(f"trained_on[{number}] is no object")
    return wrong


def faults_of_ported(ported: Any) -> list[str]:
    if not isinstance(ported, dict):
        return ["field 'ported' is missing" if ported is None else "ported is no object"]
    wrong = of_kinds(ported, OF_PORTED, "ported.")
    for side in ("old", "new"):
        if isinstance(ported.get(side), dict):
            wrong += of_kinds(ported[side], OF_BACKBONE, f"ported.{side}.")
    return wrong


def of_kinds(values: dict[str, Any], kinds: dict[str, tuple[type, ...]], place: str) -> list[str]:
    wrong = []
    for name, allowed in kinds.items():
        if name not in values:
            wrong.append(f"field '{place}{name}' is missing")
        elif isinstance(values[name], bool) or not isinstance(values[name], allowed):
            names = " or ".join("null" if kind is NULL else kind.__name__ for kind in allowed)
            wrong.append(f"{place}{name} is {type(values[name]).__name__}, expected {names}")
    return wrong
