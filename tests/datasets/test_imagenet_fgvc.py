"""ImageNet, its four shifted sets and FGVCAircraft: folders and official lists in place of a split file."""

from __future__ import annotations

import os
import random
import shutil

import pytest
import standins
from standins import SETTINGS, all_wnids, coop_draw, refusal, rows_of

from carryover import datasets
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.errors import UserError
from carryover.bench.plan import grid
from carryover.datasets import fewshot
from carryover.methods import discover


@pytest.fixture(autouse=True)
def random_state():
    state = random.getstate()
    yield
    random.setstate(state)


# ---- ImageNet and its shifted sets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wnids():
    return all_wnids()


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
    assert [len(data.train), len(data.test)] == [3000, 1000]
    for key, label in rows_of(data.train) + rows_of(data.test):
        assert key.split("/")[1] == wnids[label]
    assert "3000 training images, 1281167 in the paper's Table 1" in data.notes


def test_imagenet_few_shot_validation_is_drawn_from_training_images_outside_the_support_set(imagenet_root):
    data = datasets.load("imagenet", str(imagenet_root))
    for seed in (1, 2):
        support, val = fewshot.draw(data.train, data.val, 2, seed)
        assert len(support) == 2000 and len(val) == 1000
        assert set(val.keys) <= set(data.train.keys) and not set(val.keys) & {*support.keys, *data.test.keys}
    assert any("few-shot validation is drawn from the training images" in note for note in data.notes)


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
        grid.grid(ARCHS["vit-b16"], datasets_=["imagenet_a"], **SETTINGS)


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
