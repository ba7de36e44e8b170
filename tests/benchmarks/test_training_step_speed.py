"""A training step (forward and backward) beside the published one: ViT-B/16, 100 classes, 16 context tokens.

Skipped by default; run ``pytest tests/benchmarks/test_training_step_speed.py --benchmark-only -s`` (ten minutes or so
on two cores), or ``python -m tests.benchmarks.ratios`` for the table alone. pytest-benchmark times our way; before each
of its rounds the published way is timed on the same tensors, and their ratio is printed and kept in ``extra_info``.
Both give the same loss and gradients, or the test fails.
"""

from functools import cache

import pytest

from benchmarks import workload
from benchmarks.ratios import CASES, TOLERANCE, Pair, Times
from carryover.bench.host.processes import cores
from carryover.bench.preflight.made_up import threads_set


@pytest.fixture
def all_cores():
    with threads_set(cores()):
        yield cores()


@cache
def backbone():
    # Made in the test, not in a fixture, so that a skipped benchmark costs nothing.
    return workload.random_backbone()


@pytest.mark.parametrize("name", CASES)
def test_training_step_beside_the_published_one(benchmark, all_cores, capsys, name):
    case, times = CASES[name], Times()
    benchmark.group = f"{case.text}, 100 classes, ViT-B/16, {all_cores} threads"
    pair = Pair(case, backbone(), workload.caltech())
    difference = pair.difference()
    assert difference < TOLERANCE

    def time_published():
        times.published.append(workload.seconds(pair.published, pair.device))

    benchmark.pedantic(pair.ours, setup=time_published, rounds=case.rounds)
    times.ours = benchmark.stats.stats.data
    benchmark.extra_info.update(
        published=times.published, ratio=times.ratio, difference=difference, machine=workload.machine(backbone())
    )
    with capsys.disabled():
        print("\n" + times.line(f"{case.text}, {workload.machine(backbone())}"))
