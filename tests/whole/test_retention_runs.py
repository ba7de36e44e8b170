"""The suites beyond the paper on the micro world, in small: any number of workers, killed or not, gives the same
bytes."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from checkout import ROOT

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.records.store import Store

pytestmark = pytest.mark.long

SUITES = ("retention", "chains", "ports", "taught")
TRIAL = ("--arch", "micro", "--suite", *SUITES, "--methods", "clip-adapter", "--seeds", "1")
TRIAL += ("--datasets", "micro_stars", "--shots", "2", "--limit", "3", "--views", "1", "--device", "cpu")
TRIAL += ("--set", "clip-adapter.steps=6")
TABLES = ("main", "retention", "decision", "chains", "refresh", "ports", "port_refresh")
SECONDS = ("fit_seconds", "feature_seconds", "seconds")  # a machine's, not a result


def call(out, cache, *more):
    return main.main([str(word) for word in (*TRIAL, "--out", out, "--cache", cache, *more)])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """(results folder, cache) of a call with one worker that nothing disturbed."""
    out, cache = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("cache")
    assert call(out, cache, "--jobs", 1) == 0
    return out / "micro", cache


def rows(folder, name):
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in SECONDS} for row in csv.DictReader(file)]


def same(folder, other):
    for name in TABLES:
        assert rows(folder, name) == rows(other, name) != [], name
    stores = [Store(f.parent, f.name) for f in (folder, other)]
    keys = [{record["key"] for record in store.records()} for store in stores]
    assert keys[0] == keys[1]
    for key in keys[0]:
        kind = "plugins" if stores[0].path("plugins", key).is_file() else "predictions"  # of what was ported
        ours, theirs = (read_tensors(store.path(kind, key))[0] for store in stores)
        assert ours.keys() == theirs.keys() and all(ours[n].equal(theirs[n]) for n in ours), key


def test_two_workers_give_the_bytes_of_one(reference, tmp_path):
    assert call(tmp_path, reference[1], "--jobs", 2) == 0
    same(tmp_path / "micro", reference[0])


def test_killed_in_the_middle_of_runs_that_need_one_another_it_goes_on_to_the_same_bytes(reference, tmp_path):
    """Killed as soon as a refreshed run is done, then again a few runs later, then with other workers to the end."""
    words = [sys.executable, str(ROOT / "run_all.py"), *TRIAL, "--out", str(tmp_path), "--cache", str(reference[1])]
    runs = tmp_path / "micro" / "runs"
    for jobs, enough in (("2", 8), ("1", 16)):
        child = subprocess.Popen([*words, "--jobs", jobs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while child.poll() is None and len(list(runs.glob("*.json")) if runs.is_dir() else ()) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
    planned = len(list((reference[0] / "runs").iterdir()))
    assert 8 <= len(list(runs.iterdir())) < planned, "it was killed before its end"
    assert call(tmp_path, reference[1], "--jobs", 2) == 0
    same(tmp_path / "micro", reference[0])


def test_check_agrees_and_a_lost_plug_in_is_made_again_with_all_that_started_from_it(reference, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(reference[0], out / "micro")
    flags = ["--out", str(out), "--shots", "2", "--limit", "3", "--views", "1", *TRIAL[TRIAL.index("--set") :]]
    assert main.main(["check", *flags]) == 0, capsys.readouterr()
    store = Store(out, "micro")
    records = store.records()
    (plain,) = [r for r in records if r["run"]["method"] == "clip-adapter" and not {"path", "port"} & set(r["run"])]
    needing = [r for r in records if r["identity"].get("carried") == plain["key"]]
    assert len(needing) > 3
    store.path("plugins", plain["key"]).unlink()
    capsys.readouterr()
    assert call(out, reference[1], "--jobs", 1) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{1 + len(needing)} runs done" in said
    same(out / "micro", reference[0])


def test_the_plan_says_what_it_will_take_and_the_default_of_micro_has_none_of_it(reference, tmp_path, capsys):
    assert call(tmp_path, reference[1], "--dry-run", "--jobs", 1) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not estimated" not in said and "fit, clip-adapter" in said and "features, new backbone" not in said, said
    assert not {"retention", "chains"} & set(ARCHS["micro"].suites)
