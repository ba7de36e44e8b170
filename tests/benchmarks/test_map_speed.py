"""What a map costs on one core: 512 dimensions from 2,000 anchors, and features through it.

Skipped by default; run ``pytest tests/benchmarks/test_map_speed.py --benchmark-only -s``. Seconds are the
processor's, of one thread, so that other programs on the machine count little.
"""

import time

import pytest
import torch

from carryover.bench.ports.maps import Linear, Procrustes
from carryover.bench.preflight.made_up import threads_set

pytestmark = pytest.mark.benchmark(timer=time.process_time)

ANCHORS, WIDTH, PICTURES = 2000, 512, 1000


@pytest.fixture
def one_core():
    with threads_set(1):
        yield


def features(rows):
    draw = torch.Generator().manual_seed(0)
    new = torch.randn(rows, WIDTH, generator=draw)
    return new @ torch.randn(WIDTH, WIDTH, generator=draw) / WIDTH**0.5 + torch.randn(rows, WIDTH, generator=draw), new


@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_fit(benchmark, one_core, kind):
    old, new = features(ANCHORS)
    benchmark.group = f"fit, {ANCHORS} anchors, {WIDTH} dimensions, one core"
    fitted = benchmark.pedantic(lambda: kind().fit(old, new), rounds=5, warmup_rounds=1)
    assert fitted.about["rank"] == WIDTH


@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_score(benchmark, one_core, kind):
    old, new = features(ANCHORS)
    benchmark.group = f"held-out R², {ANCHORS} anchors, {WIDTH} dimensions, one core"
    scores = []
    benchmark.pedantic(
        lambda fitted: scores.append(fitted.score_), setup=lambda: ((kind().fit(old, new),), {}), rounds=5
    )
    assert scores[0] > 0


def test_transform(benchmark, one_core):
    old, new = features(PICTURES)
    fitted = Procrustes().fit(old, new)
    benchmark.group = f"{PICTURES} pictures through a map of {WIDTH} dimensions, one core"
    assert benchmark(fitted.transform, new).shape == (PICTURES, WIDTH)
