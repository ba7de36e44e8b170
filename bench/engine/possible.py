"""Which runs of a plan can be at all: asked of sizes alone, before any weights are had."""

from __future__ import annotations

from collections.abc import Sequence

from carryover.bench.backbones.archs import Arch
from carryover.bench.backbones.sizes import Sizes, sizes_of
from carryover.bench.plan.runs import Run
from carryover.bench.records.reading import counted
from carryover.methods.asks import begins, fits
from carryover.methods.base import METHODS


class Possible:
    """Of one arch. Raises UserError for a model that is not known."""

    def __init__(self, arch: Arch, cache_dir: str | None = None):
        self.sizes: dict[str, Sizes] = {role: sizes_of(tower, cache_dir) for role, tower in arch.towers.items()}

    def reason(self, run: Run) -> str | None:
        """Why a run cannot be: its method has no place in the target that it is trained on, or its plug-in cannot go on
        to the next backbone of its path. What it is evaluated on only, the run itself leaves out and says why; what a
        port carries needs nothing of the next backbone but what the port says. A method and options that the base
        itself cannot take were chosen with it: such a run fails, with its line."""
        kind, first = METHODS[run.method], self.sizes[run.path[0]]
        if run.path[0] != "base" and (reason := begins(kind, run.config, first)):
            return reason
        if run.port:
            return None
        reasons = (fits(kind, run.config, first, self.sizes[role]) for role in run.path[1:])
        return next((reason for reason in reasons if reason), None)

    def parted(self, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
        """The runs that can be, and a line for each reason why others cannot."""
        possible: list[Run] = []
        others: dict[str, int] = {}
        for run in runs:
            if reason := self.reason(run):
                about = f"{run.method}: {reason}"
                others[about] = others.get(about, 0) + 1
            else:
                possible.append(run)
        return possible, [f"{counted(count, 'run')} cannot be: {reason}" for reason, count in others.items()]
