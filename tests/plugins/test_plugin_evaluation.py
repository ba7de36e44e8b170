"""A plug-in that a run trained, exported, evaluated elsewhere with nothing but the file, beside zero-shot."""

import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch
from checkout import ROOT
from worlds import METHODS, header_in, made, quietly, rewritten

from carryover.bench.backbones.loading import save
from carryover.bench.cli import main
from carryover.bench.engine.run_store import RunStore
from carryover.bench.host.identity import sha256_of, unsealed
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plugins.evaluation import difference
from carryover.bench.plugins.format import read
from carryover.bench.plugins.porting import classes_of
from carryover.methods.base import METHODS as KINDS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made(tmp_path_factory.mktemp("world"))


def evaluated(capsys, *argv):
    """The stored result of one call, as --json prints it."""
    capsys.readouterr()
    assert main.main(["evaluate", "--json", "--device", "cpu", *map(str, argv)]) == 0
    return json.loads(capsys.readouterr().out)


def same_as_recorded(world, out, found, method, role):
    """Plug-in and zero-shot predict the classes that the records hold. Confidences are compared to rounding, for where
    the run's features lay in memory changes their last bits."""
    ours, _ = read_tensors(RunStore(out, "evaluations").path("predictions", found["key"]))
    for name, of in (("plugin", method), ("zero_shot", "zs-clip")):
        theirs, _ = read_tensors(RunStore(world.out, "pair").path("predictions", world.record(of)["key"]))
        for part in ("predicted", "label"):
            assert torch.equal(ours[f"{name}.{part}"], theirs[f"{role}.{part}"]), (method, role, name, part)
        torch.testing.assert_close(ours[f"{name}.confidence"], theirs[f"{role}.confidence"], rtol=0, atol=1e-6)
    target = world.record(method)["targets"][role]
    for part in ("correct", "count", "accuracy"):
        assert found[part] == target[part]
    assert found["backbone"]["fingerprint"] == target["fingerprint"]


@pytest.mark.long
@pytest.mark.parametrize("method, role", [("coop", "new"), ("linear-probe", "base")])
def test_from_another_folder_with_nothing_but_the_file_it_gives_its_records_accuracy_and_predictions(
    world, tmp_path, method, role
):
    (tmp_path / "empty").mkdir()
    file, name = tmp_path / "given.safetensors", {"base": "a", "new": "b"}[role]
    file.write_bytes(world.plugin(method).read_bytes())
    command = ["evaluate", "--plugin", file, "--backbone", world.backbone(name), "--dataset", world.data()]
    command += ["--out", tmp_path / "far", "--cache", tmp_path / "cold", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, ROOT / "run_all.py", *command],
        cwd=tmp_path / "empty",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    same_as_recorded(world, tmp_path / "far", json.loads(done.stdout), method, role)
    assert ("trained on: this is its Base" in done.stderr) == (role == "base")
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_its_records_numbers_on_either_backbone_with_and_without_the_cache(
    world, tmp_path, capsys, method
):
    for role, name in (("base", "a"), ("new", "b")):
        argv = ["--plugin", world.plugin(method), "--backbone", world.backbone(name), "--dataset", world.data()]
        if role == "base" and not KINDS[method].whole:  # the towers that it trained are not in the file
            line = refused(capsys, "evaluate", *argv, "--out", tmp_path)
            assert "what they became is not in the file" in line
            continue
        bits = set()
        for cache in (tmp_path / "cold", world.out / "cache"):
            found = evaluated(capsys, *argv, "--out", tmp_path, "--cache", cache)
            same_as_recorded(world, tmp_path, found, method, role)
            bits.add(found["files"]["predictions"])
        assert len(bits) == 1, "to the last bit of the confidences"


