"""Drift beside compatibility: signs by hand, rho by scipy, an interval that holds what it should, gaps as gaps."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from drawings import figure_of

from carryover.bench.analyses import depth, depth_numbers
from carryover.bench.backbones import drift
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.backbones.drift_names import MEASURES
from carryover.bench.plan.suites import Variant
from carryover.bench.records.selection import Row, Selection
from carryover.bench.render import sheets
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import correlation

IMAGES = 200
SETS, SEEDS, BLOCKS = ("zoo", "art"), (1, 2, 3), 4


def record(dataset, seed, right, method="coop", label="", status="done"):
    """``right``: correct answers by role."""
    targets = {role: {"correct": n, "count": IMAGES, "accuracy": 100 * n / IMAGES} for role, n in right.items()}
    return {
        "key": f"{dataset}/{method}/{label}/{seed}", "status": status, "depth": "shallow", "marks": [],
        "run": {"arch": "micro", "dataset": dataset, "method": method, "seed": seed, "shots": 16},
        "names": {"dataset": dataset.upper(), "method": method.upper()}, "order": {"dataset": 0, "method": 0},
        "targets": targets if status == "done" else {}, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def moved(features, parameters, sets=SETS, pair="new"):
    """One pair's drift: features of L + 1 layers by fraction (or by dataset), parameters of L blocks."""
    blank = dict.fromkeys(MEASURES)
    by_set = features if isinstance(features, dict) else dict.fromkeys(sets, features)
    text = {
        "parameters": [
            {**blank, "layer": str(i + 1), "kind": "all", "relative": value, "count": 9}
            for i, value in enumerate(parameters)
        ],
        "features": [
            {**blank, "layer": str(i), "dataset": name, "relative": value, "count": 5}
            for name, values in by_set.items()
            for i, value in enumerate(values)
        ],
        "notes": [],
    }  # fmt: skip
    labels = {"base": {"label": "small"}, "other": {"label": "small again"}}
    vision = {"parameters": [], "features": [], "notes": []}
    prompts = dict.fromkeys(by_set, 5)
    return {"pair": pair, "kind": "update", **labels, "prompts": prompts, "text": text, "vision": vision}


RISING = moved([0.01, 0.02, 0.04, 0.08, 0.16], [0.1, 0.2, 0.3, 0.4])


def world(right, measured=(RISING,), sets=SETS, seeds=SEEDS, shot=None, blocks=BLOCKS):
    """``right(dataset, start, layer, seed)``: correct answers by role, or None for a run that failed."""
    shot = shot or {"base": 100, "new": 110}
    main = tuple(record(d, s, shot, "zs-clip") for d in sets for s in seeds)
    rows = []
    for dataset in sets:
        for start in ("fixed", "rows"):
            for layer in range(blocks):
                found = []
                for seed in seeds:
                    counts = right(dataset, start, layer, seed)
                    status = "failed" if counts is None else "done"
                    found.append(record(dataset, seed, counts or {}, label=f"{start}{layer}", status=status))
                rows.append(Row(dataset, Variant((str(layer), start), "coop"), tuple(found)))
    return Selection(ARCHS["micro"], main, {"layers": tuple(rows)}, drift=tuple(measured))


def deeper_loses_more(dataset, start, layer, seed):
    """With a context the base gets better, the update worse with each block; noise by seed and dataset."""
    return {"base": 130 + seed, "new": 120 - 6 * layer - seed - (dataset == "art")}


def sheet_of(found, name):
    return outputs.made_from(found)[name].sheet


def findings(found):
    made = outputs.made_from(found)
    return depth.findings(made["depth"].frame, made["depth_correlation"].frame, found)


def mean_correlations(found):
    """The rows over all datasets."""
    table = depth_numbers.correlation_table(found)
    return table[table["dataset"] == "average"]


def row_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


# ---- loss and drift --------------------------------------------------------------------------------------------------


