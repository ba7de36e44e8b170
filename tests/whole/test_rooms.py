"""The wing that tells from records stands by itself: it is imported without torch or a backbone's package."""

import json
import subprocess
import sys

from checkout import ROOT

TELLING = ("records", "stats", "analyses", "report", "leaderboard")
RUNNING = ("torch", "torchvision", "open_clip", "timm")
IMPORT_ALL = """
import importlib, json, pkgutil, sys
names = []
for room in sys.argv[1].split(","):
    package = importlib.import_module(f"carryover.bench.{room}")
    names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([len(names), sorted(sys.modules)]))
"""


def imported(rooms):
    """How many modules the rooms have, and all that a fresh interpreter holds once they are imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, ",".join(rooms)],
        cwd=ROOT / "src", capture_output=True, text=True, check=True,
    )  # fmt: skip
    count, modules = json.loads(done.stdout)
    return count, set(modules)


def test_what_tells_from_records_imports_neither_torch_nor_a_backbones_package():
    count, modules = imported(TELLING)
    assert count > 30 and not modules & {*RUNNING}
    assert "torch" in imported(["engine"])[1]  # so that the absence above says something
