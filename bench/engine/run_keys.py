"""What identifies a run: all that can change its numbers, and the key made of it."""

from __future__ import annotations

from dataclasses import asdict

from carryover.bench.engine.loaded import Loaded
from carryover.bench.engine.run_anchors import RunAnchors
from carryover.bench.errors import UserError, unknown
from carryover.bench.features.store import FEATURES_VERSION
from carryover.bench.host.identity import digest
from carryover.bench.plan.runs import NUMBERS_VERSION, Run
from carryover.bench.ports import catalogue as port_sources
from carryover.methods import source_hash
from carryover.methods.base import METHODS


class RunKeys:
    """Of the runs that one process plans or does."""

    def __init__(self, loaded: Loaded, anchors: RunAnchors):
        self.loaded, self.anchors = loaded, anchors
        self._keys: dict[Run, str] = {}
        self._towers: dict[str, dict] = {}
        self._shifted: dict[tuple, tuple[str, str]] = {}

    def identity(self, run: Run) -> dict:
        """What can change a run's numbers beside its settings; hashed into its key and kept in its record."""
        if run.precision != self.loaded.options.precision:
            raise UserError(
                f"{run} is planned in {run.precision}, this process works in {self.loaded.options.precision}"
            )
        towers = self._of_towers()
        for role in (*run.path, *run.via):
            if role not in towers["backbones"]:
                raise unknown(f"backbone of {self.loaded.options.arch.id}", role, towers["backbones"])
        shared = {
            **towers,
            "method": source_hash(METHODS[run.method]),
            "templates": list(self.loaded.tested(run).templates),
            # class names without a picture are in no list, and can be predicted all the same
            "classes": digest([self.loaded.data(run.dataset).classnames, self.loaded.tested(run).classnames]),
            "numbers": NUMBERS_VERSION,
            "features": FEATURES_VERSION,
        }
        if METHODS[run.method].selects_on_test(run.config):  # it searches on the whole validation list
            data = self.loaded.data(run.dataset)
            shared["selection"] = data.val.content_sha256(data.classnames)
        if run.test:
            pictures = [*self.loaded.fewshot(run).contents[:2], self.shifted(run)[0]]
            return {**shared, "pictures": pictures, "trained": self.of(run.trained)}
        if run.source:
            shared["carried"] = self.of(run.source)
        if run.port:
            seen = {"source": port_sources.source_hash(run.port), "anchors": self.anchors.content(run)}
            shared["port"] = {**seen, "nouns": self.anchors.nouns_sha256(run)}
        return {**shared, "pictures": self.loaded.fewshot(run).contents}

    def of(self, run: Run) -> str:
        if run not in self._keys:
            self._keys[run] = run.key(self.identity(run))
        return self._keys[run]

    def _of_towers(self) -> dict[str, dict]:
        if not self._towers:
            loaded = {role: self.loaded.backbone(role) for role in self.loaded.options.arch.towers}
            prints = {role: backbone.fingerprint for role, backbone in loaded.items()}
            transforms = {role: asdict(backbone.preprocess_config) for role, backbone in loaded.items()}
            self._towers = {"backbones": prints, "transforms": transforms}
        return self._towers

    def shifted(self, run: Run) -> tuple[str, str]:
        """sha256 of a shifted set's content and of its list; as for a few-shot draw, taken once."""
        axes = run.test, run.limit
        if axes not in self._shifted:
            split, names = self.loaded.test_split(run), self.loaded.tested(run).classnames
            self._shifted[axes] = split.content_sha256(names), split.sha256(names)
        return self._shifted[axes]