def test_gain_loss_and_drift_of_a_world_computed_by_hand():
    shot = {"base": 100, "new": 120}  # 50 % and 60 % of 200
    counts = {1: {"base": 140, "new": 130}, 2: {"base": 144, "new": 118}}  # 70, 65; 72, 59
    found = world(lambda d, start, layer, seed: counts[seed], seeds=(1, 2), shot=shot)
    row = row_of(depth_numbers.depth_table(found), dataset="zoo", start="rows", layer=2)
    assert (row["seeds"], row["gain_base"], row["gain_new"], row["lost"]) == (
        2,
        21.0,
        2.0,
        19.0,
    )  # 20, 22; 5, -1; 15, 23
    assert row["lost_std"] == pytest.approx(math.sqrt(32)) and row["gain_new_std"] == pytest.approx(math.sqrt(18))
    assert row["feature_drift"] == pytest.approx(4.0)  # layer 2 of the drift: after two blocks, before block 2
    assert row["parameter_drift"] == pytest.approx(30.0)  # its third block


def test_zero_shot_is_that_of_the_same_seed():
    found = world(lambda *_: {"base": 120, "new": 120}, seeds=(1, 2))
    main = [r for r in found.main if r["run"]["seed"] == 1]
    main += [record(d, 2, {"base": 80, "new": 120}, "zs-clip") for d in SETS]
    losses = depth_numbers.losses(replace(found, main=tuple(main)), "new")
    assert set(losses[losses["seed"] == 1]["gain_base"]) == {10.0}
    assert set(losses[losses["seed"] == 2]["gain_base"]) == {20.0}


def test_layer_l_of_the_drift_is_what_block_l_reads(tiny):
    ids = tiny.base.text.tokens(["a photo of a cat.", "two red double decker buses"])
    streams, seen = drift.residuals(tiny.base, ids), {}
    text = tiny.base.model.text
    for number, block in enumerate(text.transformer.resblocks):
        handle = block.register_forward_pre_hook(lambda module, given, number=number: seen.setdefault(number, given[0]))
        tokens = torch.zeros(len(ids), 77, dtype=torch.long)
        for i, row in enumerate(ids):
            tokens[i, : len(row) + 2] = torch.tensor([49406, *row, 49407])
        with torch.no_grad():
            tiny.base.model.encode_text(tokens)
        handle.remove()
    for number, stream in seen.items():
        at_end = torch.stack([stream[i, len(row) + 1] for i, row in enumerate(ids)])
        assert torch.allclose(at_end, streams[str(number)], atol=1e-4)


def test_a_further_update_has_rows_of_its_own():
    def right(dataset, start, layer, seed):
        return {"base": 130, "new": 120, "later": 90 + layer}

    shot = {"base": 100, "new": 100, "later": 100}
    found = world(right, (RISING, {**RISING, "pair": "later"}), shot=shot)
    table = depth_numbers.depth_table(found)
    assert list(dict.fromkeys(table["update"])) == ["new", "later"]
    assert row_of(table, update="later", dataset="art", start="fixed", layer=3)["lost"] == pytest.approx(15 + 3.5)
    assert row_of(table, update="new", dataset="art", start="fixed", layer=3)["lost"] == pytest.approx(5)
    assert depth_numbers.updates(replace(found, drift=(RISING,))) == ["new"]


