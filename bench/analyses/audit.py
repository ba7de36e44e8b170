"""Every printed cell of the paper beside ours: difference, interval over seeds, verdict, and the command that runs it.

A cell that was not run stays empty; the printed number never fills a gap. The interval is the 95 % t interval of our
mean over seeds. The paper prints no deviations, so its own spread is in no verdict.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from carryover.bench.analyses.ablations import Ablation
from carryover.bench.analyses.base import Analysis, Table, Tables, ordered, register
from carryover.bench.analyses.ood import AVERAGE as OOD_AVERAGE
from carryover.bench.analyses.ood import by_seed, printed_ood
from carryover.bench.analyses.parts import misprints, refused
from carryover.bench.backbones.archs import Arch
from carryover.bench.plan import suites
from carryover.bench.plan.defaults import SEEDS
from carryover.bench.plan.runs import as_stored, shown_setting
from carryover.bench.plan.settings import Settings, default_settings
from carryover.bench.records import reading
from carryover.bench.records.printed import PAPER_COLUMNS, read_paper
from carryover.bench.records.reading import AVERAGE, Record
from carryover.bench.records.selection import Selection
from carryover.bench.render.html_page import Part
from carryover.bench.stats.intervals import half_width
from carryover.bench.stats.means import average_rows, mean_std, seed_scores

KEYS = ("table", "dataset", "row", "column")
COLUMNS = (*KEYS, "paper", "ours", "difference", "low", "high", "seeds", "verdict", "note", "command")
VERDICTS = ("within", "above", "below", "one seed", "not run")
LEVEL = 0.95
SLACK = 0.05  # points: the print's rounding, and some room for ZS-CLIP, which no seed changes and no interval covers
PAGE = "audit.html"
MAIN_TABLES = {"vit-b16": "Table 2", "vit-l14": "Table 8"}


@dataclass(frozen=True)
class Line:
    """Cells of the paper that the same runs give: a row of the paper, of Table 3 one number of it.

    dataset  what is trained on; "average" for the main table's; of Table 3 the set that is tested
    row      the label as the paper's CSVs have it, parts joined by " / "; a method's id
    printed  the numbers in percent by column
    """

    table: str
    dataset: str
    row: str
    method: str
    options: tuple[str, ...]
    printed: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """What we have of a line: mean and deviation by column, over how many seeds, from which records."""

    spread: Mapping[str, tuple[float, float]]
    seeds: int
    records: Sequence[Record]


def audit_table(selection: Selection) -> pd.DataFrame | None:
    """`COLUMNS`, a row a printed cell, numbers in percent; None for an arch that the paper does not print.

    The difference is taken of ours rounded to two decimals, as the paper prints its own.
    """
    arch = selection.arch
    if read_paper(arch.id) is None:
        return None
    settings, reason = selection.chosen_by, not_comparable(selection)
    default = default_settings(arch, settings.methods)
    averages = average_rows(selection.main)
    rows = []
    for line in printed_lines(arch):
        found = Found({}, 0, ()) if reason else find(line, selection, settings, averages)
        command = shlex.join(command_of(line, found.records, arch, default if reason else settings, default))
        changed = " ".join(others(settings, default))
        for column, paper in line.printed.items():
            mean, std = found.spread.get(column, (np.nan, np.nan))
            half = half_width(std, found.seeds, LEVEL)
            notes = [*own_notes(line, column, mean, half), *([reason] if reason else of_records(line, found, changed))]
            rows.append(
                [
                    *(line.table, line.dataset, line.row, column, paper, mean),
                    *(round(round(mean, 2) - paper, 2), mean - half, mean + half, found.seeds),
                    *(verdict(paper, mean, half), "; ".join(notes), command),
                ]
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def verdict(paper: float, mean: float, half: float) -> str:
    """Where our mean lies: "within" if the printed number is in our interval widened by `SLACK`."""
    if np.isnan(mean):
        return "not run"
    if np.isnan(half):
        return "one seed"
    return "within" if abs(mean - paper) <= half + SLACK + 1e-9 else "above" if mean > paper else "below"


def not_comparable(selection: Selection) -> str:
    """Why none of these records is set beside the paper's numbers; empty where they are."""
    settings = selection.chosen_by
    limits = {settings.limit, *(record["run"].get("limit") for record in selection.records)} - {None}
    if limits:
        return f"not run in full: these records are of trials with --limit {max(limits)}"
    if settings.shots != 16:
        return f"not run: these records are of --shots {settings.shots}, the paper's of 16"
    if settings.protocol != "published":
        return f"not run: these records are of --protocol {settings.protocol}"
    return ""


