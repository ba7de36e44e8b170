"""The forecast of ported plug-ins: lines by scikit-learn, rank correlation by scipy, worlds where it works and not."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from checkout import ROOT
from drawings import figure_of
from sklearn.linear_model import LinearRegression
from table_records import record

from carryover.bench import ports as ports_room
from carryover.bench.analyses import forecast
from carryover.bench.analyses import forecast_numbers as numbers
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.plan.settings import Settings
from carryover.bench.plan.suites import Variant
from carryover.bench.records.selection import Row, Selection
from carryover.bench.report import outputs, recompute
from carryover.bench.stats import correlation
from carryover.bench.stats.forecast_models import by_line, by_mean
from carryover.methods import Registered

ports_room.discover()
SETS, TARGETS = ("stars", "land", "pets", "cars"), ("new", "second", "larger")
METHODS, PORTS = ("coop", "taskres", "linear-probe"), ("procrustes", "linear")
IMAGES, SEEDS = 200, (1, 2)
MICRO = Settings(16, "micro", "fp32", 4, None, methods=Registered())


def made_record(dataset, method, seed, right, told=None, label="", status="done"):
    """``right``: right answers of `IMAGES` by backbone; ``told``: what the port told, by backbone."""
    found = record(dataset, method, seed, 0, 0, status=status)
    targets = {
        role: {"correct": int(n), "count": IMAGES, "accuracy": 100 * int(n) / IMAGES, "backbone": role}
        | ({"port": told[role]} if told else {})
        for role, n in right.items()
    }
    run = {**found["run"], "port": label} if label else found["run"]
    return {**found, "key": f"{found['key']}/{label}", "run": run, "targets": targets if status == "done" else {}}


def world(rule, kinds=(("other", 0),), sets=SETS, targets=TARGETS, methods=METHODS, seeds=SEEDS, ports=PORTS):
    """A selection of the suite `maps`; ``rule(rng, dataset)``: what a port tells, and its gain in points."""
    rng, main, rows = np.random.default_rng(0), [], []
    floor = {(dataset, target): 2 * rng.integers(40, 60) for dataset in sets for target in targets}
    for dataset in sets:
        for seed in seeds:
            shot = {"base": 120, **{target: floor[dataset, target] for target in targets}}
            main.append(made_record(dataset, "zs-clip", seed, shot))
            main += [made_record(dataset, m, seed, {role: 60 for role in shot}) for m in methods]
        for method in methods:
            for port in ports:
                for kind, count in kinds:
                    variant, records = Variant((), method, port=port, anchors=kind, count=count), []
                    for seed in seeds:
                        told, right = {}, {}
                        for target in targets:
                            told[target], gain = rule(rng, dataset)
                            right[target] = floor[dataset, target] + round(gain * IMAGES / 100)
                        label = f"{port} {kind} {count}"
                        records.append(made_record(dataset, method, seed, right, told, label))
                    rows.append(Row(dataset, variant, tuple(records)))
    return Selection(ARCHS["micro"], tuple(main), rows={"maps": tuple(rows)}, settings=MICRO)


def told_of(rng, lead):
    """What a port tells whose lead is that share."""
    zero = rng.uniform(0.3, 0.5)
    return {"agreement": zero + lead, "zero_agreement": zero, "confidence": rng.uniform(0.3, 0.9),
            "entropy": rng.uniform(0, 2), "fit": rng.uniform(0, 1)}  # fmt: skip


def works(rng, dataset):
    lead = rng.uniform(-0.3, 0.4)
    return told_of(rng, lead), 50 * lead + rng.normal()


def tells_nothing(rng, dataset):
    return told_of(rng, rng.uniform(-0.3, 0.4)), 8 * rng.normal()


def row_of(table, **where):
    (row,) = numbers.rows_where(table, **where).to_dict("records")
    return row


PLAIN = {"anchors": "other", "count": "all"}


# ---- lines and means -------------------------------------------------------------------------------------------------


def test_each_group_is_forecast_by_scikit_learns_line_of_the_others():
    rng = np.random.default_rng(0)
    for size, width in ((30, 1), (60, 2)):
        x, y, groups = rng.normal(5, 3, (size, width)), rng.normal(size=size), rng.integers(0, 4, size)
        made = by_line(x, y, groups)
        for group in range(4):
            own = groups == group
            expected = LinearRegression().fit(x[~own], y[~own]).predict(x[own])
            assert made[own] == pytest.approx(expected, abs=1e-10)


def test_a_predictor_that_is_constant_in_the_other_groups_has_no_part():
    x = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0], [0.7, 3.0], [0.9, 5.0]])
    y, groups = 3 * x[:, 1] + 1, ["a", "a", "a", "b", "b"]
    assert by_line(x, y, groups)[3:] == pytest.approx(y[3:])


def test_outcomes_of_a_group_change_no_forecast_of_it():
    rng = np.random.default_rng(1)
    x, y, groups = rng.normal(size=(40, 2)), rng.normal(size=40), np.arange(40) % 4
    forged = np.where(groups == 2, -50.0, y)
    for make in (lambda v: by_line(x, v, groups), lambda v: by_mean(v, groups)):
        before, after = make(y), make(forged)
        assert np.allclose(before[groups == 2], after[groups == 2])
        assert not np.isclose(before[groups != 2], after[groups != 2]).any()


def test_means_are_of_the_other_groups_and_of_their_like_where_there_is_any():
    y, groups = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), ["a", "a", "b", "b", "c"]
    assert by_mean(y, groups) == pytest.approx([28 / 3, 28 / 3, 19 / 3, 19 / 3, 15 / 4])
    assert by_mean(y, groups, ["x", "y", "x", "x", "z"]) == pytest.approx([6, 28 / 3, 1, 1, 15 / 4])


def test_one_group_has_none_to_be_forecast_from():
    with pytest.raises(ValueError, match="one group"):
        by_mean(np.ones(3), ["a", "a", "a"])


def test_rho_is_scipys_with_many_ties():
    rng = np.random.default_rng(2)
    for size in (5, 40, 300):
        x, y = rng.integers(0, 6, size).astype(float), rng.normal(size=size).round(1)
        assert correlation.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


# ---- cases -----------------------------------------------------------------------------------------------------------


def test_a_case_is_the_mean_of_its_seeds_runs():
    selection = world(works)
    row = selection.rows["maps"][0]
    shot = [r["targets"]["second"]["accuracy"] for r in selection.main if r["key"].startswith("stars/zs-clip/")]
    own = [r["targets"]["second"] for r in row.records]
    case = row_of(numbers.forecast_of(selection).cases, dataset=row.dataset, method="coop", port="procrustes",
                  target="second")  # fmt: skip
    assert case["accuracy"] == pytest.approx(np.mean([t["accuracy"] for t in own]))
    assert case["gain"] == pytest.approx(case["accuracy"] - np.mean(shot))
    leads = [100 * (t["port"]["agreement"] - t["port"]["zero_agreement"]) for t in own]
    assert case["lead"] == pytest.approx(np.mean(leads))
    assert case["agreement"] == pytest.approx(100 * np.mean([t["port"]["agreement"] for t in own]))
    assert len(numbers.forecast_of(selection).cases) == len(SETS) * len(TARGETS) * len(METHODS) * len(PORTS)


def test_no_predictor_is_made_of_right_answers():
    selection = world(works)
    forged = []
    for row in selection.rows["maps"]:
        wrong = [{**r, "targets": {k: {**t, "correct": 1, "accuracy": 0.5} for k, t in r["targets"].items()}}
                 for r in row.records]  # fmt: skip
        forged.append(Row(row.dataset, row.variant, tuple(wrong)))
    other = Selection(selection.arch, selection.main, rows={"maps": tuple(forged)})
    before, after = numbers.runs_of(selection), numbers.runs_of(other)
    assert before[list(numbers.PREDICTORS)].equals(after[list(numbers.PREDICTORS)])
    assert (before["gain"] != after["gain"]).all()


def test_what_two_suites_ask_for_counts_once_and_chains_refreshes_failures_and_silent_ports_do_not():
    selection = world(works)
    rows = selection.rows["maps"]
    before = len(numbers.runs_of(selection))
    both = Selection(selection.arch, selection.main, rows={"maps": rows, "ports": rows})
    assert len(numbers.runs_of(both)) == before
    first, dataset = rows[0].records[0], rows[0].dataset
    told = {role: {"fit": 0.5, "seconds": 1.0} for role in TARGETS}
    right = {role: t["correct"] for role, t in first["targets"].items()}
    of = {"port": "procrustes", "anchors": "other"}
    more = [
        Row(dataset, Variant((), "coop", via=("new",), **of), ({**first, "key": "via"},)),
        Row(dataset, Variant((), "coop", path=("base", "new"), refresh=5, **of), ({**first, "key": "steps"},)),
        Row(dataset, Variant((), "coop", **of), ({**first, "key": "failed", "status": "failed", "targets": {}},)),
        Row(dataset, Variant((), "coop", port="texts", anchors="texts"),
            (made_record(dataset, "coop", 1, right, told, "silent"),)),
    ]  # fmt: skip
    assert len(numbers.runs_of(Selection(selection.arch, selection.main, rows={"ports": (*rows, *more)}))) == before


# ---- errors ----------------------------------------------------------------------------------------------------------


def frame(leads, gains, groups):
    """Cases that differ in their dataset alone."""
    size = len(leads)
    return pd.DataFrame({
        "anchors": "other", "count": 0, "port": "p", "method": "m", "dataset": groups, "target": "new",
        "accuracy": 50 + np.array(gains), "gain": gains, "lead": leads, "agreement": np.arange(size) + 50.0,
        "confidence": np.arange(size)[::-1] + 30.0, "entropy": 1.0, "fit": np.nan, "zero_shot": 50.0, "reuse": 0.0,
    })  # fmt: skip


def test_errors_and_rank_correlations_by_hand():
    leads = [0.0, 10, 20, 0, 20, 40, 10, 30, 50]
    gains = [x / 2 + 1 for x in leads]
    rows = {row[2]: row for row in numbers.judged(frame(leads, gains, list("aaabbbccc")), "gain", "dataset")}
    line, plain, mean = (dict(zip(numbers.COLUMNS[2:], rows[m], strict=True)) for m in ("forecast", "as_it_is", "mean"))
    assert line["mae"] == pytest.approx(0, abs=1e-9) and line["rho"] == line["rho_within"] == line["rho_least"] == 1
    assert plain["mae"] == pytest.approx(np.mean(np.abs(np.array(leads) - gains)))
    others = {"a": (np.mean(gains[3:])), "b": np.mean(gains[:3] + gains[6:]), "c": np.mean(gains[:6])}
    each = [np.mean([abs(g - others[d]) for g in gains[3 * i : 3 * i + 3]]) for i, d in enumerate("abc")]
    assert mean["mae"] == mean["mae_mean"] == line["mae_mean"] == pytest.approx(np.mean(each))
    half = scipy.stats.t.ppf(0.975, 2) * np.std(each, ddof=1) / 3**0.5
    assert line["better"] == pytest.approx(np.mean(each))
    assert (line["better_low"], line["better_high"]) == pytest.approx((np.mean(each) - half, np.mean(each) + half))
    assert np.isnan([mean["rho"], mean["rho_within"], mean["better_low"]]).all()
    assert "fit" not in rows and np.isnan(rows["entropy"][-1])  # not told everywhere; the same everywhere


def test_rank_correlation_is_of_cases_left_out_and_within_groups():
    table = numbers.cases_of(numbers.runs_of(world(works)))
    line = numbers.made(table, "gain", "target")["forecast"]
    for target in TARGETS:
        own = (table["target"] == target).to_numpy()
        fitted = LinearRegression().fit(table[~own][["lead"]].to_numpy(), table[~own]["gain"])
        assert line[own] == pytest.approx(fitted.predict(table[own][["lead"]].to_numpy()))
    row = row_of(numbers.forecast_table(table), outcome="gain", left_out="target", model="forecast", **PLAIN)
    rho = lambda rows: scipy.stats.spearmanr(line[rows], table["gain"][rows]).statistic  # noqa: E731
    each = [rho((table["target"] == target).to_numpy()) for target in TARGETS]
    assert row["rho"] == pytest.approx(rho(np.ones(len(table), bool)))
    assert (row["rho_within"], row["rho_least"]) == pytest.approx((np.mean(each), min(each)))


def test_accuracy_is_forecast_from_agreement_and_confidence_and_is_no_more_than_100():
    def rule(rng, dataset):
        told = told_of(rng, rng.uniform(0, 0.3))
        return told, 20 * told["agreement"] + 30 * told["confidence"] - 20

    found = numbers.forecast_of(world(rule)).cases
    found["accuracy"] = 60 * found["agreement"] / 100 + 30 * found["confidence"] / 100 + 20
    made = numbers.made(found, "accuracy", "dataset")
    assert made["forecast"] == pytest.approx(np.minimum(found["accuracy"], 100))
    assert made["as_it_is"] == pytest.approx(found["agreement"])
    assert max(one.max() for one in made.values()) <= 100


def test_like_differs_in_nothing_but_what_is_left_out():
    found = numbers.forecast_of(world(works)).cases
    made = numbers.made(found, "gain", "target")["like"]
    asked = found.iloc[7]
    rest = found[found["target"] != asked["target"]]
    for name in ("dataset", "method", "port"):
        rest = rest[rest[name] == asked[name]]
    assert len(rest) == len(TARGETS) - 1 and made[7] == pytest.approx(rest["gain"].mean())


def test_fewer_anchors_stand_apart_and_kinds_too():
    kinds = (("support", 0), ("other", 0), ("other", 16), ("other", 64))
    table = numbers.forecast_of(world(works, kinds)).table
    plain = numbers.rows_where(table, outcome="gain", left_out="method", model="forecast")
    per = len(SETS) * len(TARGETS) * len(METHODS) * len(PORTS)
    assert plain.set_index(["anchors", "count"])["cases"].to_dict() == {
        ("support", "all"): per, ("other", "all"): per, ("other", "any"): 3 * per,
    }  # fmt: skip


# ---- as a rule -------------------------------------------------------------------------------------------------------


def test_a_rules_loss_by_hand():
    cells = [  # accuracy of p and q, their leads; zero-shot 50, reuse 40
        (60, 70, 5, -5),
        (30, 45, -1, -2),
        (55, 52, 4, 8),
    ] * 4
    rows = [
        {"anchors": "other", "count": 0, "port": port, "method": "m", "dataset": "d", "target": "new", "seed": seed,
         "accuracy": cell[i], "gain": cell[i] - 50, "lead": cell[i + 2], "agreement": 0, "confidence": 0,
         "entropy": 0, "fit": 0, "zero_shot": 50, "reuse": 40 if seed else 80}
        for seed, cell in enumerate(cells) for i, port in enumerate("pq")
    ]  # fmt: skip
    found = numbers.choice_table(pd.DataFrame(rows)).set_index("choice")
    best = np.array([80, 50, 55, *[70, 50, 55] * 3])
    taken = {
        "zero-shot": [50] * 12,
        "reuse": [80] + [40] * 11,
        "p": [60, 30, 55] * 4,
        "q if it leads": [50, 50, 52] * 4,
        "p if it leads": [60, 50, 55] * 4,
        "greatest lead": [60, 50, 52] * 4,
    }
    for choice, accuracy in taken.items():
        lost = best - np.array(accuracy)
        row = found.loc[choice]
        assert (row["cells"], row["accuracy"]) == (12, pytest.approx(np.mean(accuracy)))
        assert (row["regret"], row["worst"]) == (pytest.approx(lost.mean()), lost.max()), choice


# ---- in words --------------------------------------------------------------------------------------------------------


def opening_of(selection):
    made = forecast.Told().made(selection)
    return " ".join(forecast.sentences(numbers.forecast_of(selection))) if "forecast" in made else ""


def test_where_it_works_the_opening_says_by_how_much():
    selection = world(works)
    row = row_of(numbers.forecast_of(selection).table, outcome="gain", left_out="dataset", model="forecast", **PLAIN)
    assert row["mae"] < 0.3 * row["mae_mean"] and row["better_low"] > 0 and row["rho_least"] > 0.9
    said = opening_of(selection)
    assert said.startswith("Agreement with the old model predicts a port's gain without labels. On a held-out dataset")
    assert f"error is {row['mae']:.1f} points; that of the mean gain is {row['mae_mean']:.1f}. The rank" in said
    assert f"is {row['rho']:.2f}, within a dataset {row['rho_within']:.2f}. Porting by procrustes" in said


def test_where_it_tells_nothing_the_opening_says_so():
    said = opening_of(world(tells_nothing))
    assert said.startswith("Agreement with the old model does not predict a port's gain.") and said.count(".") < 9
    assert "Porting by" not in said


def test_a_lead_that_only_tells_datasets_apart_is_not_called_to_work():
    """Within a dataset it says nothing, though over all cases it is all that is needed."""
    level = dict(zip(SETS, (-0.3, -0.1, 0.1, 0.3), strict=True))

    def rule(rng, dataset):
        return told_of(rng, level[dataset] + 0.01 * rng.normal()), 50 * level[dataset] + rng.normal()

    selection = world(rule)
    row = row_of(numbers.forecast_of(selection).table, outcome="gain", left_out="dataset", model="forecast", **PLAIN)
    assert row["rho"] > 0.9 and row["rho_least"] < 0.3
    assert (row["rho_least"] <= 0) == opening_of(selection).startswith("Agreement with the old model does not")


def test_few_groups_whose_errors_differ_are_said_to_show_nothing():
    slope = {"stars": 25, "land": 60, "pets": 90}

    def rule(rng, dataset):
        lead = rng.uniform(-0.3, 0.1)
        return told_of(rng, lead), slope[dataset] * lead

    selection = world(rule, sets=SETS[:3])
    row = row_of(numbers.forecast_of(selection).table, outcome="gain", left_out="dataset", model="forecast", **PLAIN)
    holds = "With 3 datasets that difference is not significant" in opening_of(selection)
    assert row["better"] > 0 and holds == (row["better_low"] <= 0) and holds


def test_too_few_datasets_have_no_opening_and_still_a_table():
    selection = world(works, sets=SETS[:1])
    made = forecast.Told().made(selection)
    assert set(made["forecast"].frame["left_out"]) == {"target", "method"} and opening_of(selection) == ""
    assert "a method left out" in made["forecast"].texts["md"]
    assert figure_of("forecast", selection) is not None


def test_without_ported_records_or_with_a_single_one_there_is_nothing():
    shot = world(works)
    for rows in ({}, {"maps": ()}, {"maps": shot.rows["maps"][:1]}):
        selection = replace(shot, rows=rows)
        assert {"forecast", "forecast_choice"}.isdisjoint(outputs.made_from(selection))
        assert figure_of("forecast", selection) is None and opening_of(selection) == ""
    ports_alone = replace(shot, main=())  # without zero-shot there is no gain
    assert "forecast" not in outputs.made_from(ports_alone)


def test_the_sheet_shows_the_tables_numbers():
    selection = world(works, (("support", 0), ("other", 0), ("other", 16)))
    made = forecast.Told().made(selection)
    text = made["forecast"].texts["md"].replace("\\", "")
    row = row_of(made["forecast"].frame, outcome="gain", left_out="dataset", model="forecast", anchors="support",
                 count="all")  # fmt: skip
    (line,) = [x for x in text.split("a dataset left out; by lead")[1].split("###")[0].splitlines() if "support" in x]
    shown = [cell.strip() for cell in line.split("|")[1:-1]]
    assert shown[:3] == ["support, all", str(row["cases"]), f"{row['mae']:.2f}"]
    assert shown[-4:-1] == [f"{row[name]:.2f}" for name in ("rho", "rho_within", "rho_least")]
    lost = row_of(made["forecast_choice"].frame, anchors="other", choice="procrustes if it leads")
    assert f"{lost['regret']:.2f}" in made["forecast_choice"].texts["md"].split("Anchors other")[1]


def test_the_figure_sets_each_case_against_its_forecast():
    selection = world(works)
    figure, table = figure_of("forecast", selection), numbers.forecast_of(selection).cases
    for axes, left_out in zip(figure.axes, ("dataset", "target"), strict=True):
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert len(lines) == len(SETS)
        made = numbers.made(table, "gain", left_out)["forecast"]
        assert sorted(np.concatenate([line.get_xdata() for line in lines])) == pytest.approx(sorted(made))
        assert sorted(np.concatenate([line.get_ydata() for line in lines])) == pytest.approx(sorted(table["gain"]))


def test_check_makes_both_tables_again_and_names_a_forged_cell(tmp_path):
    selection = world(works)
    truth = np.zeros(IMAGES, int)
    of = {r["key"]: r for r in selection.records}

    def predictions(key):
        return {role: (np.r_[np.zeros(t["correct"], int), np.ones(IMAGES - t["correct"], int)], truth)
                for role, t in of[key]["targets"].items()}  # fmt: skip

    outputs.write_tables(selection, tmp_path)
    assert recompute.recompute(selection, predictions, tmp_path) == []
    for name, column in (("forecast", "mae"), ("forecast_choice", "regret")):
        path = tmp_path / "tables" / f"{name}.csv"
        before = path.read_text()
        header, first, *rest = before.splitlines()
        cells = first.split(",")
        cells[header.split(",").index(column)] = "77.7"
        path.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
        assert [line for line in recompute.recompute(selection, predictions, tmp_path) if "'77.7'" in line]
        path.write_text(before)


def test_it_needs_no_torch():
    code = "import sys, carryover.bench.analyses.forecast; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT / "src")}).returncode == 0
