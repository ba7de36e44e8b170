"""What ``--engine ray`` does on a node of the cluster: units of runs, in a worker that stays.

It keeps its session from unit to unit, for loading full-size towers takes longer than many runs. It writes into a
folder of its own on its node and hands the files over with the record, so that nodes need no disk in common.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from carryover.bench.cluster.node import Needs, faults
from carryover.bench.engine import units
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import StorageError, UserError
from carryover.bench.features.decoding import default_workers
from carryover.bench.host.files import here, whole
from carryover.bench.host.identity import sha256_of
from carryover.bench.host.processes import alive
from carryover.bench.host.worker_pool import STOPPED, answers
from carryover.bench.records.store import Store

MADE = ("plugins", "predictions")  # what of a run comes back beside its record


@dataclass(frozen=True)
class Setup:
    """What the driver tells every node.

    options   with absolute paths, and the workers' own device
    needs     what a node must have
    scratch   folder on each node for feature files, its variables the node's own; empty: the driver's --cache where
              the node sees ``probe``, a file that the driver put there, else the node's temporary folder
    """

    options: Options
    needs: Needs
    scratch: str
    probe: str


@dataclass(frozen=True)
class Parcel:
    """A record and the bytes of the run's files by kind (`MADE`); of one that trained nothing, no plug-in."""

    record: dict
    files: dict[str, bytes]


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
        self.setup, self.beside = setup, beside

    def ready(self) -> str:
        """Why no worker of this node can work, in one line; empty where it can."""
        found = faults(self.setup.needs)
        if self.setup.options.device == "cuda" and not torch.cuda.is_available():
            found.append("no CUDA device that its torch can use")
        try:
            if not found:
                self.begin()
        except (OSError, UserError) as error:
            found.append(str(error))
        return "; ".join(found)

    def begin(self) -> None:
        setup = self.setup
        scratch = node_folder(setup)
        shared = not setup.scratch and os.path.exists(setup.probe)
        cache = setup.options.cache if shared else str(scratch / "cache")
        self.folder = scratch / f"work.{here()}.{os.getpid()}"
        clear_dead(scratch)
        decoders = setup.options.workers
        if decoders is None:
            decoders = default_workers(setup.options.device, self.beside)
        torch.set_num_threads(1)
        self.session = Session(replace(setup.options, out=str(self.folder), cache=cache, workers=decoders))
        self.work = partial(units.work, self.session)

    def do(self, items: list, plugins: dict[str, bytes | None]) -> Iterator[tuple[str, Any]]:
        """As ``worker_pool.answers``, with a `Parcel` for each run. plugins: key -> file, of those that the items read
        and do not make; None where there is none."""
        for kind, content in answers(partial(self.done, plugins), items):
            if kind == STOPPED:  # the fault alone: the advice that follows is for a call's own folders
                content = content.partition("; ")[0]
            yield kind, content

    def done(self, plugins: dict[str, bytes | None], items: list) -> Iterator[Any]:
        """What ``do`` gives of each item; its folder is empty again afterwards. Raises StorageError where this node's
        folders cannot be written in."""
        store = self.session.store
        try:
            store.check_writable()
            for key, plugin in plugins.items():
                put(store.path("plugins", key), plugin)
            for result in self.work(items):
                yield result if isinstance(items[0], units.Pictures) else self.packed(result)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def packed(self, record: dict) -> Parcel:
        store = self.session.store
        try:
            if path := changed(store, record):
                raise StorageError(f"'{path}' is not there as it was written")
            paths = {kind: store.path(kind, record["key"]) for kind in MADE}
            return Parcel(record, {kind: path.read_bytes() for kind, path in paths.items() if path.is_file()})
        except OSError as error:
            raise StorageError(f"cannot read '{self.folder}': {error.strerror or error}") from error


def changed(store: Store, record: dict) -> Path | None:
    """The first file of a done record that is not there with the bytes that the run left. Raises OSError."""
    noted = store.files_of(record).items() if record["status"] == "done" else ()
    return next((path for name, path in noted if sha256_of(path) != record["files"].get(name)), None)


def put(path: Path, content: bytes | None) -> None:
    """The file with that content, or no file. Raises StorageError."""
    if content is None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete '{path}': {error.strerror or error}; mend the disk") from error
        return
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


def clear_dead(scratch: Path) -> None:
    """Folders of workers that were killed."""
    for path in scratch.glob(f"work.{here()}.*"):
        if (pid := path.name.rpartition(".")[2]).isdecimal() and not alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
