"""Plug-ins that cannot be plugged into a target: a dash with its reason in every table, counted neither as lost nor as
kept, and beside it the numbers that would be there without them."""

import csv
import math

import answered
import pytest
from drawings import figure_of
from test_ports import ARCH, SETS, world

from carryover.bench.analyses import answer as answer_page
from carryover.bench.analyses import costs
from carryover.bench.analyses.parts import refused
from carryover.bench.records import reading, schema
from carryover.bench.report import outputs, recompute, report
from carryover.bench.stats import means, measures

WHY = "a context of 16 x 512, SigLIP has text width 768"
SUITES = ("main", "retention", "chains", "ports", "ood")
FLOOR, REUSED, PORTED, CEILING = 100, 110, 130, 160
few_draws = answered.few_draws(300)


def right(role="second", method="coop", sets=SETS):
    """Right answers of 200 by role; on those datasets the method is refused on that role."""

    def of(run):
        if run.method == "zs-clip":
            n = FLOOR
        else:
            n = PORTED if run.port else REUSED if run.path == ("base",) else CEILING
        n += run.seed
        found = {"base": 150 + run.seed, "new": n, "second": n + 1}
        plain = run.path == ("base",) and not run.port and run.method == method and run.dataset in sets
        return {**found, role: WHY} if plain else found

    return of


@pytest.fixture(scope="module")
def full():
    return world(right(method="none"), suites=SUITES)[0]


@pytest.fixture(scope="module")
def second():
    """CoOp is refused on the further target."""
    return world(right(), suites=SUITES)[0]


@pytest.fixture(scope="module")
def new():
    """CoOp is refused on the update itself."""
    return world(right("new"), suites=SUITES)[0]


@pytest.fixture(scope="module")
def partly():
    """CoOp is refused on the further target on one dataset of two: the names of its classes are too long there."""
    return world(right(sets=SETS[:1]), suites=SUITES)[0]


def rows(selection, name):
    return list(csv.DictReader(outputs.made_from(selection)[name].csv.splitlines()))


def row(selection, name, **keys):
    (found,) = [one for one in rows(selection, name) if keys.items() <= one.items()]
    return found


def text(selection, name):
    return outputs.made_from(selection)[name].texts["md"].replace("\\", "")


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_record_with_a_reason_is_done_and_one_without_either_is_not(second):
    one = next(r for r in second.main if r["run"]["method"] == "coop")
    assert reading.is_done({**one, "targets": {"base": one["targets"]["base"]}, "refused": {"new": WHY}})
    assert not reading.is_done({**one, "targets": {"base": one["targets"]["base"]}, "refused": {"second": WHY}})
    assert not reading.is_done({**one, "status": "failed"})
    assert reading.updates([one]) == ["new", "second"], "known by its reason alone"


@pytest.mark.parametrize(
    "value, fault",
    [
        ({"second": 3}, "refused.second is not str"),
        ("no", "refused is not dict"),
        ({"second": ""}, "refused.second is empty"),
        ({"second": None}, "refused.second is missing"),
        ({"base": "why"}, "refused.base is a reason beside numbers"),
        ({"second": WHY}, ""),
    ],
)
def test_the_schema_of_reasons(second, value, fault):
    one = next(r for r in second.main if r["run"]["method"] == "coop")
    assert schema.fault({**one, "refused": value}) == fault


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["second", "new", "partly"])
def test_all_tables_figures_and_pages_are_made_and_check_agrees(name, request, tmp_path):
    selection = request.getfixturevalue(name)
    outputs.write_tables(selection, tmp_path)
    outputs.write_figures(selection, tmp_path)
    report.write_report(selection, tmp_path)
    assert recompute.recompute(selection, selection.predictions, tmp_path) == []
    page = (tmp_path / "report.md").read_text().replace("\\", "")
    assert WHY in page and "Not run or failed" not in page and "not run, or failed" not in page and "nan" not in page


