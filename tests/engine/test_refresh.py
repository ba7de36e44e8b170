"""Runs trained on another backbone than the base, or carried and refreshed there: keys, bits, order of work."""

import json
from dataclasses import replace

import pytest
import torch
from bits import assert_same
from tiny_fits import short
from tiny_towers import tiny_model, wrap
from toys import done, execute, open_toy, toy, toy_run

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Arch
from carryover.bench.cluster.engine import Cluster
from carryover.bench.engine.one_run import execute_together
from carryover.bench.engine.options import Options
from carryover.bench.engine.schedule import run_all
from carryover.bench.engine.session import Session
from carryover.bench.engine.units import units
from carryover.bench.errors import UserError
from carryover.bench.plan.run_labels import UNSAID, WHOLE_SCHEDULE
from carryover.bench.plan.runs import Run, key_of
from carryover.bench.preflight.budget import count, steps
from carryover.bench.records.reading import is_done
from carryover.bench.records.schema import fault
from carryover.methods import ordered
from carryover.methods.base import METHODS

STEPPED = [name for name in ordered() if METHODS[name].whole and METHODS[name].Config().epochs]
EVERY = ordered()
# A record's run, what of its identity matters here, and its key, as they were stored before there were paths.
STORED = {
    "run": {
        "arch": "micro", "dataset": "micro_stars", "method": "zs-clip", "seed": 2, "shots": 16, "protocol": "micro",
        "precision": "fp32", "views": 4, "limit": None, "test": "",
        "config": {
            "batch": 32, "crop": [1.0, 1.0], "drop_last": True, "epochs": 0, "eps": 1e-08, "lr": 0.002,
            "momentum": 0.9, "optimizer": "sgd", "schedule": "epoch", "single_template": False, "steps": 0,
            "warmup_epochs": 1, "warmup_lr": 1e-05, "weight_decay": 0.0005,
        },
    },
    "identity": {
        "backbones": {
            "base": "079b3fd2b4f673fa1605f86229b31ef50857cd3616ee2ff821f11a01a13a403d",
            "new": "f3ce8ef37c1c7a1d5549757e9702c2b0e6559c6894a9a4913c7b7fd72d1c8e0c",
        },
        "classes": "3ee48458e59f15a352aaa7e9f07b7eb9f03d553066b3ee9aca36bfe0abfe4655",
        "features": 2,
        "method": "c8c610eeca151098309a5621940e3d66eb930d224335895a9597b93967a7ce3f",
        "numbers": 2,
        "pictures": [
            "64bb39610314f3b081f4aade8d1b07e5831e85d717339dbd6fc1859af075ea32",
            "97e71aea4997bdcefbac7ebf08c857c811fbb19ebe470c82e73967383e033442",
            "ab789f4e9032fb32c713336cb72e9360d6da054eadbc799301be462d269d1213",
        ],
        "templates": ["a photo of a {}, a type of star."],
        "transforms": {
            role: {
                "fill_color": 0, "interpolation": "bicubic", "mean": [0.48145466, 0.4578275, 0.40821073],
                "mode": "RGB", "resize_mode": "shortest", "size": size,
                "std": [0.26862954, 0.26130258, 0.27577711],
            }
            for role, size in {"base": 64, "new": [64, 64]}.items()
        },
    },
    "key": "93ea88cf4c3895e0",
}  # fmt: skip


@pytest.fixture
def opened(monkeypatch, tiny, tmp_path):
    return lambda folder=tmp_path, data=toy, **options: open_toy(monkeypatch, tiny, folder, data, **options)


def plugin(session, run):
    return session.store.read_plugin(session.keys.of(run))


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- what a run is ---------------------------------------------------------------------------------------------------


def test_the_key_of_a_record_stored_before_paths_is_the_key_of_the_same_run_now():
    assert key_of(STORED["run"], STORED["identity"]) == STORED["key"]
    config = METHODS["zs-clip"].Config(**{**STORED["run"]["config"], "crop": (1.0, 1.0)})
    run = Run(**{**STORED["run"], "config": config})
    assert run.canonical() == STORED["run"] and run.key(STORED["identity"]) == STORED["key"]
    assert {"path", "refresh", "carried_shots", "port", "anchors", "count", "via"} == set(UNSAID)


def test_a_run_needs_the_run_before_it_on_its_path():
    run = toy_run("coop", path=("base", "new", "second"), refresh=5, shots=2, carried_shots=4)
    middle, first = run.sources
    assert middle == replace(run, path=("base", "new")) and middle.shots == 2
    assert first == toy_run("coop", shots=4), "the carried plug-in is that of the plain run with its own shots"
    assert first.source is None and replace(run, carried_shots=0).sources[-1].shots == 2
    shifted = replace(run, test="shifted")
    assert shifted.sources == [run, middle, first] and shifted.trained == run
    assert toy_run("coop", path=("new",)).source is None