# ---- rank correlation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 6, 1000])
def test_rho_is_scipys_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        x, y = rng.integers(0, levels, (2, 9)).astype(float)
        if len(set(x)) > 1 and len(set(y)) > 1:
            assert correlation.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_rho_of_a_constant_or_a_gap_is_not_defined():
    assert math.isnan(correlation.spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(correlation.spearman([1, 2, math.nan], [1, 2, 3]))


def test_losses_that_differ_by_rounding_alone_are_tied(monkeypatch):
    monkeypatch.setitem(globals(), "IMAGES", 300)  # thirds of a percent are no binary fractions
    found = world(lambda d, start, layer, seed: {"base": 133 + 17 * layer, "new": 123 + 17 * layer})
    accuracies = {(r["targets"]["base"]["accuracy"], r["targets"]["new"]["accuracy"]) for r in found.records}
    assert len({base - new for base, new in accuracies}) > 2, "the example has to differ by rounding"
    assert depth_numbers.losses(found, "new")["lost"].nunique() == 1
    row = row_of(mean_correlations(found), start="rows", outcome="lost", predictor="layer")
    assert math.isnan(row["rho"]) and (row["pairs"], row["undefined"]) == (0, 6)
    assert any(
        "6 pairs left out, for it is the same at every block" in line
        for line in sheet_of(found, "depth_correlation").remarks
    )


def test_a_strong_relation_has_its_sign_and_an_interval_that_holds_it():
    found = world(deeper_loses_more)
    table = mean_correlations(found)
    assert row_of(table, start="fixed", outcome="lost", predictor="feature_drift")["rho"] == pytest.approx(1)
    assert row_of(table, start="fixed", outcome="gain_new", predictor="feature_drift")["rho"] == pytest.approx(-1)
    rng = np.random.default_rng(0)

    def noisy(dataset, start, layer, seed):
        return {"base": 150, "new": 130 - 8 * layer + int(rng.integers(-9, 10))}

    row = row_of(mean_correlations(world(noisy)), start="rows", outcome="lost", predictor="layer")
    assert 0 < row["low"] <= row["rho"] <= row["high"] <= 1 and row["low"] < row["high"]
    assert (row["datasets"], row["pairs"]) == (2, 6)


def test_rho_is_averaged_over_seeds_then_over_datasets():
    def right(dataset, start, layer, seed):
        if dataset == "zoo" and seed == 3 and layer == 1:
            return None  # so that zoo has two pairs, art three
        return {"base": 150, "new": 120 + (6 if dataset == "zoo" else -6) * layer}

    found = world(right)
    row = row_of(mean_correlations(found), start="rows", outcome="lost", predictor="feature_drift")
    assert row["pairs"] == 5 and row["rho"] == pytest.approx(0)  # by pairs it would be 0.2
    assert math.isnan(row["low"])  # five pairs
    remarks = sheet_of(found, "depth_correlation").remarks
    assert any("1 pair left out, for blocks were not run or failed" in line for line in remarks)


def test_the_interval_is_the_same_each_time_and_resamples_datasets_before_seeds():
    groups = {"a": [0.1, 0.2, 0.3], "b": [0.7, 0.8, 0.9]}
    low, high = correlation.interval(groups)
    assert (low, high) == correlation.interval(groups)
    # With two datasets either alone is drawn a quarter of the time: the interval reaches into both.
    assert 0.1 <= low <= 0.2 and 0.8 <= high <= 0.9
    one = correlation.interval({"a": [*groups["a"], *groups["b"]]})  # as one dataset, means of six: narrower
    assert low < one[0] < one[1] < high
    six = np.array([-0.4, 0.1, 0.3, 0.5, 0.6, 0.9])
    theirs = scipy.stats.bootstrap((six,), np.mean, method="percentile", random_state=0, n_resamples=20000)
    ours = correlation.interval({"a": six})
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.02)


def test_few_pairs_have_no_interval_and_show_a_dash():
    found = world(deeper_loses_more, sets=("zoo",))
    table = mean_correlations(found)
    assert table["rho"].notna().all() and table["low"].isna().all() and table["high"].isna().all()
    block = sheet_of(found, "depth_correlation").blocks[0]
    assert {row[2].text for row in block.rows} == {sheets.MISSING}
    assert "[–]" in figure_of("depth", found).axes[0].get_title()


def test_what_drift_cannot_tell_from_depth_is_said():
    same = depth.shared_ranks(world(deeper_loses_more))
    assert len(same) == 2 and all(line.endswith("Its correlations are those of depth.") for line in same)
    bent = moved({"zoo": [0.3, 0.1, 0.2, 0.4, 0.5], "art": [0.1, 0.2, 0.3, 0.4, 0.5]}, [0.1, 0.2, 0.3, 0.4])
    found = world(deeper_loses_more, (bent,))
    assert "does not rise from each block to the next on ZOO." in depth.shared_ranks(found)[0]
    table = mean_correlations(found)
    rho = {p: row_of(table, start="rows", outcome="lost", predictor=p)["rho"] for p in depth_numbers.PREDICTORS}
    assert rho["layer"] == rho["parameter_drift"] == pytest.approx(1)
    hand = scipy.stats.spearmanr([3, 1, 2, 4], [1, 2, 3, 4]).statistic
    assert rho["feature_drift"] == pytest.approx((hand + 1) / 2)


