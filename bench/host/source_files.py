"""The modules that code is written in, read statement by statement; they are found by import name, not imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from functools import cache
from pathlib import Path

SUITE = ("carryover",)  # top-level packages of the suite
METHOD_FILES: tuple[str, ...] = ("carryover.methods.", "carryover.bench.ports.")
PLUGIN = "carryover_plugin_"  # starts the module name of a user's method file
INSTALLED = {"site-packages", "dist-packages"}
PACKAGE = "__init__.py"
NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Ref = tuple[str, str]  # module and name of a definition; with the name "" the module itself


class Source:
    """A module as it is written: the statements that make each name (``defined``), the origins of imported ones, and
    the statements that do something else."""

    def __init__(self, name: str, text: str | bytes, path: Path | None = None):
        self.name, self.folder = name, path and path.parent
        self.package = name if path and path.name == PACKAGE else name.rpartition(".")[0]
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, list[Ref]] = {}
        self.stars: list[str] = []
        self.loads: set[str] = set()  # modules that its imports name
        self.statements: list[ast.stmt] = []
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.loads.add(alias.name)
                    self._imports(alias.asname or top, alias.name if alias.asname else top, "")
            elif isinstance(node, ast.ImportFrom):
                dots = "." * node.level
                home = importlib.util.resolve_name(dots + (node.module or ""), self.package or None)
                self.loads |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
                for alias in node.names:
                    self._imports(alias.asname or alias.name, home, alias.name)
        for statement in tree.body:
            if not is_nothing(statement):
                self._place(statement)

    def _imports(self, here: str, module: str, name: str) -> None:
        if name == "*":
            self.stars.append(module)
        elif (module, name) not in self.imported.setdefault(here, []):
            self.imported[here].append((module, name))

    def _place(self, node: ast.stmt) -> None:
        targets = targets_of(node)
        if isinstance(node, NAMED):
            made = {node.name}
        elif targets:
            made = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        else:
            self.statements.append(node)
            inner = [*ast.walk(node)]
            made = {each.name for each in inner if isinstance(each, NAMED)}
            made |= {each.id for each in inner if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
        for name in made:
            self.defined.setdefault(name, []).append(node)

    def find(self, name: str) -> list[ast.stmt]:
        """The statements that make a name of the module, or of a class of it ("Session.make")."""
        first, *parts = name.split(".")
        found = self.defined.get(first, [])
        for part in parts:
            inner = [each for node in found if isinstance(node, ast.ClassDef) for each in node.body]
            found = [each for each in inner if isinstance(each, NAMED) and each.name == part]
        return found


def targets_of(node: ast.stmt) -> list[ast.expr]:
    """What a statement gives values to, where these are plain names and it does no more; else nothing."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return []
    targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
    plain = (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.expr_context)
    return targets if all(isinstance(each, plain) for target in targets for each in ast.walk(target)) else []


def is_nothing(node: ast.AST) -> bool:
    """Whether a statement changes nothing that the code computes: imports (their names are followed), docstrings."""
    if isinstance(node, ast.If):
        return all(isinstance(each, (ast.Import, ast.ImportFrom)) for each in (*node.body, *node.orelse))
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass))


def is_followed(module: str) -> bool:
    """Whether a method's hash holds what it names of a module of the suite's or the user's own."""
    return module.partition(".")[0] not in SUITE or f"{module}.".startswith(METHOD_FILES)


@cache
def is_own(module: str, folder: Path | None) -> bool:
    """Whether a module imported by a file of ``folder`` is the suite's, or the user's own: it lies there or below."""
    top = module.partition(".")[0]
    if top in SUITE or top.startswith(PLUGIN):
        return True
    place = None if folder is None or top in sys.stdlib_module_names else place_of(top)
    if place is None or folder is None or not place.is_relative_to(folder):
        return False
    return not INSTALLED & {folder.name, *place.relative_to(folder).parts}


def place_of(module: str) -> Path | None:
    """Its file, in a package ``__init__.py``, be it there or not; None where there is none in Python."""
    parent, _, last = module.rpartition(".")
    if parent:
        home = place_of(parent)
        if home is None or home.name != PACKAGE:
            return None
        inner = home.parent / last
        file, package = inner.with_name(f"{last}.py"), inner / PACKAGE
        return package if package.is_file() else file if file.is_file() else package if inner.is_dir() else None
    known = getattr(sys.modules.get(module), "__file__", None)
    try:
        spec = None if known else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec and not spec.has_location and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)), PACKAGE).absolute()
    found = known or (spec and spec.has_location and spec.origin)
    return Path(found).absolute() if found and found.endswith(".py") else None


READ: dict[str, tuple[object, Source]] = {}


def on_disk(module: str) -> Source | None:
    """The module's source, None where there is none; read once for each time that the module is loaded."""
    loaded = sys.modules.get(module)
    if module not in READ or READ[module][0] is not loaded:
        path = place_of(module)
        if path is None:
            return None
        READ[module] = loaded, Source(module, path.read_bytes() if path.is_file() else b"", path)
    return READ[module][1]
