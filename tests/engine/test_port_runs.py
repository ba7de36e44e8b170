"""Ported runs: what they may see, their keys, their numbers, in one process and in several."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import standins
import torch
from tiny_fits import short
from tiny_towers import tiny_model, wrap
from toys import done, execute, open_toy, pictures, toy, toy_run

from carryover import datasets
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.engine.options import Options
from carryover.bench.engine.run_anchors import POOL
from carryover.bench.engine.session import Session
from carryover.bench.errors import TooLong
from carryover.bench.ports import PORTS
from carryover.bench.ports.maps import Procrustes
from carryover.bench.records.reading import is_done
from carryover.bench.records.schema import fault

PICTURES = ("support", "other", "foreign")


@pytest.fixture
def opened(monkeypatch, tiny, tmp_path):
    return lambda folder=tmp_path, data=toy, **options: open_toy(monkeypatch, tiny, folder, data, **options)


def ported(name="linear-probe", port="procrustes", anchors="other", **changes):
    return toy_run(name, port=port, anchors=anchors, **changes)


def keys_of(session, run):
    """(dataset, name of the picture) of its anchors."""
    return [(id, key) for id, split, rows in session.anchors.chosen(run) for key in split.take(rows).keys]


# ---- what a run is ---------------------------------------------------------------------------------------------------


def test_a_ported_run_needs_the_plain_run_on_the_base_and_is_asked_about_on_all_others():
    run = ported(count=16)
    assert run.source == run.trained == toy_run("linear-probe")
    assert run.evaluated_on(["base", "new", "second"]) == ["new", "second"]
    assert replace(run, via=("new",)).evaluated_on(["base", "new", "second"]) == ["second"]
    refreshed = replace(run, path=("base", "new"), refresh=5)
    assert refreshed.source == toy_run("linear-probe") and refreshed.evaluated_on(["base", "new", "second"]) == ["new"]
    assert str(run).endswith("(procrustes, 16 other anchors, trained on base)")
    assert not {"port", "anchors", "count", "via"} & set(toy_run("linear-probe").canonical())


def test_the_record_is_sound_and_holds_what_the_port_tells_of_itself(opened):
    session = opened()
    record = done(session, ported())
    assert not fault(record) and is_done(record) and list(record["targets"]) == ["new"]
    told = record["targets"]["new"]["port"]
    assert {"seconds", "anchors", "agreement", "entropy", "fit", "scale"} <= set(told)
    assert 0 <= told["agreement"] <= 1 and told["anchors"] == len(keys_of(session, ported()))
    assert record["port"]["needs"] == ["images", "old_model"] and record["port"]["refused"] == {}
    plain = done(session, toy_run("linear-probe"))
    assert record["trained"] == plain["key"] and record["files"]["plugin"] == plain["files"]["plugin"]


def test_its_predictions_are_those_of_the_old_plug_in_on_mapped_features(opened):
    session, run = opened(), ported()
    record = done(session, run)
    (_, split, rows), names = session.anchors.chosen(run)[0], session.data("toy").classnames
    old, new = (session.features(role).features(split, names)[rows] for role in ("base", "new"))
    fitted = Procrustes().fit(old, new)
    tensors, _ = session.store.read_plugin(record["trained"])
    x = torch.as_tensor(fitted.transform(session.inputs.test_features(run, "new")))
    expected = (x @ tensors["weight"].T + tensors["bias"]).argmax(-1)
    found, _ = session.store.read_predictions(record["key"])["new"]
    assert found.tolist() == expected.tolist()


def test_a_text_that_does_not_fit_a_target_refuses_that_target_and_the_run_is_done(opened, monkeypatch):
    def fit(*given):
        raise TooLong("text of 40 tokens or more does not fit 32 tokens")

    monkeypatch.setattr(PORTS["procrustes"], "fit", fit)
    record = done(opened(), ported())
    assert record["targets"] == {} and is_done(record) and not fault(record)
    assert record["port"]["refused"] == {"new": "tiny-new: text of 40 tokens or more does not fit 32 tokens"}


def test_a_target_without_the_block_of_an_option_is_refused_with_its_reason(monkeypatch, tiny, tmp_path):
    """The base has three blocks, so a context at block 2 is trained there; the target has two."""
    shallow = wrap(tiny_model(4, False, layers=2), "tiny-new", "gelu")
    session = open_toy(monkeypatch, SimpleNamespace(base=tiny.base, new=shallow), tmp_path)
    run = ported("coop", "distill", config=short("coop", epochs=1, layer=2))
    with pytest.raises(ValueError, match="layer 2 is not one"):
        shallow.text.check_layer(2)
    record = done(session, run)
    assert record["targets"] == {} and is_done(record) and not fault(record)
    assert record["port"]["refused"] == {"new": "it needs block 2 of a text tower; tiny-new has 2"}


@pytest.mark.parametrize("changed", [{"port": "linear"}, {"anchors": "support"}, {"count": 3}])
def test_all_that_can_change_its_numbers_is_in_its_key(opened, changed):
    session, run = opened(), ported()
    assert session.keys.of(run) != session.keys.of(replace(run, **changed))


def test_another_picture_among_the_anchors_is_another_run(opened, tmp_path):
    run = ported()
    before = opened().keys.of(run)
    after = opened(tmp_path / "b", data=lambda id: toy(id, train=pictures("train", stamp="new")))
    assert before != after.keys.of(run)


def test_a_refresh_of_what_was_ported_trains_and_starts_from_it(opened):
    session, run = opened(), ported("taskres", path=("base", "new"), refresh=3)
    record, before = done(session, run), done(session, ported("taskres"))
    assert len(record["curve"]) and "plugin" in record["files"]
    found = session.store.read_outcomes(record["key"])["new"]
    start = session.store.read_outcomes(before["key"])["new"]
    assert found.confidence.tolist() != start.confidence.tolist()
    slow = replace(run, config=replace(run.config, lr=1e-12))
    same = session.store.read_outcomes(done(session, slow)["key"])["new"]
    base = session.store.read_outcomes(done(session, ported("taskres", config=slow.config))["key"])["new"]
    torch.testing.assert_close(torch.tensor(same.confidence), torch.tensor(base.confidence), atol=1e-4, rtol=0)


def test_a_plug_in_that_is_not_there_is_said_in_one_line(opened):
    session, run = opened(), ported()
    record = execute(session, run, session.keys.of(run))
    assert record["status"] == "failed" and "left no plug-in" in record["error"]


# ---- what a port may see ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("count", [0, 5])
def test_anchors_are_never_test_pictures_and_others_never_those_of_the_draw(opened, kind, count):
    session = opened()
    few = session.fewshot(toy_run("linear-probe"))
    hidden = {"support": (), "foreign": (), "other": (*few.support.keys, *few.val.keys)}[kind]
    run = ported(anchors=kind, count=count)
    if kind == "foreign":
        session.options = replace(session.options, arch=replace(session.options.arch, datasets="micro"))
    found = keys_of(session, run)
    assert found and len(set(found)) == len(found)
    assert not {("toy", key) for key in (*few.data.test.keys, *hidden)} & set(found)
    assert not count or len(found) == count
    if kind == "support":
        assert {key for _, key in found} <= set(few.support.keys)


def test_fewer_anchors_are_among_the_more_and_each_seed_draws_its_own(opened):
    session = opened()
    few, more = (keys_of(session, ported(count=count)) for count in (3, 6))
    assert more[:3] == few
    assert keys_of(session, ported(count=3, seed=2)) != few


def test_fewer_foreign_anchors_than_datasets_are_read_all_the_same(opened):
    session = opened()
    session.options = replace(session.options, arch=replace(session.options.arch, datasets="micro"))
    anchors = session.anchors.of(ported(anchors="foreign", count=3), "base", "new")
    assert anchors.old.shape == (3, session.backbone("base").dim) and anchors.new.shape == anchors.old.shape


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The paper's eleven sets in their published layouts."""
    folder = tmp_path_factory.mktemp("data")
    for id in standins.SPLIT_FILE_SETS:
        standins.write_split_file_set(id, folder)
    standins.write_fgvc(folder)
    standins.write_imagenet(folder, standins.all_wnids(), train=3)
    return folder