@pytest.mark.parametrize("slope, said", [(-6, "as the paper's reading"), (6, "against the paper's reading")])
def test_the_finding_says_which_way_it_is(slope, said):
    six = ("zoo", "art", "sea", "sky", "mud", "ice")
    measured = (moved([0.01, 0.02, 0.04, 0.08, 0.16], [0.1, 0.2, 0.3, 0.4], six),)

    def right(dataset, start, layer, seed):
        return {"base": 150, "new": 120 + slope * layer}

    lines = findings(world(right, measured, six, seeds=(1,)))
    assert len(lines) == 4 and all(line.endswith(said + ".") and "95 % interval" in line for line in lines)
    few = findings(world(right, measured, six[:5]))  # 15 pairs, and yet five units
    assert all(line.endswith("5 datasets allow no claim.") for line in few)
    assert not any("interval" in line or "reading" in line for line in few)
    idle = world(lambda *where: {**right(*where), "base": 90 if where[2] else 150}, measured, six)
    assert all("most rows gain nothing on Base, which allows no claim" in line for line in findings(idle))


def test_rho_of_each_dataset_stands_in_the_csv_and_the_sheet():
    def right(dataset, start, layer, seed):
        slope = (-6 if dataset == "zoo" else 6) * (1 if start == "fixed" else -1)
        return {"base": 150, "new": 120 + slope * layer}

    found = world(right)
    table = depth_numbers.correlation_table(found)
    where = dict(start="fixed", outcome="lost", predictor="layer")
    rho = [row_of(table, dataset=name, **where)["rho"] for name in ("zoo", "art", "average")]
    assert rho == pytest.approx([1, -1, 0])
    sheet = sheet_of(found, "depth_correlation")
    mean, each = sheet.blocks
    assert [row[0].text for row in mean.rows][0] == "fixed / loss / feature drift, parameter drift, depth (alike)"
    assert len(mean.rows) == 4 and mean.header[2] == "Spread over redraws"
    assert [row[0].text.split(" /")[0] for row in each.rows] == ["ZOO", "ART"]
    columns = ("fixed / loss", "fixed / gain on New", "rows / loss", "rows / gain on New")
    assert each.header[1:] == columns
    assert [cell.text for cell in each.rows[0][1:]] == ["1.00", "-1.00", "-1.00", "1.00"]
    assert "of single datasets -1.00 to 1.00" in findings(found)[0]


def test_predictors_that_rank_otherwise_keep_rows_of_their_own():
    bent = moved({"zoo": [0.3, 0.1, 0.2, 0.4, 0.5], "art": [0.1, 0.2, 0.3, 0.4, 0.5]}, [0.1, 0.2, 0.3, 0.4])
    names = depth.predictor_rows(world(deeper_loses_more, (bent,)), "new")
    assert names == {"feature_drift": "feature drift", "parameter_drift": "parameter drift, depth (alike)"}


def test_rows_that_gain_nothing_on_base_are_counted():
    found = world(lambda d, start, layer, seed: {"base": 90 if start == "rows" and layer else 120, "new": 100})
    lines = depth.nothing_to_lose(depth_numbers.depth_table(found))
    assert lines == ["Start rows: 6 of 8 rows gain nothing on Base, so they have nothing to lose."]


# ---- gaps ------------------------------------------------------------------------------------------------------------


def test_without_drift_layers_or_zero_shot_there_is_nothing_to_show():
    found = world(deeper_loses_more)
    for less in (replace(found, drift=()), replace(found, rows={}), replace(found, main=())):
        assert not depth_numbers.has_depth(less) and figure_of("depth", less) is None
        assert not {"depth", "depth_correlation"} & set(outputs.made_from(less))


def test_a_block_that_was_not_run_is_a_dash_and_in_no_rank():
    found = world(lambda *where: None if where[2] == 2 else deeper_loses_more(*where))
    row = row_of(depth_numbers.depth_table(found), dataset="zoo", start="rows", layer=2)
    assert row["seeds"] == 0 and math.isnan(row["lost"])
    texts = [[cell.text for cell in row] for row in sheet_of(found, "depth").blocks[0].rows]
    assert [sheets.MISSING] * 3 == next(text for text in texts if text[0] == "2 / rows")[1:4]
    assert mean_correlations(found)["rho"].isna().all() and figure_of("depth", found) is None


