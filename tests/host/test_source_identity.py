"""What a method's hash holds: every constant, operator and name of what the method reaches, and no more."""

import ast
import copy
import dis
import importlib
import re
import sys
from types import CodeType, FunctionType

import pytest

from carryover.bench.errors import UserError
from carryover.bench.host import source_files
from carryover.bench.host.source_files import Source, on_disk
from carryover.bench.host.source_identity import ON_DISK, Library, Tree, of_classes, roots_of
from carryover.methods import discover, source_hash
from carryover.methods.base import METHODS
from carryover.methods.catalogue import classes_of

HOME = METHODS["coop"].__module__.rpartition(".")[0]  # the package of the method files
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.And: ast.Or, ast.Or: ast.And, ast.Eq: ast.NotEq, ast.Is: ast.IsNot}


def roots(method):
    return roots_of(classes_of(METHODS[method]))


def own_methods():
    """Those that runs train."""
    return [name for name in METHODS if METHODS[name].__module__.rpartition(".")[0] == HOME]


def hashes(library=ON_DISK):
    return {name: library.reach(roots(name))[1] for name in own_methods()}


def texts():
    """By name below the package: "coop", "parts.prompts"."""
    folder = on_disk(METHODS["coop"].__module__).folder
    paths = sorted([*folder.glob("[a-z]*.py"), *folder.glob("parts/[a-z]*.py")])
    return {".".join(p.relative_to(folder).with_suffix("").parts): p.read_text(encoding="utf-8") for p in paths}


def with_text(module, old, new):
    """Hashes where a string of a method file, there once, is another."""
    text = texts()[module]
    assert text.count(old) == 1, f"{module}: {old}"
    changed = Source(f"{HOME}.{module}", text.replace(old, new))
    return hashes(Library(lambda name: changed if name == changed.name else on_disk(name)))


def differing(found):
    before = hashes()
    return {name for name in before if before[name] != found[name]}


# ---- what must not change it -----------------------------------------------------------------------------------------


class Reworded(ast.NodeTransformer):
    """Other docstrings everywhere, no annotations of signatures, a ``pass`` at every end."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg):
            if each:
                each.annotation = None
        node.returns = None
        return self.visit_ClassDef(node, walked=True)

    def visit_ClassDef(self, node, walked=False):
        if not walked:
            self.generic_visit(node)
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        node.body = [ast.Expr(ast.Constant("Says something else.")), *body, ast.Pass()]
        return node


def reworded(text, backwards=False):
    """The same program laid out by ``ast.unparse``; ``backwards`` with its definitions in another order, which only a
    reader of trees bears."""
    body = Reworded().visit(ast.parse(text)).body
    parts = [ast.unparse(ast.fix_missing_locations(node)) for node in (reversed(body) if backwards else body)]
    return "\n\n\n# a comment\n".join(parts)


def test_comments_docstrings_layout_annotations_and_the_order_of_definitions_do_not_change_it():
    for backwards in (False, True):
        changed = {f"{HOME}.{stem}": Source(f"{HOME}.{stem}", reworded(t, backwards)) for stem, t in texts().items()}
        assert hashes(Library(lambda name, found=changed: found.get(name) or on_disk(name))) == hashes()


def test_a_reworded_copy_that_lies_elsewhere_under_other_names_has_the_same_hashes(tmp_path, monkeypatch):
    folder = tmp_path / "moved_house" / "rooms"
    folder.mkdir(parents=True)
    (tmp_path / "moved_house" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    for stem, text in texts().items():
        text = re.sub(
            rf"from {HOME}\.parts import (\w+)", r"from moved_house.rooms import its_parts_\1 as \1", reworded(text)
        )
        text = re.sub(rf"from {HOME} import (\w+)", r"from moved_house.rooms import its_\1 as \1", text)
        text = re.sub(rf"from {HOME}\.parts\.", "from moved_house.rooms.its_parts_", text)
        text = re.sub(rf"from {HOME}\.", "from moved_house.rooms.its_", text)
        (folder / f"its_{stem.replace('.', '_')}.py").write_text(text)
    monkeypatch.setattr(source_files, "SUITE", (*source_files.SUITE, "moved_house"))
    monkeypatch.setattr(source_files, "METHOD_FILES", (*source_files.METHOD_FILES, "moved_house."))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        for name in own_methods():
            moved = []
            for one in classes_of(METHODS[name]):
                home = importlib.import_module(
                    f"moved_house.rooms.its_{one.__module__[len(HOME) + 1 :].replace('.', '_')}"
                )
                moved.append(getattr(home, one.__name__))
            assert moved[0] is not METHODS[name] and of_classes(tuple(moved)) == source_hash(METHODS[name]), name
    finally:
        for name in [name for name in sys.modules if name.startswith("moved_house")]:
            del sys.modules[name]


# ---- what must change it ---------------------------------------------------------------------------------------------


def parts_of(node):
    """All syntax nodes that count, with the statement lists they stand in: no docstrings, no annotations of signatures
    and of variables in functions."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("returns", "type_comment", "annotation"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not source_files.is_nothing(child):
                yield from parts_of(child)


