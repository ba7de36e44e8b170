"""Finds the methods, in this folder and the user's, and tells of them what plans and tables must know."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from carryover.bench import places
from carryover.bench.errors import UserError
from carryover.bench.host import source_identity
from carryover.bench.host.source_files import PLUGIN
from carryover.methods.base import METHODS, Classes, Method, Shape, Support, TrainConfig

GIVEN = (Classes, Shape, Support)  # what the suite makes for every method, named by it or not
ANY_SHAPE = Shape(512, 512, ("one", "two"), 2, 12, 12, 768)  # which tensors a method learns goes by no size


def discover(plugin_dirs: tuple[str, ...] = ()) -> None:
    """Import every method file here and in the user's folders. Raises UserError for a file that cannot be imported."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"carryover.methods.{path.stem}")
    for path in sorted((Path(__file__).parent / "elsewhere").glob("[a-z]*.py")):
        importlib.import_module(f"carryover.methods.elsewhere.{path.stem}")
    for folder in plugin_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"--plugin-dir: no folder '{folder}'")
        for path in sorted(Path(folder).glob("[!_]*.py")):
            import_file(path.resolve())


def import_file(path: Path) -> None:
    """Import a user's method file under a name of its own, so that it never meets an installed package."""
    name = f"{PLUGIN}{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # so it is for every file named *.py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"plug-in file '{path}' cannot be imported: {type(error).__name__}: {error}") from error


def trained_here(name: str) -> bool:
    """Whether runs train a method. Not where its class says ``trained_here = False``: it comes from files alone
    (``methods/elsewhere``). The base class does not say it, so that no run's key hangs on it."""
    return getattr(METHODS[name], "trained_here", True)


def ordered() -> list[str]:
    """The ids of all methods that runs train, in the order of tables."""
    return places.ordered({name: METHODS[name].depth for name in METHODS if trained_here(name)})


def source_hash(method: type[Method]) -> str:
    """sha256 over the syntax trees of a method and of all that it reaches in method files and in the user's own modules
    beside it (``bench.host.source_identity``); part of its runs' keys."""
    return source_identity.of_classes(classes_of(method))


def classes_of(method: type[Method]) -> tuple[type, ...]:
    """What a method is made of where the code names it or not: bases may be looked up when the class is made."""
    own = [base for base in method.__mro__ if issubclass(base, Method)]
    configs = [base for base in method.Config.__mro__ if issubclass(base, TrainConfig)]
    return (*own, *configs, *GIVEN)


class Registered(Mapping[str, Any]):
    """All registered methods in the order of `ordered`, those that are registered later too. What plans and tables are
    handed, for they import no method (``bench.plan.settings.Methods``)."""

    def __getitem__(self, name: str) -> Any:  # type[Method], whose class variables mypy takes for those of instances
        return METHODS[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ordered())

    def __len__(self) -> int:
        return len(ordered())

    def __contains__(self, name: object) -> bool:
        return name in METHODS.entries and trained_here(str(name))

    def learns(self, name: str) -> bool:
        """Whether there is anything to carry: not in zero-shot, nor in what adapts to each test image by itself, nor
        where all that was trained stays at home (its plug-in is empty, so that reused it is zero-shot)."""
        return METHODS[name].depth != "none" and METHODS[name].needs != "views" and not is_empty(name)


@functools.lru_cache(maxsize=64)
def is_empty(method: str) -> bool:
    """Whether a plug-in holds no tensor. One that is whole holds all that training left, so it is not asked."""
    made = METHODS[method]
    return not made.whole and not made(made.Config(), ANY_SHAPE).learned()
