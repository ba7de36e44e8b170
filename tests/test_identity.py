"""A table never averages seeds of different weights, pictures or programs, and test labels go where tables say."""

import copy

import pytest

from bench import selection
from bench.session import SELECTED_ON_TEST
from methods import ordered
from methods.base import METHODS


def record(name="coop", seed=1, started="2026-01-01", dataset="d", lr=0.1, **identity):
    own = {
        "backbones": {"base": "a", "new": "b"},
        "numbers": 1,
        "method": "m",
        "templates": ["t"],
        "pictures": [f"train{seed}", f"val{seed}", "test"],
        **identity,
    }
    run = {"dataset": dataset, "method": name, "seed": seed, "config": {"lr": lr}}
    return {"key": f"{dataset}{name}{seed}{started}", "started": started, "run": run, "identity": own}


def test_seeds_of_one_identity_stay_together_whatever_their_draws():
    records = [record(seed=seed) for seed in (1, 2, 3)] + [record("zs-clip", seed) for seed in (1, 2, 3)]
    assert selection.of_one_identity(records) == records


@pytest.mark.parametrize(
    "changed, others",
    [
        ({"backbones": {"base": "x", "new": "b"}}, 0),
        ({"numbers": 2}, 0),
        ({"pictures": ["train1", "val1", "another test"]}, 0),
        ({"templates": ["u"]}, 0),
        ({"method": "edited"}, 2),
    ],
)
def test_records_of_another_identity_than_the_newest_are_left_out(changed, others):
    old = [record(seed=seed) for seed in (1, 2)] + [record("zs-clip", seed) for seed in (1, 2)]
    new = record(seed=1, started="2026-01-02", **changed)
    kept = selection.of_one_identity([*old, new])
    assert new in kept
    assert [r for r in kept if r["run"]["method"] == "coop"] == [new]
    assert len([r for r in kept if r["run"]["method"] == "zs-clip"]) == others


def test_options_of_a_method_that_is_not_registered_do_not_mix_either():
    old, new = record("nobodys", seed=1, lr=0.1), record("nobodys", seed=2, lr=0.2, started="2026-01-02")
    assert selection.of_one_identity([old, new]) == [new]
    assert selection.of_one_identity([copy.deepcopy(new), old]) == [new]


def test_only_tip_adapters_published_option_is_given_test_labels_and_its_mark_is_the_sessions():
    for name in ordered():
        kind = METHODS[name]
        assert not kind.selects_on_test(kind.Config()), name
    tip = METHODS["tip-adapter-f"]
    assert tip.selects_on_test(tip.Config(selection="published"))
    assert "test images" in SELECTED_ON_TEST
