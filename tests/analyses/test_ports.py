"""Tables of ported plug-ins: numbers by hand, what cannot be carried with its reason, choices by what a reader has."""

import csv
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from checkout import ROOT
from drawings import figure_of

from carryover.bench import ports as ports_room
from carryover.bench.analyses import port_numbers as numbers
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.plan import grid as plan_grid
from carryover.bench.plan.port_specs import PORT_SPECS, ported_by
from carryover.bench.plan.settings import Settings
from carryover.bench.records.predictions import Outcome, Outcomes
from carryover.bench.records.selection import choose
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import pairs
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS

ports_room.discover()
MICRO = Settings(shots=16, protocol="micro", precision="fp32", views=4, limit=None, methods=Registered())
ARCH = replace(ARCHS["micro"], more={"second": ARCHS["micro"].controls["unrelated"]})
SETS, SEEDS, IMAGES = ("micro_textures", "micro_stars"), (1, 2, 3), 200
ANCHORS = {"support": 192, "other": 900, "foreign": 4000, "texts": 0}


def identity(run):
    found = {"backbones": {"base": "a", "new": "b"}, "method": "m", "templates": ["{}."], "numbers": 1}
    found["pictures"] = [f"s{run.shots}", "v", "t"]
    return {**found, "carried": run.source.key(identity(run.source))} if run.source else found


