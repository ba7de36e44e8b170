"""A run killed at any point and resumed in any order ends in the tables of one that was never killed; two processes on
one results folder share its plan."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from carryover.bench.host.tensor_files import read_tensors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and fork")
DRIVER = Path(__file__).resolve().parent / "killing.py"
KILLS, RUNS = 30, 12
# Seconds, memory and dates are those of the machine and the day; the statistics set H against seconds, and all else of
# them is in tables.
APART = ("Statistics", "Cost of a run", "Time", "Environment")
OF_SECONDS = "pareto"  # figures


def drive(folder, *words):
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), *map(str, words)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def report(path):
    sections = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
    kept = [text for text in sections if not text.startswith(APART)]
    assert len(kept) == len(sections) - len(APART)
    return "\n".join(kept)


def bits(folder):
    """Tensors of each file; of predictions the classes (safetensors writes several entries in no fixed order)."""
    found = {}
    for path in sorted(folder.iterdir()):
        tensors = read_tensors(path)[0]
        found[path.name] = {n: t.numpy().tobytes() for n, t in tensors.items() if t.dtype != torch.float64}
    return found


def same_results(ours, reference):
    names = sorted(path.name for path in (reference / "tables").iterdir())
    assert names and sorted(path.name for path in (ours / "tables").iterdir()) == names
    for name in names:
        assert (ours / "tables" / name).read_bytes() == (reference / "tables" / name).read_bytes(), name
    for path in (p for p in (reference / "figures").iterdir() if p.stem != OF_SECONDS):
        assert (ours / "figures" / path.name).read_bytes() == path.read_bytes(), path.name
    assert report(ours / "report.md") == report(reference / "report.md")
    assert bits(ours / "plugins") == bits(reference / "plugins")
    for name, tensors in bits(reference / "predictions").items():
        mine = bits(ours / "predictions")[name]
        assert all(mine[n] == value for n, value in tensors.items() if "confidence" not in n)
    assert {p.name for p in (ours / "runs").iterdir()} == {p.name for p in (reference / "runs").iterdir()}


def test_thirty_kills_leave_the_tables_of_a_run_that_was_never_killed(tmp_path):
    told = drive(tmp_path, KILLS, 20241228)
    assert told["reference"] == 0 and len(told["kills"]) == KILLS
    assert told["finished"] and all(status == 0 for _, status in told["finished"]), told
    reference = tmp_path / "reference" / "micro"
    assert len(list((reference / "runs").iterdir())) == RUNS
    for name, _ in told["finished"]:
        same_results(tmp_path / name / "micro", reference)
        left = [p for p in (tmp_path / name).rglob("*") if p.name.startswith(".") or p.name == "claims"]
        assert not left, "what the killed ones left unfinished is swept, and their claims are taken over"


def test_two_processes_on_one_plan_do_each_run_once_and_both_end_well(tmp_path):
    first, second, third = drive(tmp_path, "pair", 3)

    def counts(told):
        status, text = told
        text = " ".join(text.split())
        assert status == 0 and "Traceback" not in text and " 0 failed" in text, text
        done, before = map(int, re.search(r"(\d+) runs done, (\d+) were done before", text).groups())
        elsewhere = re.search(r"(\d+) by another process", text)
        return done, before, int(elsewhere[1]) if elsewhere else 0

    ours, theirs = counts(first), counts(second)
    assert sum(ours) == sum(theirs) == RUNS
    assert ours[0] + theirs[0] == RUNS, "no run was done twice"
    assert counts(third) == (0, RUNS, 0)
    assert not (tmp_path / "out" / "micro" / "claims").exists()