@pytest.mark.parametrize("name", ["main-second", "targets", "retention", "decision", "chains", "ports", "answer"])
def test_the_reason_stands_once_in_the_notes(second, name):
    assert text(second, name).count(WHY) == 1


def test_a_table_of_other_targets_does_not_speak_of_it(second):
    assert WHY not in text(second, "main") and WHY in text(second, "main-second")


@pytest.mark.parametrize("name", ["main", "pairs", "wilcoxon", "ranks"])
def test_what_does_not_speak_of_that_target_is_as_without_it(second, full, name):
    """Of the measures of other targets, Holm's correction included."""

    def others(selection):
        found = [one for one in rows(selection, name) if one.get("measure") not in ("second", "h-second")]
        return [{key: value.removesuffix(".0") for key, value in one.items()} for one in found]

    assert others(second) == others(full)


def test_the_cell_is_a_dash_and_so_is_every_average_over_it(second, partly, full):
    there = {"method": "coop", "backbone": "second"}
    for selection, sets in ((second, SETS), (partly, SETS[:1])):
        for dataset in (*sets, "average"):
            found = row(selection, "targets", dataset=dataset, **there)
            assert (found["accuracy"], found["h"], found["gain"], found["seeds"], found["gain_seeds"]) == (
                *[""] * 3,
                *["0"] * 2,
            )
            main = row(selection, "main-second", dataset=dataset, method="coop")
            assert (main["new"], main["h"]) == ("", "")
            assert main["base"] == row(full, "main-second", dataset=dataset, method="coop")["base"] != ""
    assert row(partly, "targets", dataset=SETS[1], **there) == row(full, "targets", dataset=SETS[1], **there)
    others = [one for one in rows(second, "targets") if not there.items() <= one.items()]
    assert others == [one for one in rows(full, "targets") if not there.items() <= one.items()]


def test_no_average_of_any_table_is_over_fewer_datasets(partly):
    """CoOp on that target has numbers on one of the two."""
    here = [one for one in rows(partly, "main-second") if one["method"] == "coop"]
    assert [one["new"] != "" for one in here] == [False, True, False]
    for measure in measures.measures(partly.main)[3:]:
        scores = measures.score_table(partly.main, measure)
        assert math.isnan(scores["coop"].mean(skipna=False)) and measures.seed_counts(partly.main, measure)[
            "coop"
        ].tolist() == [0, 3]
    flips = row(partly, "flips", dataset="average", method="coop", backbone="second")
    assert (flips["seeds"], flips["flips"]) == ("0", "")
    assert row(partly, "calibration", dataset="average", method="coop", backbone="second")["ece"] == ""
    assert not [one for one in rows(partly, "pairs") if one["measure"] == "second" and one["dataset"] == "average"
                and "coop" in (one["method"], one["other"]) and one["difference"]]  # fmt: skip
    averages = means.average_rows(reading.seen_from(partly.main, "second"))
    assert math.isnan(averages.loc["coop"]["new"]) and averages.loc["coop"]["base"] == pytest.approx(76)


def test_an_average_is_refused_where_one_of_its_datasets_is(partly, second):
    assert refused.cells(partly.main) == {(SETS[0], "coop", "second"), ("average", "coop", "second")}
    assert refused.told(partly.main) == [f"CoOp (MICRO_TEXTURES) cannot be plugged into 'second': {WHY}."]
    assert refused.told(second.main) == [f"CoOp cannot be plugged into 'second': {WHY}."]


def test_where_zero_shot_alone_is_left_nothing_is_the_best_of_its_kind():
    """Neither by average rank nor by H, nor at its cost: there is nothing that it is better than."""
    alone = world(lambda run: right(method=run.method.replace("zs-clip", "none"))(run), suites=("main", "retention"))[0]
    assert "Average rank (places)" in text(alone, "ranks") and "update 'second'" not in text(alone, "ranks")
    told = text(alone, "targets")
    assert [axes.get_ylabel() for axes in figure_of("pareto", alone).axes] == ["H (%)"]  # the seconds are not known
    assert [row[-1].text for row in costs.cost_block(alone).rows if row[0].text == "ZS-CLIP, second"] == ["–"]
    assert "New: CLIP-Adapter has the highest average H" in told and "second: ZS-CLIP" not in told