def test_a_run_says_how_it_was_trained_unless_it_is_plain():
    assert str(toy_run("coop")) == "toy · coop · seed 1"
    assert str(toy_run("coop", path=("new",))).endswith("(trained on new)")
    refreshed = toy_run("coop", path=("base", "new"), refresh=5, shots=2, carried_shots=4)
    assert str(refreshed).endswith("(trained on base, then new, 5 steps, 2 shots after 4)")


@pytest.mark.parametrize("wrong", [{"path": "new"}, {"path": [1]}, {"refresh": "5"}, {"carried_shots": 1.5}])
def test_a_record_with_a_path_that_no_table_can_read_is_at_fault(wrong):
    good = {"key": "a", "run": {**STORED["run"], "path": ["base", "new"], "refresh": 5, "carried_shots": 16}}
    assert not fault(good)
    assert next(iter(wrong)) in fault({**good, "run": {**good["run"], **wrong}})
    assert "identity.carried" in fault({**good, "identity": {"carried": "../elsewhere"}})


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_run_retrained_on_the_update_is_the_plain_run_of_an_arch_whose_base_is_that_update(
    name, opened, tiny, tmp_path
):
    here, run = opened(tmp_path / "here"), toy_run(name, path=("new",))
    record = done(here, run)
    swapped = Arch("tiny", tiny.new.tower, tiny.base.tower)
    there = Session(replace(here.options, arch=swapped, out=str(tmp_path / "there"), cache=str(tmp_path / "there/c")))
    plain = toy_run(name)
    expected = done(there, plain)
    tensors, metadata = plugin(here, run)
    assert equal(tensors, plugin(there, plain)[0])
    found = [each["trained_on"] for each in (metadata, plugin(there, plain)[1])]
    assert [[one["fingerprint"] for one in trained] for trained in found] == [[tiny.new.fingerprint]] * 2
    assert record["curve"] == expected["curve"]
    mine, theirs = (s.store.read_predictions(s.keys.of(r)) for s, r in ((here, run), (there, plain)))
    assert (mine["new"][0] == theirs["base"][0]).all(), "there it is that arch's base"
    assert record["targets"]["new"]["accuracy"] == expected["targets"]["base"]["accuracy"]


@pytest.mark.parametrize("name", STEPPED)
def test_a_refresh_at_learning_rate_0_leaves_the_carried_plug_in_as_it_is(name, opened):
    """The carried plug-in was trained at a real rate; what a method chooses after training (Tip-Adapter's alpha and
    beta) may be chosen anew."""
    nothing = 1e-30 if name == "clip-adapter" else 0.0  # whose rate is chosen where it is 0
    still = short(name, epochs=2, lr=nothing, warmup_lr=0.0)
    run = toy_run(name, config=still, path=("base", "new"), refresh=6)
    session, trained = opened(), toy_run(name, config=short(name, epochs=2, lr=0.05))
    done(session, trained)
    done(session, run.source)
    tensors = plugin(session, trained)[0]
    assert not equal(tensors, plugin(session, run.source)[0]), "training does change it"
    session.store.write_plugin(session.keys.of(run.source), tensors, {})
    record = execute(session, run, session.keys.of(run))
    assert record["status"] == "done", record["error"]
    assert len(record["curve"]) > 0
    chosen = {"alpha", "beta"} if name == "tip-adapter-f" else set()
    after = plugin(session, run)[0]
    assert equal({k: v for k, v in tensors.items() if k not in chosen}, {k: after[k] for k in after if k not in chosen})
    if not chosen:
        assert record["targets"]["new"]["accuracy"] == evaluated(session, trained)["new"]["accuracy"]


def evaluated(session, run):
    return session.store.read_record(session.keys.of(run))["targets"]


