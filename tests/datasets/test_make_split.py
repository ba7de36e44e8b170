"""Splits made on request by the published rules."""

from __future__ import annotations

import numpy as np
import pytest
import standins
from standins import per_class, refusal, rows_of

from carryover import datasets

SETS = list(standins.SPLIT_FILE_SETS)


def test_a_made_split_halves_each_class_is_marked_and_never_takes_the_published_name(tmp_path):
    images = tmp_path / "caltech-101" / "101_ObjectCategories"
    standins.write_folder(images, ["Faces", "Faces_easy", "BACKGROUND_Google", "Leopards", "airplanes", "ant"], 10)
    data = datasets.load("caltech101", str(tmp_path), make_split=True)
    assert data.classnames == ("face", "leopard", "airplane", "ant")
    assert [per_class(s) for s in (data.train, data.val, data.test)] == [
        [(label, count) for label in range(4)] for count in (5, 2, 3)
    ]
    assert len({*data.train.keys, *data.val.keys, *data.test.keys}) == 40
    assert any("not the published split" in note for note in data.notes)
    folder = tmp_path / "caltech-101"
    made = [p.name for p in folder.iterdir() if p.name.endswith(".json")]
    assert made == ["split_carryover_caltech101.json"]
    written = (folder / made[0]).read_bytes()
    assert datasets.load("caltech101", str(tmp_path), make_split=True).train.keys == data.train.keys
    (folder / made[0]).unlink()
    datasets.load("caltech101", str(tmp_path), make_split=True)
    assert (folder / made[0]).read_bytes() == written
    assert "made earlier" in refusal("caltech101", tmp_path)


def test_a_published_split_is_used_even_where_a_made_one_is_asked_for(tmp_path):
    lists = standins.write_split_file_set("dtd", tmp_path)
    data = datasets.load("dtd", str(tmp_path), make_split=True)
    assert rows_of(data.test) == [(path, label) for path, label, _ in lists["test"]]
    assert not any("published split:" in note for note in data.notes)
    assert not (tmp_path / "dtd" / "split_carryover_dtd.json").exists()


def test_eurosats_folders_get_the_names_of_its_split_file(tmp_path):
    names = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
    standins.write_folder(tmp_path / "eurosat" / "2750", names.split(), 4)
    data = datasets.load("eurosat", str(tmp_path), make_split=True)
    assert data.classnames == (
        "Annual Crop Land",
        "Forest",
        "Herbaceous Vegetation Land",
        "Highway or Road",
        "Industrial Buildings",
        "Pasture Land",
        "Permanent Crop Land",
        "Residential Buildings",
        "River",
        "Sea or Lake",
    )


def lists_of(root, id):
    """Write a stand-in's official lists from its split file, then take that file away. Returns its lists."""
    lists = standins.write_split_file_set(id, root, (8, 2, 3))
    folder, _, split, _, classes = standins.SPLIT_FILE_SETS[id]
    folder = root / folder
    (folder / split).unlink()
    trainval, test = lists["train"] + lists["val"], lists["test"]
    if id == "oxford_pets":
        (folder / "annotations").mkdir()
        for name, rows in (("trainval.txt", trainval), ("test.txt", test)):
            text = "".join(f"{path[:-4]} {label + 1} 1 1\n" for path, label, _ in rows)
            (folder / "annotations" / name).write_text(text)
    elif id == "sun397":
        (folder / "ClassName.txt").write_text("".join(f"/{name}\n" for name in classes))
        for name, rows in (("Training_01.txt", trainval), ("Testing_01.txt", test)):
            (folder / name).write_text("".join(f"/{path}\n" for path, _, _ in rows))
    elif id == "ucf101":
        official = folder / "ucfTrainTestlist"
        official.mkdir()
        actions = [name.replace("_", "") for name in classes]
        (official / "classInd.txt").write_text("".join(f"{i} {a}\r\n" for i, a in enumerate(actions, 1)))
        for name, rows, more in (("trainlist01.txt", trainval, True), ("testlist01.txt", test, False)):
            text = ""
            for path, label, _ in rows:
                video = path.split("/")[1].replace(".jpg", ".avi")
                text += f"{actions[label]}/{video}" + (f" {label + 1}" if more else "") + "\r\n"
            (official / name).write_text(text)
    elif id == "stanford_cars":
        scipy_io = pytest.importorskip("scipy.io")
        (folder / "devkit").mkdir()
        models = [" ".join([*name.split()[1:], name.split()[0]]) for name in classes.values()]
        scipy_io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(models, dtype=object)})
        for path, rows in (("devkit/cars_train_annos.mat", trainval), ("cars_test_annos_withlabels.mat", test)):
            made = np.array(
                [(row[1] + 1, row[0].split("/")[1]) for row in rows], dtype=[("class", object), ("fname", object)]
            )
            scipy_io.savemat(folder / path, {"annotations": made})
    return lists


