"""Retention, decision, chains and refresh curves: numbers by hand, gaps as gaps, the paper's tables untouched."""

import csv
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from drawings import figure_of
from scipy import stats as scipy_stats

from carryover.bench.analyses.parts import chain_numbers, comparison
from carryover.bench.analyses.parts import retention_numbers as retention
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.plan import grid as plan_grid
from carryover.bench.plan import suites
from carryover.bench.plan.grid import default_methods
from carryover.bench.plan.run_labels import WHOLE_SCHEDULE
from carryover.bench.plan.settings import Settings
from carryover.bench.records.predictions import Outcome, Outcomes
from carryover.bench.records.selection import choose
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import choices
from carryover.bench.stats import pairs as pairs_stats
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS
from carryover.methods.catalogue import is_empty

MICRO = Settings(shots=16, protocol="micro", precision="fp32", views=4, limit=None, methods=Registered())
ARCH = replace(ARCHS["micro"], more={"second": ARCHS["micro"].controls["unrelated"]})
SETS, SEEDS, IMAGES = ("micro_textures", "micro_stars"), (1, 2, 3), 200
IDENTITY = {"backbones": {"base": "a", "new": "b"}, "method": "m", "templates": ["{}."], "numbers": 1}


def grid(*overrides, arch=ARCH, **asked):
    return plan_grid.grid(arch, replace(MICRO, overrides=overrides), **{"seeds": list(SEEDS), **asked})


def identity(run):
    found = {**IDENTITY, "pictures": [f"s{run.shots}", "v", "t"]}
    return {**found, "carried": run.source.key(identity(run.source))} if run.source else found