@pytest.mark.parametrize("id", datasets.PAPER_ORDER)
def test_no_reader_gives_an_anchor_that_is_a_test_picture(id, root, tmp_path):
    session = Session(Options(ARCHS["vit-b16"], "cpu", str(tmp_path), str(tmp_path / "cache"), data_root=str(root)))
    hidden = {(one, key) for one in datasets.PAPER_ORDER for key in session.data(one).test.keys}
    few = session.fewshot(toy_run("linear-probe", dataset=id, shots=1))
    for kind in PICTURES:
        run = ported(dataset=id, anchors=kind, shots=1)
        found = keys_of(session, run)
        assert found and not set(found) & hidden
        assert (kind == "foreign") == all(one != id for one, _ in found)
        if kind == "other":
            assert not {key for _, key in found} & {*few.support.keys, *few.val.keys}
            assert len(found) <= POOL


def test_a_key_holds_what_a_port_is_made_of_and_what_it_is_handed():
    from carryover.bench.host.source_identity import ON_DISK, roots_of
    from carryover.bench.ports.anchors import Anchors
    from carryover.bench.ports.base import PORTS, Port, Ported

    reached = {name for _, name in ON_DISK.reach(roots_of((PORTS["delta"], Port, Ported, Anchors)))[0]}
    assert {"Delta", "Mapped", "kept", "ClassRows", "Procrustes", "Fitted", "Anchors", "zero_shot"} <= reached


def test_the_oldest_anchors_are_let_go_when_all_are_too_many(opened, monkeypatch):
    from carryover.bench.engine import run_anchors

    session = opened()
    kinds = [ported(anchors="support"), ported(anchors="other"), ported(anchors="other", count=3)]
    first = [session.anchors.of(run, "base", "new").once("made", object) for run in kinds]
    again = [session.anchors.of(run, "base", "new").once("made", object) for run in kinds]
    assert first == again
    monkeypatch.setattr(run_anchors, "KEEP", 1)
    assert [session.anchors.of(run, "base", "new").once("made", object) for run in kinds] != first
    assert len(session.anchors._made) == 1


def test_a_dataset_whose_pictures_are_all_few_shot_ones_leaves_no_others_and_that_is_no_failure(opened):
    session = opened()
    record = done(session, ported(shots=6))  # all that the toy has
    assert is_done(record) and record["targets"] == {}
    assert "leaves no pictures" in record["port"]["refused"]["new"]
    assert done(session, ported(shots=6, anchors="support"))["targets"]["new"]["port"]["anchors"] > 0


def test_a_port_is_handed_no_label_and_shares_neither_features_nor_what_it_makes_with_another(opened):
    session = opened()
    run = ported(anchors="support")
    seen, again = (session.anchors.of(run, "base", "new") for _ in range(2))
    assert seen._labels is None and seen._nouns == ()
    before = again.old
    seen.old.zero_()
    assert again.old.equal(before) and before.any()

    def mine():
        return "mine"

    assert again.once("procrustes", lambda: "theirs") == "theirs"
    assert seen.once("procrustes", mine) == "mine" and again.once("procrustes", mine) == "mine"
