"""Tables of the suites beside the main one: ContCoOp's ablations, the depth of CoOp's context, shifted test sets.

A row without a finished run shows dashes and is named under the table; the paper's numbers stand in columns of their
own and never fill a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from carryover.bench import places
from carryover.bench.analyses.rows import dataset_name, done, indifferent, marks_of, not_run, rows_of
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan import suites
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_COLUMNS, PAPER_FOLDER
from carryover.bench.records.reading import Record
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render.sheets import Block, Cell, Sheet, percent, ranked
from carryover.bench.stats import means

MEASURE = "Top-1 accuracy in percent, mean ± sample standard deviation over seeds (no deviation with one seed)."
OOD_COLUMNS = ("method", "backbone", "dataset", "seeds", "accuracy", "accuracy_std", "paper")
AVERAGE = "average_of_targets"
PRINTED_ARCH, PRINTED_OOD = "vit-b16", "table3_ood"  # the paper prints Tables 3 to 7 for ViT-B/16 alone


# ---- one dataset, a row a variant ------------------------------------------------------------------------------------


def ablation_table(suite: suites.Suite, selection: Selection) -> pd.DataFrame:
    """Columns dataset, the suite's own, seeds, base .. h_std, paper_base .. paper_h, in percent."""
    names = ("dataset", *suite.columns)
    found = [
        [row.dataset, *row.variant.label, *means.spread(means.seed_scores(row.records))]
        for row in rows_of(suite, selection)
    ]
    frame = pd.DataFrame(found, columns=[*names, "seeds", *means.SCORES])
    printed = read_printed(suite, selection.arch)
    if printed is None:
        frame[list(PAPER_COLUMNS)] = np.nan
        return frame
    return frame.merge(printed, on=list(names), how="left", sort=False)


def read_printed(suite: suites.Suite, arch: Arch) -> pd.DataFrame | None:
    """The paper's rows with this suite's columns, labels as text; None where the paper prints none for the arch."""
    path = PAPER_FOLDER / f"{suite.printed}.csv"
    if not suite.printed or arch.id != PRINTED_ARCH:
        return None
    table = pd.read_csv(path, dtype=dict.fromkeys(suite.columns, str))
    table = table.rename(columns={name.removeprefix("paper_"): name for name in PAPER_COLUMNS})
    table.insert(0, "dataset", suite.on["paper"][0])
    return table


def ablation_sheet(suite: suites.Suite, selection: Selection) -> Sheet:
    """A block a dataset, a row a variant; best and second of each column marked."""
    table, rows = ablation_table(suite, selection), rows_of(suite, selection)
    printed = table[list(PAPER_COLUMNS)].notna().any(axis=None)
    header: tuple[str, ...] = (" / ".join(name.replace("_", " ") for name in suite.columns), "Base", "New", "H")
    header += ("Paper Base", "Paper New", "Paper H") if printed else ()
    blocks = []
    for dataset in dict.fromkeys(table["dataset"]):
        part = table[table["dataset"] == dataset]
        labels = [Cell(" / ".join(filter(None, row.variant.label))) for row in rows if row.dataset == dataset]
        numbers = [ranked(part[name], part[name + "_std"]) for name in ("base", "new", "h")]
        numbers += [[Cell(percent(value)) for value in part[name]] for name in PAPER_COLUMNS] if printed else []
        blocks.append(Block(Cell(dataset_name(rows, dataset)), header, tuple(zip(labels, *numbers, strict=True))))
    missing = [f"{row.dataset}: {' / '.join(filter(None, row.variant.label))}" for row in rows if not done(row.records)]
    remarks = [MEASURE, *marks_of(rows), *not_run(missing), *NOTES.get(suite.id, ())]
    remarks += PRINTED_NOTES.get(suite.id, ()) if printed else ()
    for name, part in table.groupby("dataset", sort=False):
        if indifferent(part):
            remarks.append(f"On {name} every row has the same accuracies: the option decides nothing there.")
    return Sheet(f"{suite.title} ({suite.source})", tuple(blocks), tuple(remarks))


NOTES = {
    "components": ("Neither: the context of CoOp in ContCoOp's code; another draw of initial values than CoOp's row.",),
    "layers": (
        "start fixed: N(0, 0.02²) at every block; rows: as large as the rows that the context replaces, which grow "
        "with depth.",
    ),
}
PRINTED_NOTES = {  # what is odd in the paper's own numbers, where they stand
    "lambda": (
        "The paper prints H 72.21 for lambda 0.3, a misprint: its Base 84.80 and New 79.77 give 82.21. Its row of "
        "lambda 0.5 is ContCoOp's UCF101 row of Table 2, though its text gives 1.0 as the default.",
    ),
    "context_length": ("Of the paper's Figure 4 only length 16 can be read surely.",),
}


# ---- shifted test sets -----------------------------------------------------------------------------------------------


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
    return pd.DataFrame(made, columns=list(OOD_COLUMNS))


def by_seed(records: Sequence[Record], role: str) -> dict[int, float]:
    return {r["run"]["seed"]: float(r["targets"][role]["accuracy"]) for r in records if reading.is_done(r)}


def printed_ood(arch: Arch) -> dict[tuple[str, str], float]:
    if arch.id != PRINTED_ARCH:
        return {}
    table = pd.read_csv(PAPER_FOLDER / f"{PRINTED_OOD}.csv").set_index("method")
    return {(method, dataset): float(table.loc[method, dataset]) for method in table.index for dataset in table.columns}


def ood_sheet(selection: Selection) -> Sheet:
    """A block a backbone, a row a method, a column a set; the printed numbers in a block of their own."""
    table, rows = ood_table(selection), selection.rows.get("ood", ())
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
    ]
    return Sheet("Shifted test sets (Table 3)", tuple(blocks), tuple(remarks))


# ---- shared ----------------------------------------------------------------------------------------------------------


def set_name(rows: Sequence[Row], id: str) -> str:
    if id == AVERAGE:
        return "Average of shifted"
    return next((r["names"].get("test", id) for row in rows if row.dataset == id for r in row.records), id)
