"""The settings of a call, and the runs that it asks for."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan import retraining, suites
from carryover.bench.plan.defaults import PRECISION, SEEDS, SHOTS, views
from carryover.bench.plan.runs import Run
from carryover.methods import default, ordered
from carryover.methods.base import METHODS, TrainConfig


def default_settings(arch: Arch) -> Settings:
    """Those of a command line that names the arch alone."""
    return Settings(SHOTS, arch.protocol, PRECISION, views(arch.protocol), None)


@dataclass(frozen=True)
class Settings:
    """What every run of a call shares, and the user's changes of options."""

    shots: int
    protocol: str
    precision: str
    views: int
    limit: int | None
    overrides: tuple[str, ...] = ()

    @property
    def of_runs(self) -> dict:
        return {name: getattr(self, name) for name in ("shots", "protocol", "precision", "views", "limit")}

    def configure(self, method: str, dataset: str, options: tuple[str, ...] = ()) -> TrainConfig:
        """``options`` of a suite's row come last: a row labelled by its length must have that length."""
        return configure(
            method, dataset, self.shots, self.protocol, merged(parse_overrides(self.overrides, ordered()), options)
        )

    def run(self, arch: str, dataset: str, variant: suites.Variant, seed: int) -> Run:
        """A run of a suite's row. One that is carried has the options of what it carries."""
        shots = variant.shots or self.shots
        trained = replace(self, shots=variant.carried_shots or shots)
        return Run(
            arch,
            dataset,
            variant.method,
            seed,
            config=trained.configure(variant.method, dataset, variant.options),
            test=variant.test,
            path=variant.path,
            refresh=variant.refresh,
            carried_shots=variant.carried_shots,
            **{**self.of_runs, "shots": shots},
        )


def merged(changes: dict[str, dict], options: tuple[str, ...]) -> dict[str, dict]:
    more = parse_overrides(options, ordered())
    return {method: {**changes.get(method, {}), **more.get(method, {})} for method in {**changes, **more}}


def grid(
    arch: Arch,
    settings: Settings,
    *,
    suites_: Sequence[str] = (),
    methods: Sequence[str] = (),
    datasets_: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
) -> list[Run]:
    """All runs, each once, grouped by dataset and seed so that features are shared. Empty lists mean the arch's
    default: all its suites, the methods on frozen features ("all" in ``methods``: every one), each suite's own
    datasets."""
    for name in methods:
        if name not in METHODS and name != "all":
            raise unknown("method", name, [*METHODS, "all"])
    named = bool(methods)
    methods = ordered() if "all" in methods else list(methods) or default()
    parse_overrides(settings.overrides, methods)
    asked = list(dict.fromkeys(map(datasets.identify, datasets_)))
    test_only = [id for id in asked if id in (*datasets.ood("paper"), *datasets.ood("micro"))]
    if test_only:
        raise UserError(
            f"dataset '{test_only[0]}' has test images only, so nothing can be trained on it; leave it out of "
            "--datasets (the ood suite evaluates on it what was trained on the generic set)"
        )
    cells = []
    for suite in map(suites.SUITES.__getitem__, suites.chosen(arch, suites_)):
        taken = methods if named or not suite.methods else suite.methods
        cells += cells_of(suite, arch, taken, asked, suite.id in suites_, settings.shots)
    runs = [settings.run(arch.id, dataset, row, seed) for dataset, row in cells for seed in dict.fromkeys(seeds)]
    if not runs and set(suites_) != {"drift"}:
        raise UserError(
            f"no run is left of --suite {' '.join(suites_)} with these --datasets and --methods; ood trains on "
            f"{suites.ood_source(arch) or 'no dataset of this arch'}, the ablations train coop and contcoop, "
            "chains methods that are trained by steps, retention those that learn"
        )
    order = {key: place for place, key in enumerate(dict.fromkeys((run.dataset, run.seed) for run in by_dataset(runs)))}
    # what a run needs comes before it
    return sorted(dict.fromkeys(runs), key=lambda run: (order[run.dataset, run.seed], len(run.path)))


