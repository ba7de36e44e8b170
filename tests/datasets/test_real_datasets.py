"""The paper's datasets with a split file, over stand-in pictures; what holds for all of them."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import standins
from checkout import ROOT
from PIL import Image
from standins import SETTINGS, all_wnids, refusal, rows_of

from carryover import datasets
from carryover.bench.backbones.archs import Arch
from carryover.bench.cli import main
from carryover.bench.engine.one_run import execute
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.plan import grid
from carryover.datasets.images import read_image
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