def test_what_is_stored_follows_from_the_stored_predictions(world, tmp_path, capsys):
    argv = ["--plugin", world.plugin("contcoop"), "--backbone", f"{world.arch}:new", "--dataset", world.data()]
    found = evaluated(capsys, *argv, "--out", tmp_path)
    store = RunStore(tmp_path, "evaluations")
    stored = json.loads((store.folder / f"{found['key']}.json").read_text())
    assert unsealed(stored) == found
    assert found["files"]["predictions"] == sha256_of(store.path("predictions", found["key"]))
    predictions = store.read_predictions(found["key"])
    right = {name: predicted == label for name, (predicted, label) in predictions.items()}
    assert found["accuracy"] == pytest.approx(100 * right["plugin"].mean())
    assert found["zero_shot"]["accuracy"] == pytest.approx(100 * right["zero_shot"].mean())
    assert found["difference"]["points"] == pytest.approx(100 * (right["plugin"].mean() - right["zero_shot"].mean()))
    assert evaluated(capsys, *argv, "--out", tmp_path)["key"] == found["key"], "the same question, the same files"
    others = evaluated(capsys, *argv[:-1], world.data("vehicles"), "--out", tmp_path)
    fewer = evaluated(capsys, *argv, "--limit", 1, "--out", tmp_path)
    assert len({found["key"], others["key"], fewer["key"]}) == 3 and fewer["count"] == 4


