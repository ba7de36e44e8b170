"""A record names each feature file that its run read, with the sha256 of what it held."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import load_file
from toys import done, open_toy, toy_run

from carryover.bench.engine.schedule import run_all
from carryover.bench.records import schema


def content(path):
    """As results/README.md says, from the file alone."""
    features = load_file(path)["features"]
    told = f"torch.{features.dtype} {features.shape}".encode()
    return hashlib.sha256(told + np.ascontiguousarray(features).tobytes()).hexdigest()


def named(record):
    return {name: found for files in record["features"].values() for name, found in files.items()}


@pytest.fixture
def toy_session(monkeypatch, tiny, tmp_path):
    return open_toy(monkeypatch, tiny, tmp_path)


def test_a_record_holds_the_content_of_every_feature_file_that_its_run_read(toy_session):
    record = done(toy_session, toy_run("coop"))
    stored = {path.stem: content(path) for path in toy_session.features("base").cache.glob("*.safetensors")}
    assert set(record["features"]) == {"base", "new"} and named(record) == stored
    # on the base: test, support, its two views, validation; on the update: test
    assert [len(files) for files in record["features"].values()] == [5, 1]
    assert not schema.fault(record)


def test_runs_that_follow_name_the_files_too_whether_they_read_them_from_memory_or_disk(toy_session):
    first = done(toy_session, toy_run("coop"))
    again = done(toy_session, toy_run("kgcoop"))
    assert again["encoded"] == {} and again["features"] == first["features"]
    toy_session.forget()
    assert done(toy_session, toy_run("linear-probe"))["features"].keys() == first["features"].keys()


def test_a_shifted_set_a_seed_and_a_ported_run_name_their_own_files_alone(toy_session):
    first = done(toy_session, toy_run("linear-probe"))
    shifted = done(toy_session, toy_run("linear-probe", test="shifted"))
    assert [len(files) for files in shifted["features"].values()] == [1, 1]
    other = done(toy_session, toy_run("linear-probe", seed=2))
    assert set(named(first)) & set(named(other)) and set(named(first)) != set(named(other))
    ported = done(toy_session, toy_run("linear-probe", port="procrustes", anchors="support"))
    support = {name for name in ported["features"]["base"]}
    assert support and support <= set(first["features"]["base"])
    assert set(first["features"]["new"]) < set(ported["features"]["new"]), "test pictures, and the anchors there"


def test_every_record_names_the_plan_and_the_few_shot_lists_that_it_is_of(toy_session):
    runs = [toy_run("coop"), toy_run("coop", test="shifted")]
    assert run_all(toy_session, runs, 1).done == 2
    store = toy_session.store
    trained, shifted = (store.read_record(toy_session.keys.of(run)) for run in runs)
    lists = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in store.folder.glob("splits/*")}
    assert trained["drawn"] == lists and len(lists) == 2 and "drawn" not in shifted
    assert trained["plan"] == shifted["plan"] and (store.folder / "plans" / f"{trained['plan']}.json").is_file()