def mutations(node):
    """(what, do, undo) of each change of one constant, operator or name in a definition."""
    for each in parts_of(node):
        for name, value in ast.iter_fields(each):
            if isinstance(each, ast.Constant) and name == "value":
                yield each, name, value, not value if isinstance(value, bool) else (value, "other")
            elif isinstance(value, (ast.operator, ast.unaryop, ast.boolop)):
                yield each, name, value, SWAPPED.get(type(value), ast.Add)()
            elif isinstance(each, ast.Compare) and name == "ops":
                yield each, name, value, [SWAPPED.get(type(value[0]), ast.Eq)(), *value[1:]]
            elif name in ("id", "attr", "arg", "name") and isinstance(value, str):
                yield each, name, value, f"{value}_other"
            elif name in ("body", "decorator_list", "defaults", "kw_defaults", "keywords", "bases") and value:
                if isinstance(value, list) and not source_files.is_nothing(value[-1] or each):
                    yield each, name, value, value[:-1]


def test_every_constant_operator_default_and_name_of_what_a_method_reaches_changes_the_tree_it_stands_in():
    reached = {ref for name in own_methods() for ref in ON_DISK.reach(roots(name))[0]}
    modules = {module for module, _ in reached}
    tried = 0
    for module, name in sorted(reached):
        source, unseen = on_disk(module), []
        before = ON_DISK.tree(source, name)
        for node in source.find(name):
            for each, what, value, other in mutations(node):
                setattr(each, what, other)
                tree = Tree(ON_DISK, source)
                if tree.dump(source.find(name)) == before.text:
                    unseen.append(f"{module}.{name} line {getattr(each, 'lineno', '?')}: {what} {value}")
                setattr(each, what, value)
                tried += 1
        assert not unseen
    assert len(modules) > 15 and tried > 4000


def test_of_each_definition_that_changes_the_methods_that_reach_it_change_and_no_others():
    reach = {name: ON_DISK.reach(roots(name))[0] for name in own_methods()}
    for module, name in sorted({ref for refs in reach.values() for ref in refs}):
        library, tree = Library(on_disk), copy.copy(ON_DISK.tree(on_disk(module), name))
        tree.text += " changed"
        library.trees = {**ON_DISK.trees, (id(tree.source), name): tree}
        assert differing(hashes(library)) == {method for method, refs in reach.items() if (module, name) in refs}


@pytest.mark.parametrize(
    "module, old, new, methods",
    [
        ("train_config", "lr: float = 2e-3", "lr: float = 2e-4", None),
        ("base", "size = (len(image), image.width)", "size = (len(image), 0)", None),
        ("base", "templates: tuple[str, ...]\n\n", "templates: tuple[str, ...] = ()\n\n", None),
        (
            "parts.prompts",
            "CONTEXT_STD = 0.02",
            "CONTEXT_STD = 0.03",
            {"coop", "cocoop", "kgcoop", "contcoop", "maple", "promptsrc", "coprompt", "tcp"},
        ),
        ("parts.prompts", "shots <= 4 else", "shots < 4 else", {"coop", "kgcoop", "contcoop", "clip-adapter"}),
        ("parts.test_time", "stable=True", "stable=False", {"tpt", "rada-tt"}),
        ("rada", "temperature: float = 1.0", "temperature: float = 2.0", {"rada", "rada-tt", "rada-towers"}),
        ("clip_lora", "ITERATIONS = 500", "ITERATIONS = 501", {"clip-lora"}),
        ("tip_adapter_f", '"dtd": (2, 13, 13)', '"dtd": (2, 13, 12)', {"tip-adapter-f"}),
        ("kgcoop", "Config = Config\n", "Config = CoOpConfig\n", {"kgcoop"}),
        ("clip_lora", ".templates[:1]", ".templates[1:]", {"clip-lora"}),
        ("taskres", "from torch import nn", "from numpy import nn", {"taskres"}),
    ],
)
def test_a_changed_value_changes_the_methods_that_use_it_alone(module, old, new, methods):
    assert differing(with_text(module, old, new)) == ({*own_methods()} if methods is None else methods)