def test_towers_that_cannot_be_compared_leave_depth_alone_as_predictor():
    found = world(deeper_loses_more, (moved({}, []),))
    table = mean_correlations(found)
    assert table[table["predictor"] == "layer"]["rho"].notna().all()
    assert table[table["predictor"] != "layer"]["rho"].isna().all()
    assert "is not defined" in findings(found)[0] and "not defined" in depth.shared_ranks(found)[0]
    figure_of("depth", found).draw_without_rendering()


# ---- what is written -------------------------------------------------------------------------------------------------


def predictions_of(selection):
    """A run's predictions that are right as often as its record says."""
    truth, stored = np.zeros(IMAGES, dtype=np.int64), {}
    for one in selection.records:
        stored[one["key"]] = {
            role: ((np.arange(IMAGES) >= target["correct"]).astype(np.int64), truth)
            for role, target in one["targets"].items()
        }
    return stored.__getitem__


def test_check_recomputes_both_tables_and_names_a_forged_cell(tmp_path):
    found = world(deeper_loses_more)
    outputs.write_tables(found, tmp_path)
    assert recompute.recompute(found, predictions_of(found), tmp_path) == []
    for name, column in (("depth", "lost"), ("depth_correlation", "rho")):
        path = tmp_path / "tables" / f"{name}.csv"
        rows = list(csv.reader(path.open()))
        honest, place = path.read_text(), rows[0].index(column)
        rows[1][place] = str(float(rows[1][place]) + 0.5)
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        (line,) = recompute.recompute(found, predictions_of(found), tmp_path)
        assert f"{name}.csv" in line and f"{column} of" in line and "recomputed" in line
        path.write_text(honest)


def test_the_report_shows_both_sheets_and_the_figure_last(tmp_path):
    markdown, page = report.write_report(world(deeper_loses_more), tmp_path)
    text, html = markdown.read_text(), page.read_text()
    places = [
        text.index(f"\n{name}\n")
        for name in ("## Drift", "### Layer drift", f"### {depth.Depth.title}", f"### {depth.RHO_TITLE}")
    ]
    assert places == sorted(places) and text.index("Figure 2 (d)") < places[0] < text.index("(figures/depth.svg)")
    assert depth.Depth.title in html and "beside the drift of the same blocks" in html
    assert "2 datasets allow no claim" in html and "the paper's reading." not in text


def test_the_figure_draws_the_tables_means_and_nothing_is_cut_off():
    found = world(deeper_loses_more)
    figure = figure_of("depth", found)
    figure.draw_without_rendering()
    kept, lost, below = figure.axes
    table = depth_numbers.depth_table(found)
    average = table[table["dataset"] == "average"]
    for axes, name in ((kept, "gain_new"), (lost, "lost")):
        for start, bars in zip(("fixed", "rows"), axes.containers, strict=True):
            pairs = depth_numbers.losses(found, "new")
            pairs = pairs[pairs["start"] == start].groupby("layer")[name]
            means, shown = pairs.mean(), average[average["start"] == start]
            assert np.allclose(shown[name], means) and np.allclose(shown[name + "_std"], pairs.std())
            assert set(shown["seeds"]) == {len(SETS) * len(SEEDS)}
            low, high = (np.array([line[end][1] for line in bars.lines[2][0].get_segments()]) for end in (0, 1))
            assert np.allclose((high - low) / 2, shown[name + "_std"])
            assert np.allclose(bars.lines[0].get_ydata(), means) and start in bars.get_label()
    assert np.allclose(below.lines[0].get_ydata(), [1, 2, 4, 8]) and np.allclose(
        below.lines[1].get_ydata(), [10, 20, 30, 40]
    )
    box = figure.bbox
    for artist in (*(axes.title for axes in figure.axes), figure.legends[0], figure._suptitle, below.xaxis.label):
        extent = artist.get_window_extent()
        assert box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
