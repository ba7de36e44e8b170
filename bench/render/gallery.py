"""Pictures with words, as a part of the report: shown in the page itself, listed with links in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from carryover.bench.render.sheets import escape_markdown


@dataclass(frozen=True)
class Picture:
    """One picture: plain text, and a JPEG file.

    title  what it shows
    lines  what is said of it
    hint   which picture it is
    file   its path from the report's folder
    jpeg   the file's bytes
    """

    title: str
    lines: tuple[str, ...]
    hint: str
    file: str
    jpeg: bytes

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def gallery_markdown(pictures: Iterable[Picture]) -> str:
    return "\n".join(
        f"- [{escape_markdown(one.title)}]({one.file}): {escape_markdown('; '.join(one.lines))}" for one in pictures
    )
