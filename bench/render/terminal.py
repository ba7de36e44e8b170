"""What is printed stands as it was given: one console for all, which takes no text for markup, an emoji code or a link.

Others name datasets, classes, methods and files, and errors quote them. Only what cannot be printed, as a terminal's
control sequences, is shown by its code. Colours are given beside a text, never in it.
"""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table as RichTable
from rich.text import Text

from carryover.bench.errors import printable

Words = str | tuple[str, str]  # a text, or a text and its style


def made(**more: Any) -> Console:
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **more)


console, aside = made(), made(stderr=True)


def say(*words: Words, to: Console = console) -> None:
    """The texts, joined, as one line (or as many as they have); a terminal wraps what is too long for it."""
    to.print(text(*words))


def text(*words: Words) -> Text:
    joined = Text()
    for part in words:
        given, style = (part, "") if isinstance(part, str) else part
        joined.append(printable(given), style)
    return joined


class Table(RichTable):
    """Cells, heads and title are plain text; a cell too long for its column is folded, not cut."""

    def __init__(self, *heads: str, right: tuple[str, ...] = (), title: str = "", **more: Any):
        super().__init__(title=text(title) if title else None, **more)
        for head in heads:
            self.add_column(text(head), overflow="fold", justify="right" if head in right else "left")

    def row(self, *cells: str) -> None:
        self.add_row(*map(text, cells))

    def show(self, to: Console = console) -> None:
        to.print(self, soft_wrap=False)


def words_column(template: str) -> TextColumn:
    """Of a progress bar, whose own takes markup."""
    return TextColumn(template, markup=False)


class Plain(logging.Formatter):
    """A warning as one printable text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
