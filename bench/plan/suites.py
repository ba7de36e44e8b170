"""The experiments of the paper as data: which method, with which options, on which datasets, makes each row.

A suite owns no runs. It names rows; the plan turns them into runs, and a row that two suites need is run once. Tables
find the records of a row by its settings, so a suite's table can be made from any results folder that has its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carryover import datasets
from carryover.bench.backbones.archs import ALL_SUITES, Arch
from carryover.bench.errors import unknown

CONDITIONS = {"[class]": "{}", "a photo of a [class]": "a photo of a {}"}
STARTS = {"fixed": "0.02 everywhere", "rows": "as large as the rows replaced"}  # coop.start


@dataclass(frozen=True)
class Variant:
    """One row: its label, and the options it changes as ``--set`` would give them.

    label   one text a column that names the row, e.g. ("yes", "no") for attention and distillation
    path, refresh, shots, carried_shots   as in ``Run``; 0 shots are those of the call
    """

    label: tuple[str, ...]
    method: str
    options: tuple[str, ...] = ()
    path: tuple[str, ...] = ("base",)
    refresh: int = 0
    shots: int = 0
    carried_shots: int = 0


@dataclass(frozen=True)
class Suite:
    """One table of rows on few datasets.

    source      the paper's table or figure
    columns     what the row labels mean
    printed     the paper's numbers under results/paper, without ending; empty where it prints none
    on          datasets by kind of arch ("paper", "micro")
    """

    id: str
    title: str
    source: str
    columns: tuple[str, ...]
    printed: str
    on: Mapping[str, tuple[str, ...]]

    def variants(self, arch: Arch) -> tuple[Variant, ...]:
        return VARIANTS[self.id](arch)

    def datasets(self, arch: Arch) -> list[str]:
        """Where the suite runs unless the command line says otherwise; an arch's own list gives its first dataset."""
        return list(self.on[arch.datasets]) if isinstance(arch.datasets, str) else datasets.default(arch.datasets)[:1]


def of_contcoop(option: str, values: dict[str, str]):
    return lambda arch: tuple(Variant((label,), "contcoop", (f"contcoop.{option}={v}",)) for label, v in values.items())


def same(*values: str) -> dict[str, str]:
    return {value: value for value in values}


VARIANTS = {
    "components": lambda arch: (
        Variant(("no", "no"), "contcoop", ("contcoop.attention=False", "contcoop.lam=0.0")),
        Variant(("yes", "no"), "contcoop", ("contcoop.attention=True", "contcoop.lam=0.0")),
        Variant(("no", "yes"), "contcoop", ("contcoop.attention=False", "contcoop.lam=1.0")),
        Variant(("yes", "yes"), "contcoop", ("contcoop.attention=True", "contcoop.lam=1.0")),
    ),
    "lambda": of_contcoop("lam", same("0.0", "0.3", "0.5", "0.7", "1.0")),
    "heads": of_contcoop("heads", same("1", "2", "4", "8", "16")),
    "condition": of_contcoop("condition", CONDITIONS),
    "context_length": of_contcoop("context_length", same("4", "8", "16")),
    "layers": lambda arch: tuple(
        Variant((str(layer), start), "coop", (f"coop.layer={layer}", f"coop.start={start}"))
        for start in STARTS
        for layer in range(arch.base.layers)
    ),
}
BESIDE = {"layers": ("zs-clip",)}  # methods of the main suite that a table and figure show beside the suite's rows
TEXTURES = {"paper": ("dtd",), "micro": ("micro_textures",)}
ACTIONS = {"paper": ("ucf101",), "micro": ("micro_actions",)}
DEPTHS = {"paper": ("dtd",), "micro": ("micro_textures", "micro_actions", "micro_stars")}
ABLATIONS = {
    suite.id: suite
    for suite in (
        Suite(
            "components",
            "ContCoOp without its attention or its distillation",
            "Table 4",
            ("attention", "distillation"),
            "table4_components_dtd",
            TEXTURES,
        ),
        Suite("lambda", "Weight of ContCoOp's distillation", "Table 5", ("lambda",), "table5_lambda_ucf101", ACTIONS),
        Suite("heads", "Heads of ContCoOp's attention", "Table 6", ("heads",), "table6_heads_dtd", TEXTURES),
        Suite(
            "condition",
            "What ContCoOp's context attends to",
            "Table 7",
            ("condition",),
            "table7_condition_dtd",
            TEXTURES,
        ),
        Suite(
            "context_length",
            "Length of ContCoOp's context",
            "Figure 4",
            ("context_length",),
            "figure4_context_length_ucf101",
            ACTIONS,
        ),
        Suite(
            "layers",
            "CoOp's context inserted at each block of the text tower",
            "Figure 2 (d)",
            ("layer", "start"),
            "",
            DEPTHS,
        ),
    )
}
BEYOND = ("retention", "chains")  # `bench.plan.retraining`
SUITES = (*ALL_SUITES, *BEYOND)


def chosen(arch: Arch, asked: list[str]) -> list[str]:
    """The suites of a command line, in the order of the paper; all that the arch has where none is named."""
    for id in asked:
        if id not in SUITES:
            raise unknown("suite", id, SUITES)
    return [id for id in SUITES if id in (asked or arch.suites)]


def ood_source(arch: Arch) -> str:
    """The dataset that the out-of-distribution suite trains on; empty where the arch has none of the known ones."""
    return datasets.default(arch.datasets)[0] if isinstance(arch.datasets, str) else ""


def ood_targets(arch: Arch) -> list[str]:
    return datasets.ood(arch.datasets) if isinstance(arch.datasets, str) else []


def ood_variants(methods: list[str]) -> list[Variant]:
    """A row a method; zero-shot with the single template, as in the paper's Table 3."""
    options = {"zs-clip": ("zs-clip.single_template=True",)}
    return [Variant((), method, options.get(method, ())) for method in methods]