def record(run, right, images, **more):
    key = run.key(identity(run))
    refused = {role: n for role, n in right.items() if isinstance(n, str)}
    told = {"seconds": 0.5 * run.seed, "anchors": run.count or ANCHORS[run.anchors]} if run.port else None
    files = {"plugin": f"plugin {key}", "predictions": "p"}
    if run.source:
        files["carried"] = f"plugin {run.source.key(identity(run.source))}"
    found = {
        "key": key, "status": "done", "run": run.canonical(), "identity": identity(run), "files": files,
        "names": {"dataset": run.dataset.upper(), "method": METHODS[run.method].name, "test": "T"},
        "depth": METHODS[run.method].depth,
        "order": {"dataset": SETS.index(run.dataset), "method": ordered().index(run.method)},
        "trained": key, "averaged": True, "curve": [],
        "targets": {
            role: {"correct": n, "count": images, "accuracy": 100 * n / images, "backbone": role, "fingerprint": role}
            | ({"port": told} if told else {})
            for role, n in right.items() if role not in refused
        },
        "split": {"classes": 12, "support": 192}, "seconds": {"fit": 3.0, "features": 1.0}, "encoded": {},
        "trainable_parameters": 7, "started": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip
    own = {"port": {"name": run.port, "needs": [], "refused": refused}} if run.port else {"refused": refused}
    return {**found, **own}


def answered(right, images, shift=0, confidence=0.6):
    """The first ``right`` images, from the ``shift``-th on, are right."""
    label = np.zeros(images, np.int64)
    predicted = np.roll(np.arange(images) >= right, shift).astype(np.int64)
    return Outcome(predicted, label, np.full(images, confidence, np.float32))


def world(right, suites=("ports",), shift=lambda run: 0, images=IMAGES, fails=lambda run: False, runs=None, **asked):
    """(selection, stored) of every planned run; ``right(run)``: right answers by role, a reason in place of a number
    where its port refuses it; None for a run that is not there."""
    asked = {"methods": ["coop", "clip-adapter"], "seeds": SEEDS, "datasets_": SETS, **asked}
    asked = {name: list(value) for name, value in asked.items()}
    records, stored = [], {}
    for run in runs or plan_grid.grid(ARCH, MICRO, suites_=list(suites), **asked):
        answers = right(run)
        if answers is None:
            continue
        answers = {role: answers[role] for role in run.evaluated_on(ARCH.towers)}
        one = record(run, answers, images)
        numbers_of = {role: n for role, n in answers.items() if not isinstance(n, str)}
        stored[one["key"]] = {role: answered(n, images, shift(run)) for role, n in numbers_of.items()}
        if fails(run):
            one = {**one, "status": "failed", "targets": {}, "error": "it broke"}
        records.append(one)
    return selected(records, stored), stored


def selected(records, stored):
    def two(key):
        return {role: one[:2] for role, one in stored[key].items()}

    chosen = choose(records, ARCH, MICRO)
    return replace(chosen, predictions=two, outcomes=Outcomes(stored.__getitem__))


def ways(floor=100, reused=80, ceiling=160, **of_port):
    """The same on every target; ``of_port``: by port, kind, or port_kind; else 120."""

    def right(run):
        if run.method == "zs-clip":
            n = floor
        elif run.port:
            names = f"{run.port}_{run.anchors}", run.anchors, run.port
            n = next((of_port[name] for name in names if name in of_port), 120)
        else:
            n = reused if run.path == ("base",) else ceiling
        return {"base": 150, "new": n, "second": n}

    return right


def cells(selection, name="ports"):
    made = outputs.made_from(selection)
    return list(csv.DictReader(made[name].csv.splitlines())) if name in made else []


def cell(selection, name="ports", **keys):
    (row,) = [r for r in cells(selection, name) if all(r[k] == v for k, v in keys.items())]
    return row


STARS = {"dataset": "micro_stars", "method": "coop", "target": "new"}
OTHER = {"port": "procrustes", "anchors": "other", "count": "all"}


def text_of(selection, name="ports"):
    return outputs.made_from(selection)[name].texts["md"].replace("\\", "")


# ---- numbers by hand -------------------------------------------------------------------------------------------------


def test_accuracy_gain_and_retention_are_those_of_the_seeds():
    def right(run):
        found = ways(reused=90)(run)
        more = {1: 0, 2: 4, 3: 14}[run.seed] if run.port else 0
        return {role: n + more for role, n in found.items()}

    selection, _ = world(right)
    row = cell(selection, **STARS, **OTHER)
    by_seed = np.array([120, 124, 134]) / 2
    assert row["seeds"] == "3" and float(row["accuracy"]) == 63
    assert float(row["accuracy_std"]) == pytest.approx(by_seed.std(ddof=1), abs=1e-4)
    assert float(row["gain"]) == 13 and float(row["retention"]) == pytest.approx(13 / 30, abs=1e-4)
    assert float(row["retention_low"]) < 13 / 30 < float(row["retention_high"])
    reused = cell(selection, **STARS, port="reuse")
    assert (float(reused["accuracy"]), float(reused["gain"])) == (45, -5)
    assert float(reused["retention"]) == pytest.approx(-5 / 30, abs=1e-4)
    retrained = cell(selection, **STARS, port="retrain")
    assert (float(retrained["accuracy"]), float(retrained["gain"]), retrained["retention"]) == (80, 30, "")
    shot = cell(selection, dataset="micro_stars", target="new", method="zs-clip")
    assert (shot["port"], float(shot["accuracy"]), float(shot["gain"])) == ("zero-shot", 50, 0)


def test_the_columns_are_the_designs_and_name_a_row_once():
    selection, _ = world(ways(), suites=("ports", "maps"))
    rows = cells(selection)
    assert ",".join(rows[0]) == (
        "dataset,method,target,port,anchors,count,seeds,accuracy,accuracy_std,gain,retention,retention_low,"
        "retention_high,negative_flips,seconds,needs,ece,reason"
    )
    assert set(Counter(tuple(row[name] for name in numbers.KEYS) for row in rows).values()) == {1}
    assert not [row for row in rows if row["seeds"] == "0"], "all was run"


def test_an_interval_of_reuse_is_that_of_the_table_of_retention():
    def right(run):
        spread = 3 * (run.seed - 2) * (run.method != "zs-clip")
        return {role: n + spread for role, n in ways(reused=115)(run).items()}

    selection, _ = world(right, suites=("ports", "retention"), shift=lambda run: 11 * run.seed)
    found = 0
    for theirs in cells(selection, "retention"):
        keys = {name: theirs[name] for name in ("dataset", "method", "target")}
        ours = cell(selection, **keys, port="reuse")
        assert [ours[f"retention{end}"] for end in ("", "_low", "_high")] == [
            theirs[n] for n in ("retention", "low", "high")
        ]
        found += theirs["retention"] != ""
    assert found == 12, "two methods, two targets, two datasets and their average"


def test_an_interval_of_a_port_is_that_of_image_by_image_drawing():
    """One seed, nested answers: the images between floor and ceiling decide, whose draws are multinomial."""
    selection, _ = world(ways(80, 60, 160, procrustes=110), seeds=[1])
    row = cell(selection, **STARS, **OTHER)
    kept, lost = np.random.default_rng(0).multinomial(IMAGES, [30 / 200, 50 / 200, 120 / 200], size=40000).T[:2]
    low, high = np.quantile(kept / (kept + lost), [0.025, 0.975])
    assert float(row["retention_low"]) == pytest.approx(low, abs=0.015)
    assert float(row["retention_high"]) == pytest.approx(high, abs=0.015)


def test_negative_flips_are_what_the_old_plug_in_had_right_and_the_ported_has_wrong():
    selection, _ = world(ways(procrustes=120), shift=lambda run: 100 if run.port else 0)
    before, after = set(range(150)), {(100 + i) % IMAGES for i in range(120)}
    row = cell(selection, **STARS, **OTHER)
    assert float(row["negative_flips"]) == 100 * len(before - after) / IMAGES == 40
    assert float(cell(selection, **STARS, port="reuse")["negative_flips"]) == 100 * (150 - 80) / IMAGES
    assert float(cell(selection, **STARS, port="retrain")["negative_flips"]) == 0


def test_calibration_error_seconds_and_needs():
    row = cell(world(ways(procrustes=100))[0], **STARS, **OTHER)
    assert float(row["ece"]) == pytest.approx(10, abs=1e-4), "half right, at 0.6 throughout"
    assert float(row["seconds"]) == 1.0, "the median of 0.5, 1.0 and 1.5"
    assert set(row["needs"].split()) == {"images", "old_model"}
    selection, _ = world(ways())
    assert cell(selection, **STARS, port="retrain")["needs"] == "images labels"
    assert float(cell(selection, **STARS, port="retrain")["seconds"]) == 3.0
    assert cell(selection, **STARS, port="reuse")["needs"] == ""


def test_the_average_is_over_datasets_and_only_where_the_method_has_all():
    def right(run):
        if (run.port, run.dataset, run.method) == ("procrustes", "micro_stars", "clip-adapter"):
            return None
        more = 20 if run.port and run.dataset == "micro_stars" else 0
        return {role: n + more for role, n in ways()(run).items()}

    selection, _ = world(right)
    average = {"dataset": "average", "target": "new", **OTHER}
    row = cell(selection, method="coop", **average)
    assert (float(row["accuracy"]), float(row["gain"])) == (65, 15)
    assert float(row["retention"]) == pytest.approx(15 / 30, abs=1e-4)
    assert cell(selection, method="clip-adapter", **average)["accuracy"] == ""
    assert "MICRO_STARS: CLIP-Adapter" in text_of(selection)


def test_seeds_that_failed_do_not_count_and_a_row_of_failures_says_so():
    def fails(run):
        return bool(run.port) and (run.seed == 3 or run.port == "linear")

    selection, _ = world(ways(), fails=fails)
    assert cell(selection, **STARS, **OTHER)["seeds"] == "2"
    broken = cell(selection, **STARS, port="linear", anchors="other", count="all")
    assert (broken["seeds"], broken["accuracy"], broken["reason"]) == ("0", "", "the run failed")


# ---- what a port does not carry --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suites", [("maps",), ("ports",), ("ports", "taught")])
def test_a_method_that_a_port_does_not_carry_has_one_row_with_the_reason(suites):
    selection, _ = world(ways(), suites=suites, methods=["coop", "cocoop"])
    rows = [row for row in cells(selection) if row["method"] == "cocoop" and row["dataset"] == "all"]
    asked = [port for port in ported_by() if port.closed_form or "taught" in suites]
    refusing = {port.id: port.reason("cocoop") for port in asked if port.reason("cocoop")}
    assert {row["port"]: row["reason"] for row in rows} == refusing and "procrustes" in refusing
    assert len(rows) == len(refusing) and {row["accuracy"] for row in rows} == {""}
    assert not [
        row for row in cells(selection) if row["method"] == "cocoop" and row["port"] in refusing and row["anchors"]
    ]
    assert refusing["procrustes"] in text_of(selection)


def test_a_target_that_a_port_cannot_serve_has_a_row_with_the_reason():
    def right(run):
        found = ways()(run)
        return {**found, "second": "it is wider"} if run.port == "linear" else found

    selection, _ = world(right)
    there = {"port": "linear", "anchors": "other", "count": "all", "method": "coop"}
    for dataset in (*SETS, "average"):
        row = cell(selection, dataset=dataset, target="second", **there)
        assert (row["accuracy"], row["reason"]) == ("", "it is wider")
    assert float(cell(selection, dataset="average", target="new", **there)["accuracy"]) == 60
    assert "CoOp on second" in text_of(selection) and "it is wider" in text_of(selection)


def test_ports_that_ran_on_some_datasets_alone_stand_apart_beside_the_others_there():
    def right(run):
        partly = run.port == "distill" and run.dataset == "micro_stars"
        return None if partly else ways(distill=140, procrustes=110)(run)

    selection, _ = world(right, suites=("maps", "taught"))
    text = text_of(selection)
    average, apart = (
        text.split(f"### Points gained over zero-shot, {where}")[1].split("###")[0] for where in ("a", "M")
    )
    assert "Distill" not in average and "Procrustes" in average
    (line,) = [line for line in apart.splitlines() if "Distill" in line and "other pictures" in line]
    assert [part.strip() for part in line.split("|")[3:6]] == ["2", "+20.00", "+20.00"]
    (line,) = [line for line in apart.splitlines() if "Procrustes" in line and "other pictures" in line]
    assert [part.strip() for part in line.split("|")[3:6]] == ["2", "+5.00", "+5.00"]


# ---- few runs --------------------------------------------------------------------------------------------------------


def test_the_first_commands_ports_stand_alone_without_retraining():
    selection, _ = world(ways(), suites=("maps",))
    row = cell(selection, **STARS, **OTHER)
    assert float(row["gain"]) == 10 and row["retention"] == ""
    assert not [r for r in cells(selection) if r["port"] == "retrain" or r["count"].isdigit()]
    assert {r["situation"] for r in cells(selection, "port_decision")} == {"no labels"}
    assert "Retrained |" not in text_of(selection) and "Not run" not in text_of(selection)
    assert not cells(selection, "port_chains") and not cells(selection, "port_refresh")
    assert figure_of("ports", selection) is not None and figure_of("ports_anchors", selection) is None


def test_retraining_of_another_suite_counts_beside_the_first_commands_ports():
    selection, _ = world(ways(), suites=("maps", "retention"))
    assert float(cell(selection, **STARS, **OTHER)["retention"]) == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("asked", [{"seeds": [1]}, {"datasets_": ["micro_stars"]}, {"methods": ["coop"]}])
def test_one_seed_dataset_or_method_is_enough(asked):
    selection, _ = world(ways(), **asked)
    row = cell(selection, **{**STARS, "dataset": "average"}, **OTHER)
    assert float(row["accuracy"]) == 60 and (row["accuracy_std"] == "") == ("seeds" in asked)
    assert all(table.texts["tex"] for name, table in outputs.made_from(selection).items() if name in PORT_TABLES)


PORT_TABLES = ("ports", "port_decision", "port_chains", "port_refresh")


def test_without_ported_runs_there_are_no_tables():
    selection, _ = world(ways(), suites=("retention",))
    assert not {*PORT_TABLES} & {*outputs.made_from(selection)} and figure_of("ports", selection) is None
    nothing, _ = world(ways(), methods=["cocoop"], suites=("maps",))
    assert not {*PORT_TABLES} & {*outputs.made_from(nothing)}


def test_without_predictions_accuracies_stay_and_nothing_is_decided():
    selection = replace(world(ways())[0], predictions=None, outcomes=None)
    row = cell(selection, **STARS, **OTHER)
    assert float(row["gain"]) == 10 and row["retention"] == row["negative_flips"] == row["ece"] == ""
    assert {r["choice"] for r in cells(selection, "port_decision")} == {""}


# ---- which option to take --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "situation, right, choice, best",
    [
        ("everything", {"support": 1300, "ceiling": 1306}, "port", "retrain"),  # 0.3 behind, within the margin
        (
            "everything",
            {"support": 1100, "other": 1500, "ceiling": 1400},
            "retrain",
            "retrain",
        ),  # few-shot stands for it
        ("everything", {"support": 900, "ceiling": 1000}, "zero-shot", "zero-shot"),
        ("no labels", {"other": 1100, "support": 900, "ceiling": 1900}, "port", "port"),
        ("no labels", {"other": 1100, "reused": 1096}, "reuse", "port"),
        ("no old model", {"foreign": 1200, "other": 1900, "ceiling": 1210}, "general map", "retrain"),
        ("no old model", {"foreign": 900, "ceiling": 1210}, "retrain", "retrain"),
        ("no pictures", {"texts": 1200, "foreign": 1100, "ceiling": 1900}, "text map", "text map"),
        ("no pictures", {"texts": 1200, "foreign": 1300, "ceiling": 1900}, "general map", "general map"),
    ],
)
def test_the_choice_is_among_what_a_reader_has(situation, right, choice, best):
    made = ways(**{"floor": 1000, "reused": 800, "ceiling": 1500, **right, "linear": 1999, "delta": 1999})
    selection, _ = world(lambda run: {**made(run), "base": 1500}, images=2000, methods=["coop"], seeds=[1, 2])
    row = cell(selection, "port_decision", **STARS, situation=situation)
    assert (row["choice"], row["best"]) == (choice, best)
    accuracies = {name: row[name.replace("-", "_").replace(" ", "_")] for name in numbers.CHOICES}
    assert {name for name, value in accuracies.items() if value} == {*numbers.SITUATIONS[situation]}
    assert float(row["gain"]) == pytest.approx(float(accuracies[choice]) - 50)
    assert choice in text_of(selection, "port_decision")


