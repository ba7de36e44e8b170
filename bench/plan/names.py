"""Names as people write them -> names as runs are stored under: methods and suites in any case, methods also by their
display name, options by the word that other code has for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from carryover.bench.errors import UserError
from carryover.bench.plan.settings import Methods

ALIASES = {  # another's word for an option: ours, or the flag that says it for the whole call
    "learning_rate": "lr",
    "batch_size": "batch",
    "num_epochs": "epochs",
    "max_epoch": "epochs",
    "max_steps": "steps",
    "warmup_epoch": "warmup_epochs",
    "warmup_learning_rate": "warmup_lr",
    "n_ctx": "context_length",
    "num_context_tokens": "context_length",
    "ctx_init": "initial_words",
    "lambda": "lam",
    "num_heads": "heads",
    "num_shots": "--shots",
    "shots": "--shots",
    "seed": "--seeds",
    "num_views": "--views",
}


def method(given: str, known: Methods) -> str:
    """The id of a method; what is no method's name stays as it is, for the plan to refuse."""
    if given in known:
        return given
    names = {kind.name.casefold(): id for id, kind in known.items()}
    ids = {id.casefold(): id for id in (*known, "all")}
    return ids.get(given.casefold()) or names.get(given.casefold()) or given


def suite(given: str, known: Iterable[str]) -> str:
    return {id.casefold(): id for id in (*known, "all")}.get(given.casefold(), given)


def overrides(given: Iterable[str], known: Methods, flag: str = "--set") -> tuple[str, ...]:
    """``METHOD.OPTION=VALUE`` as the plan reads it. Raises UserError for an option that is a flag's."""
    return tuple(_override(item, known, flag) for item in given)


def _override(item: str, known: Methods, flag: str) -> str:
    left, equals, value = item.partition("=")
    name, dot, word = left.strip().partition(".")
    if not (equals and dot):
        return item
    id = method(name, known)
    kinds = list(known) if id == "*" else [id] if id in known else []
    own = {field.name for kind in kinds for field in fields(known[kind].Config)}
    option = word if word in own else ALIASES.get(word.lower(), word)
    if option.startswith("--"):
        raise UserError(f"{flag} {item}: this holds for the whole call: give {option} {value.strip()}")
    return f"{id}.{option}={value}"
