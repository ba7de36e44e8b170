"""The scripts behind ``docs/performance.md`` on the micro towers: they run, count what they say, and scale rightly.
The seconds that they measure are not tested."""

from __future__ import annotations

import csv
import json
import logging
import xml.etree.ElementTree as ElementTree
from unittest.mock import patch

import pytest
import torch
from stand_in_cuda import stand_in_cuda

from benchmarks import growth, pace, ratios, rehearsal, rehearsal_micro, table2, workload
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
    options += ["--datasets", "dtd", "--most-classes", "3", "--minutes", "0", "--peak-size", "64"]
    options += ["--patience", "0.01", "--image-batch", "2", "--out", str(tmp_path)]
    assert rehearsal.main(options + THREADS) == 0
    rows = {row["method"]: row for row in rows_of(tmp_path / "rehearsal.csv")}
    assert list(rows) == list(rehearsal.PAPER_ORDER)
    # 48 support images: 1 batch of 32 an epoch, 200 epochs; CoCoOp 48 batches of one, 10 epochs.
    assert (rows["coop"]["steps"], rows["coop"]["measured"]) == ("200", "2")
    assert rows["cocoop"]["steps"] == "480" and rows["linear-probe"]["steps"] == "0"
    assert float(rows["coop"]["share"]) > 0 and rows["clip-adapter"]["share"] == ""
    report = (tmp_path / "rehearsal.md").read_text()
    assert "| dtd       | contcoop |" in report and "no graphs" in report
    assert "TRIAL" in report and "hours of this device" in report and "measured in part" in report


