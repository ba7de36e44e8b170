"""What few-shot validation chose where a method leaves options open, and which losses still fell at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from carryover.bench.analyses.base import Analysis, Table, Tables, register
from carryover.bench.records import reading
from carryover.bench.records.reading import Record, counted
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import MISSING, Block, Cell, Sheet, percent
from carryover.bench.stats.learning_curves import MARK

KEYS = ("dataset", "method", "seed", "candidate")
COLUMNS = (*KEYS, "validation", "validation_loss", "kept")
SCORES = ("validation", "validation_loss")


def shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def candidates_table(records: Sequence[Record]) -> pd.DataFrame:
    """`COLUMNS`: a row for each candidate of each run that is done."""
    rows = []
    for record in records:
        run = record["run"]
        for one in (record.get("tried") or ()) if reading.is_done(record) else ():
            values = {name: value for name, value in one.items() if name not in SCORES}
            kept = "yes" if values == record.get("chosen") else "no"
            scores = (one.get(name) for name in SCORES)
            rows.append([run["dataset"], run["method"], run["seed"], shown(values), *scores, kept])
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(SCORES, float))


def candidates_sheet(table: pd.DataFrame, records: Sequence[Record]) -> Sheet:
    """A block a method with what each dataset and seed chose, and one with the means of all candidates."""
    names, sets = reading.names(records, "method"), reading.names(records, "dataset")
    blocks = []
    for method, part in table.groupby("method", sort=False):
        kept, lines = part[part["kept"] == "yes"], []
        seeds = sorted(part["seed"].unique())
        for dataset in dict.fromkeys(part["dataset"]):
            own = kept[kept["dataset"] == dataset].set_index("seed")
            taken = {seed: f"{row['candidate']} ({percent(row['validation'])})" for seed, row in own.iterrows()}
            cells = [taken.get(seed, MISSING) for seed in seeds]
            lines.append(tuple(map(Cell, (sets[dataset], *cells))))
        header = ("Dataset", *(f"Seed {seed}" for seed in seeds))
        blocks.append(Block(Cell(f"{names[method]}: chosen (validation accuracy)"), header, tuple(lines), textual=True))
        means = part.groupby("candidate", sort=False).agg(
            validation=("validation", "mean"), times=("kept", lambda column: int((column == "yes").sum()))
        )
        lines = [
            tuple(map(Cell, (candidate, percent(row["validation"]), f"{row['times']:.0f}")))
            for candidate, row in means.iterrows()
        ]
        title = Cell(f"{names[method]}: all candidates")
        blocks.append(Block(title, ("Candidate", "Validation, mean", "Chosen"), tuple(lines)))
    remarks = (
        "Sources leave these options open. Every candidate is fitted; the most accurate on few-shot validation "
        "(percent) is kept, of equals the one of lower cross-entropy. No test picture is read.",
    )
    return Sheet(Candidates.title, tuple(blocks), remarks)


def falling(records: Sequence[Record]) -> list[str]:
    """One sentence on the runs whose loss still fell steeply at the end; none where there is no such run."""
    names, told = reading.names(records, "method"), []
    trained = [record for record in records if reading.is_done(record) and record.get("curve")]
    for method in reading.ids(records, "method"):
        own = [record for record in trained if record["run"]["method"] == method]
        marked = sum(MARK in (record.get("marks") or ()) for record in own)
        told += [f"{names[method]} ({marked} of {counted(len(own), 'run')})"] if marked else []
    return [f"The loss was still falling steeply when training ended: {', '.join(told)}."] if told else []


@register("candidates")
class Candidates(Analysis):
    title, place = "Options chosen by few-shot validation", 76
    section = "Protocol"

    def tables(self, selection: Selection) -> Iterator[Table]:
        table = candidates_table(selection.main)
        if len(table):
            yield Table("candidates", table, KEYS, candidates_sheet(table, selection.main))

    def limits(self, selection: Selection, tables: Tables) -> list[str]:
        return falling(selection.main)
