"""Shifted test sets (Table 3): plug-ins trained on the generic set, evaluated on its shifted versions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.base import Analysis, Table, register
from carryover.bench.analyses.parts import refused
from carryover.bench.analyses.parts.rows import MEASURE, PRINTED_ARCH, done, marks_of, not_run
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan import suites
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_FOLDER
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.sheets import Block, Cell, Sheet, percent, ranked
from carryover.bench.stats import means

KEYS = ("method", "backbone", "dataset")
COLUMNS = (*KEYS, "seeds", "accuracy", "accuracy_std", "paper")
AVERAGE = "average_of_targets"
PRINTED = "table3_ood"


def rows(arch: Arch, methods: Sequence[str], shots: int) -> list[suites.Variant]:
    """Each method on the generic set itself, then on its shifted versions."""
    tests = ["", *suites.ood_targets(arch)]
    return [replace(row, test=test) for row in suites.ood_variants(methods) for test in tests]


def ood_table(selection: Selection) -> pd.DataFrame:
    """A row for each method, backbone ("base" as in the paper, "new" beyond it) and set: accuracy in percent over
    seeds; set `average_of_targets` is the mean over the shifted sets, seed by seed."""
    rows, printed = selection.rows.get("ood", ()), printed_ood(selection.arch)
    targets, made = suites.ood_targets(selection.arch), []
    for role in reading.TARGETS:
        for method in dict.fromkeys(row.variant.method for row in rows):
            scores = {row.dataset: by_seed(row.records, role) for row in rows if row.variant.method == method}
            whole = set.intersection(*(set(scores.get(target, {})) for target in targets)) if targets else set()
            average = {seed: float(np.mean([scores[target][seed] for target in targets])) for seed in whole}
            for dataset, found in {**scores, AVERAGE: average}.items():
                paper = printed.get((method, dataset), np.nan) if role == "base" else np.nan
                made.append([method, role, dataset, len(found), *means.mean_std(found.values()), paper])
    return pd.DataFrame(made, columns=list(COLUMNS))


def by_seed(records: Sequence[Record], role: str) -> dict[int, float]:
    found = {r["run"]["seed"]: reading.accuracy(r, role) for r in records if reading.is_done(r)}
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def printed_ood(arch: Arch) -> dict[tuple[str, str], float]:
    if arch.id != PRINTED_ARCH:
        return {}
    table = pd.read_csv(PAPER_FOLDER / f"{PRINTED}.csv").set_index("method")
    return {(method, dataset): float(table.loc[method, dataset]) for method in table.index for dataset in table.columns}


def ood_sheet(table: pd.DataFrame, selection: Selection) -> Sheet:
    """A block a backbone, a row a method, a column a set; the printed numbers in a block of their own."""
    rows = selection.rows.get("ood", ())
    records = [record for row in rows for record in row.records]
    methods, depth = reading.names(records, "method"), reading.depths(records)
    sets = list(dict.fromkeys(table["dataset"]))
    header = ("Method", *(set_name(rows, id) for id in sets))
    titles = {"base": "Base, the backbone trained on", "new": "New, the same plug-ins after the update"}
    blocks, ids = [], list(dict.fromkeys(table["method"]))
    labels = [Cell(methods.get(id, id) + places.mark(depth.get(id, ""))) for id in ids]
    for role, title in titles.items():
        part = table[table["backbone"] == role].set_index(["dataset", "method"])
        columns = [ranked(part.loc[id]["accuracy"], part.loc[id]["accuracy_std"]) for id in sets]
        blocks.append(Block(Cell(title), header, tuple(zip(labels, *columns, strict=True))))
    if table["paper"].notna().any():
        part = table[table["backbone"] == "base"].set_index(["dataset", "method"])
        columns = [[Cell(percent(value)) for value in part.loc[id]["paper"]] for id in sets]
        blocks.append(Block(Cell("Printed in the paper, Base"), header, tuple(zip(labels, *columns, strict=True))))
    missing = [f"{row.variant.method} on {row.dataset}" for row in rows if not done(row.records)]
    remarks = [
        MEASURE,
        *places.legend_remark(depth.values()),
        "Trained on the first set, evaluated on its shifted versions; methods with a row a class keep the rows of the "
        'classes that a set has. Zero-shot is the single template "a photo of a {}.".',
        *marks_of(rows),
        *not_run(missing),
        *refused.told(records, reading.TARGETS),
    ]
    return Sheet("Shifted test sets (Table 3)", tuple(blocks), tuple(remarks))


def set_name(rows: Sequence[Row], id: str) -> str:
    if id == AVERAGE:
        return "Average of shifted"
    return next((r["names"].get("test", id) for row in rows if row.dataset == id for r in row.records), id)


@register("ood")
class Shifted(Analysis):
    title, source, place = "Shifted test sets", "Table 3", 3
    section = "Other test sets"
    suite = suites.Suite(rows, {"paper": ("imagenet",), "micro": ("micro_generic",)}, kind="shifted", needs="whole")

    def tables(self, selection: Selection) -> Iterator[Table]:
        if "ood" in selection.rows:
            frame = ood_table(selection)
            yield Table("ood", frame, KEYS, ood_sheet(frame, selection))
