"""One process's working state (``bench.engine.one_run`` does the runs)."""

from __future__ import annotations

from collections.abc import Callable

from carryover.bench.engine.loaded import Loaded
from carryover.bench.engine.options import Options
from carryover.bench.engine.run_anchors import RunAnchors
from carryover.bench.engine.run_inputs import RunInputs
from carryover.bench.engine.run_keys import RunKeys
from carryover.bench.engine.run_store import RunStore


class Session(Loaded):
    """What is loaded, with the results tree (``store``), what identifies runs (``keys``), what they read (``inputs``)
    and what their ports may see (``anchors``)."""

    def __init__(self, options: Options, progress: Callable[[str, int, int], None] | None = None):
        super().__init__(options, progress)
        self.store = RunStore(options.out, options.arch.id)
        self.anchors = RunAnchors(self)
        self.keys = RunKeys(self, self.anchors)
        self.inputs = RunInputs(self)

    def forget(self) -> None:
        super().forget()
        self.anchors.forget()
