"""The report's first table: gains by hand, intervals and p of the pairs, Holm over the methods, verdicts."""

import csv
import math

import answered
import pytest
from drawings import figure_of
from test_ports import ways
from test_ports import world as ported_world

from carryover.bench.analyses import answer
from carryover.bench.analyses.parts import answer_numbers as numbers
from carryover.bench.analyses.parts.comparison import pairs_table
from carryover.bench.analyses.parts.retention_numbers import signed
from carryover.bench.report import outputs, recompute
from carryover.bench.stats.pairs import row_of

CHANCES = {
    "zs-clip": {"base": 0.5, "new": 0.5},
    "coop": {"base": 0.7, "new": 0.7},
    "kg": {"base": 0.6, "new": 0.53},
    "probe": {"base": 0.8, "new": 0.2},
}


def cells(selection):
    return list(csv.DictReader(outputs.made_from(selection)["answer"].csv.splitlines()))


def cell(selection, method, dataset="average", target="new"):
    keys = {"target": target, "dataset": dataset, "method": method}
    (row,) = [row for row in cells(selection) if keys.items() <= row.items()]
    return row


@pytest.fixture(scope="module")
def main():
    return answered.selection_of(*answered.world(CHANCES, datasets=tuple("abcdef"), images=150))


@pytest.fixture(scope="module")
def ported():
    """Zero-shot is right on 100 of 200 images, reused on 80, ported on 120, retrained on 160."""
    return ported_world(ways(), methods=["coop", "clip-adapter"])


@pytest.mark.parametrize(
    "gain, high, p, seeds, told",
    [
        (2.0, 3.0, 0.01, 3, "carries over"),
        (-2.0, -1.0, 0.01, 3, "hurts"),
        (0.1, 0.9, 0.5, 3, "no better than zero-shot"),
        (-2.0, -0.1, 0.06, 3, "no better than zero-shot"),
        (0.1, 1.1, 0.5, 3, "cannot tell"),
        (2.0, 3.0, 0.01, 1, "cannot tell"),
        (2.0, math.nan, math.nan, 3, "cannot tell"),
    ],
)
def test_a_verdict_goes_by_p_then_by_how_far_the_interval_reaches(gain, high, p, seeds, told):
    assert numbers.verdict(gain, high, p, seeds) == told


def test_gain_and_interval_are_those_of_the_pairs_and_p_is_corrected_over_the_methods_alone(main):
    table, others = pairs_table(main), ("coop", "kg", "probe")
    for dataset in ("average", "c"):
        rows = {method: row_of(table, dataset, "new", method, "zs-clip") for method in others}
        by_p, least = sorted(others, key=lambda method: rows[method]["p"]), 0.0
        for place, method in enumerate(by_p):
            least = max(least, min(1.0, (len(others) - place) * rows[method]["p"]))
            found = cell(main, method, dataset)
            assert float(found["gain"]) == pytest.approx(rows[method]["difference"], abs=1e-4)
            assert float(found["low"]) == pytest.approx(rows[method]["low"], abs=1e-4)
            assert float(found["p_holm"]) == pytest.approx(least, abs=1e-4)
    assert float(cell(main, "coop")["gain"]) == pytest.approx(
        float(cell(main, "coop")["new"]) - float(cell(main, "zs-clip")["new"]), abs=2e-4
    )
    assert [cell(main, method)["verdict"] for method in ("coop", "probe", "zs-clip")] == [
        "carries over", "hurts", "baseline",
    ]  # fmt: skip


def test_ported_and_retrained_gains_are_by_hand(ported):
    selection, _ = ported
    for target in ("new", "second"):
        for dataset in ("average", "micro_stars"):
            row = cell(selection, "clip-adapter", dataset, target)
            gains = [float(row[name]) for name in ("gain", "ported_gain", "retrained_gain")]
            assert gains == [-10, 10, 30], (target, dataset)
            assert float(row["ported_low"]) < 10 < float(row["ported_high"]) and row["ported_verdict"] == "carries over"
            assert row["without_labels"] == "port", "20 points ahead of zero-shot and of reuse"
    assert cell(selection, "zs-clip")["without_labels"] == ""
    assert cell(selection, "coop")["ported_datasets"] == "2" and cell(selection, "zs-clip")["ported_gain"] == ""