def record(run, right, status="done", **more):
    """``right``: correct answers of ``IMAGES`` by role."""
    key = run.key(identity(run))
    files = {"plugin": f"plugin {key}", "predictions": "p"}
    if run.source:
        files["carried"] = f"plugin {run.source.key(identity(run.source))}"
    return {
        "key": key, "status": status, "run": run.canonical(), "identity": identity(run), "files": files,
        "names": {"dataset": run.dataset.upper(), "method": METHODS[run.method].name, "test": "T"},
        "depth": METHODS[run.method].depth, "order": {"dataset": 0, "method": ordered().index(run.method)},
        "trained": key, "averaged": True, "curve": [{"epoch": 1, "loss": 1.0, "lr": 0.1}] * 5,
        "targets": {
            role: {"correct": n, "count": IMAGES, "accuracy": 100 * n / IMAGES, "backbone": role, "fingerprint": role}
            for role, n in right.items()
        },
        "split": {"classes": 12, "support": 192}, "seconds": {"fit": 3.0, "features": 1.0, "evaluate": {"new": 0.5}},
        "encoded": {"new": {"images": 100, "seconds": 2.0}}, "trainable_parameters": 7,
        "started": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip


def answered(right, shift=0):
    """Predictions: the first ``right`` images, from the ``shift``-th on, are right."""
    label = np.zeros(IMAGES, np.int64)
    return np.roll(np.arange(IMAGES) >= right, shift).astype(np.int64), label


def world(right, runs=None, shift=lambda run: 0, settings=MICRO, **asked):
    """A selection of every planned run's record; ``right(run)`` gives correct answers by role, or None for a run that
    is not there."""
    runs = grid(suites_=["retention", "chains"], datasets_=list(SETS), **asked) if runs is None else runs
    found = {run: right(run) for run in runs if right(run) is not None}
    records = [record(run, by_role) for run, by_role in found.items()]
    stored = {
        r["key"]: {role: answered(n, shift(run)) for role, n in by_role.items()}
        for r, (run, by_role) in zip(records, found.items(), strict=True)
    }
    return replace(choose(records, ARCH, settings), predictions=stored.__getitem__), records, stored


def three(floor, reused, ceiling):
    """The same on every target but the base."""

    def right(run):
        n = floor if run.method == "zs-clip" else reused if run.path == ("base",) else ceiling
        return {"base": 100, "new": n, "second": n}

    return right


def cells(selection, name):
    return list(csv.DictReader(outputs.made_from(selection)[name].csv.splitlines()))


def cell(selection, name, **keys):
    (row,) = [r for r in cells(selection, name) if all(r[k] == v for k, v in keys.items())]
    return row


# ---- what is planned -------------------------------------------------------------------------------------------------


def test_retention_alone_plans_the_plain_runs_and_zero_shot_that_it_measures_by():
    runs = grid(suites_=["retention"], datasets_=["micro_stars"], methods=["coop"], seeds=[1])
    assert [(r.method, r.path) for r in runs] == [
        ("zs-clip", ("base",)), ("coop", ("base",)), ("coop", ("new",)), ("coop", ("second",)),
    ]  # fmt: skip
    plain = grid(suites_=["main"], datasets_=["micro_stars"], methods=["zs-clip", "coop"], seeds=[1])
    assert set(plain) <= set(runs), "they are the main suite's own"
    every = grid(suites_=["retention"], seeds=[1])
    learning = {m for m in default_methods(Registered()) if METHODS[m].depth != "none"}
    assert {r.method for r in every if r.path == ("new",)} == learning and "linear-probe" in learning
    assert {r.dataset for r in every} == set(suites.SUITES["retention"].on["micro"])


@pytest.mark.parametrize("suite", ("retention", "chains"))
def test_every_run_comes_after_those_it_needs_and_all_of_them_are_planned(suite):
    runs = grid(suites_=[suite])
    place = {run: i for i, run in enumerate(runs)}
    assert len(place) == len(runs)
    assert all(place[needed] < place[run] for run in runs for needed in run.sources)


def test_no_arch_runs_them_unless_it_says_so():
    assert not [r for r in grid(arch=ARCHS["micro"], seeds=[1]) if r.path != ("base",)]


def test_a_control_from_nothing_has_the_steps_shots_and_options_of_the_refresh_beside_it():
    runs = grid("coop.lr=0.5", suites_=["chains"], methods=["coop"], datasets_=["micro_stars"], seeds=[1])
    assert all(run.config.lr == 0.5 for run in runs if run.method == "coop")
    carried = [run for run in runs if len(run.path) == 2 and run.refresh != WHOLE_SCHEDULE]
    assert {run.refresh for run in carried} == set(chain_numbers.STEPS)
    for run in carried:
        # a published number of epochs, which goes by shots, says nothing beside the steps
        plain = replace(run.training, epochs=1)
        alike = [r for r in runs if r.path == ("new",) and r.shots == run.shots]
        assert [r.training.steps for r in alike if replace(r.training, epochs=1) == plain] == [run.refresh]
        assert run.sources[-1].shots == 16 and run.sources[-1] in runs
    assert {run.shots for run in carried} == {1, 2, 4, 8, 16}


def test_a_method_without_steps_is_not_refreshed():
    runs = grid(suites_=["chains"], methods=["linear-probe", "coop"], datasets_=["micro_stars"], seeds=[1])
    assert {run.method for run in runs} == {"zs-clip", "coop"}


# ---- retention -------------------------------------------------------------------------------------------------------


def test_retention_is_the_share_of_the_gain_that_is_left_and_its_interval_holds_it():
    selection, *_ = world(three(100, 120, 150), methods=["coop"])
    row = cell(selection, "retention", target="new", dataset="micro_stars")
    assert [float(row[name]) for name in retention.SCORES] == [50, 60, 75] and row["seeds"] == "3"
    assert float(row["retention"]) == pytest.approx(0.4) and float(row["low"]) < 0.4 < float(row["high"])
    assert {row["target"] for row in cells(selection, "retention")} == {"new", "second"}
    assert r"0.40 \[" in outputs.made_from(selection)["retention"].texts["md"]


def test_the_intervals_ends_are_those_of_image_by_image_drawing():
    """One seed, nested answers: the images between floor and ceiling decide, whose draws are multinomial."""
    selection, *_ = world(three(80, 110, 160), methods=["coop"], seeds=[1])
    row = cell(selection, "retention", target="new", dataset="micro_stars")
    generator = np.random.default_rng(0)
    kept, lost = generator.multinomial(IMAGES, [30 / 200, 50 / 200, 120 / 200], size=40000).T[:2]
    low, high = np.quantile(kept / (kept + lost), [0.025, 0.975])
    assert float(row["low"]) == pytest.approx(low, abs=0.015) and float(row["high"]) == pytest.approx(high, abs=0.015)


def test_a_module_that_hurts_has_negative_retention():
    row = cell(world(three(100, 80, 150), methods=["coop"])[0], "retention", target="new", dataset="micro_stars")
    assert float(row["retention"]) == pytest.approx(-0.4) and float(row["high"]) < 0


@pytest.mark.parametrize("ceiling", [100, 101, 60])
def test_where_retraining_does_not_beat_zero_shot_there_is_nothing_to_retain_and_no_number(ceiling):
    selection, *_ = world(three(100, 120, ceiling), methods=["coop"])
    row = cell(selection, "retention", target="new", dataset="micro_stars")
    assert row["retention"] == row["low"] == row["high"] == ""
    text = outputs.made_from(selection)["retention"].texts["md"]
    assert "nothing to retain |" in text


def test_noise_that_differs_between_seeds_widens_the_interval():
    def width(spread):
        def right(run):
            n = three(100, 120, 150)(run)["new"] + spread * (run.seed - 2) * (run.path != ("base",))
            return {"base": 100, "new": n, "second": n}

        row = cell(world(right, methods=["coop"])[0], "retention", target="new", dataset="micro_stars")
        return float(row["high"]) - float(row["low"])

    assert width(10) > 1.5 * width(0)


def test_the_average_is_the_share_of_the_averaged_gains():
    def right(run):
        more = 20 if run.dataset == "micro_stars" else 0
        n = {"zs-clip": 100}.get(run.method, 130 if run.path == ("base",) else 160 + more)
        return {"base": 100, "new": n, "second": n}

    row = cell(world(right, methods=["coop"])[0], "retention", target="new", dataset="average")
    assert [float(row[name]) for name in retention.SCORES] == [50, 65, 85]
    assert float(row["retention"]) == pytest.approx(15 / 35, abs=1e-4)


def test_a_method_that_lacks_a_dataset_has_no_average_and_a_missing_run_is_named():
    def right(run):
        failed = run.method == "coop" and run.dataset == "micro_stars" and run.path == ("new",)
        return None if failed else three(100, 120, 150)(run)

    runs = grid(suites_=["retention"], datasets_=list(SETS), methods=["coop", "clip-adapter"])
    selection, *_ = world(right, runs)
    assert cell(selection, "retention", target="new", dataset="average", method="coop")["retention"] == ""
    assert cell(selection, "retention", target="new", dataset="average", method="clip-adapter")["retention"]
    assert "MICRO\\_STARS: CoOp on new" in outputs.made_from(selection)["retention"].texts["md"]


def test_only_seeds_that_all_three_have_count():
    def right(run):
        return None if run.seed == 3 and run.path == ("new",) else three(100, 120, 150)(run)

    selection, *_ = world(right, methods=["coop"])
    assert cell(selection, "retention", target="new", dataset="micro_stars")["seeds"] == "2"
    assert cell(selection, "retention", target="second", dataset="micro_stars")["seeds"] == "3"


def test_costs_of_retraining_are_those_of_its_records():
    row = cell(world(three(100, 120, 150), methods=["coop"])[0], "decision", target="new", dataset="micro_stars")
    assert float(row["fit_seconds"]) == 3 and row["parameters"] == "7.0"
    assert float(row["steps"]) == 5 * (192 // 32), "five epochs of six whole batches"
    # 192 support images as they are and in 4 views, 4 of each of 12 classes for validation; 50 pictures a second
    assert float(row["feature_seconds"]) == pytest.approx((192 * 5 + 48) / 50)
    without = cell(world(three(100, 120, 150), methods=["coop"])[0], "decision", target="second", dataset="micro_stars")
    assert without["feature_seconds"] == "", "nothing was encoded on it in these runs"


# ---- decision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "right, choice, best",
    [
        ((1000, 1000, 1000), "zero-shot", "zero-shot"),  # all the same: the cheapest
        ((1000, 1000, 1006), "zero-shot", "retrain"),  # 0.3 behind, shown, but shown to be within the margin
        ((1000, 1000, 1018), "retrain", "retrain"),  # 0.9 behind, perhaps more than 1, and shown to be behind
        ((1000, 1060, 1066), "reuse", "retrain"),
        ((1000, 1060, 1000), "reuse", "reuse"),
        ((1000, 1030, 1090), "retrain", "retrain"),
        ((1060, 1000, 1120), "retrain", "retrain"),
        ((1060, 1000, 1000), "zero-shot", "zero-shot"),
        ((1060, 1062, 1000), "zero-shot", "reuse"),
        ((1000, 1002, 1022), "retrain", "retrain"),
    ],
)
def test_the_choice_is_the_cheapest_that_is_shown_to_be_near_the_best(monkeypatch, right, choice, best):
    monkeypatch.setitem(globals(), "IMAGES", 2000)  # one is 0.05 points; the predictions are nested
    selection, *_ = world(three(*right), methods=["coop"], seeds=[1, 2])
    row = cell(selection, "decision", target="new", dataset="micro_stars")
    gains = {"zero-shot": 0, "reuse": right[1] - right[0], "retrain": right[2] - right[0]}
    assert (row["choice"], row["best"]) == (choice, best)
    assert float(row["gain"]) == pytest.approx(gains[choice] / 20)
    assert float(row["reuse_gain"]) == pytest.approx(gains["reuse"] / 20)
    assert float(row["retrain_gain"]) == pytest.approx(gains["retrain"] / 20)
    assert float(row["more_gain"]) == pytest.approx((right[2] - right[1]) / 20)
    text = outputs.made_from(selection)["decision"].texts["md"]
    assert choice in text and retention.RULE.split(",")[0] in text


@pytest.mark.parametrize(
    "by_seed, best, gain",
    [
        ([(100, 100, 60), (100, 100, 160), (100, 100, 140)], "retrain", 10.0),  # seeds disagree on zero-shot already
        ([(60, 100, 60), (60, 100, 160), (60, 100, 140)], "retrain", 30.0),  # zero-shot behind or not: not to be told
    ],
)
def test_where_the_data_cannot_tell_the_choice_is_undecided_and_the_best_is_named(by_seed, best, gain):
    def right(run):
        n = three(*by_seed[run.seed - 1])(run)["new"]
        return {"base": 100, "new": n, "second": n}

    selection, *_ = world(right, methods=["coop"])
    row = cell(selection, "decision", target="new", dataset="micro_stars")
    assert (row["choice"], row["best"]) == ("undecided", best) and float(row["gain"]) == pytest.approx(gain)
    assert float(row["gain_low"]) < 0 < float(row["gain_high"])
    text = outputs.made_from(selection)["decision"].texts["md"].replace("\\", "")
    assert f"undecided (best: {best} +{gain:.1f} [" in text
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["Target", "Zero-shot", "Reuse", "Retrain", "Undecided"] in rows
    assert [row[1:] for row in rows if row and row[0].startswith("new (")] == [["0", "0", "0", "2"]], "both datasets"


def test_an_interval_of_the_decision_is_that_of_the_pairs():
    def right(run):
        n = {"zs-clip": 100, "coop": 110 + 4 * run.seed, "clip-adapter": 126 - 9 * run.seed}[run.method]
        return {"base": 100, "new": n + (run.path != ("base",)) * 20, "second": n}

    asked = {"methods": ["coop", "clip-adapter"], "shift": lambda run: 13 * run.seed}
    selection, _, stored = world(right, **asked)

    def outcomes(key):
        return {role: Outcome(*two, None) for role, two in stored[key].items()}

    selection = replace(selection, outcomes=Outcomes(outcomes))
    pairs = comparison.pairs_table(selection)
    compared = 0
    for row in cells(selection, "decision"):
        if row["target"] == "new":
            theirs = pairs_stats.row_of(pairs, row["dataset"], "new", row["method"], "zs-clip")
            ours = [float(row[name]) for name in ("reuse_gain", "reuse_low", "reuse_high")]
            assert ours == pytest.approx([theirs["difference"], theirs["low"], theirs["high"]], abs=1e-4)
            assert theirs["high"] - theirs["low"] > 1
            compared += 1
    assert compared == 6, "two methods on two datasets and their average"


def options_of_a_world(generator, effects, seeds=3, images=100):
    """Right answers of zero-shot, reused and retrained, whose chance differs by seed; truths 40, 50 and 70 %."""
    drawn = generator.normal(0, effects, (seeds, 3)) * [0, 1, 1]  # zero-shot has no seeds
    ease = generator.uniform(-0.2, 0.2, images)
    chance = np.clip(np.array([0.4, 0.5, 0.7])[None, :, None] + drawn[:, :, None] + ease, 0, 1)
    right = generator.uniform(size=(seeds, 3, images)) < chance
    columns = right.reshape(-1, images).T.astype(np.float32)
    draws = pairs_stats.drawn_accuracies(columns, int(generator.integers(2**31)))
    return choices.Alternatives("d", 100 * right.mean(2), draws.reshape(-1, seeds, 3).mean(1), images, 100 / images)


@pytest.mark.long
@pytest.mark.parametrize("effects", [0.0, 0.1])
def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch, effects):
    monkeypatch.setattr(pairs_stats, "DRAWS", 500)
    generator, worlds = np.random.default_rng(3), 150
    gain, kept, ratios = 0, 0, 0
    for _ in range(worlds):
        options = options_of_a_world(generator, effects)
        low, high = options.interval([-1, 1, 0])
        gain += low <= 10 <= high
        low, high = options.ratio_interval([-1, 1, 0], [-1, 0, 1])
        if not math.isnan(low):
            ratios, kept = ratios + 1, kept + (low <= 1 / 3 <= high)
    assert gain >= 0.9 * worlds, "within three standard errors of 95 %, or wider"
    assert ratios > worlds / 4 and kept >= 0.88 * ratios


