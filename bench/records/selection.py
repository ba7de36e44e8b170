"""Which stored records each table is made from.

A results folder may hold trials with other settings, runs of other weights, pictures or program versions, and runs of
several suites. Tables are made from what fits the command line's settings and agrees with the newest on everything else
that can change a number; the rest is counted in a note, never averaged in.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import UserError
from carryover.bench.host.identity import canonical, parse_json
from carryover.bench.plan import suites
from carryover.bench.plan.option_rows import method_of
from carryover.bench.plan.run_labels import is_plain
from carryover.bench.plan.runs import shown_setting
from carryover.bench.plan.settings import Methods, Settings, default_settings, parse_overrides
from carryover.bench.records import environments, reading, selection_options, selection_retrained
from carryover.bench.records.example_files import Stored
from carryover.bench.records.predictions import Outcome, Outcomes
from carryover.bench.records.reading import Predictions, Record
from carryover.bench.records.selection_options import Options
from carryover.bench.records.selection_rows import Row, changed_rows, is_default, ood_rows
from carryover.bench.records.selection_unknown import of_unclear_options, unregistered
from carryover.datasets.manifests import MARK, agree, digests

Made = TypeVar("Made")


@dataclass(frozen=True)
class Selection:
    """The records of each suite, in the order of its table; ``rows`` by suite id, ood included; ``drift`` holds what
    was measured of the backbones themselves (`drift_store.load_all`), ``settings`` what the records were chosen by;
    ``estimate`` and ``call`` are what `bench.report.time_spent` reads, ``predictions`` gives those of a key
    (`stats.recount`),
    which intervals over images need; without it they stay empty. ``outcomes`` are the same with confidence, read once,
    without which there are no statistics of the main suite. ``examples`` are the stored example pictures."""

    arch: Arch
    main: tuple[Record, ...] = ()
    rows: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    drift: tuple[dict, ...] = ()
    settings: Settings | None = None
    estimate: dict | None = None
    call: dict | None = None
    predictions: Callable[[str], Predictions] | None = None
    outcomes: Outcomes | None = None
    examples: tuple[Stored, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def chosen_by(self) -> Settings:
        """The settings. Raises ValueError where the records were not chosen by any."""
        if self.settings is None:
            raise ValueError("these records were chosen without settings")
        return self.settings

    @property
    def records(self) -> list[Record]:
        """Each once, whatever suites it serves; under its method's own id, where it is there under that."""
        found: dict[str, Record] = {}
        for record in [*self.main, *(r for rows in self.rows.values() for row in rows for r in row.records)]:
            if record["key"] not in found or not is_row(record) or is_row(found[record["key"]]):
                found[record["key"]] = record
        return list(found.values())

    def once(self, what: str, make: Callable[[], Made]) -> Made:
        """What ``make`` makes of the selection, made once: tables, figures and text all need it. Nobody may change
        it."""
        if what not in self.kept:
            self.kept[what] = make()
        return self.kept[what]

    def answers(self, record: Record) -> dict[str, Outcome]:
        """The stored predictions of a record by role; nothing where there are none that can be used."""
        return {} if self.outcomes is None else self.outcomes.of(record)

    def replaced(self, records: Iterable[Record]) -> Selection:
        """The same selection with other versions of its records, found by key (``check`` recounts them)."""
        by_key = {record["key"]: record for record in records}

        def renewed(old: Iterable[Record]) -> tuple[Record, ...]:  # its row and its marks are a table's own
            own = ("run", "names", "order")
            return tuple(
                {**by_key[r["key"]], **{k: r[k] for k in own if k in r}, "marks": r.get("marks") or []} for r in old
            )

        rows = {
            id: tuple(Row(row.dataset, row.variant, renewed(row.records)) for row in rows)
            for id, rows in self.rows.items()
        }
        return replace(self, main=renewed(self.main), rows=rows)


