"""The forecast: ridge and Spearman by scikit-learn and scipy, worlds in which it works and in which it must not."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from drawings import figure_of
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error

from carryover.bench.analyses import forecast, forecast_numbers
from carryover.bench.analyses.forecast_numbers import Forecast
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.backbones.drift_measures import structure
from carryover.bench.backbones.drift_names import MEASURES
from carryover.bench.plan.settings import Settings
from carryover.bench.records.selection import Selection
from carryover.bench.render.sheets import sheet_markdown
from carryover.bench.report import outputs, recompute
from carryover.bench.stats import correlation, forecast_models
from carryover.methods import Registered

TARGETS = ("new", "larger", "second", "unrelated")
SETS = tuple(f"set{i:02}" for i in range(10))
METHODS = ("coop", "clip-adapter", "kgcoop")
RESULTS = [(outcome, left_out) for outcome in forecast_numbers.OUTCOMES for left_out in forecast_numbers.LEFT_OUT]


def cases(rule, seed=0, noise=1.0, targets=TARGETS, sets=SETS, methods=METHODS):
    """``rule(predictors, method)``: gain kept without noise; a row a method, dataset and target."""
    rng, rows = np.random.default_rng(seed), []
    for target in targets:
        drift, names = rng.uniform(0.1, 1), list(forecast_numbers.PREDICTORS)[1:]
        for dataset in sets:
            values = {"parameter_drift": drift, **{name: rng.uniform(0, 1) for name in names}}
            for method in methods:
                kept = rule(values, method) + noise * rng.normal()
                gain = rng.uniform(10, 20)
                rows.append(
                    [target, dataset, method, 3, gain, kept, kept / gain, rng.uniform(30, 70), *values.values()]
                )
    return pd.DataFrame(rows, columns=list(forecast_numbers.CASE_COLUMNS))


def works(values, method):
    """More similar classes, more kept: another slope for each method."""
    return 5 + {"coop": 20, "clip-adapter": 30, "kgcoop": 15}[method] * values["structure"]


def tells_nothing(values, method):
    return {"coop": 10, "clip-adapter": -5, "kgcoop": 8}[method]


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", forecast_numbers.LEFT_OUT)
@pytest.mark.parametrize("model", [("structure",), ("structure", "parameter_drift"), ("feature_drift", "cka")])
def test_forecasts_are_scikit_learns_ridge_on_standardised_predictors(model, left_out):
    table = cases(works)
    made, _ = Forecast(table).made["kept", left_out]
    for place in range(0, len(table), 17):
        asked = table.iloc[place]
        fitted = table[(table["method"] == asked["method"]) & (table[left_out] != asked[left_out])]
        x = fitted[list(model)].to_numpy()
        centre, spread = x.mean(0), x.std(0)
        line = Ridge(alpha=forecast_models.PENALTY).fit((x - centre) / spread, fitted["kept"])
        expected = line.predict(((asked[list(model)].to_numpy(float) - centre) / spread)[None])[0]
        limited = np.clip(expected, fitted["kept"].min(), fitted["kept"].max())
        assert made[next(n for n in made if {*n.split(" + ")} == {*model})][place] == pytest.approx(limited, abs=1e-6)


@pytest.mark.parametrize("left_out", forecast_numbers.LEFT_OUT)
def test_the_baselines_are_means_of_the_methods_other_cases(left_out):
    table, other = cases(works), "dataset" if left_out == "target" else "target"
    made, _ = Forecast(table).made["share", left_out]
    asked = table.iloc[40]
    rest = table[(table["method"] == asked["method"]) & (table[left_out] != asked[left_out])]
    assert made["mean"][40] == pytest.approx(rest["share"].mean())
    assert made["same"][40] == pytest.approx(rest[rest[other] == asked[other]]["share"].mean())
    level = ((rest["kept"] + rest["zero_shot_target"]).mean() - asked["zero_shot_target"]) / asked["gain_base"]
    assert made["level"][40] == pytest.approx(np.clip(level, rest["share"].min(), rest["share"].max()))


def test_a_predictor_that_is_one_number_a_target_has_no_part_where_one_target_is_fitted_on():
    table = cases(works, targets=TARGETS[:3])
    one = forecast_models.Forecasts(table, forecast_numbers.usable(table), "kept", "target")
    places = {model: place for place, model in enumerate(one.models)}
    alone = one.without(0, 1)
    assert np.allclose(alone[places["parameter_drift",]], alone[places[()]])
    assert not np.allclose(alone[places["structure",]], alone[places[()]])


def test_the_selected_model_is_chosen_without_the_group_that_it_is_judged_on():
    """Changing a left-out target's outcomes changes no forecast of it, and not which model forecasts it."""
    table = cases(works)
    made, chosen = Forecast(table).made["kept", "target"]
    forged = table.assign(kept=table["kept"].where(table["target"] != "larger", -50.0))
    again, rechosen = Forecast(forged).made["kept", "target"]
    own = (table["target"] == "larger").to_numpy()
    for name in ("selected", "mean", "same", "level", "structure"):
        assert np.allclose(made[name][own], again[name][own]) and not np.allclose(made[name][~own], again[name][~own])
    pairs = list(zip(chosen, rechosen, strict=True))
    assert all(one == other for (one, other), left in zip(pairs, own, strict=True) if left)


