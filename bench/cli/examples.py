"""Thumbnails of the example pictures, made where the pictures are at hand: after all runs, when nothing predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from carryover.bench.analyses.examples import chosen
from carryover.bench.errors import UserError
from carryover.bench.records import example_files
from carryover.bench.records.example_files import Chosen, Stored, thumbnail
from carryover.bench.records.selection import Selection
from carryover.bench.render.terminal import say
from carryover.datasets.base import Split

if TYPE_CHECKING:
    from carryover.bench.engine.session import Session

Tests = Callable[[str], tuple[Split, tuple[str, ...], str]]


def tests_of(session: Session, limit: int | None) -> Tests:
    """Gives a dataset's test pictures, its class names and the sha256 that records hold of them."""
    from carryover.bench.engine.few_shot import at_most  # with torch, which `report` does without

    known: dict[str, tuple[Split, tuple[str, ...], str]] = {}

    def of(id: str) -> tuple[Split, tuple[str, ...], str]:
        if id not in known:
            data = session.data(id)
            split = at_most(data.test, limit)
            known[id] = split, data.classnames, split.content_sha256(data.classnames)
        return known[id]

    return of


def keep(selection: Selection, folder: Path, tests: Tests) -> tuple[Stored, ...]:
    """Writes and returns the examples of the selection. One that is stored already is kept as it is. No run needs them,
    so what cannot be read is named and left out."""
    found: list[Stored] = []
    for one in chosen(selection):
        kept = next((stored for stored in selection.examples if stored.of == one), None)
        try:
            found += [kept] if kept else made(one, tests)
        except UserError as error:
            say(("left out", "yellow"), f" example picture: {error}")
    example_files.write(folder, found)
    return tuple(found)


def made(one: Chosen, tests: Tests) -> list[Stored]:
    """Nothing where the pictures are no longer those that were predicted."""
    split, classnames, sha256 = tests(one.dataset)
    if sha256 != one.test:
        return []
    labels = {one.label, *(label for pair in one.answers.values() for label in pair)}
    (picture,) = split.read([one.picture])
    return [Stored(one, split.keys[one.picture], {n: classnames[n] for n in sorted(labels)}, thumbnail(picture))]
