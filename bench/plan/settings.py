"""The settings that the runs of a call share, and the options that they give each method."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from carryover.bench.backbones.archs import Arch
from carryover.bench.errors import UserError, unknown
from carryover.bench.plan.defaults import PLAIN_PRECISION, SHOTS, views
from carryover.bench.plan.option_rows import WithRows, row_id
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.runs import Run
from carryover.bench.plan.suites import Suite, Variant
from carryover.methods.train_config import TrainConfig


class Described(Protocol):
    """What plans and tables must know of a method: the part of ``carryover.methods.Method`` that needs no torch."""

    name: str
    depth: str
    needs: str
    whole: bool
    Config: type[TrainConfig]
    micro: dict[str, Any]

    def published(self, dataset: str, shots: int) -> dict[str, Any]: ...


class Methods(Protocol):
    """The methods that a call knows, by id and in the order of the tables. Commands hand them in
    (``carryover.methods.Registered``), so that neither plans nor tables import a method, nor torch with it."""

    def __getitem__(self, name: str, /) -> Described: ...
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: object, /) -> bool: ...
    def items(self) -> Iterable[tuple[str, Described]]: ...
    def learns(self, name: str, /) -> bool:
        """Whether there is anything to carry to another backbone."""
        ...


def default_settings(arch: Arch, methods: Methods) -> Settings:
    """Those of a command line that names the arch alone, on a CPU."""
    return Settings(SHOTS, arch.protocol, PLAIN_PRECISION, views(arch.protocol), None, methods=methods)


@dataclass(frozen=True)
class Settings:
    """What every run of a call shares, the user's changes of options, and the methods that the call knows."""

    shots: int
    protocol: str
    precision: str
    views: int
    limit: int | None
    overrides: tuple[str, ...] = ()
    rows: tuple[Variant, ...] = field(default=(), compare=False)  # whose ids `configure` takes too (`beside`)
    methods: Methods = field(kw_only=True, repr=False, compare=False)

    def beside(self, rows: Iterable[Variant]) -> Settings:
        """The same settings, which know these rows as further methods."""
        return replace(self, rows=tuple(rows), methods=WithRows(self.methods, rows)) if rows else self

    @property
    def of_runs(self) -> dict:
        return {name: getattr(self, name) for name in ("shots", "protocol", "precision", "views", "limit")}

    def configure(self, method: str, dataset: str, options: tuple[str, ...] = ()) -> TrainConfig:
        """``options`` of a suite's row come last: a row labelled by its length must have that length."""
        row = next((one for one in self.rows if row_id(one) == method), Variant((), method))
        changes = parse_overrides(self.overrides, self.methods)
        for name, more in parse_overrides((*row.options, *options), self.methods).items():
            changes[name] = {**changes.get(name, {}), **more}
        return configure(self.methods, row.method, dataset, self.shots, self.protocol, changes)

    def run(self, arch: str, dataset: str, variant: Variant, seed: int) -> Run:
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
            port=variant.port,
            anchors=variant.anchors,
            count=variant.count,
            via=variant.via,
            **{**self.of_runs, "shots": shots},
        )


def takes(suite: Suite, methods: Methods, method: str) -> bool:
    """Whether the method has what the suite's rows need."""
    whole = methods[method].whole
    return {
        "": lambda: True,
        "whole": lambda: whole,
        "learns": lambda: methods.learns(method),
        "steps": lambda: methods.learns(method) and whole and methods[method].Config().epochs > 0,
    }[suite.needs]()


def configure(
    methods: Methods, method: str, dataset: str, shots: int, protocol: str, changes: dict[str, dict]
) -> TrainConfig:
    """The method's defaults, what its published protocol says of this dataset, micro's schedule, the user's changes."""
    kind = methods[method]
    if not (isinstance(kind.Config, type) and issubclass(kind.Config, TrainConfig)):
        raise UserError(f"method '{method}': its Config must be a dataclass derived from carryover.methods.TrainConfig")
    values = {**kind.published(dataset, shots), **(kind.micro if protocol == "micro" else {})}
    config = replace(kind.Config(), **values)
    names = {field.name: getattr(config, field.name) for field in fields(config)}
    every = {k: v for k, v in changes.get("*", {}).items() if k in names}
    if method == ZERO_SHOT:  # nothing of it is trained
        every = {k: v for k, v in every.items() if k not in {field.name for field in fields(TrainConfig)}}
    mine = {**every, **changes.get(method, {})}
    if not config.epochs:  # nothing for the trainer to do; "*.epochs=2" means those that it trains
        mine = {k: v for k, v in mine.items() if k not in ("epochs", "steps") or k in changes.get(method, {})}
    elif "epochs" in mine and "steps" not in mine:
        config = replace(config, steps=0)
    for name, text in mine.items():
        if name not in names:
            raise unknown(f"option of {method}", name, names)
        config = replace(config, **{name: parse_value(method, name, text, names[name])})
    return config


def option_named(item: str, known: Methods, wrong: str) -> tuple[str, str, str]:
    """ "coop.lr=0.1" as method (or ``*``), option and value. Raises UserError: ``wrong`` where it is nothing of that
    form, and for an unknown method."""
    left, equals, value = item.partition("=")
    method, dot, option = left.strip().partition(".")
    if not (equals and dot and option):
        raise UserError(wrong)
    if method != "*" and method not in known:
        raise unknown("method", method, known)
    return method, option, value


def parse_overrides(overrides: Iterable[str], known: Methods, chosen: Iterable[str] = ()) -> dict[str, dict]:
    """``method.option=value`` (or ``*.option=value`` for every method that has it) -> {method: {option: text}}. One of
    the ``chosen`` methods, or of all, must have the option. Raises UserError."""
    chosen = list(chosen) or list(known)
    changes: dict[str, dict] = {}
    for item in overrides:
        method, option, value = option_named(
            item, known, f"--set {item}: expected METHOD.OPTION=VALUE, e.g. coop.context_length=4 or *.epochs=2"
        )
        if method == "*" and not any(option in {f.name for f in fields(known[m].Config)} for m in chosen):
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