def far_away():
    """One target much further from the base than the others, with a slope that points out of the range."""
    table = cases(works, noise=3.0)
    table.loc[table["target"] == "unrelated", list(forecast_numbers.PREDICTORS)] *= -40
    return table


@pytest.mark.parametrize(("outcome", "left_out"), RESULTS)
def test_no_forecast_lies_outside_the_outcomes_that_it_was_fitted_on(outcome, left_out):
    table, limited = far_away(), 0
    made, _ = Forecast(table).made[outcome, left_out]
    for place in range(len(table)):
        asked = table.iloc[place]
        fitted = table[(table["method"] == asked["method"]) & (table[left_out] != asked[left_out])][outcome]
        for model, values in made.items():
            assert fitted.min() - 1e-9 <= values[place] <= fitted.max() + 1e-9, model
            limited += values[place] in (fitted.min(), fitted.max())
    assert limited > 20 or left_out == "dataset"


def test_forecasts_inside_the_selection_are_limited_too():
    table = far_away()
    one = forecast_models.Forecasts(table, forecast_numbers.usable(table), "kept", "target")
    for group, other in ((0, 3), (3, 1), (2, 3)):
        made = one.without(group, other)
        for method in range(len(METHODS)):
            fitted = table["kept"][(one.methods == method) & (one.groups != group) & (one.groups != other)]
            own = made[:, one.methods == method]
            assert fitted.min() - 1e-9 <= own.min() and own.max() <= fitted.max() + 1e-9


def test_a_method_that_breaks_down_moves_no_other_methods_forecast():
    table = cases(works)
    broken = table["method"] == "kgcoop"
    other = table.assign(kept=table["kept"].where(~broken, 8 - table["zero_shot_target"]))
    for left_out in forecast_numbers.LEFT_OUT:
        (made, _), (again, _) = (Forecast(one).made["kept", left_out] for one in (table, other))
        for model, values in made.items():
            assert np.allclose(values[~broken], again[model][~broken])
            assert not np.allclose(values[broken], again[model][broken])


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", forecast_numbers.LEFT_OUT)
def test_errors_and_intervals_are_scikit_learns_and_scipys(left_out):
    table = cases(works)
    made, _ = Forecast(table).made["kept", left_out]
    row = row_of(Forecast(table).table, outcome="kept", left_out=left_out, method="coop", model="selected")
    own = (table["method"] == "coop").to_numpy()
    groups = [own & (table[left_out] == name).to_numpy() for name in dict.fromkeys(table[left_out])]
    of = {
        name: [mean_absolute_error(table["kept"][group], made[name][group]) for group in groups]
        for name in ("selected", "mean")
    }
    better = np.subtract(of["mean"], of["selected"])
    interval = scipy.stats.t.interval(0.95, len(better) - 1, better.mean(), scipy.stats.sem(better))
    assert (row["mae"], row["mae_mean"]) == (
        pytest.approx(np.mean(of["selected"])),
        pytest.approx(np.mean(of["mean"])),
    )
    assert (row["better"], row["better_low"], row["better_high"]) == pytest.approx((better.mean(), *interval))
    assert (row["cases"], row["groups"]) == (own.sum(), len(groups))


