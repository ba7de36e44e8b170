"""The rows of a leaderboard: group x arch x method, with the settings and options that they were run with.

The numbers are those of `tables/main.csv`, made by the same selection and the same means. Only rows of one league are
ranked together: same arch, settings, weights, test images, class names, templates and program version, no ``--limit``,
the protocol's own options, and an average over all datasets of the arch and at least as many seeds as the protocol has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from statistics import median
from typing import Any

from carryover import datasets
from carryover.bench import places
from carryover.bench.backbones.archs import ARCHS, Arch, Tower
from carryover.bench.host.identity import digest
from carryover.bench.leaderboard.sources import Source
from carryover.bench.plan import suites
from carryover.bench.plan.defaults import LIST_DEFAULTS
from carryover.bench.plan.run_labels import is_plain
from carryover.bench.plan.runs import as_stored, shown_setting
from carryover.bench.plan.settings import Methods, Settings, default_settings
from carryover.bench.records import environments, reading, selection
from carryover.bench.records.reading import AVERAGE, TARGETS, Record, is_done
from carryover.bench.records.selection_options import Options
from carryover.bench.stats import means

SEEDS = len(LIST_DEFAULTS["seeds"])  # of the protocol: an average over fewer is not ranked, whoever else has how many
Counts = dict[str, tuple[int, int]]  # role -> correct, count


@dataclass(frozen=True)
class BoardRow:
    """One row. ``numbers``: by dataset (and `stats.AVERAGE`), then as `numbers_of` gives them; ``options``: those that
    are not the protocol's; ``league``: rows with the same one are ranked together, where ``ranked``; ``also``: groups
    whose records of this row are the same (group, how many); ``conflicts``: by key, what another group's record of the
    same run counts."""

    group: str
    arch: str
    method: str
    settings: Settings
    options: tuple[str, ...]
    records: tuple[Record, ...]
    numbers: Mapping[str, Mapping[str, Any]]
    league: Mapping[str, str]
    complete: int
    expected: int
    also: tuple[tuple[str, int], ...] = ()
    conflicts: Mapping[str, Sequence[tuple[str, Counts]]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Short and lasting, so that a link to a cell still holds when further groups are added."""
        return digest([self.group, self.arch, self.method, self.settings.of_runs, self.options])[:8]

    @property
    def ranked(self) -> bool:
        whole = self.complete == self.expected and not math.isnan(self.numbers[AVERAGE]["base"][0])
        return whole and self.numbers[AVERAGE]["seeds"] >= SEEDS and not self.options and self.settings.limit is None

    @property
    def protocol(self) -> list[object]:
        """What the protocol has in the place of each of the row's options."""
        run = self.records[-1]["run"]
        default = as_stored(self.settings.configure(self.method, run["dataset"])) if self.options else {}
        return [default.get(option.split("=")[0], "none") for option in self.options]

    @property
    def place(self) -> str:
        return places.place_of(self.records[-1])

    @property
    def seeds(self) -> list[int]:
        return sorted({record["run"]["seed"] for record in self.records if is_done(record)})

    @cached_property
    def keys(self) -> dict[str, Counts]:
        return {record["key"]: counts_of(record) for record in self.records if is_done(record)}


def expected_of(arch: str, sources: Sequence[Source]) -> list[str]:
    """The datasets that an average must be over to be ranked: the arch's own; of an arch of a user's file, all that any
    group's average is over."""
    if arch in ARCHS:
        return datasets.default(ARCHS[arch].datasets)
    return reading.averaged(r for source in sources if source.arch == arch for r in trained(source.records))


def trained(records: Iterable[Record]) -> list[Record]:
    """Those trained on the base and tested on the dataset's own images: the main suite's and the ablations'."""
    return [r for r in records if is_plain(r["run"]) and not r["run"].get("test")]


def arch_for(id: str) -> Arch:
    """The arch of that name, or, of one from a user's file, as much of it as choosing records needs: its own list of
    datasets may name folders that are not on this machine."""
    return ARCHS.get(id) or Arch(id, Tower(id), Tower(id))


def board_rows(source: Source, expected: Sequence[str], methods: Methods) -> list[BoardRow]:
    arch = arch_for(source.arch)
    plain = [r for r in source.records if is_plain(r["run"])]
    found = {tuple(r["run"].get(name) for name in reading.SETTINGS) for r in trained(plain)}
    default = default_settings(arch, methods).of_runs
    rows: list[BoardRow] = []
    for values in sorted(found, key=lambda v: (v != tuple(default[name] for name in reading.SETTINGS), str(v))):
        settings = Settings(**dict(zip(reading.SETTINGS, values, strict=True)), methods=methods)
        main = [r for r in selection.choose(plain, arch, settings).main if not selection.is_row(r)]
        table = numbers_of(main, main)
        league = league_of(source.arch, settings, main, expected)
        for method in reading.ids(main, "method"):
            mine = [r for r in main if r["run"]["method"] == method]
            rows.append(row_of(source, method, settings, (), mine, table[method], league, expected))
        for (method, options), records in with_options(plain, arch, settings).items():
            mine = environments.marked(reading.select(records))
            numbers = numbers_of(mine, main)[method]
            rows.append(row_of(source, method, settings, options, mine, numbers, league, expected))
    return rows


