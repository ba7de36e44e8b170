"""What a piece of code is, wherever it stands and however it is laid out: sha256 over its syntax trees.

Each run's key holds the hash of its method (``of_classes``). ``tests/number_sources.json`` holds those of the suite's
own definitions that decide numbers (``Library.hashes``). Neither changes with comments, docstrings, formatting, import
statements, the order of definitions in a file, or the place and name of a file: a name counts as the definition that it
stands for. Annotations count in class bodies alone, where dataclasses read them. All else counts, labels too.

A method reaches what its code names, in method files and in modules of the user's own that lie beside the method's file
or in a folder below it. Of all other code the name alone counts. ``METHODS["coop"]`` reaches that method; what is
looked up by a text made at run time is not found.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from carryover.bench.errors import UserError
from carryover.bench.host.source_files import Ref, Source, is_followed, is_nothing, is_own, on_disk
from carryover.bench.registry import Registry

SCHEME = "tree1"  # stands before a method's hash: two hashes can be compared only where it is the same
UNSEEN = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}  # fields of syntax trees
Target = Ref | str  # what a name stands for; a text: another package's dotted name


@dataclass
class Tree:
    """Definitions in canonical text, the same in every version of Python, and the definitions they name, in order."""

    library: Library
    source: Source
    text: str = ""
    refs: list[Ref] = field(default_factory=list)
    fields: set[int] = field(default_factory=set)  # annotated names of class bodies

    def dump(self, value: object) -> str:
        if isinstance(value, list):
            return f"[{','.join(self.dump(each) for each in value if not self.skips(each))}]"
        if not isinstance(value, ast.AST):
            return ascii(value)
        if isinstance(value, ast.Constant):
            return f"{type(value.value).__name__}:{ascii(value.value)}"
        if isinstance(value, (ast.Name, ast.Attribute)) and (targets := self.targets(value)):
            return "|".join(map(self.reference, targets))
        if isinstance(value, ast.JoinedStr):
            return f"JoinedStr({self.joined(value)})"
        if isinstance(value, ast.AnnAssign):
            kept = f",annotation={self.dump(value.annotation)}" if id(value) in self.fields else ""
            given = f",value={self.dump(value.value)}" if value.value else ""
            return f"Assign(targets=[{self.dump(value.target)}]{given}{kept})"
        if isinstance(value, ast.ClassDef):
            self.fields |= {id(each) for each in value.body if isinstance(each, ast.AnnAssign)}
        if isinstance(value, ast.Subscript):
            self.refs += self.looked_up(value)
        seen = [(name, child) for name, child in ast.iter_fields(value) if name not in UNSEEN and child is not None]
        parts = [f"{name}={text}" for name, child in seen if (text := self.dump(child)) != "[]"]
        return f"{type(value).__name__}({','.join(parts)})"

    def skips(self, node: object) -> bool:
        bare = isinstance(node, ast.AnnAssign) and node.value is None and id(node) not in self.fields
        return bare or (isinstance(node, ast.stmt) and is_nothing(node))

    def joined(self, node: ast.JoinedStr) -> str:
        """An f-string's parts; versions of Python cut the text between its braces differently."""
        parts, text = [], ""
        for each in node.values:
            if isinstance(each, ast.Constant):
                text += str(each.value)
            else:
                parts += [ascii(text), self.dump(each)]
                text = ""
        return ",".join([*parts, ascii(text)])

    def reference(self, target: Target) -> str:
        if isinstance(target, str):
            return f"<{target}>"
        self.refs.append(target)
        return f"@{target[1]}"

    def targets(self, node: ast.expr) -> list[Target]:
        """What a name, or an attribute of a module, stands for; empty for all else."""
        if isinstance(node, ast.Name):
            return self.library.bound(self.source, node.id)
        if not isinstance(node, ast.Attribute):
            return []
        found: list[Target] = []
        for target in self.targets(node.value):
            if isinstance(target, str):
                found.append(f"{target}.{node.attr}")
            elif target[1]:  # an attribute of a definition
                return []
            else:
                found += self.library.resolve(target[0], node.attr)
        return found

    def looked_up(self, node: ast.Subscript) -> list[Ref]:
        """The class that a registry of the suite holds under a constant name."""
        if not isinstance(node.slice, ast.Constant):
            return []
        tables = [live(*target) for target in self.targets(node.value) if not isinstance(target, str)]
        found = [each.entries.get(str(node.slice.value)) for each in tables if isinstance(each, Registry)]
        return [(each.__module__, first_name(each)) for each in found if isinstance(each, type)]


