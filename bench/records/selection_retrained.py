"""Which stored records the suites `retention` and `chains` take (of kind `further`).

The paper's tables are made from plain runs alone (`bench.records.selection`); what was retrained or refreshed lies
beside them and must agree with them on all that can change a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from carryover.bench.backbones.archs import Arch
from carryover.bench.host.identity import canonical
from carryover.bench.plan.option_rows import method_of
from carryover.bench.plan.run_labels import is_plain, setting
from carryover.bench.plan.settings import Settings, takes
from carryover.bench.plan.suites import Suite
from carryover.bench.records import reading
from carryover.bench.records.reading import Record
from carryover.datasets.manifests import MARK


def fitting(pool: Sequence[Record], stored: Iterable[Record]) -> list[Record]:
    """Of all that is stored, the retrained and refreshed records that belong beside the plain ones of ``pool``: the
    newest of each run, of the same weights, pictures, names, templates, method source and program, and refreshed from
    the very plug-in, byte for byte, of a record that is here too."""
    further = [r for r in stored if not is_plain(r["run"]) and not r["run"].get("test")]
    traits = {trait for record in pool for trait in traits_of(record)}
    drawn = {draw_of(record): pictures_of(record) for record in pool}
    newest: dict[str, Record] = {}
    for record in sorted(further, key=reading.age):
        same = drawn.get(draw_of(record), pictures_of(record)) == pictures_of(record)
        if same and all(trait in traits for trait in traits_of(record)):
            newest[canonical(record["run"])] = record
    plugins = {record["key"]: (record.get("files") or {}).get("plugin") for record in pool}
    kept = []
    for record in sorted(newest.values(), key=lambda r: len(setting(r["run"], "path"))):
        source, files = (record.get("identity") or {}).get("carried"), record.get("files") or {}
        if source and reading.is_done(record) and (not files.get("carried") or plugins.get(source) != files["carried"]):
            continue
        plugins[record["key"]] = files.get("plugin")
        kept.append(record)
    return kept


def traits_of(record: Record) -> Iterator[str]:
    """What a record must share with one of the plain ones: of the whole folder, of its dataset, of its method there."""
    identity, run = record.get("identity") or {}, record["run"]
    yield canonical([identity.get(name) for name in ("backbones", "transforms", "numbers", "features")])
    tested = (identity.get("pictures") or [None])[-1]
    given = MARK in (record.get("marks") or ())
    yield canonical([run["dataset"], identity.get("templates"), identity.get("classes"), tested, given])
    yield canonical([run["dataset"], run["method"], identity.get("method")])


def draw_of(record: Record) -> tuple:
    run = record["run"]
    return run["dataset"], run["seed"], run.get("shots"), run.get("test", "")


def pictures_of(record: Record) -> list:
    return (record.get("identity") or {}).get("pictures") or []


class Finder:
    """Records by the runs that a suite's rows ask for."""

    def __init__(self, records: Iterable[Record], arch: Arch, settings: Settings):
        self.arch, self.settings = arch, settings
        self.found: dict[str, list[Record]] = {}
        for record in records:
            self.found.setdefault(self.name(record["run"]), []).append(record)

    def name(self, run) -> str:
        return canonical({k: v for k, v in run.items() if k != "seed"})

    def records(self, dataset: str, variant) -> tuple[Record, ...]:
        run = self.settings.run(self.arch.id, dataset, variant, 0)
        return tuple(reading.select(self.found.get(self.name(run.canonical()), ())))


def rows(suite: Suite, finder: Finder, records: Sequence[Record]) -> list[tuple]:
    """(dataset, variant, records) of each row of a suite that has any record, with those of the same dataset and
    method that have none. Where a suite carries a module further, what was trained from nothing is beside that and
    alone no row, for another suite may have brought it."""
    made = []
    for dataset in reading.ids(records, "dataset"):
        for method in finder.settings.methods:
            if not takes(suite, finder.settings.methods, method):
                continue
            if not any((r["run"]["dataset"], r["run"]["method"]) == (dataset, method) for r in records):
                continue
            own = method_of(method)
            every = [one for one in suite.rows(finder.arch, [own], finder.settings.shots) if one.further]
            variants = [replace(one, method=method) if one.method == own else one for one in every]
            found = [(dataset, variant, finder.records(dataset, variant)) for variant in variants]
            carries = any(variant.carries for variant in variants)
            if any(here and (variant.carries or not carries) for _, variant, here in found):
                made += found
    return made
