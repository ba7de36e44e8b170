"""What is to be done: a frozen ``Run`` for each cell and seed, its key, and the grid a command line asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from carryover.bench.host.identity import canonical
from carryover.bench.plan.run_labels import UNSAID, told
from carryover.methods.train_config import TrainConfig

FRESH_VIEWS = 0  # `Run.views` where every epoch has a view of its own
# Raised whenever a change of the code changes numbers, so that older records are done again. Version 3 changed none: it
# began when keys came to know a method by its syntax trees, no longer by the bytes of its files.
NUMBERS_VERSION = 3


@dataclass(frozen=True)
class Run:
    """One method trained on one few-shot subset of one dataset, evaluated on an arch's backbones (`evaluated_on`).

    views   augmented views kept of each training image, of which an epoch draws one; 0: a fresh one every epoch
    test    the set whose test images it is evaluated on: empty for the dataset's own; else an out-of-distribution set,
            and nothing is trained: the plug-in is that of the same run with its own test images
    path    roles of the backbones that it is trained on, in turn: ("base",) as in the paper; ("new",) retrained from
            nothing on an update; ("base", "new") trained on the base, carried to the update, and refreshed there
    refresh        steps of each training after the first, the method's own schedule squeezed; `naming.WHOLE_SCHEDULE`:
                   not squeezed
    carried_shots  images a class that the first training of a longer path had; 0: ``shots``, as the later ones have
    port           the way in which the plug-in of the base is carried to the targets (``bench.ports``); empty: as it
                   is. Then nothing is trained, unless the path goes on: a refresh of what was ported
    anchors        kind of what the port sees (``bench.ports.anchors``)
    count          how many of them; 0: all there are
    via            backbones that the port goes through, in turn, on its way from the base to the target
    """

    arch: str
    dataset: str
    method: str
    seed: int
    shots: int
    protocol: str
    precision: str
    views: int
    limit: int | None
    config: TrainConfig
    test: str = ""
    path: tuple[str, ...] = ("base",)
    refresh: int = 0
    carried_shots: int = 0
    port: str = ""
    anchors: str = ""
    count: int = 0
    via: tuple[str, ...] = ()

    @property
    def trained(self) -> Run:
        """The run whose plug-in this one evaluates: itself, unless it has a test set of its own or ports it."""
        return self.unported if self.port else replace(self, test="")

    @property
    def unported(self) -> Run:
        """The run on the base alone whose plug-in a port carries."""
        shots = self.carried_shots or self.shots
        trained = replace(self, test="", path=("base",), refresh=0, shots=shots, carried_shots=0)
        return replace(trained, port="", anchors="", count=0, via=())

    @property
    def source(self) -> Run | None:
        """The run whose plug-in must be there before this one: it evaluates it, or starts from it; else None."""
        if self.test or self.port:
            return self.trained
        before = self.path[:-1]
        if not before:
            return None
        if len(before) > 1:
            return replace(self, path=before)
        return replace(self, path=before, refresh=0, shots=self.carried_shots or self.shots, carried_shots=0)

    @property
    def sources(self) -> list[Run]:
        """All that must be there before, the nearest first."""
        return [] if self.source is None else [self.source, *self.source.sources]

    @property
    def training(self) -> TrainConfig:
        """The config that the trainer goes by on the last backbone of the path."""
        return replace(self.config, steps=self.refresh) if len(self.path) > 1 and self.refresh > 0 else self.config

    def evaluated_on(self, roles: Iterable[str]) -> list[str]:
        """Of an arch's backbones, all for what is trained on the base, and all but the base for what is ported. What is
        trained on another one is asked about on the last of its path alone: there it stands beside what was carried."""
        if self.path != ("base",):
            return [self.path[-1]]
        behind = {"base", *self.via} if self.port else set()
        return [role for role in roles if role not in behind]

    def canonical(self) -> dict:
        """As records hold it. What only some runs have is left out of the others, whose keys it thus leaves alone."""
        stored = {**asdict(self), "config": as_stored(self.config), "path": list(self.path), "via": list(self.via)}
        return {k: v for k, v in stored.items() if k not in UNSAID or v != UNSAID[k]}

    def key(self, identity: dict) -> str:
        """16 hex digits over the run and all else that can change its numbers (``RunKeys.identity``)."""
        return key_of(self.canonical(), identity)

    def __str__(self) -> str:
        test = f" → {self.test}" if self.test else ""
        return f"{self.dataset} · {self.method} · seed {self.seed}{told(self.canonical())}{test}"


def shown_setting(name: str, value) -> object:
    """A setting as the command line has it."""
    return "epoch" if name == "views" and value == FRESH_VIEWS else value


def key_of(run: dict, identity: dict | None) -> str:
    """The key of a run as a record holds it."""
    return hashlib.sha256(canonical({"run": run, "identity": identity}).encode()).hexdigest()[:16]


def as_stored(config: TrainConfig) -> dict:
    """The config as a record holds it (JSON knows no tuples)."""
    return json.loads(canonical(asdict(config)))
