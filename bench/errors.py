"""The one exception that a user's mistake raises: a single line, no traceback without --debug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST, NEAR = 60, 5  # known names that one line says all of; of more, how many


class UserError(Exception):
    """What was found, what was expected, what to do: one line, shown as it is, exit status 2."""


def unknown(kind: str, given: str, known: Iterable[str], listing: str = "") -> UserError:
    """The error for a name that is not there, with the nearest one that is; of many the nearest few, and ``listing``,
    which says where all of them are."""
    known = list(known)
    of = {name.lower(): name for name in known}
    begins = [name for name in known if given and name.startswith(given)][:NEAR]
    alike = {cut: difflib.get_close_matches(given.lower(), of, n=NEAR, cutoff=cut) for cut in (0.8, 0.4)}
    near = [of[name] for name in alike[0.8]] or begins or [of[name] for name in alike[0.4]]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    if len(known) > MOST:
        few = near or known[:NEAR]
        where = f" ({listing})" if listing else ""
        return UserError(
            f"unknown {kind} '{given}'.{hint} Known: {', '.join(few)} and {len(known) - len(few)} more{where}"
        )
    return UserError(f"unknown {kind} '{given}'.{hint} Known: {', '.join(known) or 'none'}")


def printable(text: str) -> str:
    """``text`` with what cannot be printed shown by its code: a terminal's control sequences, marks that turn the
    reading direction, halves of characters. Line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def quoted(text: str, limit: int = 80) -> str:
    """Text from a file or a folder as one printable line in quotes, cut to ``limit`` characters."""
    line = printable(text).replace("\n", r"\n")
    return f"'{line[:limit]}…'" if len(line) > limit else f"'{line}'"


class Unfit(UserError):
    """A backbone has no place for a plug-in: it concerns that backbone, not the plug-in that is asked about it."""


class TooLong(Unfit):
    """A text does not fit a text tower."""


class StorageError(UserError):
    """A file could not be written (disk full, read-only): it concerns every run, not the one that met it."""
