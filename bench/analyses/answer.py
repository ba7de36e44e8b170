"""The report's first screen: which methods carry over, by how much, and what a port or retraining makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import answer_figure, refused
from carryover.bench.analyses.parts import answer_numbers as numbers
from carryover.bench.analyses.parts.answer_numbers import gain_text, of
from carryover.bench.analyses.parts.answer_updates import over_updates
from carryover.bench.analyses.parts.answer_words import Case, Gain, Judged, runs_failed
from carryover.bench.analyses.parts.retention_numbers import MARGIN
from carryover.bench.analyses.retention import Names
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Column, Grid, Row, Sheet, percent
from carryover.bench.stats.rank_tests import LEVEL

TITLE = "Which methods carry over"
RULE = (
    "Carries over: significantly above the new model's zero-shot accuracy. Hurts: significantly below. No better than "
    f"zero-shot: neither, and the 95 % interval ends below +{MARGIN:g} point. Cannot tell: all else, and always with "
    f"one seed. Significant: p < {LEVEL}, paired over seeds and test images, Holm-corrected over the methods. "
    "The intervals are not corrected, so one may lie wholly on one side of 0 without that verdict."
)
GAINS = (
    "Numbers are points of top-1 accuracy over zero-shot on the new model, averaged over the datasets, with 95 % "
    "intervals."
)
PORTED = (
    "Ported: the plug-in behind a Procrustes map between the backbones, fitted on unlabelled pictures. The port was "
    "named before any test picture was read."
)
NOT_POSSIBLE = "Not possible: the plug-in asks for what that model does not have. The reasons stand below."
RETRAINED = "Retrained: the same method trained on the new model."
WITHOUT_LABELS = (
    "Without labels: what to take on the new model, the cheapest of zero-shot, reuse and port that is within "
    f"{MARGIN:g} point of the best; undecided where more seeds or images are needed."
)
HINTS = {
    "gain": "Accuracy on the new model less its zero-shot accuracy, in points, with the 95 % interval",
    "ported": "The same, with the plug-in behind a map fitted on unlabelled pictures",
    "retrained": "The same, with the method trained on the new model",
}


# ---- rows ------------------------------------------------------------------------------------------------------------


def ways_in(table: pd.DataFrame) -> list[str]:
    """ "ported" and "retrained", where any method has it."""
    return [way for way in numbers.WAYS if table[f"{way}_gain"].notna().any()]


def told(row: pd.Series, over: int = 1) -> str:
    """The verdict, with the reason where there is none. ``over``: the datasets that there are."""
    if row["verdict"] != numbers.CANNOT_TELL:
        return row["verdict"]
    if row["datasets"] < over:
        return f"{row['verdict']} ({row['datasets']} of {counted(over, 'dataset')})"
    return row["verdict"] + (" (one seed)" if row["seeds"] == 1 else "")


def titles(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Columns of gains: title and explanation; of what was measured on part of the datasets, on how many."""
    return [(way.capitalize() + part_of(table, way), HINTS[way]) for way in ways_in(table)]


def part_of(table: pd.DataFrame, way: str) -> str:
    """On how many datasets, where it is not all."""
    average = table[table["dataset"] == AVERAGE]
    whole, count = int(average["datasets"].max()), int(average[f"{way}_datasets"].max())
    return f" ({count} of {counted(whole, 'dataset')})" if 0 < count < whole else ""


def grid(selection: Selection, table: pd.DataFrame) -> Grid:
    """A row a method, which opens to its datasets; a column for the update where there are several. What answers stands
    first, where a phone shows it."""
    names, ways, rows = Names(selection), ways_in(table), []
    targets, over = list(dict.fromkeys(table["target"])), len(reading.averaged(selection.main))
    for target in targets:
        for _, row in of(table, target).iterrows():
            where = (Cell(names.targets.get(target, target)),) if len(targets) > 1 else ()
            base, new, *gains, told_of = measured(row, ways, over)
            choice = (Cell(row["without_labels"] or MISSING),) if chooses(table) else ()
            place = Cell(places.label(row["place"]))
            cells = (Cell(names.methods[row["method"]]), *where, told_of, *choice, *gains, base, new, place)
            rows.append(Row(cells, detail(table, target, row["method"], names, ways)))
    base_column, new_column, *gain_columns = number_columns(table)
    columns = (
        Column("Method"),
        *([Column("Update", filter=True)] if len(targets) > 1 else []),
        Column("Verdict", "verdict", filter=True),
        *([Column(f"Without labels{part_of(table, 'ported')}")] if chooses(table) else []),
        *(*gain_columns, base_column, new_column),
        Column("Place", hint="Where the method's learned part stands", filter=True),
    )
    return Grid(columns, tuple(rows), TITLE)


def chooses(table: pd.DataFrame) -> bool:
    return bool((table["without_labels"] != "").any())


def number_columns(table: pd.DataFrame) -> list[Column]:
    return [
        Column("Base", "number", "Accuracy on the old model in percent"),
        Column("New", "number", "Accuracy on the new model in percent"),
        Column("New less zero-shot", "number", HINTS["gain"]),
        *(Column(title, "number", hint) for title, hint in titles(table)),
    ]


