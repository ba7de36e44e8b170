"""Which rows the tables have of methods that were run with other options (``--set``, ``--sweep``), from records alone.

A record whose options are a method's default ones, or those of an ablation's row, is under the method's own id. All
others are under the id of a row (`bench.plan.option_rows`). An ablation's run is such a row too where a call asked for
its options by flag, as its plan says (`bench.records.plans`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import UserError
from carryover.bench.plan import suites
from carryover.bench.plan.option_rows import method_of, row_id, row_name, shown_value
from carryover.bench.plan.run_labels import setting
from carryover.bench.plan.runs import as_stored
from carryover.bench.plan.settings import Settings
from carryover.bench.plan.suites import Variant
from carryover.bench.records import reading
from carryover.bench.records.reading import Record

STEP = 1e-3  # of the places of rows behind their method's


class Options:
    """The options of each method with the rows of a call's suites, each made once. ``settings`` has no overrides."""

    def __init__(self, arch: Arch, settings: Settings):
        self.arch, self.settings = arch, settings
        self.variants = [one for suite in suites.of_kind("options") for one in suite.variants(arch)]
        self.made: dict[tuple, dict | None] = {}

    def of(self, method: str, dataset: str, options: tuple[str, ...] = (), shots: int = 0) -> dict | None:
        """As a record holds them; None for options that the method cannot have. ``shots``: 0 for those of the call."""
        asked = (method, dataset, options, shots)
        if asked not in self.made:
            try:
                settings = replace(self.settings, shots=shots) if shots else self.settings
                self.made[asked] = as_stored(settings.configure(method, dataset, options))
            except UserError:  # of another version of the method
                self.made[asked] = None
        return self.made[asked]

    def differ(self, method: str, dataset: str, config: dict) -> dict[str, str]:
        """What is not as by default, as ``--set`` takes it."""
        usual = self.of(method, dataset) or {}
        found = {k: shown_value(v) for k, v in config.items() if k not in usual or usual[k] != v}
        if "epochs" in found and found.get("steps") == "0":  # which epochs that are named bring
            del found["steps"]
        return found

    def of_suite(self, record: Record, row: Variant) -> bool:
        """Whether they are those of a row of a suite, on top of that row's."""
        run = record["run"]
        variants = (*self.variants, *suites.ood_variants([run["method"]]))
        mine = ((), *(one.options for one in variants if one.method == run["method"]))
        made = (self.of(run["method"], run["dataset"], (*row.options, *more)) for more in mine)
        return any(config == run.get("config") for config in made)

    def has(self, row: Variant, record: Record) -> bool:
        run = record["run"]
        if run["method"] != row.method:
            return False
        shots = setting(run, "carried_shots") or run.get("shots") or 0  # those that it was trained with first
        return self.of(row.method, run["dataset"], row.options, shots) == run.get("config")


def rows(records: Sequence[Record], options: Options, asked: Iterable[Sequence[str]], only: bool) -> list[Variant]:
    """Those that calls ``asked`` for and that have records, then those that other records need; in the order of tables.
    ``only``: none but the first."""
    known = options.settings.methods
    records = [r for r in records if r["run"]["method"] in known]
    found = {row_id(row): row for changes in asked for row in asked_rows(changes, records, options)}
    plain = [Variant((), method) for method in known]
    left = [] if only else [r for r in records if not explained(r, [*plain, *found.values()], options)]
    while left:
        needed = Counter(row for r in left if (row := needed_row(r, options)) is not None)
        counts = {row: sum(options.has(row, r) for r in left) for row in needed}
        if not any(counts.values()):  # nothing that today's methods can have
            break
        # most records first, then fewest options: of two datasets with other defaults one row, not two
        row = min(counts, key=lambda one: (-counts[one], len(one.options), one.options))
        found[row_id(row)] = row
        left = [r for r in left if not explained(r, [row], options)]
    order = list(known)
    return sorted(found.values(), key=lambda row: (order.index(row.method), in_order(row)))


def asked_rows(changes: Sequence[str], records: Sequence[Record], options: Options) -> list[Variant]:
    """A row a method whose options the changes make others on any dataset that it has records of, where there are
    records with them."""
    made = []
    for method in reading.ids(records, "method"):
        row = asked_row(changes, method, records, options)
        if row.options and any(options.has(row, record) for record in records):
            made.append(row)
    return made


def asked_row(changes: Sequence[str], method: str, records: Iterable[Record], options: Options) -> Variant:
    """Without options where the changes leave the method as it is."""
    differ: dict[str, str] = {}
    for dataset in reading.ids((r for r in records if r["run"]["method"] == method), "dataset"):
        config = options.of(method, dataset, tuple(changes))
        differ |= options.differ(method, dataset, config) if config is not None else {}
    return row_of(method, differ)


def needed_row(record: Record, options: Options) -> Variant | None:
    run = record["run"]
    differ = options.differ(run["method"], run["dataset"], run.get("config") or {})
    row = row_of(run["method"], differ)
    return row if differ and options.has(row, record) else None


def row_of(method: str, differ: dict[str, str]) -> Variant:
    return Variant((), method, tuple(f"{method}.{option}={value}" for option, value in sorted(differ.items())))


def explained(record: Record, among: Iterable[Variant], options: Options) -> bool:
    return any(options.of_suite(record, row) for row in among if row.method == record["run"]["method"])


def in_order(row: Variant) -> list[tuple[str, float, str]]:
    """Rows of a method by their options, numbers by size."""
    found = []
    for text in row.options:
        option, _, value = text.partition("=")
        try:
            size = float(value)
        except ValueError:
            size = float("inf")
        found.append((option, size, value))
    return found


def under_rows(records: Iterable[Record], found: Sequence[Variant], options: Options) -> list[Record]:
    """The records as they are, then once more those of each row, under its id and name."""
    records = list(records)
    made = list(records)
    for place, row in enumerate(found, 1):
        made += [renamed(record, row, place * STEP) for record in records if options.has(row, record)]
    return made


def renamed(record: Record, row: Variant, behind: float) -> Record:
    names, order = record.get("names") or {}, record.get("order") or {}
    name = row_name(row, reading.shown(record, "method"))
    place = order.get("method")
    return {
        **record,
        "run": {**record["run"], "method": row_id(row)},
        "names": {**names, "method": name},
        "order": {**order, "method": behind + (1e6 if place is None else place)},
    }


def narrowed(records: Iterable[Record], asked: Sequence[Sequence[str]], options: Options) -> list[Record]:
    """Of the records under their rows those that the changes ask for: of a method that they name, its rows alone."""
    records, wanted = list(records), set()
    for method in (id for id in reading.ids(records, "method") if method_of(id) == id):
        naming = [changes for changes in asked if any(text.startswith(("*.", f"{method}.")) for text in changes)]
        wanted |= {row_id(asked_row(changes, method, records, options)) for changes in naming} or {method}
    return [record for record in records if record["run"]["method"] in wanted]
