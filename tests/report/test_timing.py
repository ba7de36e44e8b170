"""Time by stage against sums by hand; a prediction beside it only for the runs that it was made of."""

import json
import re

import pytest

from carryover.bench.cli import main
from carryover.bench.records import time_notes
from carryover.bench.records.store import Store
from carryover.bench.render.sheets import MISSING
from carryover.bench.report import time_spent

SECONDS = {"features": 5.0, "fit": 7.0, "evaluate": {"base": 1.0, "new": 2.0}}


def record(key, method="coop", seconds=SECONDS, encoded=None, status="done", test=""):
    run = {"dataset": "d", "method": method, "seed": 1, "test": test}
    order = {"dataset": 0, "method": ["coop", "kgcoop"].index(method)}
    return {"key": key, "status": status, "run": run, "order": order, "seconds": seconds, "encoded": encoded or {}}


RECORDS = [
    record("c", "kgcoop"),
    record("a", encoded={"base": {"images": 300, "seconds": 3.0}, "new": {"images": 50, "seconds": 0.5}}),
    record("b", encoded={"base": {"images": 100, "seconds": 4.0}}),
    record("x", seconds={"features": 1.0, "evaluate": {"base": 10.0}}, test="shifted"),
    record("f", seconds={"evaluate": {}}, status="failed"),
]
ESTIMATE = {"keys": ["a", "b", "z"], "stages": {"fit, coop": 28.0, "fit, rada": 1.0}, "seconds": 9.0, "jobs": 2}


def cells(block):
    return {row[0].text: [cell.text for cell in row[1:]] for row in block.rows}


def test_stages_are_the_sums_of_the_finished_records():
    assert time_spent.spent(RECORDS) == {
        "features, base backbone": 7.0,
        "features, new backbone": 0.5,
        time_spent.READING: 5.0 + 1.5 + 1.0 + 1.0,
        "fit, coop": 14.0,
        "evaluation, coop": 3.0 + 3.0 + 10.0,
        "fit, kgcoop": 7.0,
        "evaluation, kgcoop": 3.0,
    }
    shown = cells(time_spent.stage_block(RECORDS, None))
    assert shown["features, base backbone"] == ["7.0", "400 pictures and views, 57 a second"]
    assert shown["all work"][0] == "56.0" and shown["fit"][0] == "21.0" and shown["evaluation"][0] == "19.0"
    assert cells(time_spent.method_block(RECORDS)) == {"coop": ["14.0", "16.0"], "kgcoop": ["7.0", "3.0"]}


def test_the_clock_is_shown_only_for_the_very_runs_of_the_call():
    call = {"keys": time_notes.digest("abcx"), "stages": {"runs": 8.0}, "seconds": 9.0, "jobs": 2}
    assert time_notes.sound_call(call)
    assert cells(time_spent.stage_block(RECORDS, call))["last call, by the clock"][0] == "9.0"
    assert "last call, by the clock" not in cells(time_spent.stage_block(RECORDS[1:], call))


def test_predicted_stands_beside_the_actual_time_of_the_same_runs():
    assert time_notes.covers(RECORDS, ESTIMATE) == 2
    shown = cells(time_spent.prediction_block(RECORDS, ESTIMATE, None))
    assert shown["fit, coop"] == ["28.0", "14.0", "0.50"]
    assert shown["fit, rada"] == ["1.0", MISSING, MISSING] and shown["features, base backbone"] == [
        MISSING,
        "7.0",
        MISSING,
    ]
    assert "fit, kgcoop" not in shown and shown["by the clock"] == ["9.0", MISSING, MISSING]
    note = time_spent.prediction_note(RECORDS, ESTIMATE)
    assert "3 runs, of which 2 are done" in note and "not yet" in note
    for other in (None, {**ESTIMATE, "keys": ["z"]}):
        assert "--dry-run" in time_spent.prediction_note(RECORDS, other)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"keys": 3}', json.dumps({**ESTIMATE, "stages": {"fit, coop": "long"}}), '{"seconds": NaN}'],
)
def test_a_file_that_does_not_hold_an_estimate_is_passed_over(tmp_path, content):
    store = Store(tmp_path, "micro")
    assert store.read_note(time_notes.ESTIMATE, time_notes.sound_estimate) is None
    store.write_note(time_notes.ESTIMATE, ESTIMATE)
    assert store.read_note(time_notes.ESTIMATE, time_notes.sound_estimate) == ESTIMATE
    (tmp_path / "micro" / time_notes.ESTIMATE).write_text(content)
    assert store.read_note(time_notes.ESTIMATE, time_notes.sound_estimate) is None


@pytest.mark.long
def test_a_report_shows_prediction_and_time_and_check_finds_them_again(tmp_path, capsys):
    flags = ["--suite", "main", "--datasets", "micro_counting", "--seeds", "1", "--shots", "1", "--limit", "1"]
    flags += ["--methods", "coop", "zs-clip", "--set", "*.steps=1", "--out", str(tmp_path), "--device", "cpu"]
    assert main.main([*flags, "--jobs", "1"]) == 0
    said = (tmp_path / "micro" / "report.md").read_text()
    assert "--dry-run" in said and "last call, by the clock" in said and "Predicted and actual" not in said
    assert main.main(["--dry-run", "--fresh", *flags, "--jobs", "1"]) == 0
    assert main.main(["report", *flags]) == 0 and main.main(["check", *flags]) == 0
    said = (tmp_path / "micro" / "report.md").read_text()
    assert "2 runs, of which 2 are done" in said
    assert main.main(["--dry-run", *flags, "--seeds", "2"]) == 0 and main.main(["check", *flags]) == 0
    predicted, actual, ratio = re.search(r"\| by the clock +\| +(\S+) \| +(\S+) \| +(\S+) \|", said).groups()
    assert float(predicted) >= 0 and float(actual) > 0
    capsys.readouterr()
