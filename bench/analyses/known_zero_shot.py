"""The known answer: zero-shot accuracy, which nothing here trains, beside what others printed for the same weights.

Two sources: the paper's zero-shot row, beside the records of ZS-CLIP, and open_clip's published results, beside what
its own prompts give on our test features (`bench/engine/known_prompts.py` leaves that in `known/`). A difference
means that
something under every other number (pictures, split, names, prompts, weights, activation) is not what those authors had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from carryover.bench.host.files import write_text
from carryover.bench.records import reading
from carryover.bench.records.printed import (
    OPEN_CLIP,
    PAPER_TABLES,
    published_for,
    read_paper,
    read_published,
    read_stored,
    stored_path,
)
from carryover.bench.records.reading import Record
from carryover.bench.render.sheets import Block, Cell, csv_text
from carryover.bench.stats import means

TOLERANCE = 0.5  # points; a difference is one of more than this, between numbers of two decimals as they are printed
CAUSES = (
    "Likely causes: other test pictures or another split, other class names or templates, other weights, another "
    "activation or precision. The numbers below rest on the same pictures and weights."
)
COLUMNS = ("dataset", "backbone", "model", "source", "ours", "published", "difference", "within")


@dataclass(frozen=True)
class Answer:
    """One zero-shot accuracy of ours beside a published one, both percent of two decimals; role is "base" or "new"."""

    dataset: str
    name: str
    role: str
    label: str
    source: str
    ours: float
    published: float

    @property
    def difference(self) -> float:
        return round(self.ours - self.published, 2)

    @property
    def within(self) -> bool:
        return abs(self.difference) <= TOLERANCE


# ---- what is published -----------------------------------------------------------------------------------------------


# ---- the comparison, from stored files alone -------------------------------------------------------------------------


def compare(records: Sequence[Record], folder: Path, arch: str) -> list[Answer]:
    """Every zero-shot number that has a published one, in the order of the tables: the paper's row, then open_clip's.

    records: those of one table; trials (`limit`) are left out. folder: `results/<arch>`, whose `known/` is read; a file
    of other weights, pictures or precision than the records' is passed over.
    """
    return [*_with_paper(records, arch), *_with_open_clip(records, folder, arch)]


def _with_paper(records: Sequence[Record], arch: str) -> list[Answer]:
    paper, main = read_paper(arch), reading.select(_full(records))
    if paper is None:
        return []
    printed = paper[paper["method"] == "zs-clip"].set_index("dataset")
    mine = [r for r in main if r["run"]["method"] == "zs-clip" and reading.is_done(r)]
    scores, names = means.seed_scores(mine), reading.names(mine, "dataset")
    source = f"the paper's Table {re.findall(r'^table([0-9]+)_', PAPER_TABLES[arch])[0]}"
    found = []
    for dataset in reading.ids(mine, "dataset"):
        if dataset not in printed.index:
            continue
        for role in reading.TARGETS:
            ours = float(scores.loc[scores["dataset"] == dataset, role].mean())
            targets = [r["targets"].get(role) or {} for r in mine if r["run"]["dataset"] == dataset]
            labels = [target.get("backbone") for target in targets]
            found.append(
                Answer(
                    dataset,
                    names[dataset],
                    role,
                    str(labels[-1] or role),
                    source,
                    round(ours, 2),
                    round(float(printed.loc[dataset, role]), 2),
                )
            )
    return found


def _with_open_clip(records: Sequence[Record], folder: Path, arch: str) -> list[Answer]:
    full = _full(records)
    found = []
    for (dataset, role), published in published_for(arch).items():
        stored = read_stored(stored_path(folder, dataset, role)) if full else None
        if stored is None or not _fits(stored["identity"], full, dataset, role):
            continue
        ours = round(float(stored["accuracy"]), 2)
        found.append(Answer(dataset, stored["name"], role, stored["backbone"], OPEN_CLIP, ours, round(published, 2)))
    return found


def _full(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record["run"].get("limit") is None]


def _fits(identity: dict, records: Sequence[Record], dataset: str, role: str) -> bool:
    """Whether a stored answer is of the weights, precision and test pictures that the records are of."""
    identities = [record.get("identity") or {} for record in records]
    weights = {(found.get("backbones") or {}).get(role) for found in identities}
    pictures = {
        found["pictures"][-1]
        for record, found in zip(records, identities, strict=True)
        if record["run"]["dataset"] == dataset and found.get("pictures")
    }
    return (
        identity.get("backbone") in weights
        and identity.get("precision") in {record["run"].get("precision") for record in records}
        and (not pictures or identity.get("pictures") in pictures)
    )


# ---- what readers see ------------------------------------------------------------------------------------------------


def warning(answers: Sequence[Answer]) -> tuple[str, list[str], str] | None:
    """(headline, a line for each difference, likely causes) where any is more than the tolerance; else None."""
    apart = [answer for answer in answers if not answer.within]
    if not apart:
        return None
    head = f"Warning: zero-shot differs from published numbers by more than {TOLERANCE} points"
    head += f" in {len(apart)} of {reading.counted(len(answers), 'comparison')}."
    lines = [
        f"{answer.role.capitalize()} backbone on {answer.name} ({answer.label}): {answer.ours:.2f} % here, "
        f"{answer.published:.2f} % in {answer.source}, difference {answer.difference:+.2f}"
        for answer in apart
    ]
    return head, lines, CAUSES


def remark(answers: Sequence[Answer], records: Sequence[Record], arch: str) -> str:
    """The quiet line where there is no warning; empty where there is no known answer at all."""
    paper = read_paper(arch)
    if paper is None or not {r["run"]["dataset"] for r in records} & {*paper["dataset"], *read_published().index}:
        return ""
    if not _full(records):
        return "Zero-shot was not compared with published numbers: this is a trial with --limit."
    if not answers:
        return "Zero-shot was not compared with published numbers: no ZS-CLIP run is done on the paper's datasets."
    if warning(answers):
        return ""
    parts = []
    for source in dict.fromkeys(answer.source for answer in answers):
        mine = [answer for answer in answers if answer.source == source]
        most = max(mine, key=lambda answer: abs(answer.difference))
        count = len({answer.dataset for answer in mine})
        where = "the one dataset" if count == 1 else f"all {count} datasets"
        parts.append(
            f"{source} within {TOLERANCE} points on {where} (largest difference {abs(most.difference):.2f} on "
            f"{most.name}, {most.role})"
        )
    return f"Zero-shot agrees with {' and with '.join(parts)}."


def known_block(answers: Sequence[Answer]) -> Block:
    """All comparisons as one table of the report."""
    header = ("Dataset", "Backbone", "Published in", "Here", "Published", "Difference", f"Within {TOLERANCE}")
    rows = [
        (a.name, a.role, a.source, f"{a.ours:.2f}", f"{a.published:.2f}", f"{a.difference:+.2f}", _yes(a.within))
        for a in answers
    ]
    return Block(Cell(""), header, tuple(tuple(map(Cell, row)) for row in rows))


def known_path(folder: Path) -> Path:
    return Path(folder) / "tables" / "known.csv"


def write_known(answers: Sequence[Answer], folder: Path, arch: str) -> Path | None:
    """Writes `tables/known.csv` under folder (`results/<arch>`); nothing for an arch that has no known answer."""
    text = known_text(answers, arch)
    if text is None:
        return None
    write_text(known_path(folder), text)
    return known_path(folder)


def known_text(answers: Sequence[Answer], arch: str) -> str | None:
    """`tables/known.csv`, without rows where nothing could be compared; None for an arch without known answer."""
    if arch not in PAPER_TABLES:
        return None
    rows = [(a.dataset, a.role, a.label, a.source, a.ours, a.published, a.difference, _yes(a.within)) for a in answers]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("ours", "published", "difference"):
        frame[name] = frame[name].astype(np.float64)
    return csv_text(frame)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
