"""The main experiment at several numbers of shots: gains by hand, gaps as gaps, other tables of one number alone."""

import csv

import pytest
from drawings import figure_of
from plain_records import record

from carryover.bench.analyses import shots
from carryover.bench.analyses.base import ANALYSES
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.plan import grid
from carryover.bench.plan.settings import Settings
from carryover.bench.records.selection import choose
from carryover.bench.render.sheets import sheet_markdown
from carryover.bench.report import outputs
from carryover.methods import Registered

MICRO = Settings(16, "micro", "fp32", 4, None, methods=Registered())
ARCH = ARCHS["micro"]
SETS = ("micro_textures", "micro_actions", "micro_stars")


def planned(**asked):
    return grid.grid(ARCH, MICRO, suites_=["shots"], seeds=[1, 2], **asked)


def stored(runs):
    """Accuracies by hand: zero-shot 50 on both; CoOp gains its shots on the base and half of them on the new one, a
    point more with seed 2; TaskRes loses its shots on the new one."""
    made = []
    for run in runs:
        n, more = run.shots, run.seed - 1
        new = {"zs-clip": 50, "coop": 50 + n / 2 + more, "taskres": 50 - n}[run.method]
        base = 50 if run.method == "zs-clip" else 50 + n + more
        made.append(record(run, base=base, new=new))
    return made


@pytest.fixture
def selection():
    return choose(stored(planned(methods=["coop", "taskres"], zero_shot=True)), ARCH, MICRO)


def test_the_plan_has_each_method_at_each_number_of_shots_and_zero_shot_once():
    runs = planned(methods=["coop"], zero_shot=True)
    found = sorted((run.dataset, run.method, run.shots, run.seed) for run in runs)
    coop = [(one, "coop", n, seed) for one in SETS for n in (1, 2, 4, 8, 16) for seed in (1, 2)]
    assert found == sorted([*coop, *((one, "zs-clip", 16, seed) for one in SETS for seed in (1, 2))])
    main = {run.key({}) for run in grid.grid(ARCH, MICRO, suites_=["main"], seeds=[1, 2], methods=["coop"])}
    assert {run.key({}) for run in runs if run.method == "coop" and run.shots == 16} <= main


def test_methods_that_nobody_named_are_the_usual_ones():
    assert {run.method for run in planned()} == {"zs-clip", *shots.PAPERS}
    assert {run.method for run in planned(methods=["gda"])} == {"gda"}


def test_gains_are_over_zero_shot_of_the_same_backbone(selection):
    table = outputs.made_from(selection)["shots"]
    rows = {(r["dataset"], r["method"], r["shots"]): r for r in csv.DictReader(table.csv.splitlines())}
    assert len(rows) == 3 * (2 * 5 + 1) + 3 * 5 * (len(shots.METHODS) - 2)
    coop = rows["micro_stars", "coop", "4"]
    assert (float(coop["base"]), float(coop["new"]), coop["seeds"]) == (54.5, 52.5, "2")
    told = sheet_markdown(table.sheet)
    assert "| CoOp     |    +1.50 |     +2.50 |     +4.50 |     +8.50 |     +16.50 |" in told  # base
    assert "| CoOp     |    +1.00 |     +1.50 |     +2.50 |     +4.50 |      +8.50 |" in told  # new
    assert "| TaskRes† |    -1.00 |     -2.00 |     -4.00 |     -8.00 |     -16.00 |" in told
    assert "Linear Probe" not in told  # never run


def test_the_words_say_whose_gain_grows_and_whose_shrinks(selection):
    grows, shrinks, doubt = ANALYSES["shots"]().words(selection, outputs.made_from(selection))
    assert "grows for CoOp (+1.00 to +8.50)" in grows and "TaskRes" not in grows
    assert "not tested" in doubt
    assert "shrinks for TaskRes (-1.00 to -16.00)" in shrinks and "CoOp" not in shrinks


def test_the_figure_has_a_panel_a_method_with_the_same_numbers(selection):
    figure = figure_of("shots", selection)
    shown = {
        axes.get_title(): [list(line.get_ydata()) for line in axes.lines[:2]] for axes in figure.axes if axes.lines
    }
    assert shown["CoOp"] == [[1.5, 2.5, 4.5, 8.5, 16.5], [1.0, 1.5, 2.5, 4.5, 8.5]]


def test_what_was_not_run_is_a_gap_and_is_named():
    runs = [
        run
        for run in planned(methods=["coop"], zero_shot=True)
        if not (run.method == "coop" and run.shots == 2 and run.dataset == "micro_stars")
    ]
    told = sheet_markdown(outputs.made_from(choose(stored(runs), ARCH, MICRO))["shots"].sheet)
    assert "| CoOp     |    +1.50 |         – |     +4.50 |" in told
    assert "Not run or failed: micro\\_stars: coop / 2." in told


def test_other_tables_hold_the_calls_shots_alone(selection):
    tables = outputs.made_from(selection)
    main = {(r["dataset"], r["method"]): r for r in csv.DictReader(tables["main"].csv.splitlines())}
    assert float(main["micro_stars", "coop"]["base"]) == 66.5 and main["micro_stars", "coop"]["seeds"] == "2"
    assert not selection.notes  # nothing is left over
