"""What ports say of themselves, read from their files' syntax trees: importing them takes seconds, for torch.

A port is a class below ``@register("id")`` that derives from ``Port`` and says name, source, needs and anchors in
literals. Where a file says it otherwise, or a user's folder may hold a port, all are imported after all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carryover.bench.host.paths import PACKAGE
from carryover.bench.plan.port_specs import KINDS, NEEDS, PORT_SPECS

HOME = PACKAGE / "bench" / "ports"
DEFAULTS: dict[str, Any] = {"name": "", "source": "", "needs": (), "anchors": KINDS[:3], "place": 100.0}  # of Port


class Unclear(Exception):
    """A file that does not say it in literals."""


@dataclass(frozen=True)
class Listed:
    """A port: its id, and what its class says of it."""

    id: str
    name: str
    source: str
    needs: tuple[str, ...]
    anchors: tuple[str, ...]
    place: float


def listed(plugin_dirs: tuple[str, ...] = ()) -> list[Listed]:
    """All ports in the order of tables. Raises UserError as ``methods.discover`` does."""
    try:
        if any("register" in text and "Port" in text for text in texts_in(plugin_dirs)):
            raise Unclear("a user's port")
        found = [one for path in sorted(HOME.glob("[a-z]*.py")) for one in ports_in(path)]
    except (Unclear, OSError, SyntaxError, ValueError):
        return imported(plugin_dirs)
    return sorted(found, key=lambda one: (one.place, one.id))


def texts_in(folders: tuple[str, ...]) -> Iterator[str]:
    for folder in folders:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            yield path.read_text(encoding="utf-8")


def imported(plugin_dirs: tuple[str, ...]) -> list[Listed]:
    from carryover import methods
    from carryover.bench import ports

    ports.discover()
    methods.discover(plugin_dirs)
    specs = [PORT_SPECS[id] for id in PORT_SPECS]
    found = [Listed(one.id, one.name, one.source, one.needs, one.anchors, one.place) for one in specs]
    return sorted(found, key=lambda one: (one.place, one.id))


def ports_in(path: Path) -> Iterator[Listed]:
    """Raises Unclear for a registered class that says it in another way."""
    text = path.read_text(encoding="utf-8")
    if "@register(" not in text:
        return
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and (id := registered_as(node)):
            if [ast.unparse(base) for base in node.bases] != ["Port"]:
                raise Unclear(id)
            said = {**DEFAULTS, **dict(literals(node))}
            needs = tuple(one for one in NEEDS if one in said["needs"])
            yield Listed(id, said["name"] or id, said["source"], needs, tuple(said["anchors"]), said["place"])


def registered_as(node: ast.ClassDef) -> str:
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "register" and len(call.args) == 1:
            return ast.literal_eval(call.args[0])
    return ""


def literals(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """``name = "…"``, or ``name, needs = "…", ("…",)``, of the words that a port says."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            pairs = [(statement.target, statement.value)]
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = list(zip(target.elts, value.elts, strict=True)) if several else [(target, value)]  # type: ignore
        else:
            continue
        for name, value in pairs:
            if isinstance(name, ast.Name) and name.id in DEFAULTS:
                yield name.id, ast.literal_eval(value)
