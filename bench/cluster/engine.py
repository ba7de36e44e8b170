"""``--engine ray``: the runs of a plan on the nodes of a Ray cluster, or on this machine through Ray.

This process alone draws units, as the local engine does, and writes records, plug-ins and predictions. Workers stay
(`bench.cluster.worker`), because loading the towers anew for each run would take longer than most runs.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from carryover.bench.cluster import worker
from carryover.bench.cluster.node import needs_of
from carryover.bench.cluster.pool import Node, Pool
from carryover.bench.engine import local, units
from carryover.bench.engine.options import Options, worthwhile_together
from carryover.bench.engine.record_draft import write_manifests
from carryover.bench.engine.session import Session
from carryover.bench.errors import StorageError, UserError
from carryover.bench.host import environment, processor, stopping
from carryover.bench.host.device import precision_on
from carryover.bench.host.files import temporary
from carryover.bench.host.paths import PACKAGE
from carryover.bench.host.processes import cores
from carryover.bench.host.worker_pool import Lost
from carryover.bench.plan.runs import Run

OBJECTS = 256 << 20  # bytes of Ray's own memory where it is started here: records and small files alone pass through
ASKED = 120.0  # seconds that nodes have to say what their cards can do: a worker of theirs starts, and loads torch
ANSWER = 20.0  # seconds that a cluster's head has to take a connection
Say = Callable[[str], None]


@contextlib.contextmanager
def joined(args: argparse.Namespace, options: Options, say: Say) -> Iterator[Cluster | None]:
    """The cluster of the command line; None for the local engine. say: told of nodes that are not fit, and of lost
    workers. Raises UserError."""
    if args.engine != "ray":
        yield None
        return
    ray = connect(args.ray_address)
    probe = None
    try:
        probe = marker(Path(options.cache).absolute())
        cluster = Cluster(ray, args, options, str(probe), say)
        if not cluster.room:
            raise UserError(f"no node of the Ray cluster has a core and {cluster.gpus:g} of a GPU; see --ray-gpus")
        yield cluster
    finally:
        if probe:
            probe.unlink(missing_ok=True)
        ray.shutdown()


def marker(cache: Path) -> Path:
    """A file by which a node tells whether it sees this very folder."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return temporary(cache / "shared")
    except OSError as error:
        raise StorageError(f"cannot write '{cache}': {error.strerror or error}; choose another --cache") from error


def connect(address: str) -> Any:
    """Raises UserError where there is no Ray, or no cluster at that address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # its essays on lost workers; the pool says it in a line
    try:
        import ray
    except ImportError:
        raise UserError('--engine ray: Ray is not installed; pip install ".[ray]" in the checkout') from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address.startswith("ray://"):
        raise UserError(
            f"--ray-address {address}: Ray's client is not supported; run the command on a node of the cluster with "
            "--ray-address auto, or HOST:PORT of its head"
        )
    if address not in ("", "auto"):
        reach(address)
    try:
        with stopping.kept():  # Ray sets its own answer to SIGTERM
            if address:
                code: dict[str, Any] = {"py_modules": [str(PACKAGE)], "excludes": ["__pycache__"]}
                own = {"env_vars": processor.users_own()}  # else each node chooses MKL's mode for its own processor
                ray.init(address=address, runtime_env={**code, **own}, **quiet)
            else:
                here = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": OBJECTS}
                ray.init(
                    address="local", runtime_env={"env_vars": {"PYTHONPATH": str(PACKAGE.parent)}}, **here, **quiet
                )
    except (OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said += " (a cluster that asks for a token: export RAY_AUTH_MODE=token, as on its nodes)" if address else ""
        raise UserError(f"--ray-address {address or 'of this machine'}: Ray could not be joined: {said}") from error
    return ray


def reach(address: str) -> None:
    """Ray itself tries for minutes. Raises UserError where nothing answers."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        raise UserError(f"--ray-address {address}: expected 'auto', or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError as error:
        raise UserError(f"--ray-address {address}: nothing answers there: {error.strerror or error}") from error


