"""What methods say of themselves, read from their files' syntax trees: importing them takes seconds, for torch.

A method is a class below ``@register("id")``; name, paper, depth and needs are literals in its body or a base's. Where
a file says it otherwise, or could not be imported, all files are imported after all, which tells the same, or what is
wrong.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from carryover.bench import places
from carryover.bench.errors import UserError
from carryover.bench.host.paths import PACKAGE

SAID = ("name", "paper", "depth", "needs")
HOME = "carryover.methods"
BASE = (f"{HOME}.base", "Method")
REGISTERING = ("register", "METHODS")
DECLARING = (ast.ClassDef, ast.FunctionDef, ast.Assign, ast.AnnAssign)


class Unclear(Exception):
    """A file that does not say it in literals."""


@dataclass(frozen=True)
class Listed:
    """A method: its id, and what its class says of it."""

    id: str
    name: str
    paper: str
    depth: str
    needs: str


def listed(plugin_dirs: tuple[str, ...] = ()) -> list[Listed]:
    """All methods in the order of tables. Raises UserError as ``methods.discover`` does."""
    for folder in plugin_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"--plugin-dir: no folder '{folder}'")
    own = [path for path in sorted((PACKAGE / "methods").glob("[a-z]*.py")) if path.stem != "base"]
    users = [path.resolve() for folder in plugin_dirs for path in sorted(Path(folder).glob("[!_]*.py"))]
    found: dict[str, Listed] = {}
    try:
        for path in dict.fromkeys([*own, *users]):
            for one in MethodFile(path).methods():
                if one.id in found:
                    raise Unclear("registered twice")
                found[one.id] = one
    except (Unclear, TypeError, RecursionError):  # also of bases that go together in no order, or in a circle
        return imported(plugin_dirs)
    return [found[id] for id in places.ordered({id: one.depth for id, one in found.items()})]


def imported(plugin_dirs: tuple[str, ...]) -> list[Listed]:
    from carryover import methods

    methods.discover(plugin_dirs)
    kinds = {id: methods.METHODS[id] for id in methods.ordered()}
    return [Listed(id, *(getattr(kind, word) for word in SAID)) for id, kind in kinds.items()]


class MethodFile:
    """The classes and imported names of one file."""

    def __init__(self, path: Path):
        """Raises Unclear for a file that is not read without running it."""
        try:
            body = ast.parse(path.read_bytes()).body
        except (OSError, SyntaxError, ValueError):
            raise Unclear(f"{path} cannot be read") from None
        self.body, self.imports = body, dict(imports(body))
        self.classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        self.made: dict[str, type] = {}

    def methods(self) -> Iterator[Listed]:
        """Raises Unclear where anything is registered, or said of a method, in another way."""
        registered = {name: id for name, node in self.classes.items() if (id := registered_as(node))}
        mentions = [node for part in self.body for node in ast.walk(part) if word_of(node) in REGISTERING]
        said_later = [node for part in self.body for node in ast.walk(part) if sets_of_another(node)]
        if len(mentions) != len(registered) or said_later:
            raise Unclear("more than @register above classes")
        for name, id in registered.items():
            kind = self.kind(name)
            if not issubclass(kind, file_of(BASE[0]).kind(BASE[1])):
                raise Unclear(f"{name} is no Method")
            yield Listed(id, *(getattr(kind, word) for word in SAID))

    def kind(self, name: str) -> type:
        """A bare class with the same bases, in Python's own order of them, and the same literals."""
        if name not in self.classes:
            module, there = self.imports.get(name, ("", ""))
            return kind_of(module, there)
        if name not in self.made:
            node = self.classes[name]
            if node.keywords:
                raise Unclear(f"{name} has a metaclass")
            bases = tuple(self.base(base) for base in node.bases)
            self.made[name] = type(name, bases or (object,), dict(literals(node)))
        return self.made[name]

    def base(self, node: ast.expr) -> type:
        if isinstance(node, ast.Name):
            return self.kind(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = self.imports.get(node.value.id, ("", ""))
            return kind_of(f"{module}.{name}".rstrip("."), node.attr)
        raise Unclear(ast.unparse(node))


def imports(body: list[ast.stmt]) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name here, (module, name there or "" for the module itself)). Raises Unclear for a module that is not found and
    for statements that may do anything."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, (found(alias.name), "")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = found(node.module or "" if not node.level else "")
            yield from ((alias.asname or alias.name, (module, alias.name)) for alias in node.names)
        elif not isinstance(node, DECLARING) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            raise Unclear(ast.unparse(node))


def found(module: str) -> str:
    top = module.partition(".")[0]
    try:
        there = bool(top in sys.modules or (top and importlib.util.find_spec(top)))
    except (ImportError, ValueError):
        there = False
    if not there:
        raise Unclear(f"no module {module}")
    return module


def kind_of(module: str, name: str) -> type:
    """A class of a method file of the suite; torch's own is not looked at."""
    if (module, name) == ("torch.nn", "Module"):
        return object
    if module != HOME and not module.startswith(f"{HOME}."):
        raise Unclear(f"{module}.{name}")
    return file_of(module).kind(name)


@cache
def file_of(module: str) -> MethodFile:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return MethodFile(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


def registered_as(node: ast.ClassDef) -> str:
    """The id of a class; empty for one that is not decorated. Raises Unclear for any other decorator of a class that
    says something of a method."""
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and word_of(call.func) == "register" and len(call.args) == 1:
            (id,) = call.args
            if isinstance(id, ast.Constant) and isinstance(id.value, str) and len(node.decorator_list) == 1:
                return id.value
            raise Unclear(node.name)
    return ""


def word_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def sets_of_another(node: ast.AST) -> bool:
    """``Class.depth = …``, after the class."""
    stores = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in SAID
    return stores and word_of(node.value) != "self"  # type: ignore[attr-defined]


def literals(node: ast.ClassDef) -> Iterator[tuple[str, object]]:
    """What a class's body says of ``SAID``. Raises Unclear for what is no literal."""
    for statement in node.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                yield from said(target, statement.value)
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            if statement.name in SAID:
                raise Unclear(statement.name)
        elif any(word_of(part) in SAID for part in ast.walk(statement)):
            raise Unclear(ast.unparse(statement))


def said(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, object]]:
    """``name = "…"``, or ``name, paper = "…", "…"``."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for part, text in zip(target.elts, value.elts, strict=True):
            yield from said(part, text)
    elif any(word_of(part) in SAID for part in ast.walk(target)):
        if not (isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)):
            raise Unclear(ast.unparse(target))
        yield target.id, value.value
