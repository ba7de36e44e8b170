"""The budget: counted operations against numbers worked out by hand, predicted bytes against bytes written."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_caltech import write_caltech

from carryover.bench.backbones.loading import fingerprint
from carryover.bench.cli import main
from carryover.bench.cli.options import options_of
from carryover.bench.cli.parsing import parse
from carryover.bench.cli.settings import plan_of
from carryover.bench.engine.record_draft import describe
from carryover.bench.engine.session import Session
from carryover.bench.preflight import budget
from carryover.bench.preflight.costs import Costs, Growth, cost_key
from carryover.bench.preflight.device_speed import Calibration
from carryover.methods import PAPER_ORDER as METHODS_OF_PAPER
from carryover.methods import discover
from carryover.methods.base import METHODS, Method


def planned(*argv):
    args = parse([*map(str, argv), "--device", "cpu"])
    options = options_of(args)
    discover(())
    return Session(options), plan_of(args, options.arch)


@pytest.fixture
def tiny_plan(caltech, tmp_path):
    """4 classes; 2 shots of 6 training pictures, 2 of 5 for validation, 3 of 4 test pictures a class."""

    def make(*argv):
        given = ("--data-root", caltech[0], "--out", tmp_path / "out", "--datasets", "caltech101")
        return planned(*given, "--seeds", 1, "--shots", 2, "--limit", 3, "--views", 4, *argv)

    return make


def test_counts_of_a_tiny_plan_are_those_worked_out_by_hand(tiny_plan):
    session, runs = tiny_plan("--methods", "coop", "tip-adapter-f", "zs-clip", "--set", "coop.batch=3", "*.steps=7")
    coop, tip, zs = sorted((budget.count(session, run) for run in runs), key=lambda c: c.run.method)
    assert (coop.classes, coop.support, coop.tests) == (4, 8, 12)
    # 8 pictures in batches of 3 are 2 steps an epoch (the last, short batch is left out); 4 epochs make 7 steps.
    assert coop.steps == 8
    # One batch of all 8 pictures is an epoch.
    assert tip.steps == 7 and zs.steps == 0
    images = {"base": 12 + 8 + 8 + 4 * 8, "new": 12}  # test, support, validation, views
    for counts in (coop, tip):
        files = counts.files
        assert {role: sum(f.images for f in files if f.role == role) for role in images} == images
    # ZS-CLIP trains on no views; the two others share theirs, for micro's crops are the same.
    assert sum(f.images for f in zs.files) == 12 + 12 + 8 + 8
    assert len({f.path for counts in (coop, tip, zs) for f in counts.files}) == 4 + 4


def test_another_crop_needs_views_of_its_own_and_other_seeds_share_test_features(tiny_plan):
    session, runs = tiny_plan("--methods", "coop", "tip-adapter-f", "--seeds", 1, 2, "--set", "coop.crop=(0.5, 1.0)")
    counted = [budget.count(session, run) for run in runs]
    files = {f.path for counts in counted for f in counts.files}
    assert len(files) == 2 + 2 * 2 + 2 * 2 * 4  # tests of both towers; support and validation; views by seed and crop


def test_fresh_views_are_as_many_as_epochs_and_methods_share_them(tiny_plan):
    changes = ("coop.batch=3", "*.steps=7", "kgcoop.steps=12")
    session, runs = tiny_plan(
        "--methods", "coop", "kgcoop", "tip-adapter-f", "zs-clip", "--views", "epoch", "--set", *changes
    )
    counted = {run.method: budget.count(session, run) for run in runs}
    tests, lists = 2, 2  # of both towers; support and validation
    # 4 epochs of 2 steps; 12 of one batch; Tip-Adapter's 7 are fewer than the 10 views that its keys average.
    views = {"coop": 4, "kgcoop": 12, "tip-adapter-f": 10, "zs-clip": 0}
    assert {name: len(found.files) - tests - lists for name, found in counted.items()} == views
    assert len({f.path for found in counted.values() for f in found.files}) == tests + lists + 12
    supports = {run.method: session.inputs.support(run) for run in runs}
    assert {name: len(given.views) for name, given in supports.items()} == {**views, "zs-clip": 1}
    assert {name: given.fresh for name, given in supports.items()} == {**dict.fromkeys(views, True), "zs-clip": False}
    assert torch.equal(supports["coop"].views, supports["kgcoop"].views[:4])
    written = {path.name for path in Path(session.options.cache).glob("*.safetensors")}
    planned_files = {f.path.name for found in counted.values() for f in found.files if not f.test}
    assert written == planned_files
    assert all(describe(session, run, session.keys.of(run))["run"]["views"] == 0 for run in runs)


def test_published_selection_on_test_reads_the_whole_validation_split_too(tiny_plan):
    session, runs = tiny_plan("--methods", "tip-adapter-f", "--set", "tip-adapter-f.selection=published")
    (run,) = (run for run in runs if run.method == "tip-adapter-f")
    assert sorted(f.images for f in budget.count(session, run).files) == sorted([12, 12, 8, 8, 8, 8, 8, 8, 20])


def test_a_plug_in_that_grows_in_training_is_reckoned_in_full(tiny_plan):
    """A task vector is as large as the towers that learn, WiSE-FT's as the image tower, ProLIP's as its last matrix."""
    size = {}
    for method in ("zs-clip", "task-vector", "wise-ft", "prolip"):
        session, runs = tiny_plan("--methods", method)
        (run,) = (run for run in runs if run.method == method)
        size[method] = budget.out_bytes(session, [budget.count(session, run)])
    model = session.backbone("base").model
    image = sum(value.nbytes for value in model.visual.parameters())
    whole = sum(value.nbytes for name, value in model.named_parameters() if name != "logit_scale")
    room = 40_000  # of records, and of a header a tensor
    assert whole < size["task-vector"] - size["zs-clip"] < whole + room
    assert image < size["wise-ft"] - size["zs-clip"] < image + room
    assert 0 < size["prolip"] - size["zs-clip"] < image


def test_a_start_that_encodes_every_view_is_reckoned_with_all_of_them(tiny_plan, monkeypatch):
    """ProLIP's; one made-up view is measured. By a clock that counts a second for any work."""
    session, runs = tiny_plan("--methods", "prolip")
    (run,) = (run for run in runs if run.method == "prolip")
    calibration, seen = Calibration(session, [run]), []
    start = METHODS["prolip"].start
    monkeypatch.setattr(METHODS["prolip"], "start", lambda self, support: seen.append(1) or start(self, support))
    monkeypatch.setattr(calibration, "_seconds", lambda work, threads=0: work() or 1.0)
    begin, *_ = calibration._measure_at(run, 2, calibration.usual)
    assert (begin, len(seen)) == (1 + 4, 1), "bind, and four views"


