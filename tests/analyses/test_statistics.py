"""Ranks, calibration, flips and cost in tables, figures and report, held against scipy, loops and counting by hand."""

import csv
import math
import re
from dataclasses import replace

import answered
import matplotlib
import numpy as np
import pandas as pd
import pytest
from drawings import figure_of
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scipy import stats as scipy_stats

from carryover.bench.analyses import calibration, costs, statistics
from carryover.bench.analyses import flips as flips_analysis
from carryover.bench.analyses.parts import comparison
from carryover.bench.records.predictions import Outcome
from carryover.bench.render.figures import STYLE, save
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import means
from carryover.bench.stats.measures import measures, score_table

CHANCES = {
    "zs-clip": {"base": 0.5, "new": 0.55},
    "coop": {"base": 0.75, "new": 0.7},
    "probe": {"base": 0.8, "new": 0.2},
    "kg": {"base": 0.7, "new": 0.68},
}
MANY = tuple("abcdefgh")
HOSTILE = "<b>$x_1$ & {more} \\ =1|2</b>"
COST = {"seconds": {"fit": 2.0, "evaluate": {"base": 0.1, "new": 0.3}}, "trainable_parameters": 64}
few_draws = answered.few_draws(500)


@pytest.fixture(scope="module")
def eight():
    """Four methods on eight datasets of 60 images, three seeds."""
    return answered.selection_of(*answered.world(CHANCES, images=60, datasets=MANY, rng=1, **COST))


def selected(*given, **more):
    return answered.selection_of(*answered.world(*given, **more))


# ---- ranks -----------------------------------------------------------------------------------------------------------


def test_each_pairs_wilcoxon_is_scipys_over_the_datasets_means_and_holm_is_over_the_measure(eight):
    table = comparison.wilcoxon_table(eight)
    scores = means.seed_scores(eight.main).groupby(["dataset", "method"])[["base", "new", "h"]].mean()
    assert len(table) == 3 * 6
    for row in table.itertuples():
        x, y = (scores[row.measure].unstack()[name] for name in (row.method, row.other))
        theirs = scipy_stats.wilcoxon(np.round(x - y, 9))
        assert row.p == pytest.approx(theirs.pvalue, abs=1e-9) and min(row.plus, row.minus) == theirs.statistic
        assert row.difference == pytest.approx((x - y).mean()) and row.datasets == 8
    for _, part in table.groupby("measure"):
        ordered = part.sort_values("p", kind="stable")
        by_hand = np.maximum.accumulate(ordered["p"].to_numpy() * np.arange(6, 0, -1)).clip(max=1)
        assert np.allclose(ordered["p_holm"], by_hand)


def test_ranks_and_friedman_are_scipys(eight):
    table = comparison.ranks_table(eight)
    for measure in measures(eight.main):
        scores, part = score_table(eight.main, measure), table[table["measure"] == measure.id]
        expected = scipy_stats.rankdata(-scores.round(9).to_numpy(), axis=1).mean(0)
        theirs = scipy_stats.friedmanchisquare(*scores.round(9).to_numpy().T)
        assert part["rank"].tolist() == pytest.approx(expected.tolist()) and part["rank"].sum() == pytest.approx(10)
        assert part["friedman"].iloc[0] == pytest.approx(theirs.statistic)
        assert part["friedman_p"].iloc[0] == pytest.approx(theirs.pvalue, abs=1e-9)
        assert part["score"].tolist() == pytest.approx(scores.mean().tolist())


