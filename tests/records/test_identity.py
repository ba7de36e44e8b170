"""A table never averages seeds of different weights, pictures or programs, and test labels go where tables say."""

import copy
import math

import pytest

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.record_draft import SELECTED_ON_TEST
from carryover.bench.plan import runs
from carryover.bench.plan.settings import Settings
from carryover.bench.records import selection
from carryover.bench.report import outputs
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS

SETTINGS = Settings(4, "published", "fp32", 2, None, methods=Registered())


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
    assert selection.of_one_identity(records, Registered()) == records


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
    kept = selection.of_one_identity([*old, new], Registered())
    assert new in kept
    assert [r for r in kept if r["run"]["method"] == "coop"] == [new]
    assert len([r for r in kept if r["run"]["method"] == "zs-clip"]) == others


def test_options_of_a_method_that_is_not_registered_do_not_mix_either():
    old, new = record("nobodys", seed=1, lr=0.1), record("nobodys", seed=2, lr=0.2, started="2026-01-02")
    assert selection.of_one_identity([old, new], Registered()) == [new]
    assert selection.of_one_identity([copy.deepcopy(new), old], Registered()) == [new]


def test_only_tip_adapters_published_option_is_given_test_labels_and_its_mark_is_the_sessions():
    for name in ordered():
        kind = METHODS[name]
        assert not kind.selects_on_test(kind.Config()), name
    tip = METHODS["tip-adapter-f"]
    assert tip.selects_on_test(tip.Config(selection="published"))
    assert "test images" in SELECTED_ON_TEST


# ---- the newest decides, also where it failed ------------------------------------------------------------------------


def shown(records, seeds=(1,)):
    """(Base of each seed, dashes as None; the failures listed) of coop in the main table made of these records."""
    chosen = selection.choose(records, ARCHS["micro"], SETTINGS)
    made = outputs.made_from(chosen)["main"].frame
    rows = made[(made["dataset"] == "dtd") & (made["method"] == "coop")]
    failed = [r["error"] for r in chosen.main if r["status"] != "done"]
    return [None if math.isnan(base) else base for base in rows["base"]], failed, chosen.notes


def whole(accuracy=50.0, started="2026-01-01", seed=1, name="coop", dataset="dtd", test="", **identity):
    """A record as a run leaves it; without an accuracy, a failed one."""
    config = runs.as_stored(SETTINGS.configure(name, dataset)) if name in METHODS else {"mine": 1}
    run = {"arch": "micro", "dataset": dataset, "method": name, "seed": seed, **SETTINGS.of_runs, "config": config}
    run |= {"test": test}
    found = {**record(name, seed, started)["identity"], **identity}
    target = {"accuracy": accuracy, "correct": 1, "count": 2}
    return {
        "key": runs.key_of(run, found),
        "run": run,
        "identity": found,
        "started": started,
        "status": "failed" if accuracy is None else "done",
        "error": "on purpose" if accuracy is None else None,
        "targets": {} if accuracy is None else {"base": target, "new": target},
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"backbones": {"base": "x", "new": "b"}},
        {"transforms": {"base": "other"}},
        {"numbers": 2},
        {"features": 3},
        {"classes": "other"},
        {"pictures": ["train1", "val1", "another test"]},
        {"pictures": ["other train", "val1", "test"]},
        {"selection": "another validation list"},
        {"templates": ["u"]},
        {"method": "edited"},
    ],
)
def test_a_failed_newest_run_is_a_dash_with_its_failure_and_never_an_older_number(changed):
    old, failed = whole(50.0), whole(None, "2026-01-02", **changed)
    assert old["key"] != failed["key"]
    assert shown([old])[0] == [50.0]
    for records in ([old, failed], [failed, old]):
        bases, failures, notes = shown(records)
        assert bases == [None] and failures == ["on purpose"] and notes[0].startswith("1 stored record")
    newest = whole(60.0, "2026-01-03", **changed)
    assert shown([old, {**newest, "status": "done"}])[:2] == ([60.0], [])


def test_an_older_failure_does_not_hide_a_newer_number():
    assert shown([whole(None, "2026-01-01", numbers=0), whole(60.0, "2026-01-02")])[:2] == ([60.0], [])


def test_rows_of_a_method_that_is_not_registered_are_named_in_one_line():
    (line,) = selection.choose([whole(name="zz-mine"), whole()], ARCHS["micro"], SETTINGS).notes
    assert "'zz-mine'" in line and "--plugin-dir" in line and "\n" not in line and "coop" not in line
    assert not selection.choose([whole()], ARCHS["micro"], SETTINGS).notes