def test_a_ratio_of_normals_has_fiellers_interval():
    """Fieller (1954) for independent normals, in closed form: r with |above - r below| within z of its deviation."""
    generator, n = np.random.default_rng(1), 100_000
    drawn = np.stack([6 + 1.0 * generator.normal(size=n), 10 + 1.5 * generator.normal(size=n)], axis=1)
    z = scipy_stats.norm.ppf(0.975)
    ends = np.sort(np.roots([10**2 - z**2 * 1.5**2, -2 * 60, 6**2 - z**2]))
    options = choices.Alternatives("d", np.array([[6.0, 10.0]]), drawn, 0, 0.0)
    assert options.ratio_interval([1, 0], [0, 1]) == pytest.approx(tuple(ends), abs=0.01)
    assert all(math.isnan(end) for end in options.ratio_interval([0, 1], [1, -0.6])), "a denominator that may be 0"


def test_retention_is_above_nothing_and_below_all_just_where_the_differences_are():
    generator = np.random.default_rng(8)
    seen = set()
    for _ in range(60):
        options = options_of_a_world(generator, 0.05)
        ends = options.ratio_interval([-1, 1, 0], [-1, 0, 1])
        if not math.isnan(ends[0]):
            above, below = options.interval([-1, 1, 0])[0] > 0, options.interval([0, 1, -1])[1] < 0
            assert (ends[0] > 0, ends[1] < 1) == (above, below)
            seen.add((above, below))
    assert len(seen) > 1


