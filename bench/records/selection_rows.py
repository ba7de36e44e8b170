"""The rows of a suite's table, from records that fit the call: those whose method, options and shots are a row's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from carryover.bench.backbones.archs import Arch
from carryover.bench.plan import suites
from carryover.bench.plan.runs import as_stored
from carryover.bench.plan.settings import Settings
from carryover.bench.plan.suites import Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.bench.records.selection_unknown import names_any


@dataclass(frozen=True)
class Row:
    """One row of a suite's table: the records of its seeds on one dataset (for ood: one test set)."""

    dataset: str
    variant: Variant
    records: tuple[Record, ...]


def is_default(record: Record, settings: Settings) -> bool:
    """Whether its options are the command line's, with nothing changed by a suite's row. A method that is not
    registered in this call cannot be asked."""
    run = record["run"]
    if run["method"] not in settings.methods:
        return True
    return as_stored(settings.configure(run["method"], run["dataset"])) == run["config"]


def changed_rows(
    suite: suites.Suite,
    pool: Sequence[Record],
    arch: Arch,
    settings: Settings,
    changed: Sequence[Sequence[str]],
    only: bool,
) -> list[Row]:
    """The suite's rows on top of the default options; where none was run, on top of the first changes that any was run
    with, which a mark then names. ``only``: not on top of the default options where there are changes of its methods'.
    """
    methods = {variant.method for variant in suite.variants(arch)}
    mine = [beside_rows(changes, suite.variants(arch)) for changes in changed if names_any(changes, methods)]
    for changes in dict.fromkeys([*([] if only and mine else [()]), *mine]):
        if found := ablation_rows(suite, pool, arch, replace(settings, overrides=changes)):
            return [replace(row, records=marked_by(row.records, changes)) for row in found] if changes else found
    return []


def beside_rows(changes: Iterable[str], variants: Iterable[Variant]) -> tuple[str, ...]:
    """The changes but those of options that every row sets itself."""
    each = [{text.partition("=")[0].partition(".")[2] for text in variant.options} for variant in variants]
    set_by_rows = set.intersection(*each) if each else set()
    return tuple(text for text in changes if text.partition("=")[0].partition(".")[2] not in set_by_rows)


def marked_by(records: Iterable[Record], changes: Sequence[str]) -> tuple[Record, ...]:
    mark = f"run with --set {' '.join(changes)}"
    return tuple({**record, "marks": [*(record.get("marks") or ()), mark]} for record in records)


def ablation_rows(suite: suites.Suite, pool: Sequence[Record], arch: Arch, settings: Settings) -> list[Row]:
    """Every row of the suite on each of its own datasets where any of them but the default was run, or two numbers of
    shots beside the call's (one is a trial), and on any other dataset where all were (a single row there is another
    suite's)."""
    found, own = [], suite.datasets(arch)
    trained = [r for r in pool if not r["run"].get("test")]
    for dataset in dict.fromkeys([*own, *(r["run"]["dataset"] for r in trained)]):
        here = [r for r in trained if r["run"]["dataset"] == dataset]
        rows, special, others = [], False, set()
        for variant in suite.variants(arch):
            shots = variant.shots or settings.shots
            sized = replace(settings, shots=shots)
            config = as_stored(sized.configure(variant.method, dataset, variant.options))
            mine = [r for r in here if (r["run"]["method"], r["run"]["shots"]) == (variant.method, shots)]
            mine = [r for r in mine if r["run"]["config"] == config]
            special |= any(not is_default(r, sized) for r in mine)
            others |= {shots} - {settings.shots} if mine else set()
            rows.append(Row(dataset, variant, tuple(reading.select(mine))))
        if (special or len(others) > 1) and (dataset in own or all(row.records for row in rows)):
            found += rows
    return found


def ood_rows(pool: Sequence[Record], arch: Arch, settings: Settings) -> list[Row]:
    """A row a method and set, the generic set itself first; methods that were evaluated on no shifted set are not
    rows."""
    source, targets = suites.ood_source(arch), suites.ood_targets(arch)
    tested = {r["run"]["method"] for r in pool if r["run"].get("test")}
    rows = []
    for variant in suites.ood_variants([m for m in settings.methods if m in tested]):
        config = as_stored(settings.configure(variant.method, source, variant.options))
        mine = [r for r in pool if r["run"]["method"] == variant.method and r["run"]["dataset"] == source]
        mine = [r for r in mine if r["run"]["config"] == config]
        if not any(r["run"].get("test") for r in mine):  # with these options
            continue
        for target in (source, *targets):
            test = "" if target == source else target
            rows.append(
                Row(target, variant, tuple(reading.select(r for r in mine if r["run"].get("test", "") == test)))
            )
    return rows
