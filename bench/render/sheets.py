"""Sheets: what a table shows, and the writers that turn it into CSV, Markdown and LaTeX.

A `Sheet` is a table of the paper's kind: titled blocks with notes. A `Grid` is one table that readers of the page sort,
filter and open. Both hold plain text; escaping belongs to the writer of each format, so that a class, dataset or method
named by a user can break none of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from tabulate import tabulate

from carryover.bench.errors import printable
from carryover.bench.places import DAGGER, DOUBLE_DAGGER, SECTION

MISSING = "–"  # a number that was not measured
CSV_DECIMALS = 4
FORMULA_STARTS = (*"=+-@", *"＝＋－＠", "\t", "\r", "\n")  # some spreadsheets take the full-width signs too
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
LINE_START = re.compile(r"(\d{0,9})([-+=.)])(?=[\s=-]|$)")  # what makes a list, a rule or a heading of a line
LATEX: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "±": r"$\pm$", DAGGER: r"\textdagger{}",
    DOUBLE_DAGGER: r"\textdaggerdbl{}", SECTION: r"\S{}",
    "[": "{[}", "*": "{*}",  # bare, at the start of a row, they are arguments of the \\ before it
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip
MARKDOWN: dict[str, str | int | None] = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", **{character: "\\" + character for character in r"\`*_{}[]|~$#!"},
}  # fmt: skip


# ---- what a table shows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell: plain text, its rank in the column (1 best, 2 second, 0 neither), the numbers of its footnotes."""

    text: str
    rank: int = 0
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """A titled matrix; the first column holds names, the others numbers (right-aligned) unless it is textual."""

    title: Cell
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    textual: bool = False


@dataclass(frozen=True)
class Sheet:
    """Blocks under one caption; `remarks` hold for all of it, `footnotes` (from 1) for the cells that name them."""

    caption: str
    blocks: tuple[Block, ...]
    remarks: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """Of a `Grid`. ``hint`` explains the title; ``filter`` gives readers a choice among the column's texts. A "verdict"
    is a text whose colour follows its word."""

    title: str
    kind: Literal["text", "number", "verdict"] = "text"
    hint: str = ""
    filter: bool = False


@dataclass(frozen=True)
class Row:
    """Of a `Grid`: a cell for each column. It opens to ``detail``; its first cell leads to ``link``."""

    cells: tuple[Cell, ...]
    detail: Grid | None = None
    link: str = ""


@dataclass(frozen=True)
class Grid:
    """One table that readers sort, filter and open; ``label`` names it. In Markdown it is flat, without details."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    label: str = ""


def percent(mean: float, std: float = np.nan) -> str:
    """Two decimals, with the deviation where there is one; a dash for what was not measured."""
    return MISSING if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(std) else f" ± {std:.2f}")


def signed(mean: float, std: float = np.nan) -> str:
    """Points with their sign, as differences are read."""
    return ("+" if mean >= 0.005 else "") + percent(mean, std)


def ranked(means: pd.Series, stds: pd.Series) -> list[Cell]:
    """A column's cells, best and second marked."""
    # Ranked as printed: two methods that read the same must not be told apart by digits nobody sees.
    shown = means.round(2)
    order = sorted(shown.dropna().unique(), reverse=True)[:2] if shown.notna().sum() > 1 else []
    return [
        Cell(percent(mean, std), order.index(seen) + 1 if seen in order else 0)
        for mean, std, seen in zip(means, stds, shown, strict=True)
    ]


# ---- writers ---------------------------------------------------------------------------------------------------------