def choose(
    records: Iterable[Record],
    arch: Arch,
    settings: Settings,
    manifests: str = "",
    asked: Sequence[Sequence[str]] = (),
    only: bool = False,
) -> Selection:
    """See the module; ``records`` are all of a results folder. ``manifests``: the user's folder that the call takes
    few-shot images from. ``asked``: changes of options that calls asked for, as their plans say; ``only`` they are to
    be shown."""
    records = list(records)
    if settings.overrides:  # of a call that names one row a method
        asked, only = [settings.overrides], True
        settings = replace(settings, overrides=())
    options = Options(arch, settings)
    unclear = of_unclear_options(records, settings.methods, asked)
    records = [r for r in records if r["run"]["method"] not in unclear]
    asked = [changes for changes in asked if known_changes(changes, settings.methods)]
    plain = [r for r in records if is_plain(r["run"])]
    of_shots: dict[int, list[Record]] = {}  # whose other settings are those of the call
    for r in plain:
        if all(r["run"].get(k) == v for k, v in settings.of_runs.items() if k != "shots"):
            of_shots.setdefault(r["run"]["shots"], []).append(r)
    each = {n: of_one_folder(of_one_source(found, bool(manifests)), manifests) for n, found in of_shots.items()}
    fitting, sourced = of_shots.get(settings.shots, []), each.get(settings.shots, [])
    pool = of_one_identity(sourced, settings.methods)
    pool_of_all = of_one_identity([r for found in each.values() for r in found], settings.methods)
    further = selection_retrained.fitting(pool, records)
    named = selection_options.rows(pool, options, asked, only)
    settings = settings.beside(named)
    of_rows = selection_options.under_rows(pool, named, options)
    further = selection_options.under_rows(further, named, options)
    if only:
        of_rows, further = (selection_options.narrowed(found, asked, options) for found in (of_rows, further))
    main = [r for r in of_rows if not r["run"].get("test") and is_default(r, settings)]
    changed = [*asked, *(row.options for row in named)]
    rows = {}
    for one in suites.of_kind("options"):
        seen = pool_of_all if any(row.shots for row in one.variants(arch)) else pool
        rows[one.id] = tuple(changed_rows(one, seen, arch, settings, changed, only))
    rows["ood"] = tuple(ood_rows(of_rows, arch, settings))
    finder = selection_retrained.Finder(further, arch, settings)
    for one in suites.of_kind("further"):
        rows[one.id] = tuple(Row(*row) for row in selection_retrained.rows(one, finder, further))
    left = {
        "weights, pictures, method sources, program versions or plug-ins": len(sourced) - len(pool),
        "few-shot images (drawn ones, or another --manifests folder)": len(fitting) - len(sourced),
    }
    notes = tuple(f"{count} stored records of other {what} are in no table" for what, count in left.items() if count)
    notes += tuple(f"{line}: it is in no table" for line in unclear.values())
    notes += unregistered(pool, settings.methods)
    found = {id: of_one_table(of_suite) for id, of_suite in rows.items() if of_suite}
    in_rows = {r["key"] for of_suite in found.values() for row in of_suite for r in row.records}
    notes += of_other_settings([r for r in plain if r["key"] not in in_rows], arch, settings)
    return Selection(arch, tuple(environments.marked(reading.select(main))), found, notes, settings=settings)


def known_changes(changes: Sequence[str], methods: Methods) -> bool:
    """Whether they are of methods and options that this call knows."""
    try:
        return bool(parse_overrides(changes, methods))
    except UserError:
        return False


def of_other_settings(plain: Iterable[Record], arch: Arch, settings: Settings) -> tuple[str, ...]:
    """A line for each other settings of whole calls that records were made with: they are tables of their own."""
    mine, usual = settings.of_runs, default_settings(arch, settings.methods).of_runs
    counts = Counter(canonical({name: r["run"].get(name) for name in mine}) for r in plain)
    lines = []
    for text, count in counts.items():
        theirs = parse_json(text)
        if others := [told(name, theirs[name]) for name in mine if theirs[name] != mine[name]]:
            asked = [n for n in mine if theirs[n] is not None and (theirs[n] != usual[n] or n == "precision")]
            words = [word for n in asked for word in (f"--{n}", str(shown_setting(n, theirs[n])))]
            than = f" of {mine['precision']}" if theirs["precision"] != mine["precision"] else ""
            lines.append(
                f"{reading.counted(count, 'stored record')} of other settings ({', '.join(others)}) "
                f"{'is' if count == 1 else 'are'} in no table{than}; report {shlex.join(words)} shows them"
            )
    return tuple(sorted(lines))