def test_one_step_of_a_refresh_is_a_step_of_gradient_descent_from_the_carried_state(opened, tiny):
    """CoOp, one batch of the whole support set, by hand: context less the rate times its gradient on the update."""
    config = short("coop", epochs=1, batch=64, lr=0.3, momentum=0.0, weight_decay=0.0, crop=(1.0, 1.0))
    run = toy_run("coop", config=config, path=("base", "new"), refresh=1, views=1)
    session = opened()
    record = done(session, run)
    few, text = session.fewshot(run), tiny.new.text
    context = plugin(session, run.source)[0]["context"].requires_grad_()
    x = session.features("new").features(few.support, few.data.classnames, "")
    features = text.encode(context, text.class_tokens(few.data.classnames), per="shared")
    cosines = torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(features, dim=-1).T
    labels = torch.from_numpy(few.support.labels.copy())
    torch.nn.functional.cross_entropy(tiny.new.scale * cosines, labels).backward()
    with torch.no_grad():
        expected = context - 0.3 * context.grad
    assert context.grad.abs().max() > 1e-4
    assert torch.allclose(plugin(session, run)[0]["context"], expected, atol=1e-6)
    assert len(record["curve"]) == 1


def test_what_the_support_set_makes_is_not_made_anew_by_a_refresh(opened, monkeypatch):
    session, run = opened(), toy_run("tip-adapter-f", path=("base", "new"), refresh=2)
    done(session, run.source)

    def never(*given):
        raise AssertionError("start is called again")

    monkeypatch.setattr(METHODS["tip-adapter-f"], "start", never)
    assert execute(session, run, session.keys.of(run))["status"] == "done"


def test_a_refresh_squeezes_the_schedule_and_the_whole_one_does_not(opened):
    config = short("coop", epochs=9, batch=8, warmup_epochs=0)  # 16 support images: 2 steps an epoch
    plain = toy_run("coop", config=config)
    squeezed = replace(plain, path=("base", "new"), refresh=6)
    whole = replace(plain, path=("base", "new"), refresh=WHOLE_SCHEDULE)
    session = opened()
    rates = [row["lr"] for row in done(session, squeezed)["curve"]]
    assert steps(squeezed, 16) == 6 and len(rates) == 3
    assert rates == pytest.approx([config.lr * f for f in (1.0, 0.75, 0.25)])  # (1 + cos(pi k / 3)) / 2
    assert len(done(session, whole)["curve"]) == 9 and steps(whole, 16) == 18
    control = replace(plain, path=("new",), config=replace(config, steps=6))
    assert [row["lr"] for row in done(session, control)["curve"]] == rates


def test_few_shots_after_many_keep_the_shape_of_the_carried_plug_in(opened):
    run = toy_run("tip-adapter-f", path=("base", "new"), refresh=2, shots=1, carried_shots=4)
    session = opened()
    record = done(session, run)
    assert record["split"]["support"] == 4 and plugin(session, run)[0]["labels"].shape == (16,)
    assert equal(*({"labels": plugin(session, r)[0]["labels"]} for r in (run, run.source)))


# ---- order of work ---------------------------------------------------------------------------------------------------


@pytest.fixture
def chain(monkeypatch, tiny, tmp_path):
    """A session with a second update, on the tiny towers."""
    towers = {"base": tiny.base, "new": tiny.new, "third": wrap(tiny_model(9, True), "tiny-third", "quick_gelu")}
    monkeypatch.setattr(datasets, "load", lambda id, root="", **_: toy(id))
    monkeypatch.setattr(loading, "load", lambda tower, *_: towers[tower.model.split("-")[1]])
    arch = Arch("tiny", tiny.base.tower, tiny.new.tower, more={"second": towers["third"].tower})
    return lambda name, **more: Session(
        Options(arch, "cpu", str(tmp_path / name), str(tmp_path / name / "cache"), **more)
    )


def path_of(name, seed):
    last = toy_run(name, seed=seed, path=("base", "new", "second"), refresh=2)
    return [last, *last.sources]


@pytest.mark.parametrize("together", [1, 3])
def test_runs_are_done_after_those_they_need_in_whatever_order_they_are_planned(chain, together):
    planned = [run for seed in (1, 2) for run in path_of("coop", seed)] + path_of("clip-adapter", 1)
    one, other = chain("one", together=together), chain("other")
    assert run_all(one, planned, jobs=1).done == len(planned)
    assert run_all(other, sorted(planned, key=lambda r: len(r.path)), jobs=1).done == len(planned)
    for run in planned:
        assert equal(plugin(one, run)[0], plugin(other, run)[0])
        first, second = (s.store.read_predictions(s.keys.of(run)) for s in (one, other))
        assert first.keys() == second.keys() and all((first[role][0] == second[role][0]).all() for role in first)


def test_side_by_side_refreshed_runs_wait_for_the_plug_ins_of_all_of_them(chain):
    session = chain("here", together=4)
    planned = [run for seed in (1, 2, 3) for run in path_of("coop", seed)]
    keyed = [(run, session.keys.of(run)) for run in planned]
    found = {len(unit.runs[0][0].path): unit for unit in units(session, keyed)}
    assert len(found) == 3 and all(len(unit.runs) == 3 for unit in found.values())
    for length in (2, 3):
        assert found[length].after == {key for _, key in found[length - 1].runs}


