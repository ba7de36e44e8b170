"""Do the answers stay the same when the backbone is exchanged? Which images flip, to the better or the worse.

Right before the update and wrong after it is a negative flip: what a user of the old model sees break, whatever the
average accuracy does (Yan et al., "Positive-congruent training: towards regression-free model updates", CVPR 2021).
New accuracy less Base accuracy is positive flips less negative ones, so one accuracy can hide many of both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Table, Tables, register
from carryover.bench.analyses.parts.comparison import averages_of, has_statistics
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.records import reading
from carryover.bench.records.predictions import Outcome
from carryover.bench.records.reading import AVERAGE
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats.measures import sections, summarised

KEYS = ("dataset", "method", "backbone")
VALUES = ("flips", "negative", "positive", "moved")
COLUMNS = (*KEYS, "seeds", *(name for value in VALUES for name in (value, value + "_std")), "beside_zero_shot")


def flips(base: Outcome, new: Outcome) -> tuple[float, float, float, float]:
    """Percent of the images whose predicted class changes; of these the share of all images that goes from right to
    wrong, from wrong to right, and from one wrong class to another: the last three add up to the first."""
    changed, before, after = base.predicted != new.predicted, base.right, new.right
    counts = (changed, changed & before, changed & after, changed & ~before & ~after)
    flipped, negative, positive, moved = (100 * np.count_nonzero(part) / len(changed) for part in counts)
    return flipped, negative, positive, moved


def flips_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`: for each dataset, method and update, mean and sample deviation over seeds, then the average over
    datasets, seed by seed. ``beside_zero_shot``: flips divided by zero-shot's there; empty where it has none."""
    found, updates = [], reading.updates(selection.main)
    for record in selection.main:
        run, outcomes = record["run"], selection.answers(record)
        for role in updates:
            if "base" in outcomes and role in outcomes:
                shares = flips(outcomes["base"], outcomes[role])
                found.append([run["dataset"], run["method"], role, run["seed"], *shares])
    table = summarised(pd.DataFrame(found, columns=[*KEYS, "seed", *VALUES]), selection.main, updates, VALUES)
    zero = table[table["method"] == ZERO_SHOT].set_index(["dataset", "backbone"])["flips"]
    beside = [zero.get((row.dataset, row.backbone), math.nan) for row in table.itertuples(index=False)]
    return table.assign(beside_zero_shot=table["flips"] / pd.Series(beside, dtype=float).replace(0, math.nan))


def flips_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a dataset, the average first, a row a method; of further updates the average alone."""
    records = list(selection.main)
    names, depth = reading.names(records, "method"), reading.depths(records)
    header = ("Method", "Flips", "Right → wrong", "Wrong → right", "Relative to zero-shot")
    blocks = []
    for update, dataset, title in sections(records):
        part = table[(table["dataset"] == dataset) & (table["backbone"] == update)]
        lines = [
            (
                Cell(names[row.method] + places.mark(depth[row.method])),
                *(Cell(percent(getattr(row, name), getattr(row, name + "_std"))) for name in VALUES[:3]),
                Cell(MISSING if math.isnan(row.beside_zero_shot) else f"{row.beside_zero_shot:.2f}"),
            )
            for row in part.itertuples()
        ]
        blocks.append(Block(Cell(title), header, tuple(lines)))
    remarks = (
        "Percent of the test images, mean ± sample deviation over seeds. Flips: the predicted class is another after "
        "the update. Right → wrong: the negative flips of Yan et al. 2021. The rest of the flips go from one wrong "
        "class to another. Relative to zero-shot: flips divided by those of zero-shot.",
        *places.legend_remark(depth.values()),
    )
    return Sheet(Flips.title, tuple(blocks), remarks)


def findings(table: pd.DataFrame, selection: Selection) -> list[str]:
    names, said = reading.names(selection.main, "method"), []
    for update in reading.updates(selection.main):
        part = table[(table["dataset"] == AVERAGE) & (table["backbone"] == update) & table["flips"].notna()]
        part = part.sort_values("flips", kind="stable")
        if part.empty:
            continue
        zero = part[part["method"] == ZERO_SHOT]
        line, after = "", f"With the update{'' if update == 'new' else f' {update!r}'}, "
        if len(zero):
            row = zero.iloc[0]
            line += (
                f"{after}zero-shot changes {row['flips']:.1f} % of its predictions ({row['negative']:.1f} from right "
            )
            line += f"to wrong, {row['positive']:.1f} from wrong to right). "
            after = ""
        few, many = part.iloc[0], part.iloc[-1]
        if len(part) > 1:
            line += f"{after}{names[few['method']]} changes the fewest ({few['flips']:.1f} %, {few['negative']:.1f} to "
            line += (
                f"wrong), {names[many['method']]} the most ({many['flips']:.1f} %, {many['negative']:.1f} to wrong). "
            )
        if line:
            said.append(line.strip())
    return said


@register("flips")
class Flips(Analysis):
    title, place = "Predictions that flip with the update", 73
    section = "Statistics"

    def tables(self, selection: Selection) -> Iterator[Table]:
        if has_statistics(selection):
            frame = flips_table(selection)
            yield Table("flips", frame, KEYS, flips_sheet(frame, selection))

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        return averages_of(self, selection, tables)