def test_what_is_ported_below_zero_shot_stands_in_the_figure_at_its_gain_where_nothing_can_be_plugged_in():
    def below(run):
        found = right(method=run.method.replace("zs-clip", "none"))(run)
        return {**found, "second": 91 + run.seed} if run.port else found

    axes = figure_of("answer", world(below, suites=("main", "maps"))[0]).axes[1]
    shown = [(one.get_label(), *one.lines[0].get_xdata()) for one in axes.containers]
    assert shown == 2 * [("ported", pytest.approx(-5.0))] and not axes.texts and axes.get_xlim()[0] < -5


# ---- verdict and choices ---------------------------------------------------------------------------------------------


def test_the_verdict_is_neither_lost_nor_kept(new, full):
    answer = row(new, "answer", target="new", dataset="average", method="coop")
    assert (answer["verdict"], answer["gain"], answer["p_holm"], answer["datasets"]) == ("not possible", "", "", "0")
    whole = row(full, "answer", target="new", dataset="average", method="coop")
    for way in ("ported", "retrained"):
        assert answer[f"{way}_gain"] == whole[f"{way}_gain"] != ""
    other = row(new, "answer", target="new", dataset="average", method="clip-adapter")
    assert other["verdict"] == "carries over" and other["gain"] == "5.0"
    assert "one of the two methods cannot be plugged into 'new'" in report.texts(new)[0].lower()
    assert answer_page.NOT_POSSIBLE in text(new, "answer") and answer_page.NOT_POSSIBLE not in text(full, "answer")


def test_the_choice_is_among_zero_shot_port_and_retraining(new, full):
    for dataset in (*SETS, "average"):
        here = {"dataset": dataset, "target": "new", "method": "coop"}
        three, whole = row(new, "retention", **here), row(full, "retention", **here)
        assert [three[n] for n in ("reused", "retention", "low")] == [""] * 3
        assert [three[n] for n in ("seeds", "zero_shot", "retrained")] == [
            whole[n] for n in ("seeds", "zero_shot", "retrained")
        ]
        chosen = row(new, "decision", **here)
        assert chosen["choice"] == "retrain" and chosen["reuse_gain"] == chosen["more_gain"] == ""
        assert chosen["retrain_gain"] == row(full, "decision", **here)["retrain_gain"] != ""
        for situation, choice in (("no labels", "port"), ("everything", "retrain")):
            found = row(new, "port_decision", situation=situation, **here)
            assert (found["choice"], found["reuse"]) == (choice, "") and found["port"]
    blank = row(new, "ports", dataset="average", target="new", method="coop", port="reuse")
    assert (blank["accuracy"], blank["seeds"], blank["reason"]) == ("", "0", WHY)


def test_an_average_over_which_one_dataset_refuses_has_no_reuse(partly, full):
    here = {"dataset": "average", "target": "second", "method": "coop"}
    three, whole = row(partly, "retention", **here), row(full, "retention", **here)
    assert (three["reused"], three["retention"]) == ("", "") and three["retrained"] == whole["retrained"]
    own = {**here, "dataset": SETS[1]}
    assert row(partly, "retention", **own) == row(full, "retention", **own)
    assert row(partly, "port_decision", situation="no labels", **own) == row(
        full, "port_decision", situation="no labels", **own
    )


def test_names_of_methods_share_a_sentence_where_the_reason_is_one():
    found = [r for m in ("coop", "clip-adapter") for r in world(right(method=m), suites=("main",))[0].main]
    found = [r for r in found if r["refused"]]
    assert refused.told(found) == [f"CoOp, CLIP-Adapter cannot be plugged into 'second': {WHY}."]
    assert set(ARCH.towers) == {"base", "new", "second"}