@pytest.mark.parametrize("id", ["oxford_pets", "sun397", "ucf101", "stanford_cars"])
def test_official_test_lists_are_kept_and_a_fifth_of_training_becomes_validation(id, tmp_path):
    lists = lists_of(tmp_path, id)
    data = datasets.load(id, str(tmp_path), make_split=True)
    names = [name.replace("_", " ") for name in standins.SPLIT_FILE_SETS[id][4].values()]
    assert list(data.classnames) == names
    assert rows_of(data.test) == [(path, label) for path, label, _ in lists["test"]]
    assert per_class(data.train) == [(label, 8) for label in range(3)]
    assert per_class(data.val) == [(label, 2) for label in range(3)]
    assert sorted(rows_of(data.train) + rows_of(data.val)) == sorted(
        (path, label) for path, label, _ in lists["train"] + lists["val"]
    )


def test_flowers_are_split_from_the_labels_in_matlab_form(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    folder, labels = tmp_path / "oxford_flowers", [2] * 10 + [1] * 10
    pictures = standins.Pictures(tmp_path)
    for n in range(1, 21):
        pictures.put(folder / "jpg" / f"image_{n:05}.jpg")
    scipy_io.savemat(folder / "imagelabels.mat", {"labels": np.array([labels])})
    (folder / "cat_to_name.json").write_text('{"1": "pink primrose", "2": "globe thistle"}')
    data = datasets.load("flowers102", str(tmp_path), make_split=True)
    assert data.classnames == ("pink primrose", "globe thistle")
    for split, count in ((data.train, 5), (data.val, 2), (data.test, 3)):
        assert per_class(split) == [(0, count), (1, count)]
        assert all(labels[int(key[6:11]) - 1] == label + 1 for key, label in rows_of(split))


def test_a_rule_without_its_lists_or_images_is_refused(tmp_path):
    for id in SETS:
        folder, images, *_ = standins.SPLIT_FILE_SETS[id]
        (tmp_path / folder / images).mkdir(parents=True)
        assert "--make-split" in refusal(id, tmp_path, make_split=True)
        assert not list((tmp_path / folder).glob("*.json"))


def test_a_class_too_small_to_split_is_refused(tmp_path):
    standins.write_folder(tmp_path / "dtd" / "images", ["banded", "dotted"], 2)
    assert "2 images, too few" in refusal("dtd", tmp_path, make_split=True)


def test_a_matlab_file_that_is_none_is_refused(tmp_path):
    pytest.importorskip("scipy.io")
    standins.Pictures(tmp_path).put(tmp_path / "oxford_flowers" / "jpg" / "image_00001.jpg")
    (tmp_path / "oxford_flowers" / "cat_to_name.json").write_text("{}")
    for content in (b"", b"<html>not found</html>" * 20, b"MATLAB 5.0 MAT-file" + bytes(200)):
        (tmp_path / "oxford_flowers" / "imagelabels.mat").write_bytes(content)
        assert "imagelabels.mat" in refusal("flowers102", tmp_path, make_split=True)


def test_lists_that_contradict_each_other_are_refused(tmp_path):
    lists_of(tmp_path, "sun397")
    (tmp_path / "sun397" / "ClassName.txt").write_text("/a/abbey\n")
    assert "not as expected" in refusal("sun397", tmp_path, make_split=True)
