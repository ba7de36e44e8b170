"""What an analysis is: the rows that it needs run, and the tables, figures and words that it makes of records.

One analysis is one file, here or in a folder of the user's (``--plugin-dir``), and no other file names it:

    @register("mine")
    class Mine(Analysis):
        title, place = "What mine tells", 45
        suite = Suite(fixed(Variant(("short",), "coop", ("coop.context_length=4",))), {"micro": ("micro_stars",)})
        drawings = (Drawing("mine", "What the figure shows", draw),)

        def tables(self, selection):
            frame = …
            yield Table("mine", frame, ("dataset",), sheet_of(frame))

Its runs are then those of ``--suite mine``, its table is written, shown in the report and recomputed by ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from carryover.bench.plan import suites
from carryover.bench.records.selection import Selection
from carryover.bench.registry import Registry
from carryover.bench.render.figures import inline_svg, svg_text
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import CSV_DECIMALS, Sheet, csv_text, sheet_latex, sheet_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST = 1000.0


@dataclass(frozen=True)
class Table:
    """A table, computed once: numbers, from which the CSV is written and all else is made; what readers see of them.

    name      of its files under ``tables/``
    keys      the first columns of ``frame``, which together name a row
    sheet     None: a CSV alone, without Markdown, LaTeX and a place in the report
    decimals  of the CSV's numbers
    """

    name: str
    frame: pd.DataFrame
    keys: tuple[str, ...]
    sheet: Sheet | None = None
    decimals: int = CSV_DECIMALS

    @property
    def csv(self) -> str:
        return csv_text(self.frame, self.decimals)

    @property
    def texts(self) -> dict[str, str]:
        """By ending, for readers."""
        return {"md": sheet_markdown(self.sheet), "tex": sheet_latex(self.sheet)} if self.sheet is not None else {}


Tables = Mapping[str, Table]


@dataclass(frozen=True)
class Drawing:
    """A figure of the file ``name``; ``draw`` gives None where it has nothing to show. In the report it stands below
    the table ``beside``, or that of its own name."""

    name: str
    caption: str
    draw: Callable[[Tables, Selection], Figure | None]
    beside: str = ""


class Analysis:
    """One analysis; registered by its id, which ``--suite`` takes where it has rows of its own.

    title     what its table shows
    source    the paper's table or figure; empty for what is beyond the paper
    place     where it stands in the report: up to 10 the paper's tables and figures, by number, after the answer and
              beside the main table what readers look for next; from 20 on what is beyond; equal ones by id
    section   of the report, which it shares with others of that name; empty: one of its own
    suite     the rows it needs run; None where it reads those of others
    names     of every table that it may make: one that it no longer makes is taken away; empty: its id
    drawings  its figures
    """

    id: ClassVar[str]
    title: ClassVar[str] = ""
    source: ClassVar[str] = ""
    place: ClassVar[float] = LAST
    section: ClassVar[str] = ""
    suite: ClassVar[suites.Suite | None] = None
    names: ClassVar[tuple[str, ...]] = ()
    drawings: ClassVar[tuple[Drawing, ...]] = ()

    def tables(self, selection: Selection) -> Iterable[Table]:
        """Nothing where no record is of it."""
        return ()

    def first(self, selection: Selection, tables: Tables) -> list[Part]:
        """What stands on the report's first screen."""
        return []

    def words(self, selection: Selection, tables: Tables) -> list[str]:
        """What its numbers say, in sentences, before its first table."""
        return []

    def limits(self, selection: Selection, tables: Tables) -> list[str]:
        """What its numbers do not say, for the report's section "Limits"."""
        return []

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        """Its part of the report: what it says, then each table that has a sheet, with its figures and its files."""
        found: list[Part] = []
        for table in tables.values():
            if table.sheet is not None:
                found.append(("subheading", self.heading(table)))
                if words := "" if any(kind == "sheet" for kind, _ in found) else self.words(selection, tables):
                    found.append(("text", " ".join(words)))
                found += [("sheet", table.sheet), *self.figures(selection, table.name)]
                found.append(("files", self.files(selection, table)))
        return found

    def files(self, selection: Selection, table: Table) -> list[tuple[str, str]]:
        """Links to the files of a table and of the figures beside it."""
        endings = {"csv": "CSV", **({"md": "Markdown", "tex": "LaTeX"} if table.sheet is not None else {})}
        links = [(text, f"tables/{table.name}.{ending}") for ending, text in endings.items()]
        for one in self.drawings:
            if (one.beside or one.name) == table.name and self.svg(one, selection):
                links += [(f"{one.name}.{kind}", f"figures/{one.name}.{kind}") for kind in ("svg", "png")]
        return links

    def heading(self, table: Table) -> str:
        return table.sheet.caption if table.sheet else self.title

    # ---- made once, for all that ask ---------------------------------------------------------------------------------

    def made(self, selection: Selection) -> dict[str, Table]:
        """Its tables by name. Nobody may change them."""
        return selection.once(f"tables of {self.id}", lambda: {table.name: table for table in self.tables(selection)})

    def drawn(self, drawing: Drawing, selection: Selection) -> Figure | None:
        return selection.once(f"figure {drawing.name}", lambda: drawing.draw(self.made(selection), selection))

    def svg(self, drawing: Drawing, selection: Selection) -> str:
        """The figure as an SVG file; empty where there is none."""
        figure = self.drawn(drawing, selection)
        return selection.once(f"svg {drawing.name}", lambda: svg_text(figure, drawing.name) if figure else "")

    def figures(self, selection: Selection, beside: str) -> Iterator[Part]:
        """Those beside that table."""
        for one in self.drawings:
            if (one.beside or one.name) == beside and (svg := self.svg(one, selection)):
                yield "figure", (one.name, one.caption, inline_svg(svg, one.name, one.caption))


ANALYSES: Registry[type[Analysis]] = Registry("analysis", Analysis)


def register(id: str) -> Callable[[type[Analysis]], type[Analysis]]:
    """Decorator: enters the analysis, and its suite in the plan's. Raises UserError for an id that is taken."""

    def add(kind: type[Analysis]) -> type[Analysis]:
        ANALYSES.register(id)(kind)
        kind.id = id
        if kind.suite is not None:
            suites.SUITES.register(id)(replace(kind.suite, id=id, place=kind.place))
        return kind

    return add


def ordered() -> list[Analysis]:
    """One of each, in the order of the report."""
    return sorted((ANALYSES[id]() for id in ANALYSES), key=lambda one: (one.place, one.id))