class Cluster:
    """
    options  the driver's: as given, but what the workers' device decides is decided by theirs
    """

    def __init__(self, ray: Any, args: argparse.Namespace, options: Options, probe: str, say: Say):
        self.ray, self.say, self.jobs = ray, say, args.jobs or None
        accelerated = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
        cpu = args.device == "cpu" or (args.device == "auto" and options.arch.is_micro)
        self.gpus = float(accelerated and not cpu) if args.ray_gpus is None else args.ray_gpus
        device = args.device if args.device != "auto" else "cuda" if self.gpus else "cpu"
        if device == "mps" or (device == "cuda" and not self.gpus):
            raise UserError(f"--device {device} with --engine ray: the cluster offers no such device to its runs")
        together = args.together or worthwhile_together(options.arch, device)
        precision = args.precision or (self.precision_of_cards() if device == "cuda" else precision_on(device))
        self.options = replace(options, together=together, precision=precision)
        sharing = max(1, int(1 / self.gpus + 1e-9)) if self.gpus else 1
        theirs = worker.absolute(replace(self.options, device=device, sharing=sharing))
        self.setup = worker.Setup(theirs, needs_of(theirs), args.ray_scratch, probe)
        self.worker = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(worker.Worker)

    def precision_of_cards(self) -> str:
        """What --precision auto is: one for all nodes, so that a run's key is the same wherever it is done. Raises
        UserError where the nodes do not answer."""
        ask = self.ray.remote(num_cpus=0, num_gpus=self.gpus)(precision_on)
        asked = [ask.options(scheduling_strategy=only_on(node)).remote("cuda") for node in self.nodes()]
        try:
            found = self.ray.get(asked, timeout=ASKED)
        except self.ray.exceptions.RayError as error:
            raise UserError(
                f"--precision auto: the nodes do not say within {ASKED:g} s whether their cards have bf16 "
                f"({type(error).__name__}); name --precision bf16 or fp32"
            ) from error
        return min(found, key=["fp32", "bf16"].index, default=precision_on("cpu"))

    def nodes(self) -> list[Node]:
        """Those that can hold a worker: one core and its share of one GPU each."""
        found = []
        for node in self.ray.nodes():
            has = node["Resources"]
            room = int(has.get("CPU", 0))
            if self.gpus:
                room = min(room, int(has.get("GPU", 0)) * int(1 / self.gpus + 1e-9))
            if node["Alive"] and room:
                found.append(Node(node["NodeID"], node["NodeManagerHostname"], room))
        return found

    @property
    def room(self) -> int:
        """Workers at once, as the cluster is now."""
        return min(sum(node.room for node in self.nodes()), self.jobs or 1 << 30)

    def afterwards(self, session: Session) -> Session:
        """For what this process measures on the runs' features: on a device of their kind, where it has one."""
        device = self.setup.options.device
        if device == session.options.device or not torch.cuda.is_available():
            return session
        return Session(replace(session.options, device=device), session.progress)

    def engine(self, session: Session, share: units.Share, jobs: int, limit: float | None = None) -> units.Finished:
        """As ``local.in_workers``, on the cluster."""
        session.inputs.forget()
        queue, setup = units.Queue(session, share), self.ray.put(self.setup)

        def hire(node: Node) -> Any:
            return self.worker.options(scheduling_strategy=only_on(node)).remote(setup, node.room)

        pool = Pool(self.ray, hire, self.nodes, partial(self.plugins, session), self.jobs, limit, self.say)
        with contextlib.closing(pool.outcomes(queue.draw, lambda: len(queue.pending))) as outcomes:
            yield from local.gathered(session, queue, self.unpacked(session, outcomes))

    @staticmethod
    def plugins(session: Session, items: list) -> tuple[dict[str, bytes | None]]:
        """The files of the plug-ins that these runs evaluate or start from, and that others train."""
        if isinstance(items[0], units.Pictures):
            return ({},)
        keys = {session.keys.of(run.source) for run, _ in items if run.source}
        found = {key: session.store.path("plugins", key) for key in sorted(keys)}
        return ({key: path.read_bytes() if path.is_file() else None for key, path in found.items()},)

    def unpacked(
        self, session: Session, outcomes: Generator[tuple[Any, Any], None, None]
    ) -> Generator[tuple[Any, Any], None, None]:
        """Writes a run's files, so that its record can be written last."""
        for item, found in outcomes:
            if isinstance(item, units.Pictures) or isinstance(found, Lost):
                yield item, found
            else:
                yield item, received(session, item[0], found)


def only_on(node: Node) -> Any:
    """What Ray calls a strategy."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def received(session: Session, run: Run, parcel: Any) -> dict | Lost:
    """The record of a run done elsewhere, once its files are here; Lost where it is not of these pictures and
    weights, or did not arrive whole. The commit is this checkout's: the worker's program is a copy of it."""
    record, files, store = parcel.record, parcel.files, session.store
    ours = session.keys.identity(run)
    unlike = [name for name in ours if record["identity"].get(name) != ours[name]]
    if unlike:
        return Lost(
            f"its Ray worker sees other {', '.join(unlike)} than the driver; pictures are known by name, size and time "
            "of change: copy them so that these are kept (rsync -a), or use one disk"
        )
    if not store.still_ours(record["key"]):
        return Lost("it went to another process while this one was stopped")
    if not run.test and (
        "plugins" in files or "plugin" not in record["files"]
    ):  # a failed run leaves no earlier call's
        worker.put(store.path("plugins", record["key"]), files.get("plugins"))
    if "predictions" in files:
        worker.put(store.path("predictions", record["key"]), files["predictions"])
    if path := worker.changed(store, record):
        raise StorageError(f"'{path}' did not arrive from its Ray worker as it was written there; run again")
    if record["status"] == "done" and not run.test:
        write_manifests(session, run)
    return {**record, "git_commit": environment.git_commit(), "git_dirty": environment.git_dirty()}