# ---- what the paper prints -------------------------------------------------------------------------------------------


def printed_lines(arch: Arch) -> list[Line]:
    """In the order of the paper: the main table, then for the arch that has them Tables 3 to 7 and Figure 4."""
    lines, main = [], read_paper(arch.id)
    for row in [] if main is None else main.itertuples():
        printed = {"base": row.base, "new": row.new, "h": row.h}
        lines.append(Line(MAIN_TABLES[arch.id], row.dataset, row.method, row.method, (), printed))
    shifted = printed_ood(arch)
    for variant in suites.ood_variants(list(dict.fromkeys(method for method, _ in shifted))):
        lines += [
            Line("Table 3", dataset, method, method, variant.options, {"base": value})
            for (method, dataset), value in shifted.items()
            if method == variant.method
        ]
    for one in (one for one in ordered() if isinstance(one, Ablation)):
        if (table := one.read_printed(arch)) is None:
            continue
        variants = {variant.label: variant for variant in suites.SUITES[one.id].variants(arch)}
        for row in table.to_dict("records"):
            variant = variants[tuple(row[name] for name in one.columns)]
            printed = {name.removeprefix("paper_"): row[name] for name in PAPER_COLUMNS}
            label = " / ".join(variant.label)
            lines.append(Line(one.source, row["dataset"], label, variant.method, variant.options, printed))
    return lines


# ---- what we have ----------------------------------------------------------------------------------------------------


def find(line: Line, selection: Selection, settings: Settings, averages: pd.DataFrame) -> Found:
    """``averages``: `stats.average_rows` of the main suite."""
    if line.table in MAIN_TABLES.values():
        of_method = [r for r in selection.main if r["run"]["method"] == line.method]
        if line.dataset == AVERAGE:
            return of_average(line, of_method, selection, averages)
        return of_runs([r for r in of_method if r["run"]["dataset"] == line.dataset])
    if line.table == "Table 3":
        return of_shifted(line, selection, settings)
    return of_runs(records_of(line, line.dataset, "", selection, settings))


def of_average(line: Line, records: list[Record], selection: Selection, averages: pd.DataFrame) -> Found:
    """An average over other datasets than the paper's is another number."""
    paper = read_paper(selection.arch.id)
    own = set() if paper is None else set(paper["dataset"]) - {AVERAGE}
    mine = [r for r in records if r["run"]["dataset"] in own]
    if set(reading.averaged(selection.main)) != own or line.method not in averages.index:
        return Found({}, 0, mine)
    row = averages.loc[line.method]
    return Found({name: (row[name], row[name + "_std"]) for name in line.printed}, int(row["seeds"]), mine)


def of_runs(records: Sequence[Record]) -> Found:
    scores = seed_scores(records)
    return Found({name: mean_std(scores[name]) for name in ("base", "new", "h")}, len(scores), records)


def of_shifted(line: Line, selection: Selection, settings: Settings) -> Found:
    source, targets = suites.ood_source(selection.arch), suites.ood_targets(selection.arch)
    sets = targets if line.dataset == OOD_AVERAGE else [line.dataset]
    records = {id: records_of(line, source, "" if id == source else id, selection, settings) for id in sets}
    scores = [by_seed(found, "base") for found in records.values()]
    whole = set.intersection(*map(set, scores))
    means = [float(np.mean([score[seed] for score in scores])) for seed in sorted(whole)]
    return Found({"base": mean_std(means)}, len(means), [r for found in records.values() for r in found])


def records_of(line: Line, dataset: str, test: str, selection: Selection, settings: Settings) -> list[Record]:
    """By options, whatever suite brought them: a row that equals the default is the main suite's run."""
    config = as_stored(settings.configure(line.method, dataset, line.options))
    return reading.select(
        record
        for record in selection.records
        if (run := record["run"])["dataset"] == dataset
        and run["method"] == line.method
        and run.get("test", "") == test
        and run.get("config") == config
    )


# ---- notes and commands ----------------------------------------------------------------------------------------------


def own_notes(line: Line, column: str, mean: float, half: float) -> list[str]:
    """What `misprints` says of the cell; beside a misprint, the verdict on the number that should stand there."""
    cell = (line.table, line.dataset, line.row, column)
    notes = misprints.notes_of(cell, line.printed)
    if cell in misprints.CORRECTED and not np.isnan(mean):
        should = misprints.CORRECTED[cell]
        notes.append(f"against {should:.2f} ours is {round(mean, 2) - should:+.2f} ({verdict(should, mean, half)})")
    return notes