def test_refreshed_runs_side_by_side_have_the_bits_of_runs_alone(chain):
    runs = [toy_run("contcoop", seed=seed, path=("base", "new"), refresh=3) for seed in (1, 2)]
    together, alone = chain("together", together=2, asked=True), chain("alone")
    for session in (together, alone):
        for run in runs:
            done(session, run.source)
    keyed = [(run, together.keys.of(run)) for run in runs]
    assert [record["together"] for record in execute_together(together, keyed)] == [2, 2]
    for run in runs:
        done(alone, run)
        assert_same(plugin(together, run)[0], plugin(alone, run)[0], len(together.data(run.dataset).classnames))


def test_a_run_whose_source_failed_fails_with_its_name(chain):
    session, run = chain("here"), toy_run("coop", path=("base", "new"), refresh=2)
    tally = run_all(session, [run], jobs=1)
    ((failed, why),) = tally.failures
    assert failed == run and "left no plug-in" in why and session.keys.of(run.source) in why and "toy · coop" in why


def test_a_refreshed_run_is_done_again_with_the_run_it_starts_from(chain):
    planned = path_of("clip-adapter", 1)
    session = chain("here")
    run_all(session, planned, jobs=1)
    session.store.path("runs", session.keys.of(planned[-1])).unlink()
    assert run_all(session, list(reversed(planned)), jobs=1).done == 3


def test_another_plug_in_than_the_run_started_from_is_noticed(chain, caplog):
    session, run = chain("here"), toy_run("clip-adapter", path=("base", "new"), refresh=2)
    record = done(session, run)
    assert set(record["files"]) == {"plugin", "predictions", "carried"}
    tensors, metadata = plugin(session, run.source)
    session.store.write_plugin(session.keys.of(run.source), {k: v + 1 for k, v in tensors.items()}, metadata)
    (line,) = session.store.changed_files(record)
    assert "started from" in line and session.store.read_record(session.keys.of(run)) is None


def test_a_worker_elsewhere_is_sent_the_plug_ins_that_its_runs_start_from(chain):
    session, run = chain("here"), toy_run("coop", path=("base", "new"), refresh=2)
    done(session, run.source)
    key = session.keys.of(run.source)
    (sent,) = Cluster.plugins(session, [(run, session.keys.of(run))])
    assert sent == {key: session.store.path("plugins", key).read_bytes()}
    assert Cluster.plugins(session, [(run.source, key)]) == ({},)


@pytest.mark.parametrize("path", [("base",), ("second",), ("base", "new"), ("base", "new", "second")])
def test_what_was_trained_elsewhere_is_asked_about_there_alone_and_is_done_with_that(chain, path):
    session, run = chain("here"), toy_run("coop", path=path, refresh=2 * (len(path) > 1))
    roles = {"base", "new", "second"} if path == ("base",) else {path[-1]}
    record = done(session, run)
    assert set(record["targets"]) == set(record["seconds"]["evaluate"]) == roles
    assert set(session.store.read_predictions(record["key"])) == roles
    assert {file.role for file in count(session, run).files if file.test} == roles
    assert is_done(record)
    del record["targets"][path[-1] if len(roles) == 1 else "new"]
    assert not is_done(record)


def test_records_say_the_path_and_the_key_of_what_was_carried(chain):
    session, run = chain("here"), toy_run("coop", path=("base", "new"), refresh=2)
    record = done(session, run)
    assert record["run"]["path"] == ["base", "new"] and record["run"]["refresh"] == 2
    assert record["identity"]["carried"] == session.keys.of(run.source) and record["trained"] == record["key"]
    stored = json.loads(session.store.path("runs", record["key"]).read_text())
    assert not fault(stored) and key_of(stored["run"], stored["identity"]) == stored["key"]


def test_a_plan_counts_the_pictures_of_the_backbone_that_is_trained_on(chain):
    session = chain("here")
    plain, again = count(session, toy_run("coop")), count(session, toy_run("coop", path=("second",)))
    own = {file.path for file in again.files} - {file.path for file in plain.files}
    assert {file.role for file in again.files if not file.test} == {"second"} and len(own) == 4  # support, val, 2 views
    done(session, toy_run("coop", path=("second",)))
    assert all(file.path.is_file() for file in again.files)


def test_a_backbone_that_the_arch_does_not_have_is_refused(chain):
    session = chain("here")
    with pytest.raises(UserError, match="third"):
        session.keys.of(toy_run("coop", path=("third",)))
