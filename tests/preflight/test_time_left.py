"""The estimated time left on made-up calls, whose true costs are known: near the truth where the cost model is wrong,
and by what is known at each moment alone."""

import datetime
import random
from collections import Counter
from dataclasses import replace

import pytest
from toys import open_toy, toy_run

from benchmarks import time_left as replayed
from carryover.bench.engine.schedule import run_all
from carryover.bench.preflight import asked
from carryover.bench.preflight.time_left import BESIDE, Predicted, TimeLeft

COOP, PROBE = toy_run("coop"), toy_run("linear-probe")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def left_of(runs, costs, jobs=1, images=None):
    clock = Clock()
    todo = [(run, f"k{place}") for place, run in enumerate(runs)]
    left = TimeLeft(todo, jobs, clock)
    left.predicted = Predicted({key: cost for (_, key), cost in zip(todo, costs, strict=True)}, images or {})
    return left, clock


def test_before_anything_is_measured_it_is_what_the_cost_model_says():
    left, _ = left_of([COOP, COOP], [(3.0, 1.0), (5.0, 2.0)], images={"base": (10, 0.2)})
    assert left.seconds() == pytest.approx(3 + 1 + 5 + 2 + 2 * BESIDE + 2)
    shares = left.stages()
    assert shares == pytest.approx({"features": 2.0, "fit": 8.0, "evaluation": 3 + 2 * BESIDE})
    halved, _ = left_of([COOP, COOP], [(3.0, 1.0), (3.0, 1.0)], jobs=2)
    assert halved.seconds() == pytest.approx(4 + BESIDE)


def test_nothing_is_said_before_the_cost_model_has_answered():
    left = TimeLeft([(COOP, "k0")], 1, Clock())
    assert left.seconds() is None and left.stages() == {}


def test_it_counts_down_while_a_run_is_at_work_and_no_further_than_the_run():
    left, clock = left_of([COOP, COOP], [(10.0, 0.0), (10.0, 0.0)])
    left.begin(["k0"])
    start = left.seconds()
    clock.now = 4.0
    assert left.seconds() == pytest.approx(start - 4.0)
    clock.now = 500.0
    assert left.seconds() == pytest.approx(10 + BESIDE), "the run that is not begun"


@pytest.mark.parametrize("factor", [0.05, 3.0, 200.0])
def test_a_cost_model_of_other_hardware_is_corrected_by_what_runs_take(factor):
    left, clock = left_of([COOP] * 30, [(10.0, 0.0)] * 30)
    for place in range(15):
        left.begin([f"k{place}"])
        clock.now += 10 * factor
        left.done(f"k{place}", {})
    assert left.seconds() == pytest.approx(15 * 10 * factor, rel=1 / 3)


def test_one_method_that_takes_longer_than_predicted_leaves_the_others_alone():
    left, clock = left_of([COOP, PROBE] * 40, [(10.0, 0.0)] * 80)
    for place in range(40):
        left.begin([f"k{place}"])
        clock.now += 50 if place % 2 == 0 else 10
        left.done(f"k{place}", {})
    assert left.seconds() == pytest.approx(20 * 50 + 20 * 10, rel=0.1)


def test_pictures_are_counted_by_what_records_say_was_encoded_at_the_speed_that_it_took():
    left, clock = left_of([COOP, COOP], [(1.0, 0.0)] * 2, images={"base": (1000, 0.01)})
    clock.now = 50.0
    left.begin(["k0"])
    clock.now = 51.0
    left.done("k0", {"encoded": {"base": {"images": 250, "seconds": 50.0}}})
    assert left.stages()["features"] == pytest.approx(750 * 50 / 250, rel=0.05)


def test_a_run_done_by_another_process_is_left_no_longer_and_tells_nothing_of_speed():
    left, clock = left_of([COOP, COOP], [(10.0, 0.0)] * 2)
    clock.now = 0.5
    left.done("k0", {})
    assert left.seconds() == pytest.approx(10 + BESIDE)


def test_a_run_that_could_not_be_measured_costs_as_much_as_the_others_on_average():
    left, _ = left_of([COOP, COOP, PROBE], [(2.0, 0.0), (4.0, 0.0), (0.0, 0.0)])
    del left.predicted.runs["k2"]
    assert left.seconds() == pytest.approx(2 + 4 + 3 + 3 * BESIDE)
    left.predicted = Predicted({}, {})
    assert left.seconds() == pytest.approx(3 * (1 + BESIDE)), "a measurement that died"


def recorded(wrong):
    """Records of 240 units of one worker or the other, and predictions that are ``wrong[method]`` times too short."""
    draw, ends, records, costs = random.Random(3), [0.0, 0.0], [], {}
    for place in range(240):
        method = ("coop", "linear-probe", "coop")[place % 3] if place < 200 else "linear-probe"
        worker, fit = ends.index(min(ends)), draw.uniform(2, 20)
        run, key = replace(toy_run(method), seed=place), f"k{place}"
        begin = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=int(ends[worker]))
        spent = {"features": 0.0, "fit": fit, "evaluate": {"new": 0.5}}
        ends[worker] += fit + 0.5
        told = {"key": key, "run": run.canonical(), "started": f"{begin:%Y-%m-%dT%H:%M:%SZ}", "seconds": spent}
        records.append({**told, "encoded": {}})
        costs[key] = fit / wrong[method], 0.5 / wrong[method]
    return records, Predicted(costs, {}), max(ends)


@pytest.mark.parametrize("wrong", [{"coop": 1, "linear-probe": 1}, {"coop": 3, "linear-probe": 0.5}])
def test_over_a_recorded_call_the_estimate_is_within_a_third_at_each_point(wrong):
    records, predicted, whole = recorded(wrong)
    spans = replayed.timeline(records, 2)
    assert sum(end - begin for begin, end, _ in spans) == pytest.approx(2 * whole, rel=0.05)
    for point, seconds in replayed.replay(spans, 2, predicted, whole).items():
        assert seconds == pytest.approx(whole * (1 - point), rel=1 / 3), point


def test_the_measurement_finds_a_cost_for_every_run_and_the_pictures_that_the_runs_then_encode(
    monkeypatch, tiny, tmp_path
):
    session, runs = open_toy(monkeypatch, tiny, tmp_path), [COOP, PROBE]
    found = asked.predicted(session, [(run, session.keys.of(run)) for run in runs])
    assert all(fit > 0 and evaluation > 0 for fit, evaluation in (found.runs[session.keys.of(run)] for run in runs))
    assert run_all(session, runs, 1).done == 2
    encoded = Counter()
    for record in session.store.records():
        encoded.update({role: made["images"] for role, made in record["encoded"].items()})
    assert {role: count for role, (count, _) in found.images.items()} == encoded
    again = asked.predicted(session, [(run, session.keys.of(run)) for run in runs], since=0.0)
    assert again.images.keys() == found.images.keys(), "files that a call itself has made count as to be made"
    assert asked.predicted(session, [(run, session.keys.of(run)) for run in runs]).images == {}