def test_the_choice_without_a_port_in_sight_is_that_of_the_decision_table():
    """A port as bad as reuse changes no choice of `decision`, and no interval of its gain."""

    def right(run):
        spread = 5 * (run.seed - 2) * (run.method != "zs-clip")
        return {role: n + spread for role, n in ways(reused=97, ceiling=130, procrustes=60)(run).items()}

    selection, _ = world(right, suites=("ports", "retention"), shift=lambda run: 7 * run.seed)
    for theirs in cells(selection, "decision"):
        keys = {name: theirs[name] for name in ("dataset", "method", "target")}
        ours = cell(selection, "port_decision", **keys, situation="everything")
        for name in ("choice", "best", "gain", "gain_low", "gain_high"):
            assert ours[name] == theirs[name]


def test_how_often_each_is_chosen_counts_every_dataset_once():
    selection, _ = world(ways(40, 30, 190, other=150))
    lines = [
        [part.strip() for part in line.split("|")[1:-1]] for line in text_of(selection, "port_decision").splitlines()
    ]
    (told,) = [line for line in lines if line and line[0] == "Without labels"]
    assert told[1:] == ["0", "0", "–", "–", "8", "–", "0"], "two methods, datasets and targets"


# ---- maps of maps, refreshes -----------------------------------------------------------------------------------------