def loaded_names(code: CodeType):
    """Global names that compiled code reads, in inner functions too."""
    yield from (each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from loaded_names(inner)


def functions_of(value):
    if isinstance(value, type):
        for each in vars(value).values():
            yield from functions_of(each)
    for part in (value, *(getattr(value, name, None) for name in ("__func__", "__wrapped__", "fget"))):
        if isinstance(part, FunctionType):
            yield part


def test_all_that_a_methods_compiled_code_names_in_method_files_is_reached():
    for method in own_methods():
        reach, waiting, seen = {*ON_DISK.reach(roots(method))[0]}, [*classes_of(METHODS[method])], set()
        while waiting:
            value = waiting.pop()
            for function in functions_of(value):
                if function in seen or not function.__module__.startswith(HOME):
                    continue
                seen.add(function)
                for name in loaded_names(function.__code__):
                    used = function.__globals__.get(name)
                    if name in on_disk(function.__module__).defined:
                        assert (function.__module__, name) in reach, f"{method}: {function.__qualname__} uses {name}"
                    home = getattr(used, "__module__", None) or ""
                    if isinstance(used, (type, FunctionType)) and home.startswith(HOME):
                        assert (home, used.__qualname__) in reach, f"{method}: {function.__qualname__} uses {name}"
                        waiting.append(used)
        assert len(seen) > 15


# ---- how names are found ---------------------------------------------------------------------------------------------

SHARED = "RATE = 1\nOTHER = 2\n\n\ndef used(x):\n    return x * RATE\n\n\ndef unused(x):\n    return x\n"


def follows(text, shared=SHARED, change=("RATE = 1", "RATE = 3")):
    """Whether class A of a method file changes with what stands in another method file."""

    def found(shared):
        texts = {"carryover": "", HOME: "", f"{HOME}.a": text, f"{HOME}.b": shared}
        return Library({name: Source(name, text) for name, text in texts.items()}.get).reach([(f"{HOME}.a", "A")])[1]

    assert shared.count(change[0]) == 1
    return found(shared) != found(shared.replace(*change))


@pytest.mark.parametrize(
    "text",
    [
        f"from {HOME}.b import used\nclass A:\n    def f(self, x):\n        return used(x)\n",
        f"from {HOME}.b import used as other\nclass A:\n    f = staticmethod(other)\n",
        f"from {HOME} import b\nclass A:\n    def f(self, x):\n        return b.used(x)\n",
        f"import {HOME}.b as c\nclass A:\n    def f(self, x=c.RATE):\n        return x\n",
        f"import {HOME}.b\nclass A:\n    def f(self, x):\n        return {HOME}.b.used(x)\n",
        f"from {HOME}.b import *\nclass A:\n    f = used\n",
        f"def made():\n    from {HOME}.b import used\n    return used\n\nclass A:\n    f = made()\n",
        f"from {HOME}.b import used\n@used\nclass A:\n    pass\n",
        f"from {HOME}.b import used\ndef outer():\n    def inner(x):\n        return used(x)\n    return inner\n"
        "class A:\n    f = outer()\n",
        f"try:\n    from fast import used\nexcept ImportError:\n    from {HOME}.b import used\n"
        "class A:\n    f = used\n",
        f"from {HOME}.b import used\nRATE = 0\nRATE += used(1)\nclass A:\n    rate = RATE\n",
        f"from {HOME}.b import used\nclass A:\n    pass\nA.f = used\n",
        f"from {HOME}.b import used\nif used(1):\n    X = 2\nclass A:\n    pass\n",
        f"from {HOME} import b\nclass A:\n    f = getattr(b, 'us' + 'ed')\n",
        f"from {HOME}.b import RATE\nclass A:\n    x: int = RATE\n",
        f"from {HOME} import b\nclass A(b.used(object)):\n    pass\n",
    ],
)
def test_a_name_is_followed_however_it_is_imported_and_wherever_it_stands(text):
    assert follows(text)


def test_what_is_not_named_is_not_followed_unless_the_module_acts_when_it_is_imported():
    text = f"from {HOME}.b import used\nclass A:\n    f = used\n"
    assert not follows(text, change=("OTHER = 2", "OTHER = 3"))
    assert not follows(text, change=("return x\n", "return -x\n"))
    assert follows(text, f"{SHARED}used.cost = 7\n", ("7", "8"))
    assert follows(f"import {HOME}.b\nclass A:\n    pass\n", f"{SHARED}print(7)\n", ("7", "8"))


def test_two_definitions_of_one_name_are_told_apart():
    both = "def f(x):\n    return a.g(x) - b.g(x)\n"

    def found(text):
        sources = {
            "carryover.methods.f": text,
            "carryover.methods.a": "def g(x):\n    return 1\n",
            "carryover.methods.b": "def g(x):\n    return 2\n",
        }
        return Library({name: Source(name, text) for name, text in sources.items()}.get).reach(
            [("carryover.methods.f", "f")]
        )[1]

    imports = "from carryover.methods import a, b\n"
    assert found(imports + both) != found(imports + both.replace("a.g(x) - b.g(x)", "b.g(x) - a.g(x)"))


# ---- a user's files --------------------------------------------------------------------------------------------------

MINE = """
from carryover.methods.base import METHODS, register
from zz_helper import factor
from zz_parts.deep import layer


@register("zz-mine")
class Mine(METHODS["coop"]):
    scale = factor()

    def inner(self):
        return METHODS["taskres"], layer
"""


@pytest.fixture
def written(tmp_path, monkeypatch, clean_registry):
    """Registers the method above from a folder with a helper and a package of the user's beside it."""

    def forget():
        for name in [name for name in sys.modules if name.startswith(("zz_helper", "zz_parts"))]:
            del sys.modules[name]

    def write(place, helper="def factor():\n    return 1\n", deep="layer = 1\n"):
        folder = tmp_path / place
        (folder / "zz_parts").mkdir(parents=True)
        (folder / "mine.py").write_text(MINE)
        (folder / "zz_helper.py").write_text(helper)
        (folder / "zz_parts" / "deep.py").write_text(deep)
        forget()
        monkeypatch.syspath_prepend(str(folder))
        discover((str(folder),))
        return METHODS.entries.pop("zz-mine")

    yield write
    forget()


def test_modules_of_the_users_own_beside_a_method_file_count_with_what_is_named_of_them(written):
    more = "# said\ndef factor():\n    return 1\n\n\ndef more():\n    return 2\n"
    first = source_hash(written("a"))
    assert source_hash(written("b", helper=more)) == first
    assert source_hash(written("c", helper="def factor():\n    return 2\n")) != first
    assert source_hash(written("d", deep="layer = 2\n")) != first


def test_a_method_that_is_looked_up_by_its_id_is_reached(written):
    found = {name for _, name in ON_DISK.reach(roots_of(classes_of(written("a"))))[0]}
    assert {"Mine", "factor", "layer", "CoOp", "PromptMethod", "TaskRes"} <= found


def test_a_method_made_where_no_file_is_refused_in_one_line():
    namespace = {"__name__": "zz_nowhere", "Base": METHODS["coop"]}
    exec("class Typed(Base):\n    pass\n", namespace)
    with pytest.raises(UserError, match="source file of Typed") as caught:
        source_hash(namespace["Typed"])
    assert "\n" not in str(caught.value)


def test_a_class_made_in_a_function_is_known_by_the_whole_function():
    def make(rate):
        class Inner(METHODS["coop"]):
            factor = rate

        return Inner

    (ref, *rest) = roots_of(classes_of(make(1)))
    assert ref == (__name__, "test_a_class_made_in_a_function_is_known_by_the_whole_function")
    assert (METHODS["coop"].__module__, "CoOp") in rest


def test_a_class_that_no_statement_of_its_module_defines_is_known_by_the_whole_module():
    made = type("Made", (METHODS["coop"],), {"__module__": __name__})
    (ref, *_) = roots = roots_of(classes_of(made))
    assert ref == (__name__, "") and (__name__, "SHARED") in ON_DISK.reach(roots)[0]
