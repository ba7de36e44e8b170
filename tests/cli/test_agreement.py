"""Heads that score, stored features, and evaluation without labels: three commands, and what they are worth."""

import json
import shutil

import numpy as np
import pytest
import torch
from command_line import call, mistake
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import cohen_kappa_score
from worlds import made

from carryover.bench.engine.run_store import RunStore
from carryover.bench.host.identity import sha256_of, unsealed
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plugins import agreement
from carryover.bench.plugins.format import read
from carryover.bench.ports.maps import Linear, Procrustes

METHODS = ("zs-clip", "linear-probe", "coop", "clip-lora", "tpt")
DIM = 32  # of the tiny towers
ROWS = 240


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny towers a and b, trained plug-ins, and the test pictures of animals in a folder without labels."""
    world = made(tmp_path_factory.mktemp("world"), methods=METHODS)
    from carryover import datasets

    folders = datasets.folder.paths_of([world.data()])
    test = datasets.load(datasets.identify(world.data()), "", make_split=False, folders=folders).test
    (world.home / "seen").mkdir()
    for number, key in enumerate(test.keys):
        source = world.home / "animals" / key.partition("#")[0]
        shutil.copy(source, world.home / "seen" / f"{number:03}{source.suffix}")
    return world


def features(seed=0, noise=0.0):
    """(old, new) of one draw of pictures: the new ones are the old ones turned, and noise."""
    draw = np.random.default_rng(seed)
    old = draw.normal(size=(ROWS, DIM)) * np.linspace(3, 0.5, DIM) + 1
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(DIM, DIM)))[0]
    return old.astype("f4"), (2 * (old @ turn) + 0.5 + noise * draw.normal(size=old.shape)).astype("f4")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scored(rows, seed=4):
    """What a regressor is fitted to."""
    return unit(rows) @ np.random.default_rng(seed).normal(size=DIM) + 5


def head_file(capsys, world, tmp_path, inputs="unit", name="head"):
    """Ridge regression on old features, saved as arrays and imported; and the model."""
    old, _ = features()
    rows = unit(old) if inputs == "unit" else old
    model = Ridge(alpha=0.01).fit(rows, scored(old))
    np.savez(tmp_path / f"{name}.npz", coef_=model.coef_, intercept_=model.intercept_)
    to = tmp_path / f"{name}.safetensors"
    argv = ["import", tmp_path / f"{name}.npz", "--backbone", world.backbone("a"), "--to", to]
    status, out, err = call(capsys, *argv, "--fact", f"inputs={inputs}", "outputs=scores")
    assert status == 0 and "scores score" in out, err
    return to, model


def pair_file(path, old, new, **more):
    np.savez(path, old=old, new=new, **more)
    return ["--old", f"{path}:old", "--new", f"{path}:new"]


def ported(capsys, plugin, arrays, to, *more):
    status, out, err = call(capsys, "port", "--plugin", plugin, *arrays, "--to", to, *more)
    assert status == 0, err
    return out + err


def evaluated(capsys, world, tmp_path, plugin, *argv):
    out = ["--out", tmp_path / "out", "--cache", world.out / "cache", "--device", "cpu"]
    status, found, err = call(capsys, "evaluate", "--json", "--plugin", plugin, *argv, *out)
    assert status == 0, err
    return json.loads(found)


def refused(capsys, world, tmp_path, *argv):
    return mistake(capsys, *argv, "--out", tmp_path / "out", "--cache", world.out / "cache", "--device", "cpu")


# ---- stored features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id, kind", [("linear", Linear), ("procrustes", Procrustes), (None, Linear)])
def test_a_head_ported_over_stored_features_gives_scikit_learns_scores_behind_the_map(
    capsys, world, tmp_path, id, kind
):
    head, model = head_file(capsys, world, tmp_path)
    to, arrays = tmp_path / "ported.safetensors", pair_file(tmp_path / "fit.npz", *features(1, 0.7))
    said = ported(capsys, head, arrays, to, *(["--port", id] if id else []))
    fitted = kind().fit(*features(1, 0.7))
    old, new = features(2, 0.7)
    rest = pair_file(tmp_path / "rest.npz", old, new)
    found = evaluated(capsys, world, tmp_path, to, *rest)
    before, after = model.predict(unit(old)), model.predict(unit(fitted.transform(new)))
    score = found["agreement"]["scores"]["score"]
    assert score["pearson"]["value"] == pytest.approx(stats.pearsonr(before, after)[0], abs=1e-5)
    assert score["spearman"]["value"] == pytest.approx(stats.spearmanr(before, after)[0], abs=1e-3)
    assert score["mae"]["value"] == pytest.approx(np.abs(before - after).mean(), abs=1e-4)
    assert score["rmse"]["value"] == pytest.approx(np.sqrt(((before - after) ** 2).mean()), abs=1e-4)
    assert (score["old_std"], score["new_std"]) == pytest.approx((before.std(), after.std()), abs=1e-4)
    left_out = stats.pearsonr(scores_of(model, features(1, 0.7)[0]), scores_of(model, fitted.held_out_))[0]
    assert f"correlation of score with the old plug-in's {left_out:.3f} on such rows" in said
    plain = evaluated(capsys, world, tmp_path, head, *rest)["agreement"]["scores"]["score"]["pearson"]["value"]
    assert plain == pytest.approx(stats.pearsonr(before, model.predict(unit(new)))[0], abs=1e-5)
    assert plain < 0.5 < score["pearson"]["value"]


def scores_of(model, rows):
    return model.predict(unit(rows))


def test_some_rows_of_an_array_are_taken_as_python_takes_them(capsys, world, tmp_path):
    head, _ = head_file(capsys, world, tmp_path)
    old, new = features(1, 0.7)
    pair_file(tmp_path / "all.npz", old, new)
    parts = {}
    for name, rows in (("even", slice(0, None, 2)), ("odd", slice(1, None, 2)), ("some", slice(3, -40))):
        pair_file(tmp_path / f"{name}.npz", old[rows], new[rows])
        parts[name] = f"[{rows.start}:{'' if rows.stop is None else rows.stop}:{rows.step or 1}]"
    for name, words in parts.items():
        sides = [f"{tmp_path / 'all.npz'}:{side}{words}" for side in ("old", "new")]
        sliced = ["--old", sides[0], "--new", sides[1]]
        whole = ["--old", f"{tmp_path / name}.npz:old", "--new", f"{tmp_path / name}.npz:new"]
        ported(capsys, head, sliced, tmp_path / "a.safetensors")
        ported(capsys, head, whole, tmp_path / "b.safetensors")
        one, other = (read(tmp_path / f"{letter}.safetensors") for letter in "ab")
        assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)
        found = [evaluated(capsys, world, tmp_path, tmp_path / "a.safetensors", *given) for given in (sliced, whole)]
        assert found[0]["agreement"] == found[1]["agreement"]
    told = refused(
        capsys, world, tmp_path, "evaluate", "--plugin", head, "--old", f"{tmp_path / 'all.npz'}:old[2]",
        "--new", f"{tmp_path / 'all.npz'}:new",
    )  # fmt: skip
    assert "unknown array" in told and "'old[2]'" in told


def test_a_turn_is_undone_and_rows_in_another_order_are_matched_by_their_ids(capsys, world, tmp_path):
    head, _ = head_file(capsys, world, tmp_path)
    old, new = features(1)
    order = np.random.default_rng(0).permutation(ROWS)
    np.savez(tmp_path / "old.npz", features=old, ids=np.arange(ROWS))
    np.savez(tmp_path / "new.npz", features=new[order][:200], ids=order[:200])
    sides = ["--old", tmp_path / "old.npz", "--new", tmp_path / "new.npz"]
    said = ported(capsys, head, sides, tmp_path / "by-id.safetensors", "--port", "procrustes")
    assert "fitted on 200 rows" in said
    found = evaluated(capsys, world, tmp_path, tmp_path / "by-id.safetensors", *sides)
    assert found["agreement"]["count"] == 200 and found["pictures"]["files"]["matched"] == "by id"
    assert found["agreement"]["scores"]["score"]["pearson"]["value"] > 1 - 1e-6
    assert found["agreement"]["scores"]["score"]["rmse"]["value"] < 1e-3


def test_new_features_of_length_1_make_a_plugin_that_answers_for_features_of_any_length(capsys, world, tmp_path):
    head, _ = head_file(capsys, world, tmp_path)
    old, new = features(1, 0.5)
    to = tmp_path / "ported.safetensors"
    ported(capsys, head, pair_file(tmp_path / "fit.npz", unit(old), unit(new).astype("f2")), to)
    old, new = features(2, 0.5)
    found = [
        evaluated(capsys, world, tmp_path, to, *pair_file(tmp_path / f"{i}.npz", old, rows))["agreement"]
        for i, rows in enumerate((unit(new), new))
    ]
    first, second = (one["scores"]["score"]["pearson"]["value"] for one in found)
    assert first == pytest.approx(second, abs=1e-6) and first > 0.8
    raw = tmp_path / "raw.safetensors"
    ported(capsys, head, pair_file(tmp_path / "fit.npz", *features(1, 0.5)), raw)
    argv = ["evaluate", "--plugin", raw, *pair_file(tmp_path / "rest.npz", old, unit(new))]
    assert "holds features of length 1, and the plug-in reads them" in refused(capsys, world, tmp_path, *argv)


def test_the_ported_file_answers_on_the_backbone_that_was_named_and_says_that_it_cannot_be_sure(
    capsys, world, tmp_path
):
    head, _ = head_file(capsys, world, tmp_path)
    to = tmp_path / "ported.safetensors"
    arrays = pair_file(tmp_path / "fit.npz", *features(1))
    ported(capsys, head, arrays, to, "--backbone", world.backbone("b"))
    told = read(to).ported
    assert told["new"] == {
        "backbone": "local-dir:b",
        "fingerprint": None,
        "width": DIM,
        "dim": DIM,
        "activation": "gelu",
    }
    assert told["agreement"] is None and told["correlation"]["score"] > 0.99 and told["of"] == sha256_of(head)
    found = evaluated(
        capsys, world, tmp_path, to, "--backbone", world.backbone("b"), "--images", world.home / "seen",
        "--old", world.backbone("a"),
    )  # fmt: skip
    assert found["agreement"]["count"] == 16 and any("cannot be checked" in line for line in found["warnings"])
    same = evaluated(capsys, world, tmp_path, to, *arrays)
    assert any("rows that it was fitted on" in line for line in same["warnings"])


def test_a_classifier_goes_the_same_way(capsys, world, tmp_path):
    old, new = features(1, 0.3)
    model = LogisticRegression(max_iter=1000).fit(old, np.digitize(old[:, 0], [0, 2]))
    np.savez(tmp_path / "c.npz", **{name: getattr(model, name) for name in ("coef_", "intercept_", "classes_")})
    (tmp_path / "names.txt").write_text("low\nmiddle\nhigh\n")
    plugin, to = tmp_path / "c.safetensors", tmp_path / "p.safetensors"
    argv = ["import", tmp_path / "c.npz", "--backbone", world.backbone("a"), "--classes", tmp_path / "names.txt"]
    assert call(capsys, *argv, "--fact", "inputs=raw", "--to", plugin)[0] == 0
    said = ported(capsys, plugin, pair_file(tmp_path / "fit.npz", old, new), to)
    fitted = Procrustes().fit(old, new)
    share = (model.predict(old) == model.predict(fitted.held_out_)).mean()
    assert f"name the same class on {100 * share:.1f} % of such rows" in said
    old, new = features(2, 0.3)
    found = evaluated(capsys, world, tmp_path, to, *pair_file(tmp_path / "rest.npz", old, new))["agreement"]
    before, after = model.predict(old), model.predict(fitted.transform(new))
    assert found["same"]["value"] == pytest.approx((before == after).mean())
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(before, after))
    apart = np.abs(model.predict_proba(old) - model.predict_proba(fitted.transform(new))).sum(1).mean() / 2
    assert found["distance"]["value"] == pytest.approx(apart, abs=1e-4)
    argv = ["port", "--plugin", plugin, *pair_file(tmp_path / "unit.npz", unit(old), unit(new)), "--to", to]
    assert "holds features of length 1" in refused(capsys, world, tmp_path, *argv)


def test_mistakes_with_stored_features_are_named(capsys, world, tmp_path):
    head, _ = head_file(capsys, world, tmp_path)
    old, new = features(1)
    arrays, to = pair_file(tmp_path / "fit.npz", old, new), tmp_path / "to.safetensors"
    start = ["port", "--plugin", head, "--to", to]
    for argv, told in (
        ([*start, "--old", tmp_path / "fit.npz", *arrays[2:]], "(one of several: FILE:NAME)"),
        ([*start, "--old", f"{tmp_path / 'fit.npz'}:odl", *arrays[2:]], "Did you mean 'old'?"),
        ([*start, *arrays[:2]], "--new is missing"),
        ([*start, *arrays, "--images", world.home], "--images beside features in files"),
        ([*start, *arrays, "--port", "delta"], "this plug-in scores; expected procrustes or linear"),
        ([*start, *pair_file(tmp_path / "narrow.npz", old[:, :8], new)], "holds features of width 8, the plug-in's"),
        (["port", "--plugin", world.plugin("coop"), "--to", to, *arrays], "needs its old backbone's text tower"),
        (["evaluate", "--plugin", head, *arrays[:2]], "--new is missing"),
        (["evaluate", "--plugin", head, *arrays, "--dataset", world.data()], "--dataset beside features"),
        (["evaluate", "--plugin", head, *pair_file(tmp_path / "n.npz", old[:5], new)], "the same pictures in the same"),
        (["evaluate", "--plugin", world.plugin("coop"), *arrays], "needs a text tower"),
    ):
        assert told in refused(capsys, world, tmp_path, *argv), argv
    assert not to.exists()


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear-probe", "coop", "clip-lora", "zs-clip"])
def test_agreement_on_pictures_without_labels_is_that_of_the_predictions_with_labels(capsys, world, tmp_path, method):
    plugin, sides = world.plugin(method), {}
    for name in ("a", "b"):
        argv = ["--backbone", world.backbone(name), "--dataset", world.data()]
        key = evaluated(capsys, world, tmp_path, plugin, *argv)["key"]
        tensors, _ = read_tensors(RunStore(tmp_path / "out", "evaluations").path("predictions", key))
        sides[name] = tensors["plugin.predicted"].numpy()
    argv = ["--backbone", world.backbone("b"), "--old", world.backbone("a"), "--images", world.home / "seen"]
    found = evaluated(capsys, world, tmp_path, plugin, *argv)
    stored = json.loads((tmp_path / "out" / "evaluations" / f"{found['key']}.json").read_text())
    assert unsealed(stored) is not None and stored["agreement"] == found["agreement"]
    assert found["agreement"]["same"]["value"] == pytest.approx((sides["a"] == sides["b"]).mean())
    same = found["agreement"]
    assert same["count"] == 16 and same["same"]["low"] <= same["same"]["value"] <= same["same"]["high"]
    tensors, _ = read_tensors(RunStore(tmp_path / "out", "evaluations").path("predictions", found["key"]))
    assert tensors["plugin.predicted"].tolist() == sides["b"].tolist()
    status, shown, err = call(
        capsys, "evaluate", "--plugin", plugin, *argv, "--out", tmp_path / "out", "--device", "cpu",
        "--cache", world.out / "cache",
    )  # fmt: skip
    assert status == 0 and "same class" in shown and "No label was read" in shown


def test_a_ported_plugin_is_compared_with_the_one_it_keeps(capsys, world, tmp_path):
    to, seen = tmp_path / "ported.safetensors", world.home / "seen"
    argv = ["port", "--plugin", world.plugin("coop"), "--backbone", world.backbone("b"), "--old", world.backbone("a")]
    argv += ["--images", seen, "--dataset", world.data(), "--to", to, "--cache", world.out / "cache", "--device", "cpu"]
    assert call(capsys, *argv)[0] == 0
    both = ["--backbone", world.backbone("b"), "--images", seen]
    found = evaluated(capsys, world, tmp_path, to, *both, "--old", world.backbone("a"))
    assert any("pictures that it was fitted on" in line for line in found["warnings"])
    own = evaluated(capsys, world, tmp_path, world.plugin("coop"), *both, "--old", world.backbone("a"))
    old = [
        read_tensors(RunStore(tmp_path / "out", "evaluations").path("predictions", one["key"]))[0]["old.predicted"]
        for one in (found, own)
    ]
    assert torch.equal(*old), "the old answers are those of the plug-in as it was"
    assert "belongs to local-dir:a there" in refused(
        capsys, world, tmp_path, "evaluate", "--plugin", to, *both, "--old", world.backbone("b")
    )


def test_a_head_that_scores_is_compared_with_its_old_scores_on_a_dataset_too(capsys, world, tmp_path):
    head, _ = head_file(capsys, world, tmp_path)
    both = ["--backbone", world.backbone("b"), "--old", world.backbone("a")]
    on_set = evaluated(capsys, world, tmp_path, head, *both, "--dataset", world.data())
    seen = evaluated(capsys, world, tmp_path, head, *both, "--images", world.home / "seen")
    assert on_set["pictures"]["dataset"].startswith("folder:") and on_set["agreement"]["count"] == 16
    first, second = (one["agreement"]["scores"]["score"]["pearson"]["value"] for one in (on_set, seen))
    assert first == pytest.approx(second, abs=1e-6) and "accuracy" not in on_set
    ported_to = tmp_path / "p.safetensors"
    argv = ["port", "--plugin", head, *both, "--images", world.home / "pictures-of-b", "--to", ported_to]
    shutil.copytree(world.home / "vehicles", world.home / "pictures-of-b", dirs_exist_ok=True)
    status, out, err = call(capsys, *argv, "--cache", world.out / "cache", "--device", "cpu")
    assert status == 0 and "by Ridge" in out and "correlation of score" in out, err
    assert read(ported_to).ported["correlation"].keys() == {"score"}


def test_what_cannot_be_asked_is_named(capsys, world, tmp_path):
    seen, b = ["--images", world.home / "seen"], ["--backbone", world.backbone("b")]
    probe = ["evaluate", "--plugin", world.plugin("linear-probe")]
    for argv, told in (
        ([*probe, *b], "or without labels"),
        ([*probe, *seen], "--backbone is missing"),
        ([*probe, *b, *seen, "--dataset", world.data()], "expected one of them"),
        ([*probe, *b, *seen], "name it by --old"),
        ([*probe, *b, *seen, "--dry-run"], "--dry-run is for a --dataset"),
        ([*probe, *b, *seen, "--limit", 2], "--limit is for a --dataset"),
        ([*probe, *b, "--old", world.backbone("a"), "--dataset", world.data()], "--old is for agreement"),
        ([*probe, *b, *seen, "--old", world.backbone("b")], "name that backbone by --old"),
        (["evaluate", "--plugin", world.plugin("tpt"), *b, *seen, "--old", world.backbone("a")], "many views"),
    ):
        assert told in refused(capsys, world, tmp_path, *argv), argv


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_figures_of_redraws_are_those_of_rows_that_stand_so_often():
    draw = np.random.default_rng(0)
    old, new = draw.normal(size=80).round(1), draw.normal(size=80)
    weights = next(agreement.redraws(80))
    times = weights.astype(int)
    one, other = np.repeat(old, times), np.repeat(new, times)
    places = [np.unique(side, return_inverse=True)[1] for side in (old, new)]
    ranked = [agreement.ranks(place, weights) for place in places]
    assert agreement.weighted(old, new, weights) == pytest.approx(stats.pearsonr(one, other)[0])
    assert agreement.weighted(*ranked, weights) == pytest.approx(stats.spearmanr(one, other)[0])


def test_the_interval_of_a_share_covers_the_true_share_as_often_as_it_says():
    draw, covered = np.random.default_rng(0), 0
    for _ in range(60):
        same = draw.random(150) < 0.7
        old = torch.zeros(150, 2)
        new = torch.where(torch.as_tensor(same)[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        old[:, 0] = 1.0
        found = agreement.of_classes(old, new)["same"]
        covered += found["low"] <= 0.7 <= found["high"]
    assert covered >= 52


def test_scores_that_do_not_vary_have_no_correlation():
    found = agreement.of_score(np.full(20, 3.0), np.arange(20.0))
    assert found["pearson"] == {"value": None, "low": None, "high": None} == found["spearman"]
    assert found["mae"]["value"] == pytest.approx(np.abs(np.arange(20.0) - 3).mean())