def by_dataset(runs: list[Run]) -> list[Run]:
    first = {id: place for place, id in enumerate(dict.fromkeys(run.dataset for run in runs))}
    return sorted(runs, key=lambda run: first[run.dataset])


def cells_of(
    suite: suites.Suite, arch: Arch, methods: Sequence[str], asked: list[str], named: bool, shots: int
) -> list[tuple[str, suites.Variant]]:
    """(dataset, row) of each run but for its seed. A suite on few datasets runs on others only where both it and they
    are named; without --suite, what was not asked for is left out. Shifted sets are of their own dataset alone."""
    rows = list(suite.rows(arch, list(filter(retraining.NEEDS[suite.needs], methods)), shots))
    if suite.kind == "options":
        rows = [row for row in rows if row.method in methods]
    rows += [suites.Variant((), method) for method in suite.beside if rows and method in methods]
    where = suite.datasets(arch)
    if asked and (suite.kind == "main" or (named and suite.kind != "shifted")):
        where = asked
    elif asked:
        where = [id for id in where if id in asked and (named or suite.kind != "shifted")]
    return [(dataset, row) for dataset in where for row in rows]


def configure(method: str, dataset: str, shots: int, protocol: str, changes: dict[str, dict]) -> TrainConfig:
    """The method's defaults, what its published protocol says of this dataset, micro's schedule, the user's changes."""
    kind = METHODS[method]
    if not (isinstance(kind.Config, type) and issubclass(kind.Config, TrainConfig)):
        raise UserError(
            f"method '{method}': its Config must be a dataclass derived from carryover.methods.base.TrainConfig"
        )
    values = {**kind.published(dataset, shots), **(kind.micro if protocol == "micro" else {})}
    config = replace(kind.Config(), **values)
    names = {field.name: getattr(config, field.name) for field in fields(config)}
    mine = {**{k: v for k, v in changes.get("*", {}).items() if k in names}, **changes.get(method, {})}
    if not config.epochs:  # nothing for the trainer to do; "*.epochs=2" means those that it trains
        mine = {k: v for k, v in mine.items() if k not in ("epochs", "steps") or k in changes.get(method, {})}
    elif "epochs" in mine and "steps" not in mine:
        config = replace(config, steps=0)
    for name, text in mine.items():
        if name not in names:
            raise unknown(f"option of {method}", name, names)
        config = replace(config, **{name: parse_value(method, name, text, names[name])})
    return config


def parse_overrides(overrides: Iterable[str], methods: list[str]) -> dict[str, dict]:
    """``method.option=value`` (or ``*.option=value`` for every method that has it) -> {method: {option: text}}."""
    changes: dict[str, dict] = {}
    for item in overrides:
        left, equals, value = item.partition("=")
        method, dot, option = left.strip().partition(".")
        if not (equals and dot and option):
            raise UserError(f"--set {item}: expected METHOD.OPTION=VALUE, e.g. coop.context_length=4 or *.epochs=2")
        if method != "*" and method not in METHODS:
            raise unknown("method", method, METHODS)
        if method == "*" and not any(option in {f.name for f in fields(METHODS[m].Config)} for m in methods):
            raise UserError(f"--set {item}: none of the chosen methods has an option '{option}'")
        changes.setdefault(method, {})[option] = value.strip()
    return changes


def parse_value(method: str, name: str, text: str, default):
    """The text as the type of the default. Raises UserError naming the type."""
    if isinstance(default, str):
        return text
    try:
        value = (
            {"true": True, "false": False}.get(text.lower()) if isinstance(default, bool) else ast.literal_eval(text)
        )
    except (ValueError, SyntaxError):
        value = None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if isinstance(default, tuple):
        given = value if isinstance(value, (tuple, list)) else ()
        value = tuple(map(float, given)) if given and all(type(item) in (int, float) for item in given) else None
    if type(value) is not type(default):
        raise UserError(f"--set {method}.{name}={text}: expected a value like {default!r} ({type(default).__name__})")
    return value
