"""Which runs an analysis needs, as data: which method, with which options, on which datasets, makes each row.

A suite owns no runs. It names rows; the plan turns them into runs, and a row that two suites need is run once. Tables
find the records of a row by its settings, so a suite's table can be made from any results folder that has its runs.
Each suite is declared in the file of its analysis (`bench.analyses`), which enters it in `SUITES` when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import unknown
from carryover.bench.registry import Registry


@dataclass(frozen=True)
class Variant:
    """One row: its label, and the options it changes as ``--set`` would give them.

    label   one text a column that names the row, e.g. ("yes", "no") for attention and distillation
    path, refresh, shots, carried_shots, test, port, anchors, count, via   as in ``Run``; 0 shots are those of the call
    """

    label: tuple[str, ...]
    method: str
    options: tuple[str, ...] = ()
    path: tuple[str, ...] = ("base",)
    refresh: int = 0
    shots: int = 0
    carried_shots: int = 0
    test: str = ""
    port: str = ""
    anchors: str = ""
    count: int = 0
    via: tuple[str, ...] = ()

    @property
    def carries(self) -> bool:
        """Whether it goes on from a plug-in that another run trained."""
        return len(self.path) > 1 or bool(self.port)

    @property
    def further(self) -> bool:
        """Whether it goes beyond a run of the main suite, which is trained on the base and carried as it is."""
        return self.path != ("base",) or self.carries


Rows = Callable[[Arch, Sequence[str], int], Sequence[Variant]]


@dataclass(frozen=True)
class Suite:
    """The rows of an analysis, on each of its datasets.

    rows     (arch, ids of methods, the call's shots) -> all rows on one dataset
    on       datasets by kind of arch ("paper", "micro"); an arch's own list gives its first one
    kind     "options": rows that change a method's options; of their methods those that are asked for are run
             "main": the main suite's own runs, on every dataset that is asked for; ``on`` is not read
             "shifted": trained on one dataset, evaluated on its shifted versions
             "further": trained on other backbones than the base alone
    needs    which methods it can take: "" any; "whole" those whose plug-in holds all that was learned; "learns" those
             with something to carry; "steps" those of both that the trainer trains, so that a refresh has steps
    methods  those that it takes where the command line names none; empty: as all suites
    beside   methods of the main suite that its table shows beside its rows
    id, place   those of the analysis, which enters them
    """

    rows: Rows
    on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = "options"
    needs: str = ""
    methods: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    id: str = ""
    place: float = 0.0

    def variants(self, arch: Arch) -> tuple[Variant, ...]:
        """All rows of a suite of changed options."""
        return tuple(self.rows(arch, (), 0))

    def datasets(self, arch: Arch) -> list[str]:
        """Where the suite runs unless the command line says otherwise."""
        if self.kind == "main":
            return datasets.default(arch.datasets)
        if isinstance(arch.datasets, str):
            return list(self.on.get(arch.datasets, ()))
        return [] if self.kind == "shifted" else datasets.default(arch.datasets)[:1]


SUITES: Registry[Suite] = Registry("suite")


def plain(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """A row a method, as it is."""
    return [Variant((), method) for method in methods]


def fixed(*variants: Variant) -> Rows:
    return lambda arch, methods, shots: variants


def ordered() -> list[Suite]:
    """By their analyses' places."""
    return sorted((SUITES[id] for id in SUITES), key=lambda suite: (suite.place, suite.id))


def of_kind(kind: str) -> list[Suite]:
    return [suite for suite in ordered() if suite.kind == kind]


def chosen(arch: Arch, asked: Sequence[str]) -> list[str]:
    """The suites of a command line, in their order: "all" is all that the arch has, none named its first ones."""
    for id in asked:
        if id not in SUITES and id != "all":
            raise unknown("suite", id, [*(suite.id for suite in ordered()), "all"])
    wanted = {*(asked or arch.first or ["all"])}
    return [suite.id for suite in ordered() if suite.id in wanted or ("all" in wanted and suite.id in arch.suites)]


# ---- shifted test sets -----------------------------------------------------------------------------------------------


def ood_source(arch: Arch) -> str:
    """The dataset that the out-of-distribution suite trains on; empty where the arch has none of the known ones."""
    return datasets.default(arch.datasets)[0] if isinstance(arch.datasets, str) else ""


def ood_targets(arch: Arch) -> list[str]:
    return datasets.ood(arch.datasets) if isinstance(arch.datasets, str) else []


def ood_variants(methods: Sequence[str]) -> list[Variant]:
    """A row a method; zero-shot with the single template, as in the paper's Table 3."""
    options = {"zs-clip": ("zs-clip.single_template=True",)}
    return [Variant((), method, options.get(method, ())) for method in methods]
