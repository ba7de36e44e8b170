"""``--sweep METHOD.OPTION=VALUE,VALUE,…``: the rows that it asks for, one a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from itertools import product

from carryover.bench.errors import UserError, unknown
from carryover.bench.plan import names
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.settings import Methods, option_named, parse_value
from carryover.methods.train_config import TrainConfig

MOST = 24  # rows of one method: each is trained on every dataset and seed


def swept(items: Iterable[str], known: Methods, methods: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """Method -> the options of each of its rows; several sweeps of one method give every combination. ``*`` stands for
    those of the ``methods`` that have the option. Raises UserError."""
    axes: dict[str, dict[str, list[str]]] = {}
    for given in items:
        item = names.overrides([given], known, "--sweep")[0]
        method, option, text = option_named(
            item, known, f"--sweep {given}: expected METHOD.OPTION=VALUE,VALUE,…, e.g. contcoop.lam=0,0.3,1"
        )
        having = [id for id in methods if option in options_of(known, id)] if method == "*" else [method]
        if not having:
            raise UserError(f"--sweep {given}: none of the chosen methods has an option '{option}'")
        for id in having:
            if option in axes.setdefault(id, {}):
                raise UserError(f"--sweep {given}: {id}.{option} is swept twice; give all its values once")
            axes[id][option] = checked(given, known, id, option, split(text))
    found = {}
    for id, of_method in axes.items():
        pairs = [[f"{id}.{option}={value}" for value in values] for option, values in of_method.items()]
        found[id] = list(product(*pairs))
        if len(found[id]) > MOST:
            raise UserError(
                f"--sweep: {len(found[id])} rows of {id}, expected {MOST} at most; sweep fewer values a call"
            )
    return found


def options_of(known: Methods, method: str) -> list[str]:
    """All but how it is trained where nothing is."""
    training = {field.name for field in fields(TrainConfig)} if method == ZERO_SHOT else set()
    return [field.name for field in fields(known[method].Config) if field.name not in training]


def checked(given: str, known: Methods, method: str, option: str, values: Sequence[str]) -> list[str]:
    """The values, each once. Raises UserError for the first that the option cannot have."""
    if option not in options_of(known, method):
        raise unknown(f"option of {method}", option, options_of(known, method))
    config = known[method].Config()
    default = getattr(config, option)
    taken: dict[object, str] = {}
    for text in values:
        try:
            value = parse_value(method, option, text, default)
        except UserError:
            kind = type(default).__name__
            raise UserError(f"--sweep {given}: value '{text}': expected one like {default!r} ({kind})") from None
        try:
            replace(config, **{option: value})
        except UserError as error:
            raise UserError(f"--sweep {given}: value '{text}': {error}") from None
        taken.setdefault(value, text)
    return list(taken.values())


def split(text: str) -> list[str]:
    """At each comma that stands in no brackets."""
    found, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return [part.strip() for part in found]