class Library:
    """Modules by import name, as ``source`` gives them: None where there is none."""

    def __init__(self, source: Callable[[str], Source | None]):
        self.source = source
        self.trees: dict[tuple[int, str], Tree] = {}

    def bound(self, source: Source, name: str) -> list[Target]:
        """What a module's name stands for; several where it is bound in several places."""
        found: list[Target] = [(source.name, name)] if name in source.defined else []
        for module, original in source.imported.get(name, ()):
            if not is_own(module, source.folder):
                found.append(f"{module}.{original}" if original else module)
            else:
                found += self.resolve(module, original) if original else [(module, "")]
        for star in () if found else source.stars:
            if is_own(star, source.folder) and (home := self.source(star)):
                found += self.bound(home, name)
        return found

    def resolve(self, module: str, name: str) -> list[Target]:
        """What ``module.name`` is, of the suite's or the user's code."""
        source = self.source(module) if is_followed(module) else None
        if source and (found := self.bound(source, name)):
            return found
        if self.source(f"{module}.{name}"):
            return [(f"{module}.{name}", "")]
        value = live(module, name) if is_followed(module) else None  # of a module that makes its names when asked
        home = getattr(value, "__module__", None)
        return [(home, first_name(value))] if isinstance(home, str) and first_name(value) else [(module, name)]

    def tree(self, source: Source, name: str) -> Tree:
        """Of a definition; of "" the module's statements that define nothing."""
        if (id(source), name) not in self.trees:
            tree = Tree(self, source)
            text = tree.dump(source.find(name) if name else source.statements)
            tree.text = "" if text == "[]" else text
            self.trees[id(source), name] = tree  # which keeps the source, and so its id
        return self.trees[id(source), name]

    def hashes(self, module: str, names: Sequence[str] = ()) -> dict[str, str]:
        """sha256 of each definition of a module by itself, or of the named ones alone; "" is its other statements."""
        source = self.source(module)
        assert source is not None, f"no module {module}"
        texts = {name: self.tree(source, name).text for name in names or ("", *source.defined)}
        missing = [name for name in names if not texts[name]]
        assert not missing, f"not in {module} any more: {missing}"
        return {name: sha256(text) for name, text in texts.items() if text}

    def imports(self, source: Source, wanted: Callable[[str], bool] = lambda module: True) -> dict[str, Source]:
        """The modules of the suite's and the user's own that it imports, or imports names of."""
        own = [name for name in sorted(source.loads) if wanted(name) and is_own(name, source.folder)]
        sources = {name: self.source(name) for name in own}
        return {name: source for name, source in sources.items() if source}

    def reach(self, roots: Sequence[Ref]) -> tuple[list[Ref], str]:
        """All definitions that the roots reach, and their sha256. A definition is known by when it is first named: so
        two of one name are told apart, and no file's name counts."""
        homes = {module for module, _ in roots}
        order: dict[Ref, int] = {}

        def number(ref: Ref) -> int:
            return order.setdefault(ref if is_followed(ref[0]) or ref[0] in homes else ("", ref[1]), len(order))

        def line(text: str, refs: Sequence[Ref]) -> str:
            return f"{text} {[*map(number, refs)]}"

        lines: list[str] = []
        effects: list[str] = []
        met: dict[str, Source] = {}
        done: set[str] = set()
        line("", roots)
        while len(lines) < len(order) or done < met.keys():
            for module, name in [*order][len(lines) :]:
                source = self.source(module) if module else None
                if source is None:
                    lines.append("")
                    continue
                met[module] = source
                whole = not name  # the module itself is handed on, and so all that it holds
                tree = self.tree(source, name)
                refs = [(module, each) for each in sorted(source.defined)] if whole else tree.refs
                lines.append(line("" if whole else tree.text, refs))
            # What a module does beside defining names can change any of them, as can what it imports for that alone.
            fresh = [(self.tree(source, ""), name) for name, source in met.items() if name not in done]
            for tree, module in sorted(fresh, key=lambda each: each[0].text):
                done.add(module)
                effects += [line(tree.text, tree.refs)] if tree.text else []
                met = {**self.imports(met[module], is_followed), **met}
        return [ref for ref in order if ref[0]], sha256("\n".join([*lines, "", *effects]))


def live(module: str, name: str) -> object:
    return getattr(sys.modules.get(module), name, None)


def first_name(value: object) -> str:
    """Of a definition inside a function or a class the outermost one's name."""
    return getattr(value, "__qualname__", "").partition(".")[0]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def same_scheme(one: str, other: str) -> bool:
    """Whether two hashes of methods are of one kind. Before numbers version 3 they named none, and hashed files."""
    return one.rpartition(":")[0] == other.rpartition(":")[0]


ON_DISK = Library(on_disk)


def roots_of(classes: Sequence[type]) -> list[Ref]:
    """Raises UserError for a class without a source file."""
    found = []
    for one in classes:
        source = on_disk(one.__module__)
        if source is None:
            raise UserError(
                f"the source file of {one.__qualname__} (module '{one.__module__}') is not found, and a method is "
                "known by its source: write it to a file"
            )
        name = first_name(one)
        found.append((one.__module__, name if name in source.defined else ""))
    return found


@cache
def of_classes(classes: tuple[type, ...]) -> str:
    """The hash of all that the classes reach, the first of them the one that is meant."""
    return f"{SCHEME}:{sha256(f'{classes[0].__qualname__} {ON_DISK.reach(roots_of(classes))[1]}')}"
