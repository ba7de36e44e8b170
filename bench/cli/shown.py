"""What commands on plug-in files say alike, and how they are computed on a small model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from carryover.bench.render.terminal import aside, say


@contextlib.contextmanager
def few_threads(one: bool) -> Iterator[None]:
    """One thread for the embedded models on a CPU, as their runs have: the same bits on any number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if one else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show_warnings(lines: list[str]) -> None:
    for line in lines:
        say(("note", "yellow"), f" {line}", to=aside)


def trained_on(header: dict[str, Any]) -> dict[str, Any]:
    """The backbone that a run trained it on last; a port that left the method itself has put its own behind it."""
    told, homes = header.get("ported"), header["trained_on"]
    carried = len(homes) > 1 and isinstance(told, dict) and told.get("new") == homes[-1]
    return homes[-2] if carried else homes[-1]


def ported_rows(header: dict[str, Any]) -> dict[str, str]:
    """How it was carried over, where it was; a header of version 1 may say anything there."""
    told = header.get("ported")
    if not isinstance(told, dict) or not isinstance(told.get("anchors"), dict):
        return {}
    anchors = told["anchors"]
    kind = {"texts": "texts", "features": "rows"}.get(str(anchors.get("kind")), "pictures")
    source = f" of {anchors['folder']}" if anchors.get("folder") else ""
    return {"ported by": f"{told.get('name')}, fitted on {anchors.get('count')} {kind}{source}"}