@pytest.mark.long
def test_predicted_bytes_are_those_that_a_run_writes_and_what_is_done_is_not_counted_again(tmp_path, capsys):
    write_caltech(tmp_path / "data")
    argv = ["--data-root", tmp_path / "data", "--out", tmp_path / "out", "--datasets", "caltech101", "micro_counting"]
    argv += ["--seeds", 1, "--methods", "zs-clip", "linear-probe", "coop", "--set", "*.steps=1", "--jobs", 1]
    argv += ["--suite", "main", "maps"]
    session, runs = planned(*argv)
    before = budget.estimate(session, runs, 1)
    assert not (tmp_path / "out").exists(), "an estimate writes nothing"
    ported = 2 * 2 * 7  # of two methods on both sets
    assert before.runs == 6 + ported and before.done == 0 and not before.missing
    assert main.main([*map(str, argv), "--device", "cpu"]) == 0

    def written(folder, *kinds):
        return sum(f.stat().st_size for kind in kinds for f in (folder / kind).rglob("*") if f.is_file())

    out = tmp_path / "out"
    assert before.cache == pytest.approx(written(out, "cache"), rel=0.1)
    kinds = ("runs", "plugins", "predictions", "splits")
    assert before.out == pytest.approx(written(out / "micro", *kinds), rel=0.1)
    records = session.store.records()
    planned_files = {f.path: f for run in runs for f in budget.count(session, run).files}.values()
    for role in ("base", "new"):  # test pictures are encoded before the runs, and yet are in the records
        images = sum(f.images for f in planned_files if f.role == role)
        assert sum(record["encoded"].get(role, {"images": 0})["images"] for record in records) == images
    assert all(r["seconds"]["features"] >= sum(m["seconds"] for m in r["encoded"].values()) for r in records)
    after = budget.estimate(Session(session.options), runs, 1)
    assert (after.runs, after.done, after.cache, after.seconds) == (0, 6 + ported, 0, 0)
    assert "nothing left" in " ".join(budget.lines(after))


@pytest.mark.long
def test_an_estimate_is_finite_positive_and_names_every_stage(tiny_plan):
    session, runs = tiny_plan()
    found = budget.estimate(session, runs, 1)
    assert not found.missing
    names = {stage.name for stage in found.stages}
    assert names >= {f"{kind}, {run.method}" for run in runs for kind in ("fit", "evaluation")}
    assert names >= {"features, base backbone", "features, new backbone"}
    assert all(math.isfinite(stage.seconds) and stage.seconds >= 0 for stage in found.stages)
    assert found.seconds == pytest.approx(sum(stage.seconds for stage in found.stages)), "one worker does it all"
    assert found.seconds > 0


def test_a_method_that_cannot_be_measured_is_named_and_the_rest_estimated(tiny_plan, clean_registry):
    class Breaks(Method):
        name = "Breaks"

        def bind(self, backbone, classes):
            raise RuntimeError("no such thing")

    METHODS.register("breaks")(Breaks)
    session, runs = tiny_plan("--methods", "breaks", "zs-clip")
    found = budget.estimate(session, runs, 1)
    assert any("breaks" in line and "no such thing" in line for line in found.missing)
    assert "evaluation, zs-clip" in {stage.name for stage in found.stages}


