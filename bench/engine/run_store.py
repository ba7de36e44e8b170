"""The results tree as runs leave it and start from it: plug-ins and predictions as tensors, beside the records."""

from __future__ import annotations

from torch import Tensor

from carryover.bench.errors import UserError
from carryover.bench.host.identity import canonical, parse_json
from carryover.bench.host.tensor_files import read_tensors, write_tensors
from carryover.bench.records.store import Store

PLUGIN_FORMAT, PLUGIN_VERSION = "carryover-plugin", 1  # docs/plugins.md
FIRST_FORMAT = "1"  # of the plug-ins that runs wrote before the format had a name: read, no longer written


class RunStore(Store):
    """A ``Store`` that also holds what was learned."""

    def write_plugin(self, key: str, tensors: dict[str, Tensor], metadata: dict) -> int:
        """Learned tensors only; returns the file's size in bytes."""
        path = self.path("plugins", key)
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
        write_tensors(self.path("predictions", key), tensors, {"key": key})
