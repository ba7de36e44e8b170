"""Where a command may write: over none of its inputs, and over no tensor file that the suite did not write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from carryover.bench.errors import UserError, quoted

HERE = "local-dir:"
OWN = {"plugin": "a plug-in", "map": "a map"}  # by the entry of the header that makes it one
PLUGIN, MAP = OWN


def check_output(to: str | Path, inputs: Iterable[str | Path | None], own: str = "", flag: str = "--to") -> None:
    """Raises UserError where ``to`` is one of the inputs or a file that lies in one, by whatever names; and, with
    ``own``, where a .safetensors file is there already that is none of that kind (``PLUGIN``, ``MAP``).

    inputs  paths; also what ``--backbone`` takes, of which files and folders are looked at
    """
    place = Path(to).resolve()
    for given in filter(None, map(str, (one for one in inputs if one))):
        source = Path(path_in(given)).expanduser()
        if not source.exists():
            continue
        if source.resolve() == place or (place.exists() and os.path.samefile(source, place)):
            raise UserError(f"{flag} {to} is an input of this command and would be lost; expected another name")
        if source.is_dir() and source.resolve() in place.parents and place.exists():
            raise UserError(f"{flag} {to} is a file of {quoted(given, 200)}, an input; expected another name")
    if own and place.is_file() and own not in entries_of(place):
        raise UserError(
            f"{flag} {to} is there already and is not {OWN[own]} that this suite wrote; expected another name, or "
            "delete it"
        )


def path_in(given: str) -> str:
    """The file or folder that a backbone's name holds; any other text as it is."""
    if given.startswith(HERE):
        return given.removeprefix(HERE)
    _, equals, file = given.partition("=")
    return file if equals and not Path(given).exists() else given


def entries_of(path: Path) -> set[str]:
    """Of a safetensors file's header; none where it is no such file."""
    try:
        with safe_open(path, "pt") as file:
            return set(file.metadata() or {})
    except Exception:  # safetensors' own kinds of error, and the system's
        return set()