def test_errors_of_all_are_the_median_over_methods_in_each_group():
    table = cases(works)
    made, _ = Forecast(table).made["kept", "target"]
    row = row_of(Forecast(table).table, outcome="kept", left_out="target", method="all", model="cka")
    middle = {"cka": [], "mean": []}
    for target in TARGETS:
        for model, found in middle.items():
            places = [((table["target"] == target) & (table["method"] == m)).to_numpy() for m in METHODS]
            found.append(sorted(mean_absolute_error(table["kept"][own], made[model][own]) for own in places)[1])
    better = np.subtract(middle["mean"], middle["cka"])
    half = scipy.stats.t.ppf(0.975, 3) * better.std(ddof=1) / 2
    assert (row["mae"], row["mae_mean"]) == pytest.approx((np.mean(middle["cka"]), np.mean(middle["mean"])))
    assert (row["better_low"], row["better_high"]) == pytest.approx((better.mean() - half, better.mean() + half))


HOPELESS = "Drift and similarity of the two backbones alone are not shown to tell, for most methods, what survives"


def test_in_a_world_where_similarity_decides_the_forecast_says_so():
    table = cases(works, noise=0.5)
    for left_out in forecast_numbers.LEFT_OUT:
        for method in METHODS:
            row = row_of(Forecast(table).table, outcome="kept", left_out=left_out, method=method, model="selected")
            assert row["mae"] < 0.4 * row["mae_mean"] and row["better_low"] > 0
        _, chosen = Forecast(table).made["kept", left_out]
        assert all("structure" in model for model in chosen)
    text = forecast.paragraph(Forecast(table))
    lead = text.split(". ")[0]
    assert "tell for most methods" in lead and "gain kept for a new target, gain kept for a new dataset" in lead
    assert "Gain kept (points) for a new target: median error over methods" in text
    assert text.count("better than every baseline for 3 of 3 methods") >= 2


def test_in_a_world_where_nothing_predicts_the_text_says_so():
    """Over many worlds: an interval lies above 0 by chance for one method in forty, and for most of three never."""
    claims = 0
    for seed in range(12):
        table = cases(tells_nothing, seed=seed, noise=5.0)
        text = forecast.paragraph(Forecast(table))
        assert text.startswith(HOPELESS)
        found = Forecast(table).table
        claims += (found[(found["model"] == "selected") & (found["method"] != "all")]["better_low"] > 0).sum()
        assert "not shown to be better than the mean for any of 3 methods" in text
    assert claims <= 0.05 * 12 * 3 * 4


def at_chance(table, methods=METHODS):
    """Reused accuracy is 8 % whatever the case: what is kept is zero-shot's alone."""
    kept = table["kept"].where(~table["method"].isin(methods), 8 - table["zero_shot_target"])
    return table.assign(kept=kept, share=kept / table["gain_base"])


@pytest.mark.parametrize("relation", ["none", "exact"])
def test_a_plug_in_at_chance_everywhere_is_not_called_predictable(relation):
    """Not even where zero-shot on a target follows from how alike the two backbones are."""
    for seed in range(6):
        table = cases(works, seed=seed)
        if relation == "exact":
            table["zero_shot_target"] = 30 + 40 * table["structure"]
        table = at_chance(table)
        found = Forecast(table).table
        for outcome, left_out in RESULTS:
            beaten, every = forecast.beating(found, outcome, left_out)
            assert every == [] and (relation == "exact" or len(beaten) <= 1)
        text = forecast.paragraph(Forecast(table))
        assert text.startswith(HOPELESS)
        assert "of one accuracy everywhere 0." in text


def test_one_method_alone_makes_no_claim_for_methods_in_general():
    table = cases(tells_nothing, noise=5.0)
    only = table["method"] == "coop"
    kept = table["kept"].where(~only, [works(row, "coop") * 5 for _, row in table.iterrows()])
    text = forecast.paragraph(Forecast(table.assign(kept=kept)), {"coop": "CoOp"})
    assert text.startswith(HOPELESS) and "better than every baseline for 1 of 3 methods (CoOp)" in text


