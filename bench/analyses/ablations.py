"""The paper's ablations of ContCoOp: Tables 4 to 7 and Figure 4, a row an option's value on one dataset.

A row without a finished run shows dashes and is named under the table; the paper's numbers stand in columns of their
own and never fill a gap. What is common to all such analyses is `Ablation`, for others too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carryover.bench.analyses.base import Analysis, Drawing, Table, Tables, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.rows import (
    MEASURE,
    PRINTED_ARCH,
    dataset_name,
    done,
    indifferent,
    marks_of,
    not_run,
    rows_of,
)
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.suites import SUITES, Suite, Variant, fixed
from carryover.bench.records.printed import PAPER_COLUMNS, PAPER_FOLDER
from carryover.bench.records.reading import TARGETS
from carryover.bench.records.selection import Selection
from carryover.bench.render.figures import COLOURS, LABELS, MARKERS, legend, stacked
from carryover.bench.render.sheets import Block, Cell, Sheet, percent, ranked
from carryover.bench.stats import means

TEXTURES = {"paper": ("dtd",), "micro": ("micro_textures",)}
ACTIONS = {"paper": ("ucf101",), "micro": ("micro_actions",)}


class Ablation(Analysis):
    """A table of rows that change a method's options.

    columns        what the labels of the rows mean
    printed        the paper's numbers under results/paper, without ending; empty where it prints none
    notes          remarks under the table; ``printed_notes``: where the paper's numbers stand in it
    """

    section = "Ablations"
    columns: ClassVar[tuple[str, ...]] = ()
    printed: ClassVar[str] = ""
    notes: ClassVar[tuple[str, ...]] = ()
    printed_notes: ClassVar[tuple[str, ...]] = ()

    def tables(self, selection: Selection) -> Iterator[Table]:
        if self.id in selection.rows:
            frame = self.numbers(selection)
            yield Table(self.id, frame, ("dataset", *self.columns), self.sheet(frame, selection))

    def numbers(self, selection: Selection) -> pd.DataFrame:
        """Columns dataset, the analysis's own, seeds, base .. h_std, paper_base .. paper_h, in percent."""
        names = ("dataset", *self.columns)
        found = [
            [row.dataset, *row.variant.label, *means.spread(means.seed_scores(row.records))]
            for row in rows_of(SUITES[self.id], selection)
        ]
        frame = pd.DataFrame(found, columns=[*names, "seeds", *means.SCORES])
        printed = self.read_printed(selection.arch)
        if printed is None:
            frame[list(PAPER_COLUMNS)] = np.nan
            return frame
        return frame.merge(printed, on=list(names), how="left", sort=False)

    def read_printed(self, arch: Arch) -> pd.DataFrame | None:
        """The paper's rows with these columns, labels as text; None where the paper prints none for the arch."""
        if not self.printed or arch.id != PRINTED_ARCH:
            return None
        table = pd.read_csv(PAPER_FOLDER / f"{self.printed}.csv", dtype=dict.fromkeys(self.columns, str))
        table = table.rename(columns={name.removeprefix("paper_"): name for name in PAPER_COLUMNS})
        table.insert(0, "dataset", SUITES[self.id].on["paper"][0])
        return table

    def sheet(self, table: pd.DataFrame, selection: Selection) -> Sheet:
        """A block a dataset, a row a variant; best and second of each column marked."""
        rows = rows_of(SUITES[self.id], selection)
        printed = table[list(PAPER_COLUMNS)].notna().any(axis=None)
        header: tuple[str, ...] = (" / ".join(name.replace("_", " ") for name in self.columns), "Base", "New", "H")
        header += ("Paper Base", "Paper New", "Paper H") if printed else ()
        blocks = []
        for dataset in dict.fromkeys(table["dataset"]):
            part = table[table["dataset"] == dataset]
            labels = [Cell(" / ".join(filter(None, row.variant.label))) for row in rows if row.dataset == dataset]
            numbers = [ranked(part[name], part[name + "_std"]) for name in ("base", "new", "h")]
            numbers += [[Cell(percent(value)) for value in part[name]] for name in PAPER_COLUMNS] if printed else []
            blocks.append(Block(Cell(dataset_name(rows, dataset)), header, tuple(zip(labels, *numbers, strict=True))))
        missing = [f"{r.dataset}: {' / '.join(filter(None, r.variant.label))}" for r in rows if not done(r.records)]
        remarks = [MEASURE, *marks_of(rows), *not_run(missing), *self.notes, *(self.printed_notes if printed else ())]
        remarks += refused.told((record for row in rows for record in row.records), TARGETS)
        for name, part in table.groupby("dataset", sort=False):
            if indifferent(part):
                remarks.append(f"On {name} every row has the same accuracies: the option makes no difference there.")
        caption = f"{self.title} ({self.source})" if self.source else self.title
        return Sheet(caption, tuple(blocks), tuple(remarks))