# ---- what is priced, and who has a row -------------------------------------------------------------------------------


@pytest.mark.parametrize("method, read", [("coop", 192 * 5 + 48), ("maple", 192 + 48), ("away", 192 * 5 + 48)])
def test_views_that_are_encoded_while_fitting_are_not_priced_twice(method, read):
    run = {"method": method, "shots": 16, "views": 4, "config": {"crop": [0.5, 1.0]}}
    assert retention.pictures({"run": run, "split": {"support": 192, "classes": 12}}, Registered()) == read


def test_methods_whose_plug_in_is_empty_have_no_row_and_those_with_a_part_of_it_have():
    runs = grid(suites_=["retention"], methods=["fine-tuning", "rada-towers", "coop"], seeds=[1])
    assert {run.method for run in runs} == {"zs-clip", "rada-towers", "coop"}
    for method in METHODS:
        if METHODS[method].depth == "none":
            assert not Registered().learns(method)
    assert is_empty("fine-tuning") and not is_empty("rada-towers")


def test_without_predictions_there_are_no_intervals_and_no_choice():
    selection = replace(world(three(100, 120, 150), methods=["coop"])[0], predictions=None)
    row = cell(selection, "decision", target="new", dataset="micro_stars")
    assert row["choice"] == row["gain"] == row["reuse_low"] == "" and float(row["reuse_gain"]) == 10
    assert cell(selection, "retention", target="new", dataset="micro_stars")["retention"] == ""