def of_records(line: Line, found: Found, changed: str) -> list[str]:
    """What the records and the call's own settings say; ``changed``: these, where they are not the default."""
    failed = sum(record.get("status") != "done" for record in found.records)
    notes = [f"{reading.counted(failed, 'run')} failed"] if failed else []
    if line.dataset == AVERAGE and not found.seeds and found.records:
        notes.append("no seed is done on exactly the paper's datasets")
    notes += [f"with {changed}"] if changed and found.seeds else []
    notes += refused.told(found.records)
    return notes + list(dict.fromkeys(mark for record in found.records for mark in record.get("marks") or ()))


def command_of(line: Line, records: Sequence[Record], arch: Arch, settings: Settings, default: Settings) -> list[str]:
    """The words of the command line that runs what the line needs, all seeds, and nothing else.

    A number of Table 3 on a shifted set takes the method's whole row: its plug-in is trained once and evaluated on all.
    """
    words = ["python", "run_all.py", "--arch", arch.id, "--data-root", "DATA", "--suite"]
    source, options = suites.ood_source(arch), line.options
    if line.table == "Table 3" and (line.dataset != source or options):
        words, options = [*words, "ood"], ()  # the suite brings them
    else:
        words += ["main", *([] if line.dataset == AVERAGE else ["--datasets", line.dataset])]
        if settings.configure(line.method, line.dataset, options) == settings.configure(line.method, line.dataset):
            options = ()
    words += ["--methods", line.method]
    always = () if settings is default else ("precision",)  # of the cells beside it, whatever the next device has
    words += [*(["--set", *options] if options else []), *others(settings, default, always)]
    seeds = sorted({record["run"]["seed"] for record in records})
    return words + (["--seeds", *map(str, seeds)] if not set(seeds) <= set(SEEDS) else [])


def others(settings: Settings, default: Settings, always: Sequence[str] = ()) -> list[str]:
    """The flags that ask for other settings than the default ones, of those with which cells are still compared, and
    for those that are ``always`` named."""
    names = [n for n in ("precision", "views") if n in always or getattr(settings, n) != getattr(default, n)]
    return [word for name in names for word in (f"--{name}", str(shown_setting(name, getattr(settings, name))))]


# ---- counts ----------------------------------------------------------------------------------------------------------


def counts(table: pd.DataFrame) -> dict[str, int]:
    return {name: int((table["verdict"] == name).sum()) for name in VERDICTS}


def missing(table: pd.DataFrame) -> list[str]:
    """What was not run, a line for each table and dataset (of Table 3 for each method)."""
    left = table[table["verdict"] == "not run"]
    lines = []
    for name in dict.fromkeys(table["table"]):
        group, item = ("row", "dataset") if name == "Table 3" else ("dataset", "row")
        of_table = left[left["table"] == name]
        if len(of_table) == (table["table"] == name).sum():
            lines.append(f"{name}: nothing was run")
            continue
        for place in dict.fromkeys(of_table[group]):
            items = dict.fromkeys(of_table.loc[of_table[group] == place, item])
            lines.append(f"{name}, {place}: {', '.join(items)}")
    return lines


def summary(table: pd.DataFrame, reason: str = "") -> str:
    """One sentence for the report; ``reason``: see `not_comparable`."""
    if reason:
        return f"None of the {len(table)} numbers that the paper prints is compared: {reason}."
    found = counts(table)
    text = f"Of {len(table)} numbers that the paper prints, {found['within']} lie within our 95 % interval over seeds. "
    text += (
        f"Ours is above {found['above']} and below {found['below']}. We ran {found['one seed']} with one seed, which "
    )
    return text + f"gives no interval, and did not run {found['not run']}."


@register("audit")
class Audit(Analysis):
    title, place = "The paper's numbers beside ours", 80

    def tables(self, selection: Selection) -> Iterator[Table]:
        if (frame := audit_table(selection)) is not None:
            yield Table("audit", frame, KEYS)

    def first(self, selection: Selection, tables: Tables) -> list[Part]:
        said = [summary(table.frame, not_comparable(selection)) for table in tables.values()]
        return [("link", (f"{line} Cell by cell, with commands:", PAGE)) for line in said]