def escape_markdown(text: str) -> str:
    """Plain text as Markdown (GitHub's too) that shows it unchanged, on one line."""
    escaped = printable(" ".join(text.split())).translate(str.maketrans(MARKDOWN))
    return LINE_START.sub(r"\1\\\2", escaped, count=1) if LINE_START.match(escaped) else escaped


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that prints it unchanged, on one line."""
    return printable(" ".join(text.split())).translate(str.maketrans(LATEX))


def escape_csv(text: str) -> str:
    """A text cell that a spreadsheet does not run as a formula: an apostrophe in front where it would, and one more
    where the text itself begins so, that no two texts become one. A number, -1.5, stays a number."""
    bare = text.lstrip("'")
    hazard = bare.startswith(FORMULA_STARTS) and not NUMBER.fullmatch(bare)
    return printable("'" + text if hazard else text)


def csv_text(frame: pd.DataFrame, decimals: int = CSV_DECIMALS) -> str:
    """A frame as CSV: numbers rounded to ``decimals``, missing ones empty, text neutralised by `escape_csv`."""
    safe = frame.round(decimals)
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [escape_csv(str(value)) for value in safe[name]]
    return safe.to_csv(index=False, lineterminator="\n")


def cell_markdown(cell: Cell) -> str:
    """One cell as Markdown: best **bold**, second <u>underlined</u>, footnote numbers raised."""
    raised = f"<sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else ""
    return ("{}", "**{}**", "<u>{}</u>")[cell.rank].format(escape_markdown(cell.text)) + raised


def _latex(cell: Cell) -> str:
    raised = rf"\textsuperscript{{{','.join(map(str, cell.notes))}}}" if cell.notes else ""
    return ("%s", r"\textbf{%s}", r"\underline{%s}")[cell.rank] % escape_latex(cell.text) + raised


def block_markdown(block: Block) -> str:
    """One block as a Markdown table, without its title."""
    rows = [[cell_markdown(cell) for cell in row] for row in block.rows]
    align = ("left", *["left" if block.textual else "right"] * (len(block.header) - 1))
    header = [escape_markdown(name) for name in block.header]
    return tabulate(rows, headers=header, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)


def grid_markdown(grid: Grid) -> str:
    """A grid as a Markdown table: its rows as they are first shown, without their details."""
    rows = [[cell_markdown(cell) for cell in row.cells] for row in grid.rows]
    align = ["right" if column.kind == "number" else "left" for column in grid.columns]
    header = [escape_markdown(column.title) for column in grid.columns]
    return tabulate(rows, headers=header, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)


def sheet_markdown(sheet: Sheet) -> str:
    """A sheet as Markdown, a heading (level 3) and a table for each block, the notes last."""
    parts = [f"### {cell_markdown(block.title)}\n\n{block_markdown(block)}" for block in sheet.blocks]
    notes = [f"- {escape_markdown(text)}" for text in sheet.remarks]
    notes += [f"- <sup>{n}</sup> {escape_markdown(text)}" for n, text in enumerate(sheet.footnotes, 1)]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def sheet_latex(sheet: Sheet) -> str:
    r"""A sheet as LaTeX `table*` floats of a page at most (booktabs needed): best \textbf, second \underline."""
    beside = 2 if all(len(block.header) <= 4 for block in sheet.blocks) else 1
    pages = [sheet.blocks[i : i + 4 * beside] for i in range(0, len(sheet.blocks), 4 * beside)] or [()]
    notes = [rf"\par\raggedright\textsuperscript{{{n}}} {escape_latex(t)}" for n, t in enumerate(sheet.footnotes, 1)]
    lines = []
    for number, blocks in enumerate(pages):
        caption = " ".join((sheet.caption + ".", *sheet.remarks)) if number == 0 else f"{sheet.caption} (continued)."
        lines += [r"\begin{table*}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}"]
        lines += [rf"\caption{{{escape_latex(caption)}}}"]
        for place, block in enumerate(blocks, 1):
            lines += [rf"\begin{{minipage}}[t]{{{0.98 / beside:.2f}\textwidth}}\centering"]
            lines += [rf"\textbf{{{_latex(block.title)}}}\\[2pt]"]
            lines += [
                rf"\begin{{tabular}}{{l{('l' if block.textual else 'r') * (len(block.header) - 1)}}}",
                r"\toprule",
            ]
            lines += [" & ".join(map(escape_latex, block.header)) + r" \\", r"\midrule"]
            lines += [" & ".join(map(_latex, row)) + r" \\" for row in block.rows]
            lines += [r"\bottomrule", r"\end{tabular}", r"\end{minipage}\hfill"]
            lines += [r"\par\medskip"] if place % beside == 0 or place == len(blocks) else []
        lines += [*notes, r"\end{table*}"]
    return "\n".join([*lines, ""])
