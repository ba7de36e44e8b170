"""The package as a wheel holds it, in a folder of its own: no checkout around it, no link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from checkout import ROOT

from carryover.bench.backbones.arch_files import read_toml


def installed(site: Path) -> Path:
    """What ``[tool.hatch.build.targets.wheel]`` of pyproject.toml names, below ``site``."""
    wheel = read_toml(ROOT / "pyproject.toml", "pyproject")["tool"]["hatch"]["build"]["targets"]["wheel"]
    (package,) = wheel["packages"]
    shutil.copytree(ROOT / package, site / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    for source, to in wheel["force-include"].items():
        shutil.copytree(ROOT / source, site / to)
    return site


def run(site: Path, code: str, cwd: Path, name: str = "script.py") -> str:
    """What a script prints, in a process that finds ``carryover`` there and nowhere else. ``name`` "-": it is read from
    stdin, as cells of a notebook come from no file."""
    env = {key: value for key, value in os.environ.items() if key not in ("MKL_CBWR", "PYTHONPATH")}
    env |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    if name != "-":
        (cwd / name).write_text(code, encoding="utf-8")
    given = {"input": code if name == "-" else None}
    done = subprocess.run([sys.executable, name], cwd=cwd, capture_output=True, text=True, env=env, **given)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