def test_rehearsal_of_one_part_does_no_other(tmp_path, capsys):
    options = ["--parts", "peak", "--models", "micro-base", "micro-update", "--device", "cpu", "--peak-size", "64"]
    assert rehearsal.main([*options, "--patience", "0.01", "--out", str(tmp_path), *THREADS]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rehearsal.md"]


class StepClock:
    """Counts in place of seconds; ``slow`` more for the first one."""

    def __init__(self, taken: list, slow: int = 0):
        self.taken, self.slow = taken, slow

    def now(self):
        return len(self.taken) + (self.slow if self.taken else 0)

    def __call__(self, run):
        before = self.now()
        run()
        return self.now() - before


# 3 classes: one step of 32 pictures an epoch, 200 epochs. At least two epochs beyond the first are measured.
@pytest.mark.parametrize("allowed, measured", [(0, 2), (40, 21), (10_000, 200)])
@pytest.mark.parametrize("method_id", ["coop", "taskres", "clip-adapter"])
def test_a_scaled_fit_comes_to_the_steps_of_the_whole(micro, method_id, allowed, measured):
    """A clock that counts training steps. Of CLIP-Adapter's candidates each takes a step."""
    (one,) = table2.stand_ins(["dtd"], 3)
    config, taken = table2.config_of(method_id, one.id), []
    methods = [workload.make(method_id, micro, one.classes, seed, lr=config.lr) for seed in (1, 2)]
    places = sum(len(method.candidates()) for method in methods)

    def losses(cls, methods, xs, ys):
        taken.extend(methods)
        return [next(p for p in method.parameters() if p.requires_grad).square().sum() for method in methods]

    support = one.examples(micro.dim, "cpu")
    with patch.object(type(methods[0]), "losses", classmethod(losses)):
        found = pace.fit_seconds(methods, micro, support, one, places / 2 * allowed, StepClock(taken))
    total = table2.steps_of(config, one.support)
    assert found == (places * total, total, min(measured, total))
    assert methods[0].config.epochs == 200 and methods[0].config == methods[1].config  # as they were
    assert methods[0].end_epoch.__func__ is type(methods[0]).end_epoch


def test_a_long_epoch_is_cut_and_the_first_steps_are_told_apart(monkeypatch):
    """CoCoOp on DTD: epochs of 752 steps. The first 8 take 100 each, the others one."""
    (one,) = table2.stand_ins(["dtd"])
    taken, config = [], table2.config_of("cocoop", one.id)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.config = torch.nn.Parameter(torch.ones(1)), config

        def candidates(self):
            return [{}]

        def start(self, support):
            pass

        finish = end_epoch = start

        def trained(self):
            return [(1.0, [self.weight])]

        @classmethod
        def losses(cls, methods, xs, ys):
            taken.append(100 if len(taken) < 1 + 8 else 1)  # one step comes before the clock starts
            return [method.weight.sum() for method in methods]

    monkeypatch.setattr(pace, "FIRST", {"cpu": 8})
    monkeypatch.setattr(pace, "LONGEST", {"cpu": 40})
    support = one.examples(4, "cpu")
    found = pace.paced([Plain()], support, one, 1000, lambda: sum(taken))
    assert found.steps == 40 * 6  # 832 after 40 steps, 992 after 200, 1,032 after 240
    assert found.step == 1 and found.whole(7520) == 800 + 7512


def test_a_scaled_evaluation_comes_to_all_pictures(micro):
    (one,) = table2.stand_ins(["caltech101"], 30)
    assert one.tests == 300
    method, seen = workload.make("zs-clip", micro, one.classes), []
    honest = method.predict
    method.predict = lambda x: seen.append(len(x)) or honest(x)

    def clock(run):
        before = sum(seen)
        run()
        return sum(seen) - before

    tests = one.test_features(micro.dim, "cpu")
    asked = {0: 64, 200: 128, 10_000: 300}
    for allowed, pictures in asked.items():
        assert pace.evaluation_seconds(method, micro, one, tests, allowed, clock) == (300, pictures)


def test_time_is_parted_by_weight_and_what_one_leaves_the_next_have(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    shares = pace.Shares(end=60, weight=4)
    assert shares.of(2) == 30
    now[0] = 10
    assert shares.of(1) == 25
    now[0] = 55
    assert shares.of(1) == 5
    now[0] = 70
    assert shares.of(1) == 0


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


def test_a_cell_that_fails_is_told_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    honest, budgets = rehearsal.measured_cell, []

    def cell(towers, one, id, *rest):
        if id == "coop":
            budgets.append(towers["new"].text.budget)
            if len(budgets) < 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if id == "kgcoop":
            logging.warning("KgCoOp: steps go one by one")
            raise ValueError("planted")
        return honest(towers, one, id, *rest)

    monkeypatch.setattr(rehearsal, "measured_cell", cell)
    options = ["--parts", "methods", "--models", "micro-base", "micro-update", "--device", "cpu", "--minutes", "0"]
    options += ["--methods", "zs-clip", "coop", "kgcoop", "--datasets", "dtd", "eurosat", "--most-classes", "3"]
    assert rehearsal.main([*options, "--precision", "fp32", "--seeds", "1", "--out", str(tmp_path), *THREADS]) == 0
    found = [(row["dataset"], row["method"]) for row in rows_of(tmp_path / "rehearsal.csv")]
    assert found == [(one, id) for one in ("dtd", "eurosat") for id in ("zs-clip", "coop")]
    assert budgets == [4 << 30, 2 << 30, 1 << 30, 4 << 30]
    report = (tmp_path / "rehearsal.md").read_text()
    assert "- KgCoOp: steps go one by one\n- dtd, kgcoop: FAILED, ValueError: planted\n" in report


def test_two_folders_of_micro_are_compared_accuracy_by_accuracy(tmp_path, monkeypatch, capsys):
    """The call of the second is the first's with one accuracy changed."""

    def call(arguments, out, jobs, minutes):
        for number, method in enumerate(("coop", "coop", "kgcoop")):
            targets = {role: {"accuracy": 50.0 + number} for role in ("base", "new")}
            if "bf16" in arguments and number == 1:
                targets["new"]["accuracy"] -= 2.0
            run = {"method": method, "dataset": "micro_stars", "seed": number}
            record = {"run": run, "status": "done", "targets": targets}
            path = out / "micro" / "runs" / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))
        return 1.5, ""

    monkeypatch.setattr(rehearsal_micro, "call", call)
    assert rehearsal_micro.main(["--calls", "cpu", "fp32", "bf16", "--out", str(tmp_path)]) == 0
    rows = {(row["call"], row["method"]): row for row in rows_of(tmp_path / "rehearsal-micro.csv")}
    same = {key: (row["accuracies"], row["the same"], row["largest"]) for key, row in rows.items()}
    assert same["fp32", "all"] == ("6", "6", "0.0") and same["bf16", "all"] == ("6", "5", "2.0")
    assert same["bf16", "coop"] == ("4", "3", "2.0") and same["bf16", "kgcoop"] == ("2", "2", "0.0")
    assert float(rows["bf16", "coop"]["mean of signed"]) == -0.5


def test_a_call_of_micro_that_is_ended_is_compared_and_one_that_fails_is_told(tmp_path, capsys):
    """Calls of ``run_all.py`` itself: one of a method that there is not, one without the time to do anything."""
    options = ["--calls", "cpu", "--methods", "no-such-method", "--out", str(tmp_path)]
    assert rehearsal_micro.main(options) == 1
    assert "exit status 2: " in (report := (tmp_path / "rehearsal-micro.md").read_text()) and "no-such-method" in report
    assert rehearsal_micro.main(["--calls", "cpu", "--minutes", "0.01", "--out", str(tmp_path)]) == 0
    assert "0 accuracies; ended at its limit" in (tmp_path / "rehearsal-micro.md").read_text()


def test_the_rehearsal_runs_on_a_stand_in_for_a_card(tmp_path, capsys):
    options = ["--models", "micro-base", "micro-update", "--device", "cuda", "--seeds", "1", "2", "--minutes", "0"]
    options += ["--datasets", "dtd", "--methods", "tip-adapter-f", "coop", "--most-classes", "2", "--peak-size", "64"]
    options += ["--patience", "0.01", "--image-batch", "2", "--out", str(tmp_path)]
    with stand_in_cuda():
        assert rehearsal.main(options + THREADS) == 0
    report = (tmp_path / "rehearsal.md").read_text()
    assert "cuda (stand-in)" in report and "CUDA graphs auto" in report and "FAILED" not in report
    assert len(rows_of(tmp_path / "rehearsal.csv")) == 2