def test_measuring_leaves_random_state_threads_and_backbones_as_they_were(tiny_plan):
    session, runs = tiny_plan("--methods", "coop", "cocoop")
    prints = {role: session.backbone(role).fingerprint for role in ("base", "new")}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    budget.estimate(session, runs, 1)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    for role, tower in session.options.arch.towers.items():
        assert fingerprint(session.backbone(role).model, tower) == prints[role]


def test_runs_that_differ_in_numbers_that_cost_nothing_are_measured_once(tiny_plan):
    _, (_, run) = tiny_plan("--methods", "contcoop")  # behind zero-shot
    cheap = replace(run, config=replace(run.config, lr=0.5, lam=3.0, epochs=7, steps=9))
    declared = replace(run, config=replace(run.config, heads=4, condition="a photo of a {}", context_length=4))
    assert cost_key(run) == cost_key(cheap) == cost_key(declared)
    for dear in ({"attention": False}, {"batch": 8}):
        assert cost_key(replace(run, config=replace(run.config, **dear))) != cost_key(run)


def test_a_longer_context_of_each_class_costs_its_tokens_though_it_is_not_measured(tiny_plan):
    session, (_, run) = tiny_plan("--methods", "contcoop")
    calibration = Calibration(session, [run])
    none, step = Growth(((1, 0.0), (2, 0.0))), Growth(((2, 1.0), (4, 1.0)), 1, 0.0, 0.25)
    calibration._costs[cost_key(run)] = Costs(none, step, none, none, none, 4, 16)
    longer = replace(run, config=replace(run.config, context_length=20))
    (usual, _), (fit, _) = (calibration.run_seconds(one, 100, 12) for one in (run, longer))
    assert fit - usual == pytest.approx(100 * 0.25 * 4 * 4), "steps, seconds a token, classes, tokens more"


def test_the_ablations_of_micro_are_measured_together():
    _, runs = planned("--suite", "all", "--seeds", 1, "--methods", *METHODS_OF_PAPER)
    measured = {}
    for run in runs:
        measured.setdefault(run.method, set()).add(cost_key(run))
    # ZS-CLIP with one and several templates; ContCoOp with and without attention; the rest once.
    assert {name: len(keys) for name, keys in measured.items()} == {
        **dict.fromkeys(METHODS_OF_PAPER, 1), "zs-clip": 2, "contcoop": 2,
    }  # fmt: skip


def test_costs_follow_straight_lines_through_what_was_measured():
    line = Growth(((4, 10.0), (16, 22.0), (64, 118.0)), 1, 2.0, 0.5)
    # 1 s a class up to 16, then 2 s; half a second for each class and token above 2.
    assert [line.at(c, 2) for c in (4, 10, 16, 40, 64, 100)] == pytest.approx([10, 16, 22, 70, 118, 190])
    assert line.at(16, 4) == pytest.approx(22 + 0.5 * 16 * 2)
    square = Growth(((2, 5.0), (4, 17.0)), 2)
    assert square.at(10, 0) == pytest.approx(1 + 100)
    none = Growth(((1, 0.0), (2, 0.0)))
    costs = Costs(none, line, none, Growth(((1, 3.0), (2, 3.0))), Growth(((1, 0.1), (2, 0.1))), 64)
    assert costs.fit(16, 2, 100) == pytest.approx(2200)
    assert costs.evaluation(16, 2, 5000) == pytest.approx(2 * 3 + 500), "two calls of at most 4096 pictures"


def test_workers_take_whole_groups_and_the_last_one_decides(tiny_plan):
    session, runs = tiny_plan("--methods", "zs-clip", "--seeds", 1, 2, 3)
    own = dict(zip(runs, (5.0, 3.0, 4.0), strict=True))
    assert budget.on_the_clock(session, own, 1) == 12
    assert budget.on_the_clock(session, own, 2) == 7  # 5 beside 3 + 4
    assert budget.on_the_clock(session, own, 8) == 5


def test_dry_run_shows_plan_and_estimate_and_ends_well_where_there_is_none(capsys, caltech, tmp_path):
    argv = ["--dry-run", "--datasets", "caltech101", "--methods", "zs-clip", "--seeds", 1, "--out", tmp_path / "out"]
    assert main.main([*map(str, argv), "--data-root", str(caltech[0])]) == 0
    out = capsys.readouterr().out
    assert "1 runs" in out and "about" in out and "of features" in out
    assert main.main([*map(str, argv), "--data-root", str(tmp_path / "nowhere")]) == 0
    out = capsys.readouterr().out
    assert "1 runs" in out and "nowhere" in out
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"x")
    assert main.main([*map(str, argv), "--base-weights", str(bad)]) == 0
    assert "no estimate" in capsys.readouterr().out