def test_predictions_on_other_images_are_not_compared():
    selection, records, stored = world(three(100, 120, 150), methods=["coop"])
    for r in records:
        if r["run"]["method"] == "zs-clip":
            predicted, label = stored[r["key"]]["new"]
            stored[r["key"]]["new"] = predicted, label + 1
    assert cell(selection, "decision", target="new", dataset="micro_stars")["choice"] == ""
    assert cell(selection, "decision", target="second", dataset="micro_stars")["choice"] == "retrain"


# ---- which records ---------------------------------------------------------------------------------------------------


BEYOND = ("answer", "retention", "decision", "chains", "refresh", "forecast", "forecast_choice", "records")


def paper_tables(records):
    made = outputs.made_from(choose(records, ARCH, MICRO))
    return {name: o.csv for name, o in made.items() if name not in BEYOND}


def test_tables_of_the_paper_are_the_same_bytes_whatever_was_retrained_beside():
    papers = ["main", *(one.id for one in suites.of_kind("options") if one.id != "shots")]
    runs = grid(suites_=papers, datasets_=list(SETS), methods=["zs-clip", "coop", "contcoop"])
    plain = [record(run, {"base": 50 + i % 90, "new": 20 + i % 70}) for i, run in enumerate(runs)]
    further = [r for r in world(three(1, 2, 3))[1] if r["run"].get("path")]
    later = [{**r, "started": "2026-02-01T00:00:00Z"} for r in further]
    other = [{**r, "identity": {**r["identity"], "numbers": 2}} for r in later]
    assert len(paper_tables(plain)) > 3 and len(further) > 100
    for beside in (later, other):
        mixed = [*plain, *beside]
        random.Random(0).shuffle(mixed)
        assert paper_tables(mixed) == paper_tables(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"backbones": {"base": "a", "new": "another"}},
        {"method": "changed"},
        {"templates": ["a {}."]},
        {"pictures": ["s16", "v", "other tests"]},
        {"pictures": ["other images", "v", "t"]},
        {"numbers": 2},
    ],
)
def test_a_retrained_record_that_is_not_of_the_plain_ones_kind_is_in_no_table(change):
    selection, records, stored = world(three(100, 120, 150), methods=["coop"])
    changed = [
        {**r, "identity": {**r["identity"], **change}} if r["run"].get("path") == ["new"] else r for r in records
    ]
    again = replace(choose(changed, ARCH, MICRO), predictions=stored.__getitem__)
    assert {r["target"] for r in cells(again, "retention") if r["seeds"] != "0"} == {"second"}