def test_places_are_shared_by_methods_that_no_test_tells_apart(eight):
    table = comparison.ranks_table(eight).set_index(["measure", "method"])
    tests = comparison.wilcoxon_table(eight)
    shown = tests[(tests["measure"] == "new") & (tests["p_holm"] < 0.05)]
    apart = {frozenset(pair) for pair in zip(shown["method"], shown["other"], strict=True)}
    assert apart == {frozenset(("probe", other)) for other in ("zs-clip", "coop", "kg")} | {
        frozenset(("zs-clip", "coop")), frozenset(("zs-clip", "kg")),
    }  # fmt: skip
    places = {method: tuple(table.loc[("new", method), ["place", "last"]]) for method in CHANCES}
    assert places == {"coop": (1, 2), "kg": (1, 2), "zs-clip": (3, 3), "probe": (4, 4)}
    (ranked,) = [one for one in comparison.rankings(eight) if one.measure.id == "new"]
    assert ranked.cliques == ((0, 1),) and set(ranked.methods[:2]) == {"coop", "kg"}
    rows = {row[0].text: row[2] for row in outputs.made_from(eight)["ranks"].sheet.blocks[0].rows}
    assert rows["PROBE"].text.endswith("(4)") and rows["KG"].text.endswith("(1–2)")
    assert [rows[m.upper()].rank for m in CHANCES] == [0, 1, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_datasets_are_said_to_tell_nothing_and_no_p_is_below_what_they_allow(count):
    few = selected(CHANCES, images=60, datasets=MANY[:count])
    table = comparison.wilcoxon_table(few)
    assert (table["p"] >= 2.0 ** (1 - count) - 1e-12).all() and (table["p_holm"] > 0.05).all()
    (said,) = statistics.limits(few.main)
    assert said.startswith(f"{count} dataset") and f"{2.0 ** (1 - count):.4g}" in said
    assert (comparison.ranks_table(few)["place"] == 1).all()
    assert all(one.cliques == ((0, 3),) for one in comparison.rankings(few))


def test_more_pairs_than_the_datasets_allow_are_said_to_leave_nothing():
    several = {f"m{i}": {"base": 0.3 + i / 20, "new": 0.3 + i / 20} for i in range(8)}
    many = selected(several, images=30, seeds=(1, 2), datasets=MANY[:6])
    (said,) = statistics.limits(many.main)
    assert "28 pairs" in said and "0.03125" in said
    assert (comparison.wilcoxon_table(many)["p_holm"] > 0.05).all()


def test_a_method_without_a_dataset_has_no_rank_and_is_named():
    holed = selected(CHANCES, images=40, datasets=MANY[:6], fails={("a", "kg", seed) for seed in (1, 2, 3)})
    table = comparison.ranks_table(holed).set_index(["measure", "method"])
    assert math.isnan(table.loc[("h", "kg"), "rank"]) and table.loc[("h", "kg"), "datasets"] == 5
    assert table.loc["h"]["rank"].sum() == pytest.approx(6)  # of three methods
    pairs = comparison.wilcoxon_table(holed)
    assert set(pairs[(pairs["method"] == "kg") | (pairs["other"] == "kg")]["datasets"]) == {5}
    assert any(said.startswith("No rank") and "KG" in said for said in statistics.limits(holed.main))
    assert outputs.made_from(holed)["ranks"].sheet.blocks[0].rows[-1][1].text == "–"


# ---- calibration -----------------------------------------------------------------------------------------------------


def by_loop(confidence, right):
    """Guo et al.'s definition, an image and a bin at a time."""
    total = 0.0
    for number in range(15):
        inside = [i for i, c in enumerate(confidence) if number / 15 < c <= (number + 1) / 15]
        if inside:
            gap = np.mean([right[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return 100 * total


@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_ece_is_the_definitions_loop(answers):
    confidence, right = np.array([c for c, _ in answers]), np.array([r for _, r in answers])
    assert calibration.calibration_error(confidence, right) == pytest.approx(by_loop(confidence, right), abs=1e-9)


def test_ece_in_closed_form():
    right = np.array([True] * 8 + [False] * 2)
    assert calibration.calibration_error(np.full(10, 0.8), right) == pytest.approx(0, abs=1e-9)
    assert calibration.calibration_error(np.full(10, 1.0), right) == pytest.approx(20)
    assert calibration.calibration_error(np.full(10, 0.5), ~right) == pytest.approx(30)
    # one bin too sure by 0.1, one too shy by 0.3, half of the images each: their gaps do not cancel
    halves = np.array([0.9] * 10 + [0.2] * 10), np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert calibration.calibration_error(*halves) == pytest.approx(100 * (0.1 + 0.3) / 2)
    assert calibration.calibration_error(np.full(10, 0.9), right, bins=1) == pytest.approx(10)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=2, max_size=40), st.randoms())
@settings(max_examples=50, deadline=None)
def test_ece_is_never_below_the_gap_nor_above_the_mean_error_whatever_the_order(answers, random):
    confidence, right = np.array([c for c, _ in answers]), np.array([r for _, r in answers], float)
    error = calibration.calibration_error(confidence, right)
    assert 100 * abs((confidence - right).mean()) - 1e-9 <= error <= 100 * np.abs(confidence - right).mean() + 1e-9
    random.shuffle(answers)
    turned = calibration.calibration_error([c for c, _ in answers], [r for _, r in answers])
    assert turned == pytest.approx(error)


def test_the_calibration_table_has_each_runs_error_averaged_over_seeds_then_datasets(eight):
    table = calibration.calibration_table(eight).set_index(["dataset", "method", "backbone"])
    assert len(table) == 9 * 4 * 2
    errors = {}
    for record in eight.main:
        run, outcome = record["run"], eight.outcomes.of(record)["new"]
        errors[run["dataset"], run["method"], run["seed"]] = by_loop(outcome.confidence.astype(float), outcome.right)
    of_one = [errors["c", "coop", seed] for seed in (1, 2, 3)]
    row = table.loc["c", "coop", "new"]
    assert (row["ece"], row["ece_std"]) == pytest.approx((np.mean(of_one), np.std(of_one, ddof=1)))
    assert row["gap"] == pytest.approx(row["confidence"] - row["accuracy"])
    by_seed = [np.mean([errors[d, "coop", seed] for d in MANY]) for seed in (1, 2, 3)]
    average = table.loc["average", "coop", "new"]
    assert (average["ece"], average["ece_std"]) == pytest.approx((np.mean(by_seed), np.std(by_seed, ddof=1)))
    assert average["accuracy"] == pytest.approx(means.average_rows(eight.main).loc["coop", "new"])


def test_runs_without_confidence_have_dashes_and_no_number():
    records, stored = answered.world(CHANCES, images=30)
    stored["a-coop-1"] = {r: Outcome(o.predicted, o.label, None) for r, o in stored["a-coop-1"].items()}
    table = calibration.calibration_table(answered.selection_of(records, stored))
    seeds = table.set_index(["dataset", "method", "backbone"])["seeds"]
    assert seeds["a", "coop", "base"] == 2 and seeds["average", "coop", "base"] == 2 and seeds["b", "coop", "new"] == 3
    bare = {key: {r: Outcome(o.predicted, o.label, None) for r, o in found.items()} for key, found in stored.items()}
    selection = answered.selection_of(records, bare)
    assert calibration.calibration_table(selection)["ece"].isna().all()
    block = outputs.made_from(selection)["calibration"].sheet.blocks[0]
    assert {cell.text for row in block.rows for cell in row[1:]} == {"–"}
    assert not calibration.findings(calibration.calibration_table(selection), selection)


# ---- flips -----------------------------------------------------------------------------------------------------------


def test_flips_counted_by_hand():
    label = np.array([0, 1, 2, 3, 4, 0, 1, 2])
    base = Outcome(np.array([0, 1, 2, 0, 0, 1, 1, 0]), label, None)  # right: 0 1 2 . . . 6 .
    new = Outcome(np.array([0, 2, 2, 3, 1, 1, 0, 2]), label, None)  # right: 0 . 2 3 . . . 7
    # changed: 1 (right to wrong), 3 (to right), 4 (wrong to wrong), 6 (right to wrong), 7 (to right)
    assert flips_analysis.flips(base, new) == (62.5, 25.0, 25.0, 12.5)
    assert flips_analysis.flips(new, base) == (62.5, 25.0, 25.0, 12.5)
    assert flips_analysis.flips(base, base) == (0, 0, 0, 0)


CLASS = st.integers(0, 3)


@given(st.lists(st.tuples(CLASS, CLASS, CLASS), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_kinds_of_flips_add_up_and_their_balance_is_the_change_of_accuracy(answers):
    before, after, label = np.array(answers).T
    base, new = Outcome(before, label, None), Outcome(after, label, None)
    flips, negative, positive, moved = flips_analysis.flips(base, new)
    assert flips == pytest.approx(100 * np.mean(before != after)) == pytest.approx(negative + positive + moved)
    assert positive - negative == pytest.approx(100 * (new.right.mean() - base.right.mean()))


def test_the_flips_table_balances_with_the_main_table_and_zero_shot_is_beside_itself_once(eight):
    table, main = flips_analysis.flips_table(eight), means.summarise(eight.main).set_index(["dataset", "method"])
    assert len(table) == 9 * 4
    zero = table[table["method"] == "zs-clip"].set_index("dataset")["flips"]
    for row in table.itertuples():
        change = main.loc[(row.dataset, row.method), "new"] - main.loc[(row.dataset, row.method), "base"]
        assert row.positive - row.negative == pytest.approx(change) and row.seeds == 3
        assert row.flips == pytest.approx(row.negative + row.positive + row.moved)
        assert row.beside_zero_shot == pytest.approx(row.flips / zero[row.dataset])
    without = selected({"coop": CHANCES["coop"]}, images=30)
    assert flips_analysis.flips_table(without)["beside_zero_shot"].isna().all()


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_costs_are_means_of_seconds_for_a_thousand_images():
    records, stored = answered.world({"coop": CHANCES["coop"]}, images=50, datasets=("a", "b"), **COST)
    for record in records:
        if record["run"]["dataset"] == "b":
            record["seconds"] = {"fit": record["run"]["seed"], "evaluate": {"new": 0.1}}
            record["trainable_parameters"] = 100
    (row,) = costs.costs(answered.selection_of(records, stored)).itertuples()
    assert (row.fit, row.evaluate, row.parameters) == ((2 + 2) / 2, (1000 * 0.3 / 50 + 1000 * 0.1 / 50) / 2, 82)
    assert row.seconds == row.fit + row.evaluate
    assert row.h == pytest.approx(means.average_rows(records).loc["coop", "h"])


POINT = st.tuples(st.integers(0, 6), st.integers(0, 6))


@given(st.lists(POINT, max_size=12))
@settings(max_examples=150, deadline=None)
def test_the_front_is_every_point_that_no_other_beats_and_rises_with_cost(points):
    kept = costs.front(points)
    beaten = {
        i for i, (x, y) in enumerate(points)
        if any((a <= x and b > y) or (a < x and b >= y) for a, b in points)
    }  # fmt: skip
    assert sorted(kept) == sorted(set(range(len(points))) - beaten)
    assert [points[i] for i in kept] == sorted(points[i] for i in kept)


def test_a_point_without_a_cost_is_on_no_front():
    assert costs.front([(math.nan, 9), (1, 1), (2, math.nan)]) == [1] and costs.front([]) == []


# ---- files and report ------------------------------------------------------------------------------------------------


def predictions_of(selection):
    return lambda key: {r: (o.predicted, o.label) for r, o in selection.outcomes.read(key).items()}


def test_check_makes_every_statistic_again_and_names_a_changed_cell(eight, tmp_path):
    outputs.write_tables(eight, tmp_path)
    files = {path.name for path in (tmp_path / "tables").iterdir()}
    assert files >= {"ranks.csv", "ranks.md", "ranks.tex", "wilcoxon.csv", "pairs.csv", "calibration.md", "flips.tex"}
    assert recompute.recompute(eight, predictions_of(eight), tmp_path) == []
    for name, column in (("ranks", "rank"), ("wilcoxon", "p"), ("pairs", "low"), ("calibration", "ece"),
                         ("flips", "negative")):  # fmt: skip
        path = tmp_path / "tables" / f"{name}.csv"
        text = path.read_text()
        head, *rows = list(csv.reader(text.splitlines()))
        place = head.index(column)
        rows[0][place] = str(float(rows[0][place]) + 0.3)
        path.write_text("\n".join(map(",".join, [head, *rows])) + "\n")
        fresh = answered.selection_of(list(eight.main), {r["key"]: eight.outcomes.read(r["key"]) for r in eight.main})
        (line,) = recompute.recompute(fresh, predictions_of(eight), tmp_path)
        assert f"{name}.csv: {column} of" in line
        path.write_text(text)


def test_a_forged_accuracy_changes_no_statistic_of_predictions_and_is_recounted_in_the_ranks(eight, tmp_path):
    forged = [*eight.main]
    targets = forged[0]["targets"]
    forged[0] = {**forged[0], "targets": {**targets, "new": {**targets["new"], "accuracy": 99.0, "correct": 59}}}
    stored = {r["key"]: eight.outcomes.read(r["key"]) for r in forged}
    claimed = answered.selection_of(forged, stored)
    outputs.write_tables(claimed, tmp_path)
    lines = recompute.recompute(claimed, predictions_of(eight), tmp_path)
    assert any("in the record" in line for line in lines) and any("ranks.csv" in line for line in lines)
    assert not any("pairs.csv" in line or "flips.csv" in line for line in lines)


def test_statistics_of_an_earlier_report_go_with_their_methods(eight, tmp_path):
    outputs.write_tables(eight, tmp_path)
    outputs.write_figures(eight, tmp_path)
    assert (tmp_path / "figures" / "ranks.png").is_file() and (tmp_path / "figures" / "pareto.svg").is_file()
    alone = selected({"coop": CHANCES["coop"]}, images=30, **COST)
    outputs.write_tables(alone, tmp_path)
    outputs.write_figures(alone, tmp_path)
    left = {path.name for folder in ("tables", "figures") for path in (tmp_path / folder).iterdir()}
    assert not {"ranks.csv", "pairs.csv", "wilcoxon.csv", "ranks.png", "pareto.png"} & left
    assert {"calibration.csv", "flips.csv"} <= left
    assert recompute.recompute(alone, predictions_of(alone), tmp_path) == []


def texts_of(selection):
    markdown, page = report.texts(selection)
    begin = markdown.index("## Statistics")
    return markdown[begin : markdown.index("## Protocol")], page


def test_the_reports_section_says_what_is_significant_and_shows_each_figure_once(eight):
    section, page = texts_of(eight)
    for needed in (
        "over 8 datasets", "It does not differ significantly from", "95 % interval", "differ by Friedman's test",
        "Significant differences on single datasets", "Calibration on New", "zero\\-shot changes",
        "the Pareto front is", "figures/ranks.svg", "figures/pareto.svg",
    ):  # fmt: skip
        assert needed.replace("\\-", "-") in section, needed
    assert page.count("Average ranks over datasets; a bar") == 2  # its caption, and its label for who cannot see it
    first = statistics.of_differences(eight)[0]
    row = statistics.row_of(outputs.made_from(eight)["pairs"].frame, "average", "h", "coop", "kg")
    assert f"{row['difference']:+.2f} points" in first and f"{row['low']:+.2f} to {row['high']:+.2f}" in first
    tables = MarkdownIt("commonmark").enable("table").render(section)
    assert tables.count("<table>") == 7 and page.count("<script") == 1


@pytest.mark.parametrize(
    "given",
    [
        {"chances": {"coop": CHANCES["coop"]}},
        {"chances": CHANCES, "seeds": (1,)},
        {"chances": CHANCES, "datasets": ("a",)},
        {"chances": CHANCES, "fails": {("a", m, s) for m in CHANCES for s in (1, 2, 3)}},
        {"chances": CHANCES, "fails": {("a", "coop", 1), ("b", "kg", 3)}},
        {"chances": CHANCES, "fails": {("b", m, s) for m in ("coop", "kg", "probe") for s in (1, 2, 3)}},
    ],
    ids=["one method", "one seed", "one dataset", "a dataset failed", "runs failed", "one method complete"],
)
def test_what_is_missing_leaves_a_report_that_check_agrees_with(given, tmp_path):
    selection = selected(images=40, **given)
    outputs.write_tables(selection, tmp_path)
    report.write_report(selection, tmp_path)
    assert recompute.recompute(selection, predictions_of(selection), tmp_path) == []
    remade, _ = recompute.recounted(selection, predictions_of(selection))
    assert recompute.recompute_pages(remade, tmp_path, (), "micro") == []
    text = (tmp_path / "report.md").read_text()
    assert "## Statistics" in text and "nan" not in re.sub(r"[a-z]+nan|nan[a-z]+", "", text)


def test_nothing_done_and_no_predictions_have_no_section(eight, tmp_path):
    for selection in (
        selected(CHANCES, images=20, datasets=("a",), fails={("a", m, s) for m in CHANCES for s in (1, 2, 3)}),
        replace(eight, outcomes=None),
        answered.selection_of([], {}),
    ):
        assert not {"ranks", "wilcoxon", "pairs", "calibration", "flips"} & set(outputs.made_from(selection))
        assert "## Statistics" not in report.texts(selection)[0]
        assert figure_of("ranks", selection) is None is figure_of("pareto", selection)


def test_runs_whose_predictions_are_gone_are_named_in_the_report():
    records, stored = answered.world(CHANCES, images=40)
    del stored["a-coop-2"]
    section, _ = texts_of(answered.selection_of(records, stored))
    assert "a, coop, seed 2 has no usable predictions" in section


def test_a_further_update_has_its_ranks_flips_calibration_and_cost():
    chances = {m: {**roles, "large": 0.9 - roles["new"] / 2} for m, roles in CHANCES.items()}
    seconds = {"fit": 1.0, "evaluate": {"base": 0.1, "new": 0.2, "large": 0.4}}
    selection = selected(chances, images=40, datasets=MANY[:6], seconds=seconds, trainable_parameters=8)
    made = outputs.made_from(selection)
    assert list(dict.fromkeys(made["ranks"].frame["measure"])) == ["base", "new", "h", "large", "h-large"]
    assert set(made["flips"].frame["backbone"]) == {"new", "large"}
    assert set(made["calibration"].frame["backbone"]) == {"base", "new", "large"}
    assert len(comparison.rankings(selection)) == 5 and costs.costs(selection, "large")["evaluate"].iloc[0] == 10.0
    section, _ = texts_of(selection)
    assert "H, large" in section and "update 'large'" in section and "With the update 'large'" in section
    titles = [block.title.text for block in outputs.made_from(selection)["flips"].sheet.blocks]
    assert titles[-1] == "Average over 6 datasets, update 'large'" and len(titles) == 8


def test_labels_of_the_figures_lie_within_them(eight):
    for name in ("ranks", "pareto"):
        figure = figure_of(name, eight)
        with matplotlib.rc_context(STYLE):
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        width, height = canvas.get_width_height()
        for axes in figure.axes:
            for label in filter(Text.get_text, (axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts)):
                box = label.get_window_extent(canvas.get_renderer())
                assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, label.get_text()


def test_one_method_alone_is_not_called_the_best_and_the_worst_of_flips():
    alone = selected({"zs-clip": CHANCES["zs-clip"]}, images=40)
    (line,) = flips_analysis.findings(flips_analysis.flips_table(alone), alone)
    assert "zero-shot changes" in line and line.endswith("from wrong to right).")
    alone = selected({"coop": CHANCES["coop"]}, images=40)
    assert not flips_analysis.findings(flips_analysis.flips_table(alone), alone)


def test_too_many_methods_for_the_redraws_are_named():
    many = {f"m{i:02d}": {"base": 0.5, "new": 0.5} for i in range(23)}
    few = dict(list(many.items())[:22])
    lines = [" ".join(statistics.limits(selected(each, images=20, datasets=("a",)).main)) for each in (few, many)]
    assert "253 pairs of methods, no difference over images" in lines[1] and "redraws" not in lines[0]


def test_without_predictions_of_any_pair_nothing_is_said_of_intervals():
    records, stored = answered.world(CHANCES, images=40)
    assert "A difference is called significant" in texts_of(answered.selection_of(records, stored))[0]
    assert "A difference is called significant" not in texts_of(answered.selection_of(records, {}))[0]


def test_a_hostile_name_is_shown_as_it_is_in_sheets_and_figures(tmp_path):
    records, stored = answered.world(CHANCES, images=30, datasets=MANY[:2], **COST)
    for record in records:
        record["names"] = {"dataset": HOSTILE, "method": f"{record['run']['method']} {HOSTILE}"}
    selection = answered.selection_of(records, stored)
    for name in ("ranks", "pareto"):
        save(figure_of(name, selection), tmp_path / name)
    markdown, page = report.texts(selection)
    assert "<b>$" not in page and "<b>$" not in markdown


def test_the_figures_bytes_depend_on_the_records_alone(eight, tmp_path):
    again = selected(CHANCES, images=60, datasets=MANY, rng=1, **COST)
    for name in ("ranks", "pareto"):
        folders = {"1": replace(eight), "2": again}  # drawn anew
        one, two = (save(figure_of(name, given), tmp_path / to / name) for to, given in folders.items())
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_the_rank_figure_has_a_bar_for_each_clique_and_a_mark_at_each_rank(eight):
    figure, rankings = figure_of("ranks", eight), comparison.rankings(eight)
    assert len(figure.axes) == len(rankings) == 3
    for axes, one in zip(figure.axes, rankings, strict=True):
        bars = [line for line in axes.lines if line.get_linewidth() == 3]
        marks = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o")
        left, right = 1.5, statistics.WIDTH_INCHES - 1.5
        ranks = [1 + (x - left) / (right - left) * 3 for x in marks]
        assert ranks == pytest.approx(list(one.ranks)) and len(bars) == len(one.cliques)
        texts = " ".join(text.get_text() for text in axes.texts)
        assert all(name.upper() in texts for name in CHANCES) and "8 datasets" in texts


def test_names_beside_points_keep_apart_and_in_order():
    assert costs.spaced([0.1, 0.5, 0.9]) == [0.1, 0.5, 0.9] and costs.spaced([]) == []
    close = costs.spaced([0.97, 0.98, 0.985, 0.99])
    assert np.diff(close).min() > 0.06 and max(close) <= 1
    crowd = costs.spaced([0.5] * 40)
    assert np.diff(crowd).min() > 0 and 0 <= crowd[0] + 1e-9 and crowd[-1] <= 1


def test_p_is_never_printed_as_zero():
    assert list(map(statistics.p_text, (0.0002, 0.0499, 1.0))) == ["p < 0.001", "p = 0.050", "p = 1.000"]


def test_averages_over_datasets_take_only_seeds_that_have_each(eight):
    table = pd.concat([flips_analysis.flips_table(eight), calibration.calibration_table(eight)])
    assert (table["seeds"] == 3).all()
    holed = selected(CHANCES, images=40, fails={("a", "coop", 1)})
    rows = flips_analysis.flips_table(holed).set_index(["dataset", "method"])["seeds"]
    assert (rows["a", "coop"], rows["b", "coop"], rows["average", "coop"]) == (2, 3, 2)


def test_of_one_seed_no_sheet_speaks_of_places_or_of_what_no_test_showed():
    section, page = texts_of(selected(CHANCES, images=40, seeds=(1,)))
    assert statistics.UNTESTED in section
    assert "In brackets: the places" not in section and "no method is significantly better" not in section
    assert "a bar joins methods that do not differ significantly" in page