def test_zero_shot_is_no_predictor():
    """The target's is subtracted in what is forecast, and the base's stands beside it."""
    assert not [name for name in forecast_numbers.PREDICTORS if "zero" in name]
    table = cases(works)
    other = table.assign(zero_shot_target=table["zero_shot_target"][::-1].to_numpy())
    for key, (made, _) in Forecast(table).made.items():
        again = Forecast(other).made[key][0]
        assert [name for name in made if not np.allclose(made[name], again[name])] == ["level"]


def test_what_only_tells_datasets_apart_is_no_better_than_their_own_mean():
    """A similarity that is one number a dataset is a name of the dataset for a new target, and the text says so."""
    base = dict(zip(SETS, np.linspace(0, 1, len(SETS)), strict=True))
    table = cases(tells_nothing)
    table["structure"] = table["dataset"].map(base)
    table["kept"] = 30 * table["structure"] + np.random.default_rng(1).normal(size=len(table)) / 9
    row = {
        name: row_of(Forecast(table).table, outcome="kept", left_out="target", method="all", model=name)["mae"]
        for name in ("mean", "same")
    }
    assert row["same"] < 0.1 * row["mean"]
    told = forecast.paragraph(Forecast(table))
    assert told.startswith(HOPELESS) or "gain kept for a new target" not in told.split(";")[0]
    assert "better than the mean for 3 of 3 methods, than every baseline for none" in told


# ---- rank correlation ------------------------------------------------------------------------------------------------


def test_rho_is_scipys_with_ties_and_with_cases_drawn_more_than_once():
    rng = np.random.default_rng(0)
    for size in (5, 12, 44):
        x, y = rng.integers(0, 6, size).astype(float), rng.normal(size=size).round(1)
        times = np.vstack([np.ones(size, int), rng.integers(0, 3, (20, size))])
        found = correlation.weighted_rho(x, y, times)
        for one, rho in zip(times, found, strict=True):
            expected = scipy.stats.spearmanr(np.repeat(x, one), np.repeat(y, one)).statistic
            assert rho == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(correlation.weighted_rho(np.ones(4), np.arange(4.0), np.ones((1, 4)))[0])


def test_rho_of_all_is_the_mean_over_methods_and_its_interval_holds_a_strong_relation():
    table = cases(works, noise=0.5)
    found = Forecast(table).correlations
    each = [
        scipy.stats.spearmanr(*table[table["method"] == m][["structure", "kept"]].to_numpy().T).statistic
        for m in METHODS
    ]
    row = row_of(found, outcome="kept", method="all", predictor="structure")
    assert row["rho"] == pytest.approx(np.mean(each)) and 0.9 < row["low"] < row["rho"] <= row["high"]
    other = row_of(found, outcome="kept", method="all", predictor="cka")
    assert other["low"] < 0 < other["high"]


def test_redraws_are_of_whole_datasets():
    """Cases of one dataset that say the same make the interval wider than cases of their own would."""
    table = cases(works, noise=0.0, methods=("coop",))
    value = dict(zip(SETS, np.random.default_rng(3).normal(size=len(SETS)), strict=True))
    key = dict(zip(SETS, np.random.default_rng(4).normal(size=len(SETS)), strict=True))
    alike = table.assign(structure=table["dataset"].map(key), kept=table["dataset"].map(value))
    rng = np.random.default_rng(5)
    apart = table.assign(structure=rng.normal(size=len(table)), kept=rng.normal(size=len(table)))
    width = [
        (row := row_of(Forecast(one).correlations, outcome="kept", method="coop", predictor="structure"))["high"]
        - row["low"]
        for one in (alike, apart)
    ]
    assert width[0] > 1.3 * width[1]


def test_few_datasets_have_no_interval():
    found = Forecast(cases(works, sets=SETS[:5])).correlations
    assert found["low"].isna().all() and found["rho"].notna().all()


