"""Calls with other options, from the command line to the tables: rows side by side, found again without flags."""

import csv
import hashlib

import pytest

from carryover.bench.cli import main as cli_main

pytestmark = pytest.mark.long
CALL = ["--suite", "main", "--seeds", "1", "--limit", "1", "--device", "cpu", "--jobs", "1"]
ACTIONS, STARS = ["--datasets", "micro_actions"], ["--datasets", "micro_stars"]
SHORT = ["--set", "contcoop.steps=1"]


def tables(out):
    found = sorted((out / "micro" / "tables").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def methods(out, name="main", dataset="micro_actions"):
    with (out / "micro" / "tables" / f"{name}.csv").open(newline="") as file:
        return [row["method"] for row in csv.DictReader(file) if row["dataset"] == dataset]


def test_two_calls_and_a_sweep_give_rows_that_report_and_check_find_without_flags(tmp_path, capsys):
    out = ["--out", str(tmp_path)]

    def call(*words):
        capsys.readouterr()
        status = cli_main.main([*words, *out])
        return status, capsys.readouterr().out

    assert call(*CALL, *ACTIONS, "--methods", "contcoop", *SHORT, "contcoop.lam=0.3")[0] == 0
    assert methods(tmp_path) == ["zs-clip", "contcoop[lam=0.3,steps=1]"]
    before = tables(tmp_path)
    status, said = call("check")
    assert status == 0 and "0 differences" in said
    assert call("report")[0] == 0 and tables(tmp_path) == before
    assert call("report", "--limit", "1", *SHORT, "contcoop.lam=0.3")[0] == 0 and tables(tmp_path) == before

    sweep = ["--sweep", "contcoop.lam=0,0.3,1"]
    status, said = call(*CALL, *ACTIONS, *SHORT, *sweep)
    assert status == 0 and "3 runs" not in said and "2 runs done, 2 were done before" in said
    rows = ["zs-clip", *(f"contcoop[{lam}steps=1]" for lam in ("lam=0,", "lam=0.3,", "")), "contcoop"]
    assert sorted(methods(tmp_path)) == sorted(rows[:-1])
    with (tmp_path / "micro" / "tables" / "sweep.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [0.0, 0.3, 1.0]
    assert (tmp_path / "micro" / "figures" / "sweep.svg").is_file()
    assert call("check")[0] == 0
    side_by_side = tables(tmp_path)
    assert call(*CALL, *ACTIONS, "--methods", "contcoop", *SHORT, "contcoop.lam=0.3")[0] == 0
    assert tables(tmp_path) == side_by_side

    assert call("check", *SHORT, "contcoop.lam=0.3")[0] == 0  # what was written has more rows: no false alarm
    assert call("report", *SHORT, "contcoop.lam=0.3")[0] == 0
    assert methods(tmp_path) == ["zs-clip", "contcoop[lam=0.3,steps=1]"] and call("check")[0] == 0

    status, said = call(*CALL, *STARS, "--methods", "coop", "--set", "coop.steps=1")
    table = said[said.index("Method") :]
    assert status == 0 and "MicroStars, accuracy" in said and "ContCoOp" not in table
    assert "ZS-CLIP" in table and "CoOp (steps = 1)" in table and "New less zero-shot" in table
    assert call("check")[0] == 0

    other = [*CALL, *STARS, "--methods", "zs-clip", "--shots", "2"]
    assert call(*other)[0] == 0 and methods(tmp_path, dataset="micro_stars") == ["zs-clip"]
    assert call("check")[0] == 0 and call("report")[0] == 0  # of the settings that were written last
    assert methods(tmp_path, dataset="micro_actions") == []
    assert call("report", "--limit", "1")[0] == 0
    assert set(methods(tmp_path, dataset="micro_stars")) > {"zs-clip", "coop[steps=1]"}
    assert call("check")[0] == 0