def test_a_map_of_a_map_stands_beside_a_fresh_one():
    def right(run):
        found = ways(procrustes=140)(run)
        return {role: n - 10 - run.seed for role, n in found.items()} if run.via else found

    selection, _ = world(right)
    row = cell(selection, "port_chains", dataset="micro_stars", method="coop")
    assert (row["target"], row["via"], row["anchors"]) == ("second", "new", "other")
    assert (float(row["chained"]), float(row["fresh"]), float(row["difference"])) == (64, 70, -6)
    assert float(row["low"]) < -6 < float(row["high"]) < 0
    assert cell(selection, "port_chains", dataset="average", method="coop")["chained"] == row["chained"]


def test_a_refresh_stands_beside_the_same_steps_from_elsewhere():
    def right(run):
        if run.port:
            return dict.fromkeys(("base", "new", "second"), 120 + (run.refresh or 0))
        if run.path == ("base", "new"):
            return dict.fromkeys(("base", "new"), 90 + max(run.refresh, 0))
        if run.path == ("new",) and run.training.steps in (5, 10, 20, 40):
            return {"new": 40 + run.training.steps}
        return ways(reused=80)(run)

    selection, _ = world(right, suites=("ports", "chains"), datasets_=["micro_stars"], methods=["clip-adapter"])
    rows = {int(r["steps"]): r for r in cells(selection, "port_refresh") if r["dataset"] == "micro_stars"}
    assert sorted(rows) == [0, 5, 10, 20, 40]
    assert (float(rows[0]["ported"]), float(rows[0]["carried"])) == (60, 40), "no step: ported, and reused"
    assert float(rows[20]["ported"]) == 70
    assert (float(rows[20]["carried"]), float(rows[20]["over_carried"])) == (55, 15)
    assert (float(rows[20]["nothing"]), float(rows[20]["over_nothing"])) == (30, 40)
    assert float(rows[20]["over_nothing_low"]) < 40 < float(rows[20]["over_nothing_high"])
    assert "From nothing" in text_of(selection, "port_refresh")
    alone, _ = world(right, datasets_=["micro_stars"], methods=["clip-adapter"])
    row = cell(alone, "port_refresh", dataset="micro_stars", steps="20")
    assert float(row["ported"]) == 70 and row["carried"] == row["over_nothing"] == ""