# ---- what is measured of two backbones -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 5, 5), (12, 4, 9), (40, 16, 16)])
def test_structure_is_the_correlation_of_scipys_cosine_distances(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(shape[0], shape[1])), rng.normal(size=(shape[0], shape[2]))
    expected = scipy.stats.pearsonr(*(scipy.spatial.distance.pdist(side, "cosine") for side in (x, y))).statistic
    assert structure(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, abs=1e-10)
    turn = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0]
    assert structure(torch.tensor(x), torch.tensor(3 * x @ turn)) == pytest.approx(1, abs=1e-10)


def test_structure_of_two_rows_or_of_equal_cosines_is_not_defined():
    assert structure(torch.randn(2, 4), torch.randn(2, 4)) is None
    assert structure(torch.eye(4), torch.randn(4, 4)) is None
    assert structure(torch.randn(4, 6), torch.ones(4, 6)) is None


# ---- from records ----------------------------------------------------------------------------------------------------


def moved(pair, seed):
    """One pair's drift over the sets, random but for its shape."""
    rng, blank = np.random.default_rng(seed), dict.fromkeys(MEASURES)
    measures = lambda: {name: float(rng.uniform(0.1, 1)) for name in MEASURES}  # noqa: E731
    text = {
        "parameters": [
            {**blank, "layer": str(i), "kind": "all", "relative": 0.1 * i * seed, "count": 9} for i in (1, 2)
        ],
        "features": [
            {"layer": layer, "dataset": name, **measures(), "count": 5}
            for layer in ("0", "1", "2", "ln_final", "projected")
            for name in SETS
        ],
        "notes": [],
    }  # fmt: skip
    labels = {"base": {"label": "small"}, "other": {"label": pair}}
    vision = {"parameters": [], "features": [], "notes": []}
    return {"pair": pair, "kind": "update", **labels, "prompts": dict.fromkeys(SETS, 5), "text": text, "vision": vision}


