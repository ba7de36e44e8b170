"""The scripts behind ``docs/performance.md`` on the micro towers: they run, count what they say, and scale rightly.
The seconds that they measure are not tested."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import growth, ratios, rehearsal, table2, workload
from benchmarks.published import PublishedStep

pytestmark = pytest.mark.long

THREADS = ["--threads", "1"]


@pytest.fixture(scope="module")
def micro():
    return workload.random_backbone("micro-base")


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_ratios_names_every_pair_with_its_ratio(tmp_path, capsys):
    out = tmp_path / "ratios.md"
    options = ["--model", "micro-base", "--classes", "3", "--context", "4", "--rounds", "1", "--out", str(out)]
    assert ratios.main(options + THREADS) == 0
    shown = capsys.readouterr().out
    for name, case in ratios.CASES.items():
        assert f"{name}: published" in shown and case.text in out.read_text()
    assert "cpu (1 threads)" in shown


def test_ratios_gives_none_where_the_numbers_differ(monkeypatch, capsys):
    honest = PublishedStep.cosine
    monkeypatch.setattr(PublishedStep, "cosine", lambda self, *args: 1.001 * honest(self, *args))
    options = ["--model", "micro-base", "--classes", "3", "--context", "4", "--pairs", "coop-text"]
    assert ratios.main(options + THREADS) == 1
    printed = capsys.readouterr()
    assert "differ" in printed.err and "ratio" not in printed.out


def test_growth_writes_each_point_and_a_figure(tmp_path):
    options = ["--axes", "classes", "shots", "context", "--model", "micro-base", "--rounds", "1"]
    options += ["--classes", "2", "5", "--shots", "1", "2", "--shot-classes", "3", "--context", "1", "3"]
    options += ["--context-classes", "2", "--published", "2", "--out", str(tmp_path)]
    assert growth.main(options + THREADS) == 0
    rows = rows_of(tmp_path / "growth.csv")
    for axis, values in (("classes", {"2", "5"}), ("shots", {"1", "2"}), ("context", {"1", "3"})):
        for method, batch in (("coop", "32"), ("cocoop", "1"), ("cocoop", "8"), ("contcoop", "32")):
            own = [row for row in rows if (row["axis"], row["method"], row["batch"]) == (axis, method, batch)]
            assert {row["value"] for row in own if row["way"] == "ours"} == values
    assert {row["value"] for row in rows if row["axis"] == "classes" and row["way"] == "published"} == {"2"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert ElementTree.parse(tmp_path / "growth.svg").getroot().tag.endswith("svg")


def test_growth_measures_memory_in_a_process_of_its_own(tmp_path):
    options = ["--axes", "memory", "--methods", "coop", "--model", "micro-base", "--memory-classes", "40"]
    assert growth.main([*options, "--budgets", "0.5", "--out", str(tmp_path), *THREADS]) == 0
    (row,) = rows_of(tmp_path / "growth.csv")
    assert (row["axis"], row["value"], row["classes"]) == ("memory", "0.5", "40")
    assert 0 < int(row["bytes"]) < int(row["process_bytes"])


def test_rehearsal_names_what_it_scaled(tmp_path, capsys):
    options = ["--models", "micro-base", "micro-update", "--device", "cpu", "--precision", "fp32", "--seeds", "1"]
    options += ["--datasets", "dtd", "--most-classes", "3", "--fraction", "0.001", "--peak-size", "64"]
    options += ["--patience", "0.01", "--image-batch", "2", "--out", str(tmp_path)]
    assert rehearsal.main(options + THREADS) == 0
    rows = {row["method"]: row for row in rows_of(tmp_path / "rehearsal.csv")}
    assert list(rows) == list(rehearsal.PAPER_ORDER)
    # 48 support images: 1 batch of 32 an epoch, 200 epochs; CoCoOp 48 batches of one, 10 epochs.
    assert (rows["coop"]["steps"], rows["coop"]["measured"]) == ("200", str(rehearsal.LEAST_STEPS))
    assert rows["cocoop"]["steps"] == "480" and rows["linear-probe"]["steps"] == "0"
    assert float(rows["coop"]["share"]) > 0 and rows["clip-adapter"]["share"] == ""
    report = (tmp_path / "rehearsal.md").read_text()
    assert "TRIAL" in report and "hours of this device" in report and "measured in part" in report


def test_rehearsal_of_one_part_does_no_other(tmp_path, capsys):
    options = ["--parts", "peak", "--models", "micro-base", "micro-update", "--device", "cpu", "--peak-size", "64"]
    assert rehearsal.main([*options, "--patience", "0.01", "--out", str(tmp_path), *THREADS]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rehearsal.md"]


@pytest.mark.parametrize("fraction", [0.05, 1.0])
@pytest.mark.parametrize("method_id", ["coop", "taskres"])
def test_a_scaled_fit_comes_to_the_steps_of_the_whole(micro, method_id, fraction):
    """A clock that counts training steps in place of seconds."""
    (one,) = table2.stand_ins(["dtd"], 3)
    config, taken = table2.config_of(method_id, one.id), []
    methods = [workload.make(method_id, micro, one.classes, seed, lr=config.lr) for seed in (1, 2)]
    for method in methods:
        learned = next(method.parameters())
        method.loss = lambda x, y, learned=learned: taken.append(1) or learned.square().sum()

    def clock(run):
        before = len(taken)
        run()
        return len(taken) - before

    support = one.examples(micro.dim, "cpu")
    spent, steps, measured = rehearsal.fit_seconds(methods, support, one, (1, 2), fraction, clock)
    assert steps == 200 and measured == (10 if fraction < 1 else 200)
    assert spent == 2 * steps
    assert methods[0].config.epochs == 200  # as it was


def test_a_scaled_evaluation_comes_to_all_pictures(micro):
    (one,) = table2.stand_ins(["dtd"], 3)
    method, seen = workload.make("zs-clip", micro, one.classes), []
    honest = method.predict
    method.predict = lambda x: seen.append(len(x)) or honest(x)

    def clock(run):
        before = sum(seen)
        run()
        return sum(seen) - before

    tests = one.test_features(micro.dim, "cpu")
    for fraction in (0.1, 1.0):
        assert rehearsal.evaluation_seconds(method, micro, one, tests, fraction, clock) == one.tests


def test_the_rehearsal_has_table_2s_sizes():
    sets = {one.id: one for one in table2.stand_ins()}
    assert len(sets) == 11 and len(sets["imagenet"].classes) == 1000 and sets["imagenet"].tests == 50_000
    assert {id: len(one.classes) for id, one in sets.items() if id in ("dtd", "sun397")} == {"dtd": 47, "sun397": 397}
    assert table2.pictures()["new"] == sum(one.tests for one in sets.values()) == 133_696
    # CoOp: 200 epochs of 752 // 32 batches; on ImageNet 50 epochs; CoCoOp: 10 epochs, a picture at a time.
    steps = {
        (method, id): table2.steps_of(table2.config_of(method, id), sets[id].support)
        for method, id in (("coop", "dtd"), ("coop", "imagenet"), ("cocoop", "dtd"), ("linear-probe", "dtd"))
    }
    assert list(steps.values()) == [4600, 25_000, 7520, 0]


def test_stand_in_names_have_the_tokens_they_stand_for():
    names = table2.names_of("oxford_pets")
    assert table2.name_lengths(names).count(2) == 16 and len(names) == 37
    assert table2.name_lengths(workload.CALTECH).count(1) == 61
    assert len(set(workload.CALTECH)) == 100
