"""What ``--engine ray`` does on a node of the cluster: look whether it is fit, then do units in a worker that stays.

A worker keeps its session from unit to unit, for loading full-size towers takes longer than many runs. It writes into a
folder of its own on its node and hands the files over with the record, so that nodes need no disk in common.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import executor, provenance
from bench.loading import default_workers
from bench.processes import alive
from bench.session import Options, Session
from bench.store import here, whole
from bench.workers import RESULT, STOPPED, answers

ROOT = Path(__file__).resolve().parent.parent
CODE = ("bench", "methods", "datasets")
MADE = ("plugins", "predictions")  # what of a run comes back beside its record


@dataclass(frozen=True)
class Setup:
    """What the driver tells every node.

    options   with absolute paths, and the workers' own device
    threads   of one run
    source    `source_digest` of the driver's program; ``versions`` those of its packages
    scratch   folder on each node for feature files, its variables the node's own; empty: the driver's --cache where
              the node sees ``probe``, a file that the driver put there, else the node's temporary folder
    """

    options: Options
    threads: int
    source: str
    versions: dict[str, str]
    scratch: str
    probe: str


@dataclass(frozen=True)
class Parcel:
    """A record and the bytes of the run's files by kind (`MADE`); of one that trained nothing, no plug-in."""

    record: dict
    files: dict[str, bytes]


def source_digest(root: Path = ROOT) -> str:
    """sha256 over the program's own Python files."""
    found = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (root / name).rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def faults(setup: Setup) -> list[str]:
    """Why this node cannot do the driver's runs, a line each: other code, other packages, folders or files that it does
    not see, no device."""
    found, ours = [], provenance.versions()
    if source_digest() != setup.source:
        found.append(f"has another version of this suite in '{ROOT}' than the driver")
    unlike = [f"{name} {ours.get(name)} (driver {v})" for name, v in setup.versions.items() if ours.get(name) != v]
    if unlike:
        found.append(f"has other packages: {', '.join(unlike)}")
    missing = [path for path in paths(setup.options) if not os.path.exists(path)]
    if missing:
        found.append(f"does not see {', '.join(missing)}")
    if setup.options.device == "cuda" and not torch.cuda.is_available():
        found.append("has no CUDA device that its torch can use")
    return found


def paths(options: Options) -> list[str]:
    """All that the command line names and every node must see."""
    weights = [tower.weights for tower in options.arch.towers.values()]
    folders = [path for _, path in options.folders]
    return list(
        dict.fromkeys(filter(None, [options.data_root, options.manifests, *options.plugin_dirs, *folders, *weights]))
    )


def absolute(options: Options) -> Options:
    """For workers, whose working folder is another."""
    arch = options.arch

    def tower(given):
        return replace(given, weights=os.path.abspath(given.weights) if given.weights else "")

    arch = replace(
        arch, base=tower(arch.base), new=tower(arch.new), more={name: tower(t) for name, t in arch.more.items()}
    )
    named = {n: getattr(options, n) for n in ("out", "cache", "hub_cache", "data_root", "manifests")}
    return replace(
        options,
        arch=arch,
        **{name: os.path.abspath(path) if path else path for name, path in named.items()},
        plugin_dirs=tuple(map(os.path.abspath, options.plugin_dirs)),
        folders=tuple((id, os.path.abspath(path)) for id, path in options.folders),
    )


def node_folder(setup: Setup) -> Path:
    """Of this user on this node."""
    if setup.scratch:
        return Path(os.path.expandvars(setup.scratch)).absolute()
    return Path(tempfile.gettempdir()) / f"carryover-{os.getuid()}"


class Worker:
    """A Ray actor; one unit at a time."""

    def __init__(self, setup: Setup, beside: int):
        """beside: workers that this node has at most, itself included."""
        scratch = node_folder(setup)
        shared = not setup.scratch and os.path.exists(setup.probe)
        cache = setup.options.cache if shared else str(scratch / "cache")
        self.folder = scratch / f"work.{here()}.{os.getpid()}"
        clear_dead(scratch)
        decoders = setup.options.workers
        if decoders is None:
            decoders = default_workers(setup.options.device) // beside
        options = replace(setup.options, out=str(self.folder), cache=cache, workers=decoders)
        torch.set_num_threads(setup.threads)
        self.session = Session(options)
        self.work = partial(executor.work, self.session)

    def ready(self) -> int:
        return os.getpid()

    def do(self, items: list, plugins: dict[str, bytes | None]) -> Iterator[tuple[str, Any]]:
        """As ``workers.answers``, with a `Parcel` for each run. plugins: key -> file, of those that the items read and
        do not make; None where there is none."""
        store = self.session.store
        for key, plugin in plugins.items():
            put(store.path("plugins", key), plugin)
        for kind, content in answers(self.work, items):
            if kind == RESULT and not isinstance(items[0], executor.Pictures):
                content = self.packed(content)
            elif kind == STOPPED:
                content = f"on {socket.gethostname()}: {content}"
            yield kind, content
        for key in plugins:
            put(store.path("plugins", key), None)

    def packed(self, record: dict) -> Parcel:
        files = {}
        for kind in MADE:
            path = self.session.store.path(kind, record["key"])
            if path.is_file():
                files[kind] = path.read_bytes()
                path.unlink()
        return Parcel(record, files)

    def leave(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def put(path: Path, content: bytes | None) -> None:
    """The file with that content, or no file."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


def clear_dead(scratch: Path) -> None:
    """Folders of workers that were killed."""
    for path in scratch.glob(f"work.{here()}.*"):
        if (pid := path.name.rpartition(".")[2]).isdecimal() and not alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
