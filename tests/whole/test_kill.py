"""A run killed at any point and resumed in any order ends in the tables of one that was never killed; two processes on
one results folder share its plan."""

import json
import re
import subprocess
import sys

import pytest
from checkout import ROOT
from compared import same_results

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="process groups and fork")]
DRIVER = ROOT / "tests" / "support" / "killing.py"
KILLS, RUNS = 30, 12
# Seconds, memory and dates are those of the machine and the day; the statistics set H against seconds, and all else of
# them is in tables.


def drive(folder, *words):
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), *map(str, words)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


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
        done, before = map(int, re.search(r"(\d+) runs? done, (\d+) were done before", text).groups())
        elsewhere = re.search(r"(\d+) by another process", text)
        return done, before, int(elsewhere[1]) if elsewhere else 0

    ours, theirs = counts(first), counts(second)
    assert sum(ours) == sum(theirs) == RUNS
    assert ours[0] + theirs[0] == RUNS, "no run was done twice"
    assert counts(third) == (0, RUNS, 0)
    assert not (tmp_path / "out" / "micro" / "claims").exists()
