"""Records of finished runs, as the tables read them, without a run."""

import json

from carryover.methods.base import METHODS


def record(run, base=50.0, new=40.0, day=1):
    stored = json.loads(json.dumps(run.canonical()))
    targets = {role: {"correct": 1, "count": 2, "accuracy": value} for role, value in (("base", base), ("new", new))}
    return {
        "key": run.key({}), "status": "done", "run": stored, "depth": METHODS[run.method].depth, "averaged": True,
        "names": {"dataset": run.dataset, "method": METHODS[run.method].name},
        "order": {"dataset": 0, "method": list(METHODS).index(run.method)},
        "targets": targets, "started": f"2026-01-{day:02}T00:00:00Z",
        "trained": run.trained.key({}) if run.test else None,
    }  # fmt: skip
