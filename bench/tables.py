"""Tables of a suite: one frame for the CSV, one sheet for Markdown, LaTeX and HTML, all made from records alone.

A `Sheet` holds plain text; escaping belongs to the writer of each format, so that a class, dataset or method named by
a user can break none of them. A later suite adds one function that makes its frame, one that makes its sheet, and one
line in `write_tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from bench import stats
from bench.stats import AVERAGE, Record
from bench.store import write_text

PAPER_FOLDER = Path(__file__).resolve().parent.parent / "results" / "paper"
PAPER_TABLES = {"vit-b16": "table2_vit_b16.csv", "vit-l14": "table8_vit_l14.csv"}
PAPER_COLUMNS = ("paper_base", "paper_new", "paper_h")
COLUMNS = ("dataset", "method", "seeds", *stats.SCORES, *PAPER_COLUMNS)

MISSING = "–"  # a number that was not measured
DAGGER = "†"  # the paper's sign for a deep-layer method
CSV_DECIMALS = 4
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "±": r"$\pm$", DAGGER: r"\textdagger{}",
    "[": "{[}", "*": "{*}",  # bare, at the start of a row, they are arguments of the \\ before it
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip
MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{character: "\\" + character for character in r"\`*_{}[]|~$#!"}}


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


def read_paper(arch: str) -> pd.DataFrame | None:
    """The paper's Table 2 (vit-b16) or 8 (vit-l14): dataset, method (ids), base, new, h in percent; else None."""
    return pd.read_csv(PAPER_FOLDER / PAPER_TABLES[arch]) if arch in PAPER_TABLES else None


def main_table(records: Iterable[Record], paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """The main table: `COLUMNS`, percent, datasets in the paper's order, the average rows last.

    paper: what `read_paper` gives; its columns stay empty without it, and in the average rows unless the table holds
    exactly the paper's datasets, since an average over others is another number.
    """
    records = stats.select(records, "main")
    table = stats.summarise(records)
    if paper is None:
        table[list(PAPER_COLUMNS)] = np.nan
        return table[list(COLUMNS)]
    printed = paper.rename(columns={name.removeprefix("paper_"): name for name in PAPER_COLUMNS})
    if {*stats.averaged(records), AVERAGE} != set(paper["dataset"]):
        printed = printed[printed["dataset"] != AVERAGE]
    return table.merge(printed, on=["dataset", "method"], how="left", sort=False)[list(COLUMNS)]


def main_sheet(records: Iterable[Record], paper: pd.DataFrame | None = None) -> Sheet:
    """The main table as the paper lays it out: a block of methods x (Base, New, H) a dataset, the average first."""
    records = stats.select(records, "main")
    table = main_table(records, paper)
    datasets, methods = stats.names(records, "dataset"), stats.names(records, "method")
    depth, count = stats.depths(records), len(stats.averaged(records))
    shared, of_dataset, of_row = _marks(records, table)
    footnotes = tuple(dict.fromkeys(m for marks in (*of_dataset.values(), *of_row.values()) for m in marks))
    header = ("Method", "Base", "New", "H") + (("Paper Base", "Paper New", "Paper H") if paper is not None else ())

    blocks = []
    for dataset in [AVERAGE, *stats.ids(records, "dataset")] if records else []:
        part = table[table["dataset"] == dataset]
        numbers = [_ranked(part[name], part[name + "_std"]) for name in ("base", "new", "h")]
        if paper is not None:
            numbers += [[Cell(_percent(value)) for value in part[name]] for name in PAPER_COLUMNS]
        labels = [
            Cell(methods[m] + DAGGER * (depth[m] == "deep"), notes=_numbers(footnotes, of_row[dataset, m]))
            for m in part["method"]
        ]
        name = f"Average over {stats.counted(count, 'dataset')}" if dataset == AVERAGE else datasets[dataset]
        title = Cell(name, notes=_numbers(footnotes, of_dataset[dataset]))
        blocks.append(Block(title, header, tuple(zip(labels, *numbers, strict=True))))

    remarks = ["Top-1 accuracy in percent, mean ± sample standard deviation over seeds (no deviation with one seed)."]
    if "deep" in depth.values():
        remarks.append(f"{DAGGER} marks a deep-layer method.")
    if (table.loc[table["dataset"] == AVERAGE, "seeds"] == 0).any():
        remarks.append(f"{MISSING} in the average: no seed of the method is done on every dataset.")
    remarks += [f"All rows: {mark}." for mark in shared]
    for setting, values in stats.mixed_settings(records).items():
        remarks.append(f"Runs here differ in {setting} ({', '.join(map(str, values))}), so rows may not be comparable.")
    return Sheet("Base, New and their harmonic mean H", tuple(blocks), tuple(remarks), footnotes)


def _percent(mean: float, std: float = np.nan) -> str:
    return MISSING if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(std) else f" ± {std:.2f}")


