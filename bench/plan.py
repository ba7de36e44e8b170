"""What is to be done: a frozen ``Run`` for each cell and seed, its key, and the grid a command line asks for."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace

import datasets
from bench.archs import Arch
from bench.errors import UserError, unknown
from bench.store import canonical
from methods import ordered
from methods.base import METHODS, TrainConfig

SUITES = ("main",)
NUMBERS_VERSION = 1  # raised whenever a change of the code changes numbers, so that older records are done again


@dataclass(frozen=True)
class Run:
    """One method trained on one few-shot subset of one dataset, evaluated on both backbones."""

    suite: str
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

    def canonical(self) -> dict:
        return {**asdict(self), "config": as_stored(self.config)}

    def key(self, identity: dict) -> str:
        """16 hex digits over the run and all else that can change its numbers (``Session.identity``)."""
        text = canonical({"run": self.canonical(), "identity": identity})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.dataset} · {self.method} · seed {self.seed}"


def as_stored(config: TrainConfig) -> dict:
    """The config as a record holds it (JSON knows no tuples)."""
    return json.loads(canonical(asdict(config)))


def grid(
    arch: Arch,
    *,
    suites: list[str],
    methods: list[str],
    datasets_: list[str],
    seeds: list[int],
    shots: int,
    protocol: str,
    precision: str,
    views: int,
    limit: int | None,
    overrides: list[str],
) -> list[Run]:
    """All runs, grouped by dataset and seed so that features are shared. Empty lists mean the arch's default."""
    for suite in suites:
        if suite not in SUITES:
            raise unknown("suite", suite, SUITES)
    methods = methods or ordered()
    for name in methods:
        kind = METHODS[name]
        if kind.needs != "features":
            raise UserError(f"method '{name}' needs '{kind.needs}': only methods on image features can be run so far")
    chosen = list(dict.fromkeys(map(datasets.identify, datasets_))) or datasets.default(arch.datasets)
    test_only = [id for id in chosen if id in (*datasets.ood("paper"), *datasets.ood("micro"))]
    if test_only and "main" in (suites or SUITES):
        raise UserError(
            f"dataset '{test_only[0]}' has test images only, so the main suite cannot train on it; leave it out of "
            "--datasets"
        )
    changes = parse_overrides(overrides, methods)
    return [
        Run(
            suite,
            arch.id,
            dataset,
            method,
            seed,
            shots,
            protocol,
            precision,
            views,
            limit,
            configure(method, dataset, shots, protocol, changes),
        )
        for suite in (suites or SUITES)
        for dataset in chosen
        for seed in dict.fromkeys(seeds)
        for method in dict.fromkeys(methods)
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


def parse_overrides(overrides: list[str], methods: list[str]) -> dict[str, dict]:
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
        numbers = isinstance(value, (tuple, list)) and value and all(type(item) in (int, float) for item in value)
        value = tuple(map(float, value)) if numbers else None
    if type(value) is not type(default):
        raise UserError(f"--set {method}.{name}={text}: expected a value like {default!r} ({type(default).__name__})")
    return value
