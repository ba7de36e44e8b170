"""Pages from the templates in `templates/`: whatever a template shows is text, escaped on the way.

Nothing that a user may have named reaches a page as HTML: only `markupsafe.Markup` is taken as it is, which a figure's
SVG (`figures.inline_svg`) and our own scripts (`verbatim`) are.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from carryover.bench.errors import printable
from carryover.bench.render.sheets import Block

DEVIATION = re.compile(r"(?<=\d) (± \d+\.\d\d|\[[^]]*\])$")
COMMAND = re.compile(r"`(run_all\.py [^`]*)`")  # no other backticks: a name may hold them
VERDICTS = (  # of the report, then of the audit
    *("carries over", "no better than zero-shot", "hurts", "cannot tell"),
    *("within", "above", "below", "one seed", "not run"),
)
WORDY = 24  # characters that a cell of numbers stays under: "-12.34 ± 5.67 to 89.01"


def render(template: str, **context: Any) -> str:
    """The page; what cannot be printed is shown by its code, a name that ``context`` lacks is an error
    (`jinja2.UndefinedError`)."""
    return PAGES.get_template(template).render(context)


def verbatim(name: str) -> Markup:
    """A file of the templates' folder as it is, such as a page's script."""
    return Markup(LOADER.get_source(PAGES, name)[0])


def sha256(script: str) -> str:
    """As a page's policy names a script that it allows."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def without_deviation(text: str) -> tuple[str, str]:
    """ "72.65 ± 0.14" in two, "72.65 [72.31, 72.99]" too; an empty second where there is one number alone."""
    found = DEVIATION.search(text)
    return (text[: found.start()], found[1]) if found else (text, "")


def commands_apart(text: str) -> list[str]:
    """Plain text and commands of ours in turn; the backticks around the commands are left out."""
    return COMMAND.split(text)


def wordy_columns(block: Block) -> set[int]:
    """Places of the columns that hold words, which break into lines; numbers do not."""
    return {place for row in block.rows for place, cell in enumerate(row) if len(cell.text) > WORDY}


def verdict_class(text: str) -> str:
    """The class that gives a verdict its colour; none for words that are no verdict."""
    return next((f"told {slug(word)}" for word in VERDICTS if word in text), "told")


def slug(text: str) -> str:
    """Text as part of an id or a class."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


LOADER = PackageLoader(__package__)
PAGES = Environment(
    loader=LOADER, autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
)
PAGES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
PAGES.filters |= {
    "without_deviation": without_deviation,
    "commands_apart": commands_apart,
    "wordy_columns": wordy_columns,
    "verdict_class": verdict_class,
    "slug": slug,
    "sha256": sha256,
    "verbatim": verbatim,
}
