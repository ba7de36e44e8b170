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
from carryover.bench.host.source_files import PLUGIN, Ref, Source, on_disk

SAID = ("name", "paper", "depth", "needs")
HOME = "carryover.methods"
BASE = (f"{HOME}.base", "Method")
REGISTERING = ("register", "METHODS")


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
    paths = sorted((PACKAGE / "methods").glob("[a-z]*.py"))
    own = [path.stem for path in paths if "@register(" in path.read_text(encoding="utf-8")]
    users = [path.resolve() for folder in plugin_dirs for path in sorted(Path(folder).glob("[!_]*.py"))]
    found: dict[str, Listed] = {}
    try:
        files = [file_of(f"{HOME}.{stem}") for stem in own] + [users_file(path) for path in dict.fromkeys(users)]
        for one in (one for file in files for one in file.methods()):
            if one.id in found:
                raise Unclear(one.id)
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
    """The classes of one file."""

    def __init__(self, source: Source):
        """Raises Unclear for a file with statements that may do anything."""
        if source.statements or source.stars:
            raise Unclear(source.name)
        self.source = source
        self.made: dict[str, type] = {}

    def methods(self) -> Iterator[Listed]:
        """Raises Unclear where anything is registered, or said of a method, in another way."""
        parts = [part for nodes in self.source.defined.values() for node in nodes for part in ast.walk(node)]
        registered = {name: id for name in self.source.defined if (id := registered_as(self.node(name)))}
        if len(registered) != sum(word_of(part) in REGISTERING for part in parts) or any(map(sets_of_another, parts)):
            raise Unclear(self.source.name)
        for name, id in registered.items():
            kind = self.kind(name)
            if not issubclass(kind, kind_of(*BASE)):
                raise Unclear(name)
            yield Listed(id, *(getattr(kind, word) for word in SAID))

    def node(self, name: str) -> ast.stmt | None:
        """What makes a name, where it is one statement alone."""
        nodes = self.source.defined.get(name, [])
        return nodes[0] if len(nodes) == 1 else None

    def kind(self, name: str) -> type:
        """A bare class with the same bases, in Python's own order of them, and the same literals."""
        if name not in self.source.defined:
            return kind_of(*self.origin(name))
        if name not in self.made:
            node = self.node(name)
            if not isinstance(node, ast.ClassDef) or node.keywords:
                raise Unclear(name)
            bases = tuple(self.base(base) for base in node.bases)
            self.made[name] = type(name, bases or (object,), dict(literals(node)))
        return self.made[name]

    def base(self, node: ast.expr) -> type:
        if isinstance(node, ast.Name):
            return self.kind(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return kind_of(".".join(filter(None, self.origin(node.value.id))), node.attr)
        raise Unclear(ast.unparse(node))

    def origin(self, name: str) -> Ref:
        """Where an imported name comes from."""
        if len(found := self.source.imported.get(name, [])) != 1:
            raise Unclear(name)
        return found[0]


def kind_of(module: str, name: str) -> type:
    """A class of a method file of the suite; torch's own is not looked at."""
    if (module, name) == ("torch.nn", "Module"):
        return object
    if module != HOME and not module.startswith(f"{HOME}."):
        raise Unclear(f"{module}.{name}")
    return file_of(module).kind(name)


@cache
def file_of(module: str) -> MethodFile:
    source = on_disk(module)
    if source is None:
        raise Unclear(module)
    return MethodFile(source)


def users_file(path: Path) -> MethodFile:
    """Raises Unclear where the file cannot be read, or imports what is not there."""
    try:
        source = Source(f"{PLUGIN}{path.stem}", path.read_bytes(), path)
        missing = [name for name in source.loads if not there(name.partition(".")[0])]
    except (OSError, SyntaxError, ValueError, ImportError):
        raise Unclear(str(path)) from None
    if missing:
        raise Unclear(missing[0])
    return MethodFile(source)


def there(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def registered_as(node: ast.stmt | None) -> str:
    """The id of a class; empty for one that is not decorated. Raises Unclear for any other decorator of a class that
    says something of a method."""
    if not isinstance(node, ast.ClassDef):
        return ""
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