# ---- words, figures, check -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suites, methods, said",
    [
        (("ports",), ["coop"], ["CoOp keeps 0.33 of what retraining gains on the update; unchanged it keeps none."]),
        (("maps",), ["coop"], ["CoOp has 60.0 % on the update; unchanged it has 40.0 %, and zero-shot 50.0 %."]),
        (
            ("ports",),
            ["coop", "clip-adapter"],
            ["2 of 2 methods are more accurate on the update than unchanged, and 2 are above", "gains most by the map"],
        ),
        (("retention",), ["coop"], []),
    ],
)
def test_the_report_says_what_a_map_keeps(suites, methods, said):
    selection, _ = world(ways(), suites=suites, methods=methods)
    opening = report.texts(selection)[0]
    assert all(text in opening for text in said)
    assert ("Through a map fitted on unlabelled pictures, " in opening) == bool(said)


def test_the_figure_shows_every_way_at_its_accuracy():
    selection, _ = world(ways(reused=96, support=130, other=124), methods=["coop"])
    axes = figure_of("ports", selection).axes[0]
    dots = {line.get_label(): line.get_xdata()[0] for line in axes.lines if not line.get_label().startswith("_")}
    assert dots == {
        "zero-shot (floor)": 50, "reused": 48, "retrained (ceiling)": 80, "ported (other pictures)": 62,
        "ported (few-shot pictures)": 65,
    }  # fmt: skip
    hollow = {line.get_label() for line in axes.lines if line.get_fillstyle() == "none"}
    assert hollow == {"ported (other pictures)"}