def told(name: str, value: object) -> str:
    return f"no {name}" if value is None else f"{name} {shown_setting(name, value)}"


def of_one_table(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with marks on what was made in another environment, or by other code, than most of them."""
    most = environments.usual(record for row in rows for record in row.records)
    return tuple(replace(row, records=tuple(environments.marked(row.records, most))) for row in rows)


def is_row(record: Record) -> bool:
    """Whether it stands under the id of a row with other options."""
    return method_of(record["run"]["method"]) != record["run"]["method"]


def of_one_source(records: Sequence[Record], given: bool) -> list[Record]:
    """A dataset's table never mixes seeds whose few-shot images a user gave with drawn ones: where there are both,
    those that the command line asks for stay."""
    marked = {record["key"] for record in records if MARK in (record.get("marks") or ())}
    sources: dict[str, set[bool]] = {}
    for record in records:
        sources.setdefault(record["run"]["dataset"], set()).add(record["key"] in marked)
    return [r for r in records if len(sources[r["run"]["dataset"]]) == 1 or (r["key"] in marked) == given]


def of_one_folder(records: Sequence[Record], manifests: str = "") -> list[Record]:
    """Of a dataset's records with given images, those of the folder ``manifests``; where it has none of them, or no
    folder is named, those of the newest one's. Others stay as they are."""
    marked: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.get("started") or "", r["key"])):
        if MARK in (record.get("marks") or ()):
            marked.setdefault(record["run"]["dataset"], []).append(record)
    dropped = set()
    for dataset, here in marked.items():
        newest = here[-1]
        named = digests(manifests, dataset, newest["run"]["shots"]) if manifests else {}

        def those_of(files: Mapping[str, str], here: list[Record] = here) -> set[str]:
            return {r["key"] for r in here if agree(r["run"], r.get("manifests") or {}, files)}

        dropped |= {r["key"] for r in here} - ((named and those_of(named)) or those_of(newest.get("manifests") or {}))
    return [record for record in records if record["key"] not in dropped]


def of_one_identity(records: Sequence[Record], known: Methods) -> list[Record]:
    """Those that agree with the last started one: on weights and program over the whole folder, on pictures and
    templates for each test set, on method source for each dataset and method; and whose plug-in is one of theirs, byte
    for byte. The last started one decides also where it failed: a dash with its reason, never an older number."""

    def narrowed(records: Sequence[Record], group, traits) -> list[Record]:
        newest: dict = {}
        for record in sorted(records, key=lambda r: (r.get("started") or "", r["key"])):
            newest[canonical(group(record))] = canonical(traits(record))
        return [record for record in records if newest[canonical(group(record))] == canonical(traits(record))]

    def identity(record: Record, *names: str) -> list:
        return [(record.get("identity") or {}).get(name) for name in names]

    def place(record: Record) -> list:
        return [record["run"]["dataset"], record["run"].get("test", "")]

    records = narrowed(records, lambda r: 0, lambda r: identity(r, "backbones", "transforms", "numbers", "features"))
    tested = ("templates", "classes")
    records = narrowed(records, place, lambda r: [identity(r, *tested), (identity(r, "pictures")[0] or [None])[-1]])
    records = narrowed(
        records,
        lambda r: [r["run"]["dataset"], r["run"]["method"]],
        # options of a method that is not registered here cannot be told from a suite's: the newest count
        lambda r: [identity(r, "method"), None if r["run"]["method"] in known else r["run"]["config"]],
    )
    records = narrowed(records, lambda r: r["run"], lambda r: r["key"])  # e.g. other training pictures
    plugins = {record["key"]: (record.get("files") or {}).get("plugin") for record in records}

    def carried(record: Record) -> bool:
        own = (record.get("files") or {}).get("plugin")
        trained = record.get("trained")
        return trained in plugins and (not reading.is_done(record) or own == plugins[trained])

    return [r for r in records if not r["run"].get("test") or carried(r)]
