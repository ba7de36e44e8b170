"""The statistics, held against scipy, closed forms and the paper's printed averages."""

import csv
import math
import statistics

import numpy as np
import pytest
from checkout import ROOT
from scipy.stats import hmean

from carryover.bench.records import reading, recount
from carryover.bench.stats import means

PAPER = ROOT / "results" / "paper"
TABLES = ["table2_vit_b16.csv", "table8_vit_l14.csv"]
ROUNDING = 0.005 + 1e-9  # a printed number is known to half of its last place


def record(dataset, method, seed, base, new, status="done", started="2026-01-01T00:00:00Z", **run):
    run = {"dataset": dataset, "method": method, "seed": seed, "limit": None, "shots": 16, **run}
    targets = {"base": {"accuracy": base}, "new": {"accuracy": new}} if status == "done" else {}
    return {"key": f"{dataset}-{method}-{seed}", "status": status, "run": run, "targets": targets, "started": started}


def paper_rows(name):
    with (PAPER / name).open(newline="") as file:
        return [(r["dataset"], r["method"], *(float(r[c]) for c in ("base", "new", "h"))) for r in csv.DictReader(file)]


def row(table, dataset, method):
    found = table[(table["dataset"] == dataset) & (table["method"] == method)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("base", [0.01, 1.83, 33.3, 50.0, 99.99, 100.0])
@pytest.mark.parametrize("new", [0.01, 10.02, 50.0, 78.15, 100.0])
def test_harmonic_mean_is_scipys(base, new):
    assert means.harmonic_mean(base, new) == pytest.approx(hmean([base, new]), rel=1e-12)


def test_harmonic_mean_is_zero_where_either_is_unknown_where_either_is_and_never_of_a_negative():
    assert means.harmonic_mean(0.0, 80.0) == means.harmonic_mean(80.0, 0.0) == means.harmonic_mean(0.0, 0.0) == 0.0
    assert math.isnan(means.harmonic_mean(math.nan, 0.0)) and math.isnan(means.harmonic_mean(0.0, math.nan))
    with pytest.raises(ValueError, match="negative"):
        means.harmonic_mean(-1.0, 50.0)


def test_mean_std_is_the_sample_deviation_and_unknown_for_one_value():
    values = [70.1, 71.4, 69.2]
    assert means.mean_std(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    mean, std = means.mean_std([70.1])
    assert mean == 70.1 and math.isnan(std)
    assert all(map(math.isnan, means.mean_std([])))


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_average_h_is_the_harmonic_mean_of_its_averaged_base_and_new(name):
    averages = [row for row in paper_rows(name) if row[0] == "average"]
    assert len(averages) == 8
    for _, method, base, new, h in averages:
        low, high = (means.harmonic_mean(base + d, new + d) for d in (-ROUNDING, ROUNDING))
        assert low - ROUNDING <= h <= high + ROUNDING, method


@pytest.mark.parametrize("name", TABLES)
def test_summarise_takes_the_papers_rows_to_the_papers_averages(name):
    rows = paper_rows(name)
    table = means.summarise([record(d, m, 1, base, new) for d, m, base, new, _ in rows if d != "average"])
    assert len(table) == len(rows) == 96
    for dataset, method, base, new, h in rows:
        ours = row(table, dataset, method)
        assert ours["base"] == pytest.approx(base, abs=2 * ROUNDING), (dataset, method)
        assert ours["new"] == pytest.approx(new, abs=2 * ROUNDING), (dataset, method)
        low, high = (means.harmonic_mean(max(0, base + d), new + d) for d in (-2 * ROUNDING, 2 * ROUNDING))
        if dataset == "average":
            assert low - ROUNDING <= h <= high + ROUNDING and low <= ours["h"] <= high, method
        else:  # the paper averaged H over seeds, which is never above the H of the averages
            assert low - 0.3 - ROUNDING <= h <= high + ROUNDING, (dataset, method)
        assert all(math.isnan(ours[column]) for column in ("base_std", "new_std", "h_std"))


def test_a_datasets_h_is_the_mean_of_each_seeds_own_and_the_average_rows_h_is_not():
    # H(80, 20) = H(20, 80) = 32, while the averages, 50 and 50, have H = 50.
    table = means.summarise([record("d", "m", 1, 80.0, 20.0), record("d", "m", 2, 20.0, 80.0)])
    one, average = row(table, "d", "m"), row(table, "average", "m")
    assert one["h"] == pytest.approx(32.0) and one["h_std"] == pytest.approx(0.0) and one["seeds"] == 2
    assert average["h"] == pytest.approx(50.0) and average["base"] == average["new"] == 50.0
    assert one["base_std"] == pytest.approx(60 / math.sqrt(2))


def test_the_averages_deviation_is_that_of_the_per_seed_averages():
    scores = np.random.default_rng(0).uniform(20, 90, size=(3, 4, 2))  # seeds, datasets, targets
    records = [record(f"d{d}", "m", s, *scores[s, d].tolist()) for s in range(3) for d in range(4)]
    average = row(means.summarise(records), "average", "m")
    per_seed = scores.mean(axis=1)
    expected = {"base": per_seed[:, 0], "new": per_seed[:, 1], "h": hmean(per_seed, axis=1)}
    for name, values in expected.items():
        assert average[name + "_std"] == pytest.approx(values.std(ddof=1)), name
    assert average["h"] == pytest.approx(hmean(per_seed.mean(axis=0)))


def test_a_method_without_one_dataset_of_the_table_has_no_average():
    records = [record("a", "whole", 1, 60.0, 50.0), record("b", "whole", 1, 80.0, 70.0)]
    records += [record("a", "part", 1, 90.0, 90.0), record("b", "part", 1, None, None, status="failed")]
    table = means.summarise(records)
    assert row(table, "average", "whole")["base"] == 70.0
    missing = row(table, "average", "part")
    assert missing["seeds"] == 0 and all(math.isnan(missing[column]) for column in means.SCORES)
    assert row(table, "b", "part")["seeds"] == 0 and row(table, "a", "part")["seeds"] == 1


def test_a_dataset_outside_the_archs_own_suite_has_rows_but_does_not_change_the_average():
    own = [record(d, "coop", 1, base, 50.0) for d, base in (("a", 60.0), ("b", 70.0))]
    extra = [{**record("mine", "coop", 1, 10.0, 10.0), "averaged": False}]
    table = means.summarise([*own, *extra])
    assert row(table, "mine", "coop").base == 10.0
    assert row(table, "average", "coop").base == 65.0
    assert row(means.summarise(extra), "average", "coop").base == 10.0


def test_only_seeds_done_on_every_dataset_enter_the_average():
    records = [record("a", "m", 1, 10.0, 10.0), record("a", "m", 2, 30.0, 30.0), record("b", "m", 2, 50.0, 50.0)]
    average = row(means.summarise(records), "average", "m")
    assert average["seeds"] == 1 and average["base"] == 40.0 and math.isnan(average["base_std"])
    disjoint = row(means.summarise([records[0], records[2]]), "average", "m")
    assert disjoint["seeds"] == 0 and math.isnan(disjoint["base"])


def test_a_trial_with_other_settings_is_not_one_more_seed():
    full = record("a", "m", 1, 60.0, 50.0, started="2026-01-02T00:00:00Z")
    trial = record("a", "m", 1, 90.0, 90.0, limit=5)
    broken = record("a", "m", 1, None, None, status="failed", started="2026-01-03T00:00:00Z")
    for order in ([full, trial, broken], [broken, trial, full]):
        assert reading.select(order) == [full]
    assert reading.mixed_settings([full, trial]) == {"limit": [5, None]}
    shifted = {**full, "run": {**full["run"], "test": "a_shifted"}}
    assert reading.select([full, shifted]) == [full, shifted]


def test_recount_counts_right_answers_and_names_every_difference():
    true = np.array([0, 1, 2, 3])
    predicted = {"base": (np.array([0, 1, 2, 0]), true), "new": (np.array([0, 0, 0, 0]), true)}
    good = {"base": {"correct": 3, "count": 4, "accuracy": 75.0}, "new": {"correct": 1, "count": 4, "accuracy": 25.0}}
    honest = {**record("a", "m", 1, 0, 0), "targets": good}
    assert recount.recount([honest], lambda key: predicted) == ([honest], [])

    forged = {**honest, "targets": {**good, "new": {"correct": 1, "count": 4, "accuracy": 95.0}}}
    remade, lines = recount.recount([forged], lambda key: predicted)
    assert remade[0]["targets"]["new"]["accuracy"] == 25.0
    assert len(lines) == 1 and "accuracy is 95.0" in lines[0] and "seed 1) new" in lines[0]

    nan = {**honest, "targets": {**good, "new": {"correct": 1, "count": 4, "accuracy": math.nan}}}
    assert len(recount.recount([nan], lambda key: predicted)[1]) == 1
    assert "fit" in recount.recount([honest], lambda key: {**predicted, "new": (true[:3], true)})[1][0]
    assert "a record only" in recount.recount([honest], lambda key: {"base": predicted["base"]})[1][0]


def test_an_empty_set_of_records_has_an_empty_table():
    assert means.summarise([]).empty and means.average_rows([]).empty