def _ranked(means: pd.Series, stds: pd.Series) -> list[Cell]:
    # Ranked as printed: two methods that read the same must not be told apart by digits nobody sees.
    shown = means.round(2)
    order = sorted(shown.dropna().unique(), reverse=True)[:2] if shown.notna().sum() > 1 else []
    return [
        Cell(_percent(mean, std), order.index(seen) + 1 if seen in order else 0)
        for mean, std, seen in zip(means, stds, shown, strict=True)
    ]


def _marks(records: Sequence[Record], table: pd.DataFrame) -> tuple[list[str], dict, dict]:
    """The marks that every record bears; those that every record of a dataset does; those of single rows.

    A mark is named at the widest place where it holds, so that what differs between rows stays in sight.
    """
    bears = [(r["run"]["dataset"], r["run"]["method"], tuple(r.get("marks") or ())) for r in records]
    every = dict.fromkeys(mark for *_, marks in bears for mark in marks)
    shared = [mark for mark in every if all(mark in marks for *_, marks in bears)]
    of_dataset: dict[str, list[str]] = {}
    for name in dict.fromkeys(table["dataset"]):
        here = [marks for dataset, _, marks in bears if dataset == name]
        of_dataset[name] = [m for m in every if m not in shared and here and all(m in marks for marks in here)]
    of_dataset[AVERAGE] = list(dict.fromkeys(mark for marks in of_dataset.values() for mark in marks))
    of_row: dict[tuple[str, str], list[str]] = {}
    most = int(table["seeds"].max()) if len(table) else 0
    for row in table.itertuples():
        here = [m for d, method, marks in bears if method == row.method and row.dataset in (AVERAGE, d) for m in marks]
        wider = {*shared, *of_dataset[row.dataset]}
        of_row[row.dataset, row.method] = [mark for mark in every if mark in here and mark not in wider]
        if 0 < row.seeds < most:
            of_row[row.dataset, row.method].append(f"over {row.seeds} of {most} seeds")
    return shared, of_dataset, of_row


def _numbers(footnotes: Sequence[str], marks: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted(footnotes.index(mark) + 1 for mark in marks))


# ---- writers ---------------------------------------------------------------------------------------------------------


def escape_markdown(text: str) -> str:
    """Plain text as Markdown (GitHub's too) that shows it unchanged, on one line."""
    return " ".join(text.split()).translate(str.maketrans(MARKDOWN))


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that prints it unchanged, on one line."""
    return " ".join(text.split()).translate(str.maketrans(LATEX))


def escape_csv(text: str) -> str:
    """A text cell that a spreadsheet does not run as a formula: an apostrophe in front where it would."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


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


def main_tables(records: Iterable[Record], arch: str) -> dict[str, tuple[pd.DataFrame, Sheet]]:
    """Frame and sheet by file name: "main" for the update, "main-NAME" for each further one of an arch's."""
    records, made = list(records), {}
    for role in stats.updates(records):
        seen, paper = stats.seen_from(records, role), read_paper(arch) if role == "new" else None
        made["main" if role == "new" else f"main-{role}"] = main_table(seen, paper), main_sheet(seen, paper)
    return made


def write_tables(records: Iterable[Record], out_dir: Path, arch: str) -> list[Path]:
    """Writes `tables/<name>.csv`, `.md` and `.tex` under out_dir (`results/<arch>`), each whole or not at all."""
    folder, written = Path(out_dir) / "tables", []
    for name, (frame, sheet) in main_tables(records, arch).items():
        texts = {"csv": csv_text(frame), "md": sheet_markdown(sheet), "tex": sheet_latex(sheet)}
        for ending, text in texts.items():
            write_text(folder / f"{name}.{ending}", text)
            written.append(folder / f"{name}.{ending}")
    return written


def console_summary(records: Iterable[Record]) -> Table:
    """The average rows of the main suite for the terminal: method, Base, New, H in percent."""
    records = stats.select(records, "main")
    methods, count = stats.names(records, "method"), len(stats.averaged(records))
    shown = Table(title=f"Average over {stats.counted(count, 'dataset')}, accuracy in percent")
    shown.add_column("Method")
    for name in ("Base", "New", "H", "Seeds"):
        shown.add_column(name, justify="right")
    for method, row in stats.average_rows(records).iterrows():
        # Text, not str: rich would read [brackets] of a user's method name as its own markup.
        numbers = [_percent(row[name], row[name + "_std"]) for name in ("base", "new", "h")]
        shown.add_row(Text(methods[method]), *numbers, str(row["seeds"]))
    return shown