def measured(row: pd.Series, ways: Sequence[str], over: int = 1) -> list[Cell]:
    gains = (Cell(gain_text(row, way)) for way in ways)
    both = (Cell(percent(row[name])) for name in ("base", "new"))
    return [*both, Cell(gain_text(row)), *gains, Cell(told(row, over))]


def detail(table: pd.DataFrame, target: str, method: str, names: Names, ways: Sequence[str]) -> Grid | None:
    """The method's datasets; None where it is done on none."""
    mine = table[(table["target"] == target) & (table["method"] == method) & (table["dataset"] != AVERAGE)]
    mine = mine[mine["new"].notna()]
    if mine.empty:
        return None
    columns = (Column("Dataset"), *number_columns(table), Column("Verdict", "verdict"))
    rows = [Row((Cell(names.dataset(row["dataset"])), *measured(row, ways))) for _, row in mine.iterrows()]
    return Grid(columns, tuple(rows), f"{names.methods[method]} by dataset")


def sheet(selection: Selection, table: pd.DataFrame) -> Sheet:
    """The same for Markdown and LaTeX: a block an update."""
    names, ways, blocks = Names(selection), ways_in(table), []
    over = len(reading.averaged(selection.main))
    for target in dict.fromkeys(table["target"]):
        rows = [
            (Cell(names.methods[row["method"]]), Cell(places.label(row["place"])), *measured(row, ways, over))
            for _, row in of(table, target).iterrows()
        ]
        header = ("Method", "Place", *(column.title for column in number_columns(table)), "Verdict")
        title = f"Average over {counted(over, 'dataset')}"
        blocks.append(Block(Cell(title + ("" if target == "new" else f", update '{target}'")), header, tuple(rows)))
    return Sheet(TITLE, tuple(blocks), (GAINS, RULE, *notes(table), *refused.told(selection.main)))


def notes(table: pd.DataFrame) -> list[str]:
    there = ways_in(table)
    found = [text for way, text in (("ported", PORTED), ("retrained", RETRAINED)) if way in there]
    impossible = [NOT_POSSIBLE] if (table["verdict"] == numbers.IMPOSSIBLE).any() else []
    return [*impossible, *found, *([WITHOUT_LABELS] if chooses(table) else [])]


# ---- sentence --------------------------------------------------------------------------------------------------------


def verdict(selection: Selection, tables: Tables) -> str:
    """The sentence; of several updates one over them all."""
    records = selection.main
    table = tables["answer"].frame if "answer" in tables else pd.DataFrame(columns=list(numbers.COLUMNS))
    targets = list(dict.fromkeys(table["target"])) or ["new"]
    done = sum(map(reading.is_done, records))
    names, cases = reading.names(records, "method"), {}
    for target in targets:
        rows = of(table, target)
        shot = rows[rows["method"] == ZERO_SHOT]["new"]
        methods = [judged(row, names) for _, row in rows.iterrows() if row["method"] != ZERO_SHOT]
        cases[target] = Case(
            tuple(methods),
            float(shot.iloc[0]) if len(shot) else math.nan,
            len(shot) > 0,
            len(reading.averaged(records)),
            done,
            len(records) - done,
            "the new model" if target == "new" else f"the update '{target}'",
        )
    return over_updates(cases)


def judged(row: pd.Series, names: dict[str, str]) -> Judged:
    own = Gain(*(row[name] for name in ("gain", "low", "high", "verdict")))
    ported = Gain(*(row[f"ported_{name}"] for name in ("gain", "low", "high", "verdict")))
    seeds = int(row["seeds"])
    return Judged(names[row["method"]], row["place"], seeds, own, None if math.isnan(ported.points) else ported)


def draw_answer(tables: Tables, selection: Selection) -> Figure | None:
    """What each method gains over the new model's zero-shot accuracy: as it is, ported, retrained."""
    if "answer" not in tables:
        return None
    names = Names(selection)
    return answer_figure.drawn(tables["answer"].frame, names.methods, names.targets)


@register("answer")
class Answer(Analysis):
    title, place = TITLE, 1
    drawings = (
        Drawing(
            "answer",
            "Points that each method gains over the new model's zero-shot accuracy, averaged over the datasets",
            draw_answer,
        ),
    )

    def tables(self, selection: Selection) -> Iterator[Table]:
        if selection.main:
            frame = numbers.answer_table(selection)
            yield Table("answer", frame, numbers.KEYS, sheet(selection, frame))

    def first(self, selection: Selection, tables: Tables) -> list[Part]:
        """The verdict, the figure, the table and its rule."""
        parts: list[Part] = [("verdict", verdict(selection, tables))]
        parts.append(("text", f"Old and new model: {selection.arch.label}."))
        done = sum(map(reading.is_done, selection.main))
        if done and (failed := runs_failed(len(selection.main) - done, len(selection.main))):
            parts.append(("text", failed))
        if "answer" not in tables:
            return parts
        frame = tables["answer"].frame
        parts += self.figures(selection, "answer")
        if frame["target"].nunique() > 1:  # a table as wide as the page, below the figure
            parts.append(("text", GAINS))
        parts += [("grid", grid(selection, frame)), ("text", " ".join([RULE, *notes(frame)]))]
        if reasons := refused.told(selection.main):
            parts.append(("text", " ".join(reasons)))
        return [*parts, ("files", self.files(selection, tables["answer"]))]

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        """Nothing further: it is the first screen."""
        return []
