"""Calibration: does a probability of 0.8 mean right in 80 of 100 images, before the update and after it?

Expected calibration error of Guo et al., "On calibration of modern neural networks", ICML 2017: images in `BINS` bins
of equal width by the probability of the class they were given, ECE = sum over bins of (share of images) x |accuracy -
mean confidence|, in points. The gap, mean confidence less accuracy, says on which side: above 0 is too sure of itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Table, Tables, register
from carryover.bench.analyses.parts.comparison import averages_of, has_statistics
from carryover.bench.records import reading
from carryover.bench.records.reading import AVERAGE, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats.measures import roles, sections, summarised

BINS = 15
KEYS = ("dataset", "method", "backbone")
VALUES = ("ece", "gap", "confidence", "accuracy")
COLUMNS = (*KEYS, "seeds", *(name for value in VALUES for name in (value, value + "_std")))


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """ECE in points of probabilities in (0, 1] and whether each image was right, both (N,); N from 1. A bin holds its
    upper edge, not its lower one."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(place, confidence - right, bins)  # sum over a bin: its share x its gap x N
    return 100 * float(np.abs(gaps).sum()) / len(confidence)


def calibration_table(selection: Selection) -> pd.DataFrame:
    """`COLUMNS`: mean and sample deviation over seeds for each dataset, method and backbone, then the average over
    datasets, seed by seed; percent and points. Runs whose confidence was not kept are left out."""
    found = []
    for record in selection.main:
        run = record["run"]
        for role, outcome in selection.answers(record).items():
            if outcome.confidence is None:
                continue
            sure, accuracy = 100 * float(outcome.confidence.mean(dtype=np.float64)), 100 * float(outcome.right.mean())
            error = calibration_error(outcome.confidence, outcome.right)
            found.append([run["dataset"], run["method"], role, run["seed"], error, sure - accuracy, sure, accuracy])
    frame = pd.DataFrame(found, columns=[*KEYS, "seed", *VALUES])
    return summarised(frame, selection.main, roles(selection.main), VALUES)


def calibration_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a dataset, the average first, a row a method: ECE and gap on Base and New; of further updates the
    average alone."""
    records = list(selection.main)
    names, depth = reading.names(records, "method"), reading.depths(records)
    blocks = []
    for update, dataset, title in sections(records):
        part = table[table["dataset"] == dataset].set_index(["method", "backbone"])
        lines = []
        for method in reading.ids(records, "method"):
            cells = [Cell(names[method] + places.mark(depth[method]))]
            for role in ("base", update):
                row = part.loc[method, role]
                cells += [Cell(percent(row["ece"], row["ece_std"])), Cell(signed(row["gap"]))]
            lines.append(tuple(cells))
        of = "New" if update == "new" else update
        header = ("Method", "ECE Base", "Gap Base", f"ECE {of}", f"Gap {of}")
        blocks.append(Block(Cell(title), header, tuple(lines)))
    remarks = (
        f"ECE: expected calibration error in points, {BINS} bins of equal width (Guo et al. 2017), mean ± sample "
        "deviation over seeds; lower is better. Gap: mean confidence less accuracy; above 0 a method is overconfident.",
        "Confidence is the probability that a method's own logits give the class it predicts; nothing is rescaled.",
        *places.legend_remark(depth.values()),
    )
    return Sheet(Calibration.title, tuple(blocks), remarks)


def signed(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:+.2f}"


def findings(table: pd.DataFrame, selection: Selection) -> list[str]:
    names, said = reading.names(selection.main, "method"), []
    part = table[(table["dataset"] == AVERAGE) & table["ece"].notna()]
    for update in reading.updates(selection.main):
        own = part[part["backbone"] == update].sort_values("ece", kind="stable")
        before = part[part["backbone"] == "base"].set_index("method")["ece"]
        if len(own) < 2:
            continue
        worse = sum(row.ece > before.get(row.method, math.nan) for row in own.itertuples())
        sure = int((own["gap"] > 0).sum())
        low, high = own.iloc[0], own.iloc[-1]
        where = "New" if update == "new" else update
        said.append(
            f"Calibration on {where}: {names[low['method']]} has the lowest ECE ({low['ece']:.1f}), "
            f"{names[high['method']]} the highest ({high['ece']:.1f}). The ECE is higher than on Base for {worse} of "
            f"{counted(len(own), 'method')}; {sure} {'is' if sure == 1 else 'are'} overconfident."
        )
    return said


@register("calibration")
class Calibration(Analysis):
    title, place = "Calibration", 72
    section = "Statistics"

    def tables(self, selection: Selection) -> Iterator[Table]:
        if has_statistics(selection):
            frame = calibration_table(selection)
            yield Table("calibration", frame, KEYS, calibration_sheet(frame, selection))

    def parts(self, selection: Selection, tables: Tables) -> list[Part]:
        return averages_of(self, selection, tables)