def row_of(source: Source, method: str, settings: Settings, options, records, numbers, league, expected) -> BoardRow:
    done = {r["run"]["dataset"] for r in records if is_done(r)}
    complete = sum(dataset in done for dataset in expected)
    return BoardRow(
        *(source.group, source.arch, method, settings, options, tuple(records), numbers, league, complete),
        expected=len(expected),
    )


def with_options(
    plain: Sequence[Record], arch: Arch, settings: Settings
) -> dict[tuple[str, tuple[str, ...]], list[Record]]:
    """The records with other options than the protocol's that are no row of a suite, by method and what differs."""
    fitting = [r for r in plain if all(r["run"].get(k) == v for k, v in settings.of_runs.items())]
    pool = selection.of_one_folder(selection.of_one_source(fitting, False))
    options = options_for(arch.id, settings)
    found: dict[tuple[str, tuple[str, ...]], list[Record]] = {}
    for record in trained(selection.of_one_identity(pool, settings.methods)):
        run = record["run"]
        if not selection.is_default(record, settings) and not of_suite(record, arch, settings):
            differ = options.differ(run["method"], run["dataset"], run["config"])
            changed = tuple(f"{option}={value}" for option, value in sorted(differ.items()))
            found.setdefault((run["method"], changed), []).append(record)
    return found


def of_suite(record: Record, arch: Arch, settings: Settings) -> bool:
    """Whether its options are those of an ablation's row, or of the shifted sets' own training run."""
    return options_for(arch.id, settings).of_suite(record, suites.Variant((), record["run"]["method"]))


@cache
def options_for(arch: str, settings: Settings) -> Options:
    return Options(arch_for(arch), settings)


def numbers_of(records: Sequence[Record], beside: Sequence[Record]) -> dict[str, dict[str, dict[str, Any]]]:
    """By method and dataset: ``seeds``; ``base`` (mean, deviation); ``at`` each target by role, its accuracy (mean,
    deviation), H (mean, deviation) and what it is above the target's zero-shot of the records ``beside``; percent and
    points, NaN where there is none. ``parameters`` and ``fit`` seconds are medians over the done runs."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    zero_shot = [record for record in beside if record["run"]["method"] == "zs-clip"]
    same = reading.averaged(records) == reading.averaged(zero_shot)  # else the averages are over other datasets
    for role in reading.updates(records):
        table = means.summarise(reading.seen_from(records, role))
        below = means.summarise(reading.seen_from(zero_shot, role))
        level = dict(zip(below["dataset"], below["new"], strict=True))
        for row in table.to_dict("records"):
            dataset, method = row["dataset"], row["method"]
            cell = found.setdefault(method, {}).setdefault(dataset, {"at": {}})
            floor = level.get(dataset, math.nan) if same or dataset != AVERAGE else math.nan
            cell["at"][role] = (row["new"], row["new_std"], row["h"], row["h_std"], row["new"] - floor)
            if role == "new":
                mine = [
                    r for r in records if r["run"]["method"] == method and dataset in (AVERAGE, r["run"]["dataset"])
                ]
                cell |= {"seeds": row["seeds"], "base": (row["base"], row["base_std"]), **costs(mine)}
    return found


def costs(records: Sequence[Record]) -> dict[str, float]:
    done = [r for r in records if is_done(r)]
    sizes = [n for r in done if (n := r.get("trainable_parameters")) is not None]
    fits = [s for r in done if (s := (r.get("seconds") or {}).get("fit")) is not None]
    return {"parameters": median(sizes) if sizes else math.nan, "fit": median(fits) if fits else math.nan}


def league_of(arch: str, settings: Settings, records: Sequence[Record], expected: Sequence[str]) -> dict[str, str]:
    """What rows must share to be ranked together, by name and in a few words."""
    done = [r for r in records if is_done(r)]
    prints = {role: t.get("fingerprint") or "" for r in done for role, t in r["targets"].items()}
    identities = {r["run"]["dataset"]: r.get("identity") or {} for r in done}
    tests = {
        dataset: [identity.get("pictures", [None])[-1], identity.get("classes"), identity.get("templates")]
        for dataset, identity in sorted(identities.items())
        if dataset in expected
    }
    versions = {tuple(i.get(name) for name in ("numbers", "features")) for i in identities.values()}
    order = [*TARGETS, *sorted(set(prints) - {*TARGETS})]
    return {
        "arch": arch,
        "settings": settings_text(settings),
        "backbones": " → ".join(prints[role][:12] for role in order if role in prints),
        "test images, names and templates": digest(tests)[:12],
        "program version": ", ".join(sorted(".".join(map(str, version)) for version in versions)),
    }


def settings_text(settings: Settings) -> str:
    """All but the limit, which is said apart: a trial is never ranked."""
    views = shown_setting("views", settings.views)
    text = f"{reading.counted(settings.shots, 'shot')}, protocol {settings.protocol}, {settings.precision}, "
    return text + ("a fresh view each epoch" if views == "epoch" else reading.counted(settings.views, "view"))


def counts_of(record: Record) -> Counts:
    return {role: (t["correct"], t["count"]) for role, t in (record.get("targets") or {}).items()}