def test_the_table_opens_with_the_highest_gain_and_each_row_with_its_datasets(main):
    (_, found), *_ = [part for part in answer.Answer().first(main, answer.Answer().made(main)) if part[0] == "grid"]
    assert [row.cells[0].text for row in found.rows] == ["COOP", "KG", "ZS-CLIP", "PROBE"]
    assert [row.cells[0].text for row in found.rows[0].detail.rows] == list("abcdef")
    titles = ["Method", "Verdict", "New less zero-shot", "Base", "New", "Place"]
    assert [column.title for column in found.columns] == titles
    assert found.rows[-1].cells[1].text == "hurts"


def test_one_sentence_over_all_updates_stands_first(ported, main):
    assert answer.verdict(ported[0], answer.Answer().made(ported[0])) == (
        "CoOp does not carry over to either update. CLIP-Adapter does not carry over to either update. Ported through "
        "a map, both methods that have a port beat zero-shot on each update."
    )
    parts = answer.Answer().first(ported[0], answer.Answer().made(ported[0]))
    kinds = [kind for kind, _ in parts]
    assert kinds[kinds.index("figure") + 1 :][:2] == ["text", "grid"]  # the table is as wide as the page
    alone = answered.selection_of(*answered.world(CHANCES, seeds=(1,), datasets=("a", "b"), images=150))
    said = answer.verdict(alone, answer.Answer().made(alone))
    assert said.startswith("One seed allows no verdict.")
    assert {row["verdict"] for row in cells(alone)} == {"baseline", "cannot tell"}


def test_the_figure_shows_each_way_at_its_gain(ported):
    axes = figure_of("answer", ported[0]).axes[0]
    shown = {c.get_label(): {float(x) for x in c.lines[0].get_xdata()} for c in axes.containers}
    assert shown == {"as it is": {-10.0}, "ported": {10.0}, "retrained": {30.0}}


def test_a_method_that_lacks_a_dataset_has_no_verdict_and_the_table_says_on_how_many_it_has():
    fails = {("b", "coop", seed) for seed in (1, 2, 3)}
    found = answered.selection_of(*answered.world(CHANCES, images=60, fails=fails))
    assert cell(found, "coop")["verdict"] == "cannot tell" and cell(found, "coop")["datasets"] == "1"
    assert "cannot tell (1 of 2 datasets)" in outputs.made_from(found)["answer"].texts["md"]


def test_check_finds_a_gain_and_a_verdict_that_were_changed(main, tmp_path):
    outputs.write_tables(main, tmp_path)
    path = tmp_path / "tables" / "answer.csv"
    for column, other in (("gain", "99.0"), ("verdict", "hurts")):
        whole = path.read_text()
        header, *lines = (line.split(",") for line in whole.splitlines())
        place = next(i for i, line in enumerate(lines) if line[1:3] == ["average", "coop"])
        lines[place][header.index(column)] = other
        path.write_text("\n".join(",".join(line) for line in [header, *lines]) + "\n")
        (said,) = recompute.recompute_tables(main, tmp_path)
        assert f"{column} of ('new', 'average', 'coop')" in said
        path.write_text(whole)


@pytest.mark.parametrize(("value", "shown"), [(-0.04, "+0.0"), (0.0, "+0.0"), (-0.06, "-0.1"), (13.06, "+13.1")])
def test_a_gain_that_rounds_to_nothing_has_no_minus(value, shown):
    assert signed(value) == shown


def test_an_interval_over_one_seed_says_in_its_cell_that_it_is_over_images_alone():
    row = {"verdict": "carries over", "seeds": 3, "gain": 2.0, "low": 1.0, "high": 3.0}
    row |= {"ported_gain": -0.9, "ported_low": -8.6, "ported_high": 6.9, "ported_seeds": 1}
    assert numbers.gain_text(row) == "+2.0 [+1.0, +3.0]"
    assert numbers.gain_text(row, "ported") == "-0.9 [-8.6, +6.9] (images alone)"
