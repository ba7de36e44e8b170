"""Learning curves: medians and bands by hand, the mark on losses that still fell, and what has no curve."""

import math
import re
import statistics

import pytest
from drawings import figure_of
from table_records import chosen, record

from carryover.bench.analyses.curves import Curves, curves_table
from carryover.bench.stats.learning_curves import MARK, marks


def curve(loss, epochs=20):
    """``loss`` of the share of training that is done, at the middle of each epoch, at a constant rate."""
    return [{"epoch": i + 1, "loss": loss((i + 0.5) / epochs), "lr": 0.1} for i in range(epochs)]


def straight(slope, start=2.0):
    return lambda share: start * (1 - slope * share)


SLOPES = (0.1, 0.4, 0.5, 0.6, 0.9)


@pytest.fixture
def records():
    found = []
    for i, slope in enumerate(SLOPES):
        own = curve(straight(slope, 1.0 + i), 10 * (i + 1))
        found.append({**record("abcde"[i], "coop", 1, 120, 100, place=(i, 1)), "curve": own})
    steep = {"curve": curve(lambda share: 3.0 * math.exp(-20 * share))}  # done long before the end
    found.append({**record("a", "kgcoop", 1, 120, 100, place=(0, 2)), **steep})
    return [*found, {**record("a", "zs-clip", 1, 120, 100, place=(0, 3)), "curve": []}]


def test_median_and_band_are_those_of_straight_lines_whatever_their_length_and_level(records):
    """A straight line stays one where epochs are other in number, so each percentile is that of one of the slopes."""
    table = curves_table(records)
    own = table[table["method"] == "coop"].set_index("progress")
    for progress in range(10, 91, 5):  # between the middles of the first and the last epoch of the shortest curve
        at = [100 * (1 - slope * progress / 100) / (1 - slope * 0.5 / (10 * (i + 1))) for i, slope in enumerate(SLOPES)]
        expected = [sorted(at)[1], statistics.median(at), sorted(at)[3]]
        assert own.loc[progress, ["low", "median", "high"]].tolist() == pytest.approx(expected)
    assert own.loc[0, ["median", "low", "high"]].tolist() == [100.0] * 3
    assert set(own["runs"]) == {5} and len(own) == 21


def test_runs_are_counted_as_still_falling_where_their_record_would_be_marked(records):
    table = curves_table(records)
    for method in ("coop", "kgcoop"):
        marked = sum(MARK in marks(one["curve"]) for one in records if one["run"]["method"] == method)
        assert set(table[table["method"] == method]["falling"]) == {marked}
    assert set(table["falling"]) == {5, 0}, "both kinds are here"
    (made,) = Curves().tables(chosen(records))
    row = next(line for line in made.texts["md"].splitlines() if line.startswith("| COOP"))
    assert "5 of 5" in row and "51 % (41 to 62)" in row  # 0.5125 / 0.9917 and its neighbours


def test_the_figure_shows_the_table_and_a_triangle_where_a_loss_still_fell(records):
    figure = figure_of("curves", chosen(records))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["COOP", "KGCOOP"]
    table = curves_table(records)
    for axes, method in zip(panels.values(), ("coop", "kgcoop"), strict=True):
        own = table[table["method"] == method]
        line, *ends = axes.lines
        assert list(line.get_ydata()) == list(own["median"]) and list(line.get_xdata()) == list(own["progress"])
        assert bool(ends) == (own["falling"].iloc[0] > 0)
    (svg,) = [Curves().svg(drawing, chosen(records)) for drawing in Curves.drawings]
    titles = re.findall("<title>(.*?)</title>", svg)
    assert len(titles) == 21 + 1 + 21 and titles[0].startswith("COOP") and "51 % of the first loss" in titles[20]
    assert [text.get_text() for text in panels[next(iter(panels))].texts] == ["5 of 5 still falling"]


@pytest.mark.parametrize(
    "rows",
    [[], ["loss"], [{"epoch": 1}], [{"loss": "2", "lr": 0.1}], [{"loss": 0.0, "lr": 0.1}], [{"loss": 1.0, "lr": None}]],
)
def test_a_record_without_a_curve_that_can_be_read_has_none(rows):
    selection = chosen([{**record("a", "coop", 1, 120, 100), "curve": rows}])
    assert not list(Curves().tables(selection)) and figure_of("curves", selection) is None


def test_a_failed_run_has_no_curve():
    failed = {**record("a", "coop", 1, 120, 100, status="failed"), "curve": curve(straight(0.5))}
    assert not len(curves_table([failed]))