def record(dataset, method, seed, right):
    targets = {role: {"correct": n, "count": 200, "accuracy": n / 2, "backbone": role} for role, n in right.items()}
    return {
        "key": f"{dataset}-{method}-{seed}", "status": "done", "depth": "input", "marks": [], "averaged": True,
        "run": {"arch": "micro-all", "dataset": dataset, "method": method, "seed": seed, "shots": 16, "config": {},
                "protocol": "micro", "precision": "fp32", "views": 4, "limit": None},
        "names": {"dataset": dataset, "method": method}, "order": {"dataset": 0, "method": 0},
        "targets": targets, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip


@pytest.fixture
def world():
    """A gain of 10 points (CoOp) and of 0.5 (KgCoOp) on the base, of which targets keep 8, 6, 4 and 2."""
    records, rng = [], np.random.default_rng(0)
    for number, dataset in enumerate(SETS):
        shot = {"base": 80 + number, **{role: 90 + 2 * place + number for place, role in enumerate(TARGETS)}}
        kept = {"base": 20, **{role: 16 - 4 * place for place, role in enumerate(TARGETS)}}
        for seed in (1, 2):
            noise = int(rng.integers(-1, 2))
            gained = {role: n + kept[role] + noise * (role != "base") for role, n in shot.items()}
            records.append(record(dataset, "zs-clip", seed, shot))
            records.append(record(dataset, "coop", seed, gained))
            records.append(record(dataset, "kgcoop", seed, {**gained, "base": shot["base"] + 1}))
    drift = tuple(moved(pair, seed) for seed, pair in enumerate(TARGETS, 1))
    return Selection(
        ARCHS["micro-all"],
        tuple(records),
        drift=drift,
        settings=Settings(16, "micro", "fp32", 4, None, methods=Registered()),
    )


def test_cases_are_what_gained_on_the_base_with_the_drift_of_its_target_and_dataset(world):
    table = forecast_numbers.case_table(world)
    assert len(table) == len(SETS) * len(TARGETS) and set(table["method"]) == {"coop"}  # KgCoOp gained half a point
    row = row_of(table, target="second", dataset="set03")
    (measured,) = [one for one in world.drift if one["pair"] == "second"]
    at = {r["layer"]: r for r in measured["text"]["features"] if r["dataset"] == "set03"}
    assert row["parameter_drift"] == pytest.approx(np.mean([r["relative"] for r in measured["text"]["parameters"]]))
    assert row["feature_drift"] == at["2"]["relative"]
    assert (row["structure"], row["cka"]) == (at["projected"]["structure"], at["projected"]["cka"])
    assert row["zero_shot_target"] == (90 + 2 * 2 + 3) / 2
    assert row["gain_base"] == 10 and row["share"] == pytest.approx(row["kept"] / 10) and row["seeds"] == 2


def test_no_forecast_without_drift_zero_shot_or_targets_enough_to_leave_one_out(world):
    assert forecast_numbers.has_forecast(forecast_numbers.case_table(world))
    shot = [r for r in world.main if r["run"]["method"] != "zs-clip"]
    few = [
        {**r, "targets": {k: v for k, v in r["targets"].items() if k in ("base", "new", "larger")}} for r in world.main
    ]
    for main, drift in ((world.main, ()), (shot, world.drift), (few, world.drift)):
        selection = Selection(world.arch, tuple(main), drift=drift)
        assert not forecast_numbers.has_forecast(forecast_numbers.case_table(selection))
        assert figure_of("forecast", selection) is None
        assert "forecast" not in outputs.made_from(selection)


def test_a_predictor_that_is_not_defined_everywhere_is_named_and_not_used(world):
    world.drift[0]["text"]["features"] = [r for r in world.drift[0]["text"]["features"] if r["layer"] != "projected"]
    table = forecast_numbers.case_table(world)
    assert {"structure", "cka"}.isdisjoint(forecast_numbers.usable(table)) and len(forecast_numbers.usable(table)) == 2
    text = sheet_markdown(outputs.made_from(world)["forecast"].sheet)
    assert "not defined everywhere or the same in all cases: class similarities, linear CKA" in text


def test_drift_that_tells_the_targets_apart_forecasts_what_they_keep(world):
    """Parameter drift rises by target, and what is kept falls with it."""
    table = forecast_numbers.case_table(world)
    row = row_of(Forecast(table).table, outcome="kept", left_out="dataset", method="all", model="selected")
    assert row["better_low"] > 0 and row["mae"] < 0.5 * row["mae_mean"]
    rho = row_of(Forecast(table).correlations, outcome="kept", method="coop", predictor="parameter_drift")
    assert rho["rho"] < -0.9


@pytest.mark.long
def test_check_makes_both_tables_again_and_names_a_forged_cell(world, tmp_path):
    outputs.write_tables(world, tmp_path)

    def predictions(key):
        (one,) = [r for r in world.main if r["key"] == key]
        truth = np.zeros(200, int)
        return {role: (np.r_[np.zeros(t["correct"], int), np.ones(200 - t["correct"], int)], truth)
                for role, t in one["targets"].items()}  # fmt: skip

    assert recompute.recompute(world, predictions, tmp_path) == []
    for name in ("forecast", "forecast_correlation"):
        path = tmp_path / "tables" / f"{name}.csv"
        before = path.read_text()
        lines = before.splitlines()
        cells = lines[1].split(",")
        cells[6 if name == "forecast" else 5] = "77.7"
        path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
        assert [line for line in recompute.recompute(world, predictions, tmp_path) if "'77.7'" in line]
        path.write_text(before)


def test_the_figure_sets_each_case_against_its_forecast(world):
    figure = figure_of("forecast", world)
    table = forecast_numbers.case_table(world)
    for axes, left_out in zip(figure.axes, forecast_numbers.LEFT_OUT, strict=True):
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert len(lines) == len(TARGETS)
        made = Forecast(table).made["kept", left_out][0]["selected"]
        found = np.concatenate([line.get_xdata() for line in lines])
        assert sorted(found) == pytest.approx(sorted(made))
        assert sorted(np.concatenate([line.get_ydata() for line in lines])) == pytest.approx(sorted(table["kept"]))
    figure.canvas.draw()
    assert math.isfinite(figure.axes[0].get_xlim()[0])
