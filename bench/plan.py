"""What is to be done: a frozen ``Run`` for each cell and seed, its key, and the grid a command line asks for."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

import datasets
from bench import retraining, suites
from bench.archs import Arch
from bench.errors import UserError, unknown
from bench.naming import UNSAID, told
from bench.store import canonical
from methods import default, ordered
from methods.base import METHODS, TrainConfig

FRESH_VIEWS = 0  # `Run.views` where every epoch has a view of its own
NUMBERS_VERSION = 2  # raised whenever a change of the code changes numbers, so that older records are done again


@dataclass(frozen=True)
class Run:
    """One method trained on one few-shot subset of one dataset, evaluated on an arch's backbones (`evaluated_on`).

    views   augmented views kept of each training image, of which an epoch draws one; 0: a fresh one every epoch
    test    the set whose test images it is evaluated on: empty for the dataset's own; else an out-of-distribution set,
            and nothing is trained: the plug-in is that of the same run with its own test images
    path    roles of the backbones that it is trained on, in turn: ("base",) as in the paper; ("new",) retrained from
            nothing on an update; ("base", "new") trained on the base, carried to the update, and refreshed there
    refresh        steps of each training after the first, the method's own schedule squeezed; `naming.WHOLE_SCHEDULE`:
                   not squeezed
    carried_shots  images a class that the first training of a longer path had; 0: ``shots``, as the later ones have
    """

    arch: str
    dataset: str
    method: str
    seed: int
    shots: int
    protocol: str
    precision: str
    views: int
    limit: int | None
    config: TrainConfig
    test: str = ""
    path: tuple[str, ...] = ("base",)
    refresh: int = 0
    carried_shots: int = 0

    @property
    def trained(self) -> Run:
        """The run whose plug-in this one evaluates: itself, unless it has a test set of its own."""
        return replace(self, test="")

    @property
    def source(self) -> Run | None:
        """The run whose plug-in must be there before this one: it evaluates it, or starts from it; else None."""
        if self.test:
            return self.trained
        before = self.path[:-1]
        if not before:
            return None
        if len(before) > 1:
            return replace(self, path=before)
        return replace(self, path=before, refresh=0, shots=self.carried_shots or self.shots, carried_shots=0)

    @property
    def sources(self) -> list[Run]:
        """All that must be there before, the nearest first."""
        return [] if self.source is None else [self.source, *self.source.sources]

    @property
    def training(self) -> TrainConfig:
        """The config that the trainer goes by on the last backbone of the path."""
        return replace(self.config, steps=self.refresh) if len(self.path) > 1 and self.refresh > 0 else self.config

    def evaluated_on(self, roles: Iterable[str]) -> list[str]:
        """Of an arch's backbones, all for what is trained on the base. What is trained on another one is asked about on
        the last of its path alone: there it stands beside what was carried."""
        return [role for role in roles if self.path == ("base",) or role == self.path[-1]]

    def canonical(self) -> dict:
        """As records hold it. What only some runs have is left out of the others, whose keys it thus leaves alone."""
        stored = {**asdict(self), "config": as_stored(self.config), "path": list(self.path)}
        return {k: v for k, v in stored.items() if k not in UNSAID or v != UNSAID[k]}

    def key(self, identity: dict) -> str:
        """16 hex digits over the run and all else that can change its numbers (``Session.identity``)."""
        return key_of(self.canonical(), identity)

    def __str__(self) -> str:
        test = f" → {self.test}" if self.test else ""
        return f"{self.dataset} · {self.method} · seed {self.seed}{told(self.canonical())}{test}"


def shown_setting(name: str, value) -> object:
    """A setting as the command line has it."""
    return "epoch" if name == "views" and value == FRESH_VIEWS else value


def key_of(run: dict, identity: dict | None) -> str:
    """The key of a run as a record holds it."""
    return hashlib.sha256(canonical({"run": run, "identity": identity}).encode()).hexdigest()[:16]


def as_stored(config: TrainConfig) -> dict:
    """The config as a record holds it (JSON knows no tuples)."""
    return json.loads(canonical(asdict(config)))


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

    def run(self, arch: str, dataset: str, variant: suites.Variant, seed: int, test: str = "") -> Run:
        """A run of a suite's row. One that is carried has the options of what it carries."""
        shots = variant.shots or self.shots
        trained = replace(self, shots=variant.carried_shots or shots)
        return Run(
            arch,
            dataset,
            variant.method,
            seed,
            config=trained.configure(variant.method, dataset, variant.options),
            test=test,
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
    seeds: Sequence[int] = (1, 2, 3),
) -> list[Run]:
    """All runs, each once, grouped by dataset and seed so that features are shared. Empty lists mean the arch's
    default: all its suites, the methods on frozen features ("all" in ``methods``: every one), each suite's own
    datasets."""
    for name in methods:
        if name not in METHODS and name != "all":
            raise unknown("method", name, [*METHODS, "all"])
    few = () if methods else retraining.CHAIN_METHODS  # of a suite that by itself takes only these
    methods = ordered() if "all" in methods else list(methods) or default()
    parse_overrides(settings.overrides, methods)
    asked = list(dict.fromkeys(map(datasets.identify, datasets_)))
    test_only = [id for id in asked if id in (*datasets.ood("paper"), *datasets.ood("micro"))]
    if test_only:
        raise UserError(
            f"dataset '{test_only[0]}' has test images only, so nothing can be trained on it; leave it out of "
            "--datasets (the ood suite evaluates on it what was trained on the generic set)"
        )
    cells = [
        cell
        for suite in suites.chosen(arch, list(suites_))
        for cell in cells_of(
            suite, arch, few if few and suite == "chains" else methods, asked, suite in suites_, settings.shots
        )
    ]
    runs = [
        settings.run(arch.id, dataset, variant, seed, test)
        for dataset, variant, test in cells
        for seed in dict.fromkeys(seeds)
    ]
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
    suite: str, arch: Arch, methods: Sequence[str], asked: list[str], named: bool, shots: int
) -> list[tuple[str, suites.Variant, str]]:
    """(dataset, row, test set) of each run but for its seed. A suite on few datasets runs on others only where both it
    and they are named; without --suite, what was not asked for is left out."""
    if suite in ("main", "targets"):  # the targets suite reads the main suite's runs on every target
        plain = [suites.Variant((), method) for method in methods]
        return [(d, row, "") for d in asked or datasets.default(arch.datasets) for row in plain]
    if suite == "ood":
        source, found = suites.ood_source(arch), []
        if source and (not asked or (named and source in asked)):
            for variant in suites.ood_variants([m for m in methods if METHODS[m].whole]):
                tests = ["", *suites.ood_targets(arch)]
                found += [(source, variant, test) for test in tests]
        return found
    if suite in suites.BEYOND:
        rows, own = retraining.rows(suite, arch, methods, shots), retraining.datasets_of(suite, arch)
    elif suite in suites.ABLATIONS:
        rows = [row for row in suites.ABLATIONS[suite].variants(arch) if row.method in methods]
        rows += [suites.Variant((), m) for m in suites.BESIDE.get(suite, ()) if rows and m in methods]
        own = suites.ABLATIONS[suite].datasets(arch)
    else:
        return []
    return [
        (dataset, row, "")
        for dataset in (asked if named and asked else own)
        if not asked or dataset in asked
        for row in rows
    ]


def configure(method: str, dataset: str, shots: int, protocol: str, changes: dict[str, dict]) -> TrainConfig:
    """The method's defaults, what its published protocol says of this dataset, micro's schedule, the user's changes."""
    kind = METHODS[method]
    if not (isinstance(kind.Config, type) and issubclass(kind.Config, TrainConfig)):
        raise UserError(f"method '{method}': its Config must be a dataclass derived from methods.base.TrainConfig")
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
