"""Plug-in methods. A file in this folder that registers a ``Method`` is a method; no list to edit."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

from carryover.bench import places
from carryover.bench.errors import UserError
from carryover.bench.places import PAPER_ORDER
from carryover.methods.base import METHODS, Method

__all__ = ["METHODS", "PAPER_ORDER", "Method", "default", "discover", "ordered", "source_hash"]


def discover(plugin_dirs: tuple[str, ...] = ()) -> None:
    """Import every method file here and in the user's folders. Raises UserError for a file that cannot be imported."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if path.stem != "base":
            importlib.import_module(f"carryover.methods.{path.stem}")
    for folder in plugin_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"--plugin-dir: no folder '{folder}'")
        for path in sorted(Path(folder).glob("[!_]*.py")):
            import_file(path.resolve())


def import_file(path: Path) -> None:
    """Import a user's method file under a name of its own, so that it never meets an installed package."""
    name = f"carryover_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
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


def ordered() -> list[str]:
    """All method ids in the order of tables."""
    return places.ordered({name: METHODS[name].depth for name in METHODS})


def default() -> list[str]:
    """What is run where the command line names no methods: those on frozen image features, which are encoded once for
    all of them. Methods that train towers, or adapt to each test image, are asked for by name or by "all"."""
    return [name for name in ordered() if METHODS[name].needs == "features"]


def source_hash(method: type[Method]) -> str:
    """sha256 over the source files of a method, of the methods it derives from and of what these import from method
    files; part of its runs' keys. Other modules of the user's are not followed."""
    modules = {sys.modules[base.__module__] for base in method.__mro__ if issubclass(base, Method)}
    homes = {getattr(value, "__module__", None) for module in modules for value in vars(module).values()}
    modules |= {
        sys.modules[h]
        for h in homes
        if isinstance(h, str) and h.startswith(("carryover.methods.", "carryover_plugin_"))
    }
    files = {inspect.getfile(module) for module in modules}
    # Sorted by content, so that the hash does not change with the folder that a user's file lies in.
    return hashlib.sha256(b"\0".join(sorted(Path(file).read_bytes() for file in files))).hexdigest()