def test_the_table_says_method_dataset_backbone_accuracy_zero_shot_and_difference(world, tmp_path, capsys):
    argv = ["evaluate", "--plugin", world.plugin("coop"), "--backbone", "new", "--arch", world.arch, "--device", "cpu"]
    found = evaluated(capsys, *argv[1:], "--dataset", world.data(), "--out", tmp_path)
    assert main.main([*map(str, argv), "--dataset", world.data(), "--out", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    d = found["difference"]
    for part in ("CoOp", "folder:animals, 16 test images", "2 shots, seed 1", f"{found['accuracy']:.2f} %"):
        assert part in shown
    assert f"{d['points']:+.2f} points, {d['low']:+.2f} to {d['high']:+.2f} (95 %, paired over the images)" in shown
    assert f"{found['zero_shot']['accuracy']:.2f} %, this backbone's" in shown and f"{found['key']}.json" in shown


def test_features_that_a_run_left_in_the_cache_are_read_and_none_is_made(world, tmp_path, capsys):
    cache = world.out / "cache"
    before = sorted(path.name for path in cache.glob("*.safetensors"))
    argv = ["--plugin", world.plugin("coop"), "--backbone", world.backbone("b"), "--dataset", world.data()]
    evaluated(capsys, *argv, "--out", tmp_path, "--cache", cache)
    assert sorted(path.name for path in cache.glob("*.safetensors")) == before and before


def test_a_local_checkpoint_of_a_known_architecture_is_a_backbone(world, tmp_path, capsys, monkeypatch):
    from carryover.bench.backbones import loading, names
    from carryover.datasets.micro import checkpoint

    model = loading.build("micro-update")
    save(model, tmp_path / "mine.safetensors", "gelu")
    monkeypatch.setattr(checkpoint, "read", lambda path: read_tensors(path)[0])
    tower = names.tower_of(f"micro-update={tmp_path / 'mine.safetensors'}")
    loaded = loading.load(tower)
    assert loaded.label == "micro-update/local file" and tower.activation == "gelu"
    weight = "text.token_embedding.weight"
    assert torch.equal(loaded.model.state_dict()[weight], model.state_dict()[weight])


def test_prompts_that_a_file_brings_along_stand_in_the_place_of_the_datasets(world, tmp_path, capsys):
    """As if the dataset had them; zero-shot beside it keeps the dataset's own."""
    prompts, plain = ["a drawing of the {}.", "{} on a wall."], world.plugin("tip-adapter-f")
    brought = rewritten(plain, tmp_path / "brought.safetensors", lambda header: {**header, "templates": prompts})
    shutil.copytree(world.home / "animals", tmp_path / "animals")
    (tmp_path / "animals" / "templates.txt").write_text("\n".join(prompts))
    where = ["--backbone", world.backbone("b"), "--out", tmp_path]

    def found(plugin, data):
        stored = evaluated(capsys, "--plugin", plugin, "--dataset", data, *where)
        return stored, read_tensors(RunStore(tmp_path, "evaluations").path("predictions", stored["key"]))[0]

    usual, theirs = found(plain, world.data()), found(plain, f"folder:{tmp_path / 'animals'}")
    ours = found(brought, world.data())
    for part in ("plugin.predicted", "plugin.confidence"):
        assert torch.equal(ours[1][part], theirs[1][part])
    assert torch.equal(ours[1]["zero_shot.confidence"], usual[1]["zero_shot.confidence"])
    assert not torch.equal(ours[1]["plugin.confidence"], usual[1]["plugin.confidence"])
    assert ours[0]["plugin"]["templates"] == prompts
    classes, note = classes_of(read(brought))
    assert classes.templates == tuple(prompts) and not note, "port asks for them too"


def test_a_plugin_of_another_program_is_evaluated(world, tmp_path, capsys):
    """No source, config but the one option that shapes its tensor, no shots, no seed."""

    def change(header):
        header |= {"source": None, "config": {"context_length": 16}, "shots": None, "seed": None, "made_by": "me"}
        header["trained_on"][0] |= {"fingerprint": None, "activation": None}
        return header

    file = rewritten(world.plugin("coop"), tmp_path / "mine.safetensors", change)
    argv = ["--backbone", world.backbone("b"), "--dataset", world.data(), "--out", tmp_path]
    own, theirs = (evaluated(capsys, "--plugin", path, *argv) for path in (file, world.plugin("coop")))
    assert own["accuracy"] == theirs["accuracy"] and own["key"] != theirs["key"]
    assert own["plugin"]["seed"] is None and own["plugin"]["made_by"] == "me"


def test_class_names_in_a_wrong_order_are_guessed_from_answers_below_chance_at_home(world, tmp_path, capsys):
    plugin = world.plugin("linear-probe")

    def turned(header):
        names = header["shape"]["classnames"]
        return {**header, "shape": {**header["shape"], "classnames": [*names[1:], names[0]]}}

    wrong = rewritten(plugin, tmp_path / "wrong.safetensors", turned)
    notes = {}
    for path in (plugin, wrong):
        for role in ("a", "b"):
            argv = ["--backbone", world.backbone(role), "--dataset", world.data(), "--out", tmp_path]
            found = evaluated(capsys, "--plugin", path, *argv)
            told = any("is below chance" in line for line in found["warnings"])
            notes[path == wrong, role] = told, found["accuracy"]
    assert notes[True, "a"][0] and notes[True, "a"][1] < 50 < notes[False, "a"][1]
    assert not any(told for (changed, role), (told, _) in notes.items() if not (changed and role == "a"))


# ---- the interval ----------------------------------------------------------------------------------------------------


def answers(won, lost, both, neither):
    right = [1] * won + [0] * lost + [1] * both + [0] * neither
    usual = [0] * won + [1] * lost + [1] * both + [0] * neither
    return np.array(right, bool), np.array(usual, bool)


@pytest.mark.parametrize("counts", [(40, 10, 100, 50), (3, 9, 20, 8), (250, 240, 300, 210)])
def test_the_interval_is_that_of_redrawn_images(counts):
    right, usual = answers(*counts)
    found, count = difference(right, usual), len(right)
    assert found["won"] == counts[0] and found["lost"] == counts[1]
    assert found["points"] == pytest.approx(100 * (right.mean() - usual.mean()))
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, count, (20000, count))
    redrawn = 100 * (right[drawn].mean(1) - usual[drawn].mean(1))
    low, high = np.quantile(redrawn, [0.025, 0.975])
    step = 2 * 100 / count  # differences come in steps of one image
    assert abs(found["low"] - low) <= 1.01 * step and abs(found["high"] - high) <= 1.01 * step
    assert difference(right, usual) == found, "the same images, the same interval"


def test_the_interval_of_many_images_is_the_normal_one():
    right, usual = answers(3000, 2500, 10000, 4500)
    share = (3000 - 2500) / 20000
    error = np.sqrt((5500 / 20000 - share**2) / 20000)
    found = difference(right, usual)
    assert found["low"] == pytest.approx(100 * (share - 1.959964 * error), abs=0.02)
    assert found["high"] == pytest.approx(100 * (share + 1.959964 * error), abs=0.02)


def test_the_same_answers_may_differ_on_images_that_were_not_seen():
    """Bonett and Price 2012 with no discordant pair: 1.96 sqrt(2 / (n + 2)) / sqrt(n + 2)."""
    found = difference(*answers(0, 0, 150, 48))
    assert (found["points"], found["won"], found["lost"]) == (0.0, 0, 0)
    assert -found["low"] == found["high"] == pytest.approx(100 * 1.959964 * 2**0.5 / 200)


def test_the_interval_holds_the_truth_near_the_ceiling_too():
    """A share of images that only one has right: 300 worlds each."""
    rng = np.random.default_rng(5)
    for images, share in ((50, 0.005), (200, 0.005), (200, 0.02), (1000, 0.003)):
        won = rng.binomial(images, share, 300)
        found = [difference(*answers(n, 0, images - n, 0)) for n in won]
        assert np.mean([one["low"] <= 100 * share <= one["high"] for one in found]) >= 0.92


# ---- export ----------------------------------------------------------------------------------------------------------


def test_an_exported_plugin_is_the_runs_own_bytes_with_a_card_of_what_was_measured(world):
    for method in ("coop", "zs-clip", "tip-adapter-f"):
        path, record = world.plugin(method), world.record(method)
        assert sha256_of(path) == record["files"]["plugin"]
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["file"] == path.name and card["sha256"] == sha256_of(path) and card["key"] == record["key"]
        assert card["git_commit"] == record["git_commit"] and card["run"] == record["run"]
        for role in ("base", "new"):
            assert card["measured"][role]["accuracy"] == record["targets"][role]["accuracy"]
    assert len(list((world.home / "plugins").iterdir())) == 2 * len(METHODS)


def test_keys_choose_runs_and_one_may_go_to_a_file(world, tmp_path):
    key = world.record("coop")["key"]
    quietly("export", key, "--arch", world.arch, "--out", world.out, "--to", tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").read_bytes() == world.plugin("coop").read_bytes()
    assert json.loads((tmp_path / "mine.json").read_text())["file"] == "mine.safetensors"


@pytest.mark.parametrize("method, empty", [("zs-clip", True), ("tpt", True), ("coop", False), ("linear-probe", False)])
def test_a_plugin_without_a_tensor_is_told_at_export_check_and_evaluation(world, tmp_path, capsys, method, empty):
    def said(*argv):
        capsys.readouterr()
        assert main.main([*map(str, argv)]) == 0
        return " ".join(capsys.readouterr().err.split())

    argv = ["--plugin", world.plugin(method), "--backbone", world.backbone("b"), "--dataset", world.data()]
    note = f"the file holds no tensor: {method} leaves nothing learned to carry over"
    export = ["export", world.record(method)["key"], "--arch", world.arch, "--out", world.out, "--to", tmp_path]
    assert (not read_tensors(world.plugin(method))[0]) == empty
    for call in (export, ["evaluate", "--dry-run", *argv]):
        assert (note in said(*call)) == empty
    found = evaluated(capsys, *argv, "--out", tmp_path)
    assert any(note in line for line in found["warnings"]) == empty


@pytest.mark.parametrize("content", ["[1, 2]", "no JSON", '{"format": "mine"}', b"\xff"])
def test_a_file_that_is_no_card_is_not_written_over_and_a_card_is(world, tmp_path, capsys, content):
    key, theirs = world.record("coop")["key"], tmp_path / "to" / "x.json"
    argv = ["export", key, "--arch", world.arch, "--out", world.out, "--to", tmp_path / "to" / "x.safetensors"]
    theirs.parent.mkdir()
    theirs.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = theirs.read_bytes()
    line = refused(capsys, *argv)
    assert str(theirs) in line and "no card" in line and "--to" in line
    assert theirs.read_bytes() == before and [path.name for path in theirs.parent.iterdir()] == ["x.json"]
    theirs.unlink()
    quietly(*argv)
    quietly(*argv)
    assert json.loads(theirs.read_text())["key"] == key


def test_a_place_that_cannot_be_written_to_is_told_with_the_flag_that_chose_it(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    flags = ["--arch", world.arch, "--out", world.out, "--to", tmp_path / "file" / "x.safetensors"]
    for argv in (["export", world.record("coop")["key"], *flags], ["leaderboard", world.out, *flags[-2:]]):
        line = refused(capsys, *argv)
        assert "cannot write" in line and "--to" in line and "--out" not in line and "--cache" not in line


def copied(world, tmp_path):
    for path in (world.out / "pair").rglob("*.*"):
        target = tmp_path / "out" / path.relative_to(world.out)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return RunStore(tmp_path / "out", "pair")


def refused(capsys, *argv):
    capsys.readouterr()
    assert main.main([str(word) for word in argv]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_what_is_not_as_its_run_left_it_is_not_exported(world, tmp_path, capsys):
    store, key = copied(world, tmp_path), world.record("coop")["key"]
    argv = ["export", key, "--arch", world.arch, "--out", tmp_path / "out", "--to", tmp_path / "to"]
    plugin, run = store.path("plugins", key), store.path("runs", key)
    honest = plugin.read_bytes()
    plugin.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    assert "was changed" in refused(capsys, *argv) and sha256_of(plugin)
    plugin.unlink()
    assert "no plug-in" in refused(capsys, *argv)
    plugin.write_bytes(honest)
    record = json.loads(run.read_text())
    run.write_text(json.dumps({**record, "device": "other"}))
    assert "changed or is damaged" in refused(capsys, *argv)
    store.write_record({**unsealed(record), "status": "failed", "error": "the loss is nan"})
    assert "not done (the loss is nan)" in refused(capsys, *argv)
    store.write_record({**unsealed(record), "run": {**record["run"], "test": "shifted"}, "trained": "ab" * 8})
    assert f"the plug-in of run {'ab' * 8}" in refused(capsys, *argv)
    assert "unknown run" in refused(capsys, "export", "0" * 16, *argv[2:])
    assert "--to is missing" in refused(capsys, *argv[:-2])
    flags = ["--arch", world.arch, "--out", tmp_path / "out", "--datasets", world.data(), "--to", tmp_path / "to"]
    assert "none is done" in refused(capsys, "export", *flags, "--seeds", 9)
    more = [world.record("linear-probe")["key"], world.record("zs-clip")["key"]]
    one = refused(capsys, "export", *more, *flags[:4], "--to", tmp_path / "one.safetensors")
    assert "2 plug-ins and one file" in one
    assert not (tmp_path / "to").exists() and not (tmp_path / "one.safetensors").exists()


def test_of_hundreds_of_runs_an_unknown_key_names_the_nearest_few_and_where_all_are(world, tmp_path, capsys):
    store, one = RunStore(tmp_path / "out", "pair"), unsealed(world.record("coop"))
    argv = ["--arch", world.arch, "--out", tmp_path / "out", "--to", tmp_path / "to"]
    line = refused(capsys, "export", "0" * 16, *argv)
    assert "no finished run in" in line and "--out and --arch" in line and "Known" not in line
    for number in range(200):
        key = sha256(str(number).encode()).hexdigest()[:16]
        store.write_record({**one, "key": key, "trained": key})
    line = refused(capsys, "export", key[:6], *argv)
    assert f"Did you mean '{key}'?" in line and "and 199 more" in line and str(store.folder / "runs") in line
    line = refused(capsys, "export", key[:-1] + "x", *argv)
    assert f"Did you mean '{key}'?" in line and 2 <= len(re.findall(r"\b[0-9a-f]{16}\b", line)) <= 6
    assert "and 195 more" in refused(capsys, "export", "zzzz", *argv)


def test_a_plugin_of_an_older_run_gets_its_header_completed_from_the_record(world, tmp_path):
    store, record = copied(world, tmp_path), world.record("coop")
    path = store.path("plugins", record["key"])

    def older(header):
        kept = {name: header[name] for name in ("key", "method", "config", "shape")}
        return {**kept, "format": "1", "base": header["trained_on"][0]["fingerprint"]}

    new = header_in(path)
    rewritten(path, path, older)
    store.write_record({**unsealed(record), "files": {**record["files"], "plugin": sha256_of(path)}})
    argv = ["--arch", world.arch, "--out", tmp_path / "out", "--to", tmp_path / "old.safetensors"]
    quietly("export", record["key"], *argv)
    assert header_in(tmp_path / "old.safetensors") == new
    assert read_tensors(tmp_path / "old.safetensors")[0].keys() == {"context"}


def test_flags_of_these_commands_are_refused_elsewhere(capsys):
    for flag, command in (("plugin", "evaluate"), ("backbone", "evaluate"), ("dataset", "evaluate"), ("to", "export")):
        assert f"--{flag} goes with {command}" in refused(capsys, f"--{flag}", "x")
    assert "--json goes with evaluate" in refused(capsys, "export", "--json", "--to", "x")
    for flag in ("plugin", "dataset"):
        given = [word for other in ("plugin", "backbone", "dataset") if other != flag for word in (f"--{other}", "x")]
        assert f"--{flag} is missing" in refused(capsys, "evaluate", *given)
