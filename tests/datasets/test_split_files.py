"""The paper's datasets with a split file, over stand-in pictures; what holds for all of them.

How pictures of every kind are read, and broken ones refused, is told in ``tests/features/test_loading.py``."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import standins
from checkout import ROOT
from standins import SETTINGS, all_wnids, refusal, rows_of
from toys import execute

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.cli import main
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.plan import grid
from carryover.datasets import coop_format
from carryover.datasets.listing import Listing

SETS = list(standins.SPLIT_FILE_SETS)


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
    table = ROOT / "results" / "paper" / "table1_datasets.csv"
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
    for image, label in zip(data.test.read([0, 3, 0]), data.test.labels[[0, 3, 0]], strict=True):
        assert np.asarray(image).mean((0, 1)).argmax() == label % 3
    notes, layout = " ".join(data.notes), datasets.layouts.LAYOUTS[id]
    assert f"{len(names)} classes, {layout.classes} in the paper" in notes and "Table 1" in notes
    assert f"{len(data.test)} test images, {layout.test} in the paper" in notes


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


def row(path="x.jpg", label=0, name="banded"):
    return lambda lists: lists["val"].append([path, label, name])


def moved(places):
    def change(lists):
        for one in (one for rows in lists.values() for one in rows):
            one[1] += places(one[1])

    return change


NO_ROW = "is not [path, label, class name]"


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda lists: lists.pop("val"), "no list 'val'"),
        (lambda lists: lists.update(train={}), "no list 'train'"),
        (lambda lists: lists["test"].clear(), "test"),
        (lambda lists: lists["val"].append("x.jpg"), NO_ROW),
        (lambda lists: lists["val"].append(None), NO_ROW),
        (lambda lists: lists["val"].append(["x.jpg", 0]), NO_ROW),
        (row(path=1), NO_ROW),
        (row(label="0"), NO_ROW),
        (row(label=True), NO_ROW),
        (row(label=0.5), NO_ROW),
        (row(name=None), NO_ROW),
        (moved(lambda label: label == 2), "0 to 3 for 3 classes"),
        (moved(lambda label: -1), "-1"),
        (lambda lists: lists["train"].append([lists["train"][0][0], 7, "banded"]), "without a gap"),
        (lambda lists: lists["train"].append([lists["train"][0][0], 0, "evil\nname\x1b[31m"]), "two names"),
        (row(path="gone\n.jpg"), "1 of"),
        (lambda lists: lists["test"].extend([["a.jpg", 0, "banded"], ["b.jpg", 0, "banded"]]), "2 of 14"),
    ],
)
def test_a_damaged_split_file_is_refused_in_one_printable_line(dtd, damage, says):
    root, split, lists = dtd
    damage(lists)
    split.write_text(json.dumps(lists))
    line = refusal("dtd", root)
    assert says in line and line.isprintable()


PAGE = "<!DOCTYPE html><html>Google Drive - Virus scan warning</html>"


@pytest.mark.parametrize(
    "content, says",
    [
        *((text, "cannot be read as JSON") for text in (PAGE, "", "{", '{"train": [', "\0\1")),
        ("[]", "train"),
        ("3", "train"),
    ],
)
def test_what_is_no_split_file_is_refused(dtd, content, says):
    root, split, _ = dtd
    split.write_text(content)
    line = refusal("dtd", root)
    assert says in line and split.name in line
    split.write_bytes(bytes(range(128, 256)))
    assert split.name in refusal("dtd", root)


def test_an_unknown_dataset_names_the_nearest_and_known_ones_have_their_published_prompts():
    with pytest.raises(UserError, match="Did you mean 'caltech101'"):
        datasets.load("caltech", "x")
    published = {"dtd": "{} texture.", "food101": "a photo of {}, a type of food."}
    published["eurosat"] = "a centered satellite photo of {}."
    assert {id: coop_format.TEMPLATES[id] for id in published} == {id: (text,) for id, text in published.items()}


def test_markup_in_class_names_is_only_text(dtd):
    root, split, lists = dtd
    for rows in lists.values():
        for row in rows:
            row[2] = {0: "<script>alert(1)</script>", 1: "[bold]x[/bold]", 2: "a_{}_b"}[row[1]]
    split.write_text(json.dumps(lists))
    assert datasets.load("dtd", str(root)).classnames == ("<script>alert(1)</script>", "[bold]x[/bold]", "a {} b")


# ---- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wnids():
    return all_wnids()


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
    run = grid.grid(arch, datasets_=given, **SETTINGS)[0]
    record = execute(session, run, session.keys.of(run))
    assert record["status"] == "done", record["error"]
    assert record["marks"] == list(session.data(run.dataset).notes)
    assert record["targets"]["new"]
    assert len(list((out / "tiny" / "splits").iterdir())) == 2
    assert not any(":" in path.name for path in out.rglob("*"))


def test_one_missing_dataset_is_named_in_one_line(tmp_path, capsys):
    assert main.main(["--arch", "vit-b16", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
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