def test_accuracy_is_drawn_against_the_anchors_that_were_there():
    def right(run):
        found = ways(other=100 + 2 * round(math.log2(run.count or ANCHORS["other"])))
        return found(run)

    selection, _ = world(right, methods=["coop"])
    axes = figure_of("ports_anchors", selection).axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "other pictures"]
    assert list(line.get_xdata()) == [16, 64, 256, 900]
    assert list(line.get_ydata()) == [4, 6, 8, 10]


def test_check_recounts_the_tables_and_finds_a_cell_that_was_changed(tmp_path):
    selection, stored = world(ways(), methods=["coop"], datasets_=["micro_stars"])
    outputs.write_tables(selection, tmp_path)
    assert recompute.recompute(selection, selection.predictions, tmp_path) == []
    for name, column in (("ports", "negative_flips"), ("port_decision", "gain_low"), ("port_chains", "fresh")):
        path = tmp_path / "tables" / f"{name}.csv"
        whole = path.read_text()
        header, *lines = whole.splitlines()
        parts = lines[-1].split(",")
        parts[header.split(",").index(column)] = "1.5"
        path.write_text("\n".join([header, *lines[:-1], ",".join(parts)]) + "\n")
        (line,) = recompute.recompute(selection, selection.predictions, tmp_path)
        assert name in line and column in line
        path.write_text(whole)
    outputs.write_tables(replace(selection, rows={}), tmp_path)
    assert not {*PORT_TABLES} & {path.stem for path in (tmp_path / "tables").iterdir()}


def test_the_report_shows_tables_and_figures_and_is_the_same_each_time():
    selection, _ = world(ways())
    first, page = report.texts(selection)
    assert report.texts(selection)[0] == first
    for heading in ("Reuse, port, retrain, or zero-shot", "Two updates in turn", "Ported, then refreshed"):
        assert heading in first and heading in page
    assert "figures/ports.svg" in first and "figures/ports_anchors.svg" in first


def test_the_ports_that_decide_are_there():
    for options in numbers.SITUATIONS.values():
        for way in options.values():
            if way.anchors:
                assert way.anchors in PORT_SPECS[way.port].anchors


def test_tables_are_made_without_torch():
    code = (
        "import sys; from carryover.bench import analyses; analyses.discover();"
        "print('carryover.bench.analyses.ports' in sys.modules, 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert told.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("seed", range(30))
def test_whether_an_interval_holds_nothing_is_told_by_counting_as_by_sorting(seed):
    generator = np.random.default_rng(seed)
    draws = np.round(generator.normal(generator.uniform(-2.6, 2.6), 1, 10_000), seed % 4)
    edge = np.sort(draws)
    for shifted in (
        draws,
        draws - (edge[249] + edge[250]) / 2,
        draws - edge[249],
        draws - edge[9750],
        draws - edge[250],
    ):
        low, high, _ = pairs.interval(shifted)
        assert pairs.holds_nothing(shifted) == (low <= 0 <= high)
