"""The results tree as runs leave it and start from it: plug-ins and predictions as tensors, beside the records."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.host import claims
from carryover.bench.host.identity import canonical, parse_json
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.records.store import Store

PLUGIN_FORMAT, PLUGIN_VERSION = "carryover-plugin", 1  # docs/plugins.md
FIRST_FORMAT = "1"  # of the plug-ins that runs wrote before the format had a name: read, no longer written


class RunStore(Store):
    """A ``Store`` that also holds what was learned.

    claimed  keys of runs that were begun under a claim of this process, and what their records' ``stamp`` was then:
             where another process has taken one since, because this one was stopped for long, the other's files are
             not written over
    """

    def __init__(self, out: str | Path, arch: str):
        super().__init__(out, arch)
        self.claimed: dict[str, tuple[int, int] | None] = {}

    def begin(self, key: str) -> None:
        self.claimed.pop(key, None)
        if claims.is_ours(self.folder / "claims" / key):
            self.claimed[key] = self.stamp(key)

    def still_ours(self, key: str) -> bool:
        claim = self.folder / "claims" / key
        if key not in self.claimed or claims.is_ours(claim):
            return True
        return not claim.exists() and self.stamp(key) == self.claimed[key]  # else the other has done it already

    def writable(self, kind: str, key: str) -> Path:
        """Raises UserError where another process has the run now."""
        if not self.still_ours(key):
            raise UserError(f"run {key} went to another process while this one was stopped: left to it")
        return self.path(kind, key)

    def drop_plugin(self, key: str) -> None:
        """An earlier call's, of a run that failed now: nothing may be evaluated on it."""
        if self.still_ours(key):
            self.path("plugins", key).unlink(missing_ok=True)

    def write_plugin(self, key: str, tensors: dict[str, Tensor], metadata: dict) -> int:
        """Learned tensors only; returns the file's size in bytes."""
        path = self.writable("plugins", key)
        # One entry, for safetensors writes several in no fixed order: the same plug-in is the same bytes.
        header = {"format": PLUGIN_FORMAT, "version": PLUGIN_VERSION, "key": key, **metadata}
        write_tensors(path, tensors, {"plugin": canonical(header)})
        return path.stat().st_size

    def read_plugin(self, key: str) -> tuple[dict[str, Tensor], dict]:
        """Raises UserError where it is not there (its run failed), damaged, or another run's."""
        tensors, header = read_tensors(self.path("plugins", key))
        try:
            metadata = dict(parse_json(header["plugin"]))
        except (KeyError, ValueError, TypeError):
            metadata = {}
        form, version, own = (metadata.pop(name, None) for name in ("format", "version", "key"))
        if (form, version) not in ((PLUGIN_FORMAT, PLUGIN_VERSION), (FIRST_FORMAT, None)) or own != key:
            raise UserError(
                f"plug-in '{self.path('plugins', key)}' has format {form}, version {version} and key {own}, expected "
                f"{PLUGIN_FORMAT}, {PLUGIN_VERSION} and {key}: it is not the file this run wrote"
            )
        return tensors, metadata

    def write_predictions(self, key: str, tensors: dict[str, Tensor]) -> None:
        write_tensors(self.writable("predictions", key), tensors, {"key": key})
