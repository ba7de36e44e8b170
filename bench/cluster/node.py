"""Whether a node of a Ray cluster is fit for the driver's runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carryover.bench.host import environment
from carryover.bench.host.paths import PACKAGE

if TYPE_CHECKING:
    from carryover.bench.engine.options import Options

CODE = ("bench", "methods", "datasets")


@dataclass(frozen=True)
class Needs:
    """What a node must have: the driver's program (`source_digest`), its packages, and all that its command line
    names."""

    source: str
    versions: dict[str, str]
    paths: tuple[str, ...]


def needs_of(options: Options) -> Needs:
    """options: a worker's, with absolute paths."""
    weights = [tower.weights for tower in options.arch.towers.values()]
    folders = [path for _, path in options.folders]
    named = [options.data_root, options.manifests, *options.plugin_dirs, *folders, *weights]
    return Needs(source_digest(), environment.versions(), tuple(dict.fromkeys(filter(None, named))))


def source_digest(root: Path = PACKAGE) -> str:
    """sha256 over the program's own Python files."""
    found = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (root / name).rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def faults(needs: Needs) -> list[str]:
    """Why this node cannot do the driver's runs, a line each."""
    found, ours = [], environment.versions()
    if source_digest() != needs.source:
        found.append(f"has another version of this suite in '{PACKAGE}' than the driver")
    unlike = [f"{name} {ours.get(name)} (driver {v})" for name, v in needs.versions.items() if ours.get(name) != v]
    if unlike:
        found.append(f"has other packages: {', '.join(unlike)}")
    if missing := [path for path in needs.paths if not os.path.exists(path)]:
        found.append(f"does not see {', '.join(missing)}")
    return found
