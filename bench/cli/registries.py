"""Fills the registries of methods, ports and analyses: the suite's own, and those of the user's folders."""

from __future__ import annotations

from collections.abc import Iterable

from carryover import methods
from carryover.bench import analyses, ports


def discover(plugin_dirs: Iterable[str] = ()) -> None:
    """Raises UserError for a folder that is not there or a file that cannot be imported."""
    analyses.discover()
    ports.discover()
    methods.discover(tuple(plugin_dirs))