def test_a_refreshed_record_counts_only_beside_the_very_plug_in_it_started_from():
    _, records, _ = world(three(100, 120, 150), methods=["coop"])
    changed = [
        {**r, "files": {**r["files"], "plugin": "another"}}
        if r["run"].get("path") is None and r["run"]["dataset"] == "micro_stars"
        else r
        for r in records
    ]
    rows = choose(changed, ARCH, MICRO).rows["chains"]
    carried = [row for row in rows if len(row.variant.path) > 1 and row.records]
    assert {row.dataset for row in carried} == {"micro_textures"}


# ---- chains ----------------------------------------------------------------------------------------------------------


def climbing(run):
    """Carried: loses 20 at each update; refreshed: 10 a step of the chain; otherwise by steps and shots."""
    if run.method == "zs-clip":
        return {"base": 80, "new": 90, "second": 70}
    if run.path == ("base",):
        return {"base": 160, "new": 140, "second": 120}
    if len(run.path) == 3:
        return {"base": 100, "new": 100, "second": 155}
    steps = run.training.steps if run.config.epochs else 0
    start = 140 if run.path == ("base", "new") else 60
    return {"base": 100, "new": min(start + steps // 2 + run.shots, 199), "second": 130}


def test_a_chain_shows_what_was_carried_refreshed_and_retrained_at_each_backbone():
    selection, *_ = world(climbing, methods=["coop"])

    def line(dataset, way, method="coop"):
        keys = {"dataset": dataset, "way": way, "method": method}
        return [
            float(cell(selection, "chains", backbone=role, **keys)["accuracy"]) for role in ("base", "new", "second")
        ]

    assert line("average", "carried") == line("micro_stars", "carried") == [80, 70, 60]
    assert line("micro_stars", "carried", "zs-clip") == [40, 45, 35]
    assert line("micro_stars", "refreshed") == [80, (140 + 10 + 16) / 2, 155 / 2]
    assert line("micro_stars", "retrained")[2] == 65
    places = [
        cell(selection, "chains", dataset="average", method="coop", backbone=b)["place"] for b in ("base", "second")
    ]
    assert places == ["0", "2"]


def test_refresh_points_are_the_runs_of_their_steps_and_shots():
    selection, *_ = world(climbing, methods=["coop"])
    rows = [r for r in cells(selection, "refresh") if r["dataset"] == "micro_stars"]
    by_steps = {r["steps"]: (float(r["carried"]), float(r["nothing"])) for r in rows if r["axis"] == "steps"}
    whole = METHODS["coop"].micro["steps"]
    assert by_steps["0"] == (70, (60 + 16) / 2), "carried without a step is the module reused"
    for steps in chain_numbers.STEPS:
        assert by_steps[str(steps)] == ((156 + steps // 2) / 2, (76 + steps // 2) / 2)
    assert by_steps["all"] == (199 / 2, (76 + whole // 2) / 2)
    by_shots = {int(r["shots"]): r for r in rows if r["axis"] == "shots"}
    assert set(by_shots) == {1, 2, 4, 8, 16}
    assert float(by_shots[2]["carried"]) == (140 + 40 + 2) / 2
    assert float(by_shots[2]["lead"]) == 40 and float(by_shots[2]["lead_low"]) < 40 < float(by_shots[2]["lead_high"])


def test_two_starts_that_answer_alike_have_no_lead():
    selection, *_ = world(lambda run: {"base": 100, "new": 120, "second": 100}, methods=["coop"])
    for row in cells(selection, "refresh"):  # but for two images that were not seen, of which each start has one right
        ends = [float(row[name]) for name in ("lead_low", "lead_high")]
        assert row["lead"] == "0.0" and ends == pytest.approx(
            [-1.96 * 2**0.5 * 100 / IMAGES, 1.96 * 2**0.5 * 100 / IMAGES], rel=1e-3
        )


def test_a_chain_of_an_arch_with_one_update_ends_there():
    arch = ARCHS["micro"]
    assert chain_numbers.chain_of(arch) == ("base", "new") and chain_numbers.chain_of(ARCH) == ("base", "new", "second")
    assert not [r for r in grid(arch=arch, suites_=["chains"], seeds=[1]) if "second" in r.path]


# ---- report and check ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_check_recounts_every_cell_and_finds_one_that_was_changed(tmp_path):
    selection, _, stored = world(climbing, shift=lambda run: 7 * run.seed, methods=["coop", "clip-adapter"])
    outputs.write_tables(selection, tmp_path)
    assert recompute.recompute(selection, stored.__getitem__, tmp_path) == []
    for name, column in (("retention", "reused"), ("decision", "gain"), ("chains", "accuracy"), ("refresh", "lead")):
        path = tmp_path / "tables" / f"{name}.csv"
        whole = path.read_text()
        header, *lines = whole.splitlines()
        place = header.split(",").index(column)
        cells_ = lines[-1].split(",")
        cells_[place] = str(float(cells_[place] or 0) + 1)
        path.write_text("\n".join([header, *lines[:-1], ",".join(cells_)]) + "\n")
        (line,) = recompute.recompute(selection, stored.__getitem__, tmp_path)
        assert name in line and column in line
        path.write_text(whole)
    rest = replace(selection, rows={})
    outputs.write_tables(rest, tmp_path)
    assert not {"retention", "decision", "chains", "refresh"} & {p.stem for p in (tmp_path / "tables").iterdir()}


def test_report_shows_the_tables_and_figures_and_is_the_same_each_time():
    selection, *_ = world(climbing, methods=["coop", "clip-adapter"])
    first, page = report.texts(selection)
    assert report.texts(selection)[0] == first
    for name in ("retention", "chains", "refresh_steps", "refresh_shots"):
        assert f"figures/{name}.svg" in first and figure_of(name, selection) is not None
    counts = Counter(row["choice"] for row in cells(selection, "decision") if row["dataset"] != "average")
    opening = first.split("\n## Retention\n")[1].split("\n## ")[0]
    assert f"Of {sum(counts.values())} choices (2 methods, {len(SETS)} datasets, " in opening
    assert all(f"{name} {count}" in opening for name, count in counts.items())
    for heading in ("What an update leaves", "Reuse, retrain, or zero-shot", "Modules through successive updates"):
        assert heading in first and heading in page
    assert figure_of("chains", replace(selection, rows={})) is None


def test_lines_that_name_a_retrained_record_say_on_what(tmp_path):
    selection, _, stored = world(three(100, 120, 150), methods=["coop"])
    (key,) = [r["key"] for r in selection.records if r["run"].get("path") == ["second"] and r["run"]["seed"] == 1][:1]
    stored[key]["new"] = answered(0)
    lines = recompute.recompute(selection, stored.__getitem__)
    assert lines and all("(trained on second)" in line for line in lines)


def test_the_number_of_points_is_that_of_the_plan():
    selection, *_ = world(climbing, methods=["coop"])
    rows = selection.rows["chains"]
    assert not [row for row in rows if not row.records]
    assert len(cells(selection, "refresh")) == len(SETS) * (len(chain_numbers.STEPS) + 2 + len(chain_numbers.SHOTS) + 1)
    assert not math.isnan(chain_numbers.refresh_table(selection)["lead"].sum())
