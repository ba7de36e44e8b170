"""Datasets from a folder of one's own."""

from __future__ import annotations

import os
import shutil

import pytest
import standins
from PIL import Image
from standins import SETTINGS, per_class, rows_of

from carryover import datasets
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main
from carryover.bench.errors import UserError
from carryover.bench.plan import grid
from carryover.methods import discover


def load_folder(path):
    id = datasets.identify(f"folder:{path}")
    return datasets.load(id, folders=datasets.folder.paths_of([f"folder:{path}"]))


def folder_refusal(path):
    with pytest.raises(UserError) as caught:
        load_folder(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


def test_class_folders_are_split_50_20_30_by_file_names_alone(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path, ["tabby_cat", "dog"], 20)
    (path / ".hidden").mkdir()
    data = load_folder(path)
    assert data.id == data.name == "folder:mine" and data.classnames == ("dog", "tabby cat")
    assert data.templates == ("a photo of a {}.",)
    assert [per_class(s) for s in (data.train, data.val, data.test)] == [[(0, n), (1, n)] for n in (10, 4, 6)]
    assert any("50/20/30" in note for note in data.notes)
    standins.write_folder(tmp_path / "other" / "mine", ["tabby_cat", "dog"], 20)
    assert load_folder(tmp_path / "other" / "mine").test.keys == data.test.keys


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path, ["b", "a"], 4, ("train", "val", "test"))
    data = load_folder(path)
    assert data.classnames == ("a", "b") and data.notes == ()
    for part in ("train", "val", "test"):
        assert all(key.startswith(f"{part}/") for key in getattr(data, part).keys)
        assert per_class(getattr(data, part)) == [(0, 4), (1, 4)]


def test_without_a_val_folder_a_fifth_of_training_becomes_validation_and_that_is_said(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path, ["a", "b"], 10, ("train", "test"))
    data = load_folder(path)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 20)
    assert not set(data.train.keys) & set(data.val.keys)
    assert any("no val folder" in note for note in data.notes)


def test_a_class_may_be_called_train(tmp_path):
    standins.write_folder(tmp_path / "vehicles", ["train", "bus"], 5)
    assert load_folder(tmp_path / "vehicles").classnames == ("bus", "train")


def test_classes_txt_gives_order_and_names_and_templates_txt_the_prompts(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path, ["n01", "n02", "a=b"], 5)
    (path / "classes.txt").write_text("n02 = <b>great_white</b> shark\n\na=b\nn01\n", encoding="utf-8")
    (path / "templates.txt").write_text("a sketch of a {}.\nart of {}.\n")
    data = load_folder(path)
    assert data.classnames == ("<b>great_white</b> shark", "a=b", "n01")
    assert data.templates == ("a sketch of a {}.", "art of {}.")
    assert {key.split("/")[0]: label for key, label in rows_of(data.train)} == {"n02": 0, "a=b": 1, "n01": 2}


@pytest.mark.parametrize(
    "file, text, says",
    [
        ("classes.txt", "a\nb\nc\n", "'c'"),
        ("classes.txt", "a\na\nb\n", "twice"),
        ("classes.txt", "a\n", "lacks the class folder 'b'"),
        ("templates.txt", "a photo\n", "expected {} once"),
        ("templates.txt", "{} {0.__class__}\n", "no other braces"),
    ],
)
def test_lists_that_do_not_fit_the_folder_are_refused(tmp_path, file, text, says):
    path = tmp_path / "mine"
    standins.write_folder(path, ["a", "b"], 5)
    (path / file).write_text(text)
    assert says in folder_refusal(path)


def test_folders_that_are_no_dataset_are_refused(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        datasets.identify(f"folder:{tmp_path / 'nope'}")
    with pytest.raises(UserError, match="give the folder one"):
        datasets.identify("folder:/")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in folder_refusal(tmp_path / "empty")
    standins.write_folder(tmp_path / "few", ["a"], 2)
    assert "2 images; expected 3 or more" in folder_refusal(tmp_path / "few")
    standins.write_folder(tmp_path / "half", ["a"], 5, ("train",))
    assert "has only train" in folder_refusal(tmp_path / "half")
    standins.write_folder(tmp_path / "both", ["a"], 5, ("train", "test", "extra"))
    assert "'extra'" in folder_refusal(tmp_path / "both")
    standins.write_folder(tmp_path / "new", ["a", "b"], 5, ("train", "test"))
    shutil.rmtree(tmp_path / "new" / "train" / "b")
    assert "'b' has no training images" in folder_refusal(tmp_path / "new")


@pytest.mark.parametrize("given", ["folder:", "folder: "])
def test_a_folder_without_a_path_is_not_the_current_one(tmp_path, monkeypatch, given):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 5)
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(UserError, match="no path"):
        datasets.identify(given)
    assert datasets.identify("folder:.") == "folder:mine"


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    standins.write_folder(tmp_path / "mine", ["a"], 5)
    try:
        (tmp_path / "mine" / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UserError, match="is not UTF-8") as caught:
        load_folder(tmp_path / "mine")
    assert str(caught.value).isprintable()


def test_a_changed_picture_changes_its_key(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path, ["a", "b"], 5)
    before = load_folder(path)
    name = before.test.keys[0].split("#")[0]
    (path / name).unlink()  # it is a link to a picture that others share
    Image.new("RGB", (30, 40)).save(path / name)
    after = load_folder(path)
    assert after.test.keys[1:] == before.test.keys[1:] and after.test.keys[0] != before.test.keys[0]
    assert after.test.read([0])[0].size == (30, 40)


def test_folders_are_known_to_plan_dry_run_and_ls_by_name(tmp_path, capsys):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 5)
    given = f"folder:{tmp_path / 'mine'}"
    discover(())
    runs = grid.grid(ARCHS["micro"], datasets_=[given, given], **SETTINGS)
    assert [run.dataset for run in runs] == ["folder:mine"]
    assert main.main(["--datasets", given, "--methods", "zs-clip", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "folder:mine" in capsys.readouterr().out
    assert main.main(["ls", "datasets", "--datasets", given]) == 0
    assert "folder:mine" in capsys.readouterr().out
    standins.write_folder(tmp_path / "other" / "mine", ["a", "b"], 5)
    assert main.main(["--datasets", given, f"folder:{tmp_path / 'other' / 'mine'}", "--dry-run"]) == 2
    assert "rename one of them" in capsys.readouterr().err