def of_contcoop(on: Mapping[str, tuple[str, ...]], option: str, values: Mapping[str, str]) -> Suite:
    """A row a value, by its label."""
    return Suite(fixed(*(Variant((n,), "contcoop", (f"contcoop.{option}={v}",)) for n, v in values.items())), on)


def same(*values: str) -> dict[str, str]:
    return {value: value for value in values}


def against(name: str, label: str) -> Callable[[Tables, Selection], Figure | None]:
    """The figure of the table ``name``, whose only option is the axis."""
    return lambda tables, selection: draw_lines(tables[name], selection, label) if name in tables else None


def draw_lines(table: Table, selection: Selection, label: str) -> Figure | None:
    """Base, New and H in percent against the value of an option, a panel a dataset."""
    frame, column = table.frame[table.frame["seeds"] > 0], table.keys[1]
    if frame.empty:
        return None
    sets = list(dict.fromkeys(frame["dataset"]))
    figure, panels = stacked(len(sets))
    for axes, dataset in zip(panels, sets, strict=True):
        part = frame[frame["dataset"] == dataset]
        for name in ("base", "new", "h"):
            points(axes, part[column].astype(float), part[name], part[name + "_std"], name, LABELS[name])
        axes.set_xticks(part[column].astype(float), part[column])
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.set_title(dataset_name(selection.rows[table.name], dataset), fontsize=9.5)
    panels[-1].set_xlabel(label)
    legend(figure, panels)
    return figure


def points(axes, x: pd.Series, y: pd.Series, spread: pd.Series, name: str, label: str, line: str = "-") -> None:
    style = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 4, "linewidth": 1.3, "linestyle": line}
    axes.errorbar(x, y, yerr=spread.fillna(0), label=label, capsize=2, elinewidth=0.8, **style)


# ---- the paper's -----------------------------------------------------------------------------------------------------


@register("components")
class Components(Ablation):
    title, source, place = "ContCoOp without its attention or its distillation", "Table 4", 4
    columns, printed = ("attention", "distillation"), "table4_components_dtd"
    notes = ("Neither: the context of CoOp in ContCoOp's code; another draw of initial values than CoOp's row.",)
    suite = Suite(
        fixed(
            Variant(("no", "no"), "contcoop", ("contcoop.attention=False", "contcoop.lam=0.0")),
            Variant(("yes", "no"), "contcoop", ("contcoop.attention=True", "contcoop.lam=0.0")),
            Variant(("no", "yes"), "contcoop", ("contcoop.attention=False", "contcoop.lam=1.0")),
            Variant(("yes", "yes"), "contcoop", ("contcoop.attention=True", "contcoop.lam=1.0")),
        ),
        TEXTURES,
    )


@register("lambda")
class Weight(Ablation):
    title, source, place = "Weight of ContCoOp's distillation", "Table 5", 5
    columns, printed = ("lambda",), "table5_lambda_ucf101"
    printed_notes = (
        "The paper prints H 72.21 for lambda 0.3, a misprint: its Base 84.80 and New 79.77 give 82.21. Its row of "
        "lambda 0.5 is ContCoOp's UCF101 row of Table 2, though its text gives 1.0 as the default.",
    )
    suite = of_contcoop(ACTIONS, "lam", same("0.0", "0.3", "0.5", "0.7", "1.0"))
    drawings = (
        Drawing(
            "lambda",
            "ContCoOp's accuracy against the weight of its distillation (Table 5)",
            against("lambda", "Weight of the distillation"),
        ),
    )


@register("heads")
class Heads(Ablation):
    title, source, place = "Heads of ContCoOp's attention", "Table 6", 6
    columns, printed = ("heads",), "table6_heads_dtd"
    suite = of_contcoop(TEXTURES, "heads", same("1", "2", "4", "8", "16"))


@register("condition")
class Condition(Ablation):
    title, source, place = "What ContCoOp's context attends to", "Table 7", 7
    columns, printed = ("condition",), "table7_condition_dtd"
    suite = of_contcoop(TEXTURES, "condition", {"[class]": "{}", "a photo of a [class]": "a photo of a {}"})


@register("context_length")
class ContextLength(Ablation):
    title, source, place = "Length of ContCoOp's context", "Figure 4", 8
    columns, printed = ("context_length",), "figure4_context_length_ucf101"
    printed_notes = ("Of the paper's Figure 4 only length 16 can be read surely.",)
    suite = of_contcoop(ACTIONS, "context_length", same("4", "8", "16"))
    drawings = (
        Drawing(
            "figure4",
            "ContCoOp's accuracy against the length of its context (Figure 4)",
            against("context_length", "Context tokens"),
            "context_length",
        ),
    )
