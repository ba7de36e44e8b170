"""The fifteen datasets of the paper over stand-in pictures, splits made on request, and folders of one's own."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import standins
from PIL import Image

import datasets
from bench import cli, plan
from bench.archs import ARCHS, Arch
from bench.errors import UserError
from bench.session import Options, Session
from datasets import fewshot
from datasets.images import read_image
from datasets.listing import Listing
from methods import discover

SETS = list(standins.SPLIT_FILE_SETS)


def refusal(id, root="", **more):
    """The one line with which loading is refused."""
    with pytest.raises(UserError) as caught:
        datasets.load(id, str(root), **more)
    line = str(caught.value)
    assert "\n" not in line and id in line, line
    return line


def rows_of(split):
    return list(zip(split.keys, split.labels.tolist(), strict=True))


def coop_draw(rows, shots, seed=None):
    """CoOp's sampling, written from its description with python's global generator."""
    if seed is not None:
        random.seed(seed)  # the fixture below puts the generator's state back
    classes = {}
    for row in rows:
        classes.setdefault(row[1], []).append(row)
    return [row for members in classes.values() for row in random.sample(members, min(shots, len(members)))]


@pytest.fixture(autouse=True)
def random_state():
    state = random.getstate()
    yield
    random.setstate(state)


# ---- the paper's lists -----------------------------------------------------------------------------------------------


def test_the_default_of_the_paper_is_its_eleven_datasets_and_the_four_shifted_sets_are_apart():
    assert (
        datasets.default("paper")
        == (
            "imagenet caltech101 oxford_pets stanford_cars flowers102 food101 fgvc_aircraft sun397 dtd eurosat ucf101"
        ).split()
    )
    assert datasets.ood("paper") == "imagenet_v2 imagenet_sketch imagenet_a imagenet_r".split()
    assert set(datasets.default("paper") + datasets.ood("paper")) <= set(datasets.ids())
    assert [datasets.order(id) for id in datasets.ids()] == list(range(len(datasets.ids())))
    assert datasets.order("folder:mine") == len(datasets.ids())


def test_expected_counts_are_those_of_the_papers_table_1():
    table = os.path.join(os.path.dirname(__file__), "..", "results", "paper", "table1_datasets.csv")
    with open(table, encoding="utf-8") as file:
        rows = [line.strip().split(",") for line in file][1:]
    assert {row[0] for row in rows} == set(datasets.layouts.LAYOUTS)
    for id, classes, train, test, _ in rows:
        layout = datasets.layouts.LAYOUTS[id]
        assert (layout.classes, layout.train, layout.test) == (int(classes), int(train or 0), int(test)), id


# ---- sets with a split file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", SETS)
def test_split_files_give_their_pictures_labels_and_names_in_their_order(id, tmp_path):
    lists = standins.write_split_file_set(id, tmp_path)
    data = datasets.load(id, str(tmp_path))
    names = [name.replace("_", " ") for name in standins.SPLIT_FILE_SETS[id][4].values()]
    assert list(data.classnames) == names
    for part in ("train", "val", "test"):
        assert rows_of(getattr(data, part)) == [(path, label) for path, label, _ in lists[part]]
    label = int(data.test.labels[0])
    assert np.asarray(data.test.read([0])[0]).mean((0, 1)).argmax() == label % 3
    assert any("Table 1" in note and note.startswith(f"{len(names)} classes") for note in data.notes)


@pytest.mark.parametrize("id", SETS)
def test_a_missing_split_file_is_refused_with_its_address_and_place(id, tmp_path):
    standins.write_split_file_set(id, tmp_path)
    folder, _, split, *_ = standins.SPLIT_FILE_SETS[id]
    (tmp_path / folder / split).unlink()
    line = refusal(id, tmp_path)
    assert str(tmp_path / folder / split) in line
    assert "https://drive.google.com/file/d/1" in line and "/view" in line and "--make-split" in line


def test_a_missing_dataset_or_data_root_is_named(tmp_path):
    for id in datasets.layouts.LAYOUTS:
        assert str(tmp_path / datasets.layouts.LAYOUTS[id].folder) in refusal(id, tmp_path)
        assert "--data-root" in refusal(id)


@pytest.fixture
def dtd(tmp_path):
    lists = standins.write_split_file_set("dtd", tmp_path)
    return tmp_path, tmp_path / "dtd" / "split_zhou_DescribableTextures.json", lists


@pytest.mark.parametrize(
    "path", ["../../secret.jpg", "/etc/hostname", "banded/../../x.jpg", "..", "banded/", "a\0b/c.jpg"]
)
def test_a_path_that_leaves_the_image_folder_is_refused(dtd, path):
    root, split, lists = dtd
    (root / "secret.jpg").write_bytes(b"x")
    lists["test"][0][0] = path
    split.write_text(json.dumps(lists))
    assert "outside the image folder" in refusal("dtd", root)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_leaves_the_image_folder_is_refused(dtd, what):
    root, split, lists = dtd
    outside = root / "elsewhere"
    standins.Pictures(root).put(outside / "x.jpg")
    images = root / "dtd" / "images"
    os.symlink(outside / "x.jpg" if what == "file" else outside, images / ("link.jpg" if what == "file" else "link"))
    lists["test"][0][0] = "link.jpg" if what == "file" else "link/x.jpg"
    split.write_text(json.dumps(lists))
    assert "outside the image folder" in refusal("dtd", root)


def test_links_inside_the_image_folder_and_of_the_whole_folder_are_followed(dtd):
    root, split, lists = dtd
    images = root / "dtd" / "images"
    first = lists["test"][0][0]
    os.symlink(images / first, images / "same.jpg")
    lists["test"][0][0] = "same.jpg"
    split.write_text(json.dumps(lists))
    shutil.move(images, root / "disk2")
    os.symlink(root / "disk2", images)
    with pytest.raises(UserError, match="missing"):  # the link's target moved away with the folder's old name
        os.unlink(root / "disk2" / "same.jpg")
        datasets.load("dtd", str(root))
    os.symlink(root / "disk2" / first, root / "disk2" / "same.jpg")
    assert datasets.load("dtd", str(root)).test.keys[0] == "same.jpg"


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda lists: lists.pop("val"), "no list 'val'"),
        (lambda lists: lists["train"].append(["x.jpg", "0", "banded"]), "is not [path, label, class name]"),
        (lambda lists: lists["train"].append(["x.jpg", True, "banded"]), "is not [path, label, class name]"),
        (lambda lists: lists["train"].append([lists["train"][0][0], 7, "banded"]), "without a gap"),
        (lambda lists: lists["train"].append([lists["train"][0][0], 0, "evil\nname\x1b[31m"]), "two names"),
        (lambda lists: lists["train"].append(["gone\n.jpg", 0, "banded"]), "1 of"),
    ],
)
def test_a_damaged_split_file_is_refused_in_one_printable_line(dtd, damage, says):
    root, split, lists = dtd
    damage(lists)
    split.write_text(json.dumps(lists))
    line = refusal("dtd", root)
    assert says in line and line.isprintable()


def test_a_download_page_in_place_of_a_split_file_is_refused(dtd):
    root, split, _ = dtd
    split.write_text("<!DOCTYPE html><html>Google Drive - Virus scan warning</html>")
    assert "cannot be read as JSON" in refusal("dtd", root)


def test_markup_in_class_names_is_only_text(dtd):
    root, split, lists = dtd
    for rows in lists.values():
        for row in rows:
            row[2] = {0: "<script>alert(1)</script>", 1: "[bold]x[/bold]", 2: "a_{}_b"}[row[1]]
    split.write_text(json.dumps(lists))
    assert datasets.load("dtd", str(root)).classnames == ("<script>alert(1)</script>", "[bold]x[/bold]", "a {} b")


# ---- ImageNet and its shifted sets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wnids():
    from timm.data import ImageNetInfo

    return sorted(ImageNetInfo().label_names())


@pytest.fixture(scope="module")
def imagenet_root(tmp_path_factory, wnids):
    root = tmp_path_factory.mktemp("imagenet")
    standins.write_imagenet(root, wnids)
    return root


def test_imagenet_has_clips_names_at_the_place_of_their_sorted_wnids(imagenet_root, wnids):
    data = datasets.load("imagenet", str(imagenet_root))
    names = data.classnames
    assert len(names) == 1000 and len(set(names)) == 998
    assert names[:3] == ("tench", "goldfish", "great white shark") and names[999] == "toilet paper"
    assert names[657] == names[744] == "missile" and names[836] == names[837] == "sunglasses"
    assert data.class_ids == tuple(wnids)
    assert len(data.templates) == 7 and "itap of a {}." in data.templates
    assert [len(data.train), len(data.val), len(data.test)] == [3000, 1000, 1000]
    for key, label in rows_of(data.train) + rows_of(data.test):
        assert key.split("/")[1] == wnids[label]
    assert "3000 training images, 1281167 in the paper's Table 1" in data.notes


def test_imagenet_validation_is_its_test_list_and_that_is_said(imagenet_root):
    data = datasets.load("imagenet", str(imagenet_root))
    assert data.val.keys == data.test.keys
    assert any("validation images are drawn from the test images" in note for note in data.notes)


def test_imagenet_few_shot_images_are_coops_draw_over_sorted_files(imagenet_root, wnids):
    data = datasets.load("imagenet", str(imagenet_root))
    rows = [(f"train/{wnid}/{wnid}_{n}.JPEG", label) for label, wnid in enumerate(wnids) for n in range(3)]
    support, val = fewshot.draw(data.train, data.val, 2, 1)
    assert rows_of(support) == coop_draw(rows, 2, seed=1)
    assert len(val) == 1000


def test_imagenet_is_listed_without_a_look_at_single_files(imagenet_root, monkeypatch):
    looked = []
    monkeypatch.setattr(os, "stat", lambda *a, **k: looked.append(a) or os.lstat(a[0]))
    monkeypatch.setattr("pathlib.Path.is_file", lambda path: looked.append(path) or True)
    datasets.load("imagenet", str(imagenet_root))
    assert len(looked) < 100


def test_class_folders_that_differ_between_train_and_val_are_refused(tmp_path, wnids):
    standins.write_imagenet(tmp_path, wnids[:5])
    shutil.rmtree(tmp_path / "imagenet/images/val" / wnids[2])
    assert wnids[2] in refusal("imagenet", tmp_path)


def test_a_flat_validation_folder_is_refused_with_what_to_do(tmp_path, wnids):
    standins.write_imagenet(tmp_path, wnids[:2])
    val = tmp_path / "imagenet/images/val"
    for wnid in wnids[:2]:
        for file in (val / wnid).iterdir():
            file.rename(val / file.name)
        (val / wnid).rmdir()
    line = refusal("imagenet", tmp_path)
    assert "2 loose pictures" in line and "sort the pictures into them" in line


def test_a_folder_that_is_no_wnid_is_refused(tmp_path, wnids):
    standins.write_imagenet(tmp_path, [*wnids[:2], "tench"])
    assert "'tench'" in refusal("imagenet", tmp_path)


def test_a_classnames_file_is_read_and_other_names_than_clips_are_noted(tmp_path, wnids):
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    standins.write_imagenet(tmp_path, wnids[:3])
    path = tmp_path / "imagenet" / "classnames.txt"
    lines = [f"{wnid} {name}" for wnid, name in zip(wnids, IMAGENET_CLASSNAMES, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = datasets.load("imagenet", str(tmp_path))
    assert data.classnames == ("tench", "goldfish", "great white shark")
    assert not any("not CLIP's" in note for note in data.notes)
    path.write_text("\n".join([lines[0], f"{wnids[1]} gold fish", *lines[2:]]), encoding="utf-8")
    data = datasets.load("imagenet", str(tmp_path))
    assert data.classnames[1] == "gold fish"
    assert any("1 class names of its classnames.txt are not CLIP's" in note for note in data.notes)
    path.write_text("\n".join(lines[:9]), encoding="utf-8")
    assert "1000 wnids" in refusal("imagenet", tmp_path)
    path.write_text("<html>\n<html>", encoding="utf-8")
    assert "classnames.txt' line 1" in refusal("imagenet", tmp_path)


def test_imagenet_v2_folders_are_numbers_not_strings(tmp_path):
    standins.write_ood("imagenet_v2", tmp_path, map(str, range(1000)))
    data = datasets.load("imagenet_v2", str(tmp_path))
    assert [int(key.split("/")[0]) for key in data.test.keys] == data.test.labels.tolist() == list(range(1000))
    assert data.classnames[2] == "great white shark" and data.classnames[10] == "brambling"
    assert data.templates == ("a photo of a {}.",)
    shutil.rmtree(tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val/10")
    assert "'10' is missing" in refusal("imagenet_v2", tmp_path)


def test_imagenet_sketch_is_labelled_by_wnid_and_its_count_is_named(tmp_path, wnids):
    standins.write_ood("imagenet_sketch", tmp_path, wnids)
    data = datasets.load("imagenet_sketch", str(tmp_path))
    assert [key.split("/")[0] for key in data.test.keys] == [wnids[label] for label in data.test.labels]
    assert data.notes == ("1000 test images, 50889 in the paper's Table 1",)


@pytest.mark.parametrize(
    "id, members, first",
    [("imagenet_a", {6: "stingray", 999: None}, 6), ("imagenet_r", {1: "goldfish", 2: "great white shark"}, 1)],
)
def test_imagenet_a_and_r_are_classified_among_their_own_names(id, members, first, tmp_path, wnids):
    own = sorted(datasets.imagenet.published_subset(id))
    assert len(own) == 200 and own[0] == wnids[first]
    standins.write_ood(id, tmp_path, own, 2)
    data = datasets.load(id, str(tmp_path))
    assert len(data.classnames) == 200 and data.classnames[0] == members[first]
    assert data.test.labels.tolist() == [label for label in range(200) for _ in range(2)]
    assert not any("README" in key for key in data.test.keys)
    assert data.class_ids == tuple(own)
    assert len(data.train) == len(data.val) == 0 and data.templates == ("a photo of a {}.",)
    assert len(data.notes) == 1 and "test images" in data.notes[0]


def test_the_classes_of_a_and_r_are_not_the_same_ones(tmp_path):
    standins.write_ood("imagenet_a", tmp_path, sorted(datasets.imagenet.published_subset("imagenet_r")))
    notes = datasets.load("imagenet_a", str(tmp_path)).notes
    assert any("of its classes are not ImageNet-A's" in note for note in notes)


def test_test_only_sets_are_refused_where_something_is_to_be_trained():
    discover(())
    with pytest.raises(UserError, match="test images only"):
        plan.grid(ARCHS["vit-b16"], datasets_=["imagenet_a"], suites=["main"], **SETTINGS)


# ---- FGVCAircraft ----------------------------------------------------------------------------------------------------


def test_fgvc_labels_are_lines_of_variants_txt_and_slashes_stay_in_names(tmp_path):
    made = standins.write_fgvc(tmp_path)
    data = datasets.load("fgvc_aircraft", str(tmp_path))
    assert data.classnames == standins.VARIANTS
    assert data.templates == ("a photo of a {}, a type of aircraft.",)
    for part in ("train", "val", "test"):
        expected = [(f"{image}.jpg", standins.VARIANTS.index(variant)) for image, variant in made[part]]
        assert rows_of(getattr(data, part)) == expected


def test_fgvc_few_shot_images_are_coops_draw_train_first_then_val(tmp_path):
    made = standins.write_fgvc(tmp_path)
    data = datasets.load("fgvc_aircraft", str(tmp_path))
    rows = {p: [(f"{i}.jpg", standins.VARIANTS.index(v)) for i, v in made[p]] for p in made}
    support, val = fewshot.draw(data.train, data.val, 3, 2)
    assert rows_of(support) == coop_draw(rows["train"], 3, seed=2)
    assert rows_of(val) == coop_draw(rows["val"], 3)


def test_fgvc_refuses_lists_that_do_not_fit(tmp_path):
    standins.write_fgvc(tmp_path)
    folder = tmp_path / "fgvc_aircraft"
    listed = (folder / "images_variant_val.txt").read_text()
    (folder / "images_variant_val.txt").write_text(listed + "123 Concorde\n")
    assert "'123 Concorde'" in refusal("fgvc_aircraft", tmp_path)
    (folder / "images_variant_val.txt").write_text(listed + "../../x 707-320\n")
    assert "outside the image folder" in refusal("fgvc_aircraft", tmp_path)
    (folder / "images_variant_val.txt").write_text(listed + "5 707-320\n")
    assert "are missing" in refusal("fgvc_aircraft", tmp_path)
    (folder / "images_variant_val.txt").unlink()
    assert "images_variant_val.txt" in refusal("fgvc_aircraft", tmp_path)


def test_fgvc_left_in_the_archives_data_folder_is_told_to_move_up(tmp_path):
    standins.write_fgvc(tmp_path)
    (tmp_path / "fgvc_aircraft").rename(tmp_path / "data")
    (tmp_path / "fgvc_aircraft").mkdir()
    (tmp_path / "data").rename(tmp_path / "fgvc_aircraft" / "data")
    assert "move what is in" in refusal("fgvc_aircraft", tmp_path)


# ---- splits made on request ------------------------------------------------------------------------------------------


def per_class(split):
    return sorted(Counter(split.labels.tolist()).items())


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


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, ending", [("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png")])
def test_pictures_of_every_kind_are_read_as_pil_converts_them(mode, ending, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    path = tmp_path / f"x.{ending}"
    Image.fromarray(pixels).convert(mode).save(path)
    found = read_image(path)
    assert found.mode == "RGB" and found.size == (7, 9)
    with Image.open(path) as image:
        assert found.tobytes() == image.convert("RGB").tobytes()


def test_sixteen_bit_pictures_become_rgb_and_exif_rotation_is_not_applied(tmp_path):
    Image.fromarray(np.full((4, 6), 300, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (6, 4)


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"<html>\n")
    with pytest.raises(UserError, match=r"x\.jpg' cannot be read"):
        read_image(tmp_path / "x.jpg")


# ---- a folder of one's own -------------------------------------------------------------------------------------------

SETTINGS = dict(
    methods=["zs-clip"], seeds=[1], shots=1, protocol="micro", precision="fp32", views=1, limit=None, overrides=[]
)


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
    runs = plan.grid(ARCHS["micro"], datasets_=[given, given], suites=[], **SETTINGS)
    assert [run.dataset for run in runs] == ["folder:mine"]
    assert cli.main(["--datasets", given, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "folder:mine" in capsys.readouterr().out
    assert cli.main(["ls", "datasets", "--datasets", given]) == 0
    assert "folder:mine" in capsys.readouterr().out
    standins.write_folder(tmp_path / "other" / "mine", ["a", "b"], 5)
    assert cli.main(["--datasets", given, f"folder:{tmp_path / 'other' / 'mine'}", "--dry-run"]) == 2
    assert "rename one of them" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "fgvc_aircraft", "imagenet", "dtd"])
def test_datasets_of_every_kind_go_the_whole_way_to_a_record(kind, tiny, tmp_path, wnids):
    root, out = tmp_path / "data", tmp_path / "out"
    {
        "folder": lambda: standins.write_folder(root / "mine", ["a", "b"], 10),
        "fgvc_aircraft": lambda: standins.write_fgvc(root),
        "imagenet": lambda: standins.write_imagenet(root, wnids[:4]),
        "dtd": lambda: standins.write_folder(root / "dtd" / "images", ["banded", "dotted"], 10),
    }[kind]()
    given = [f"folder:{root / 'mine'}" if kind == "folder" else kind]
    folders = tuple(datasets.folder.paths_of(given).items())
    arch = Arch("tiny", tiny.base.tower, tiny.new.tower)
    options = Options(arch, "cpu", str(out), str(out / "cache"), data_root=str(root), make_split=True, folders=folders)
    session = Session(options)
    session._backbones = {"base": tiny.base, "new": tiny.new}
    run = plan.grid(arch, datasets_=given, suites=[], **SETTINGS)[0]
    record = session.execute(run, session.key(run))
    assert record["status"] == "done", record["error"]
    assert record["marks"] == list(session.data(run.dataset).notes)
    assert record["targets"]["new"]
    assert len(list((out / "tiny" / "splits").iterdir())) == 2
    assert not any(":" in path.name for path in out.rglob("*"))


def test_one_missing_dataset_is_named_in_one_line(tmp_path, capsys):
    assert cli.main(["--arch", "vit-b16", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: imagenet: no folder") and error.count("\n") == 1


def test_a_listing_reads_each_folder_once(tmp_path, monkeypatch):
    standins.write_folder(tmp_path / "x", ["a"], 5)
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    listing = Listing(tmp_path / "x")
    for _ in range(3):
        listing.check("x", "list", [f"a/{n}.jpg" for n in range(5)])
    assert len(scanned) == 1
