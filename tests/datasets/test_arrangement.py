"""Folders one step off, files by content, and what is passed over, counted: each held against a plain walk."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import standins
from PIL import Image, features
from standins import rows_of
from test_folder_datasets import folder_refusal, load_folder
from tiny_caltech import picture

from carryover.datasets import formats, pictures
from carryover.datasets.listing import Listing


def keys_of(data):
    """part -> paths of its pictures, sizes left out."""
    return {part: [key.partition("#")[0] for key in getattr(data, part).keys] for part in ("train", "val", "test")}


def save(path, kind, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(np.random.default_rng(seed), seed).save(path, kind)


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Train", "VAL", "Test"), ("training", "Validation", "TESTING")]
)
def test_part_folders_are_known_in_any_case_and_by_their_synonyms(tmp_path, names):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 4, names)
    data = load_folder(tmp_path / "mine")
    for part, folder in zip(("train", "val", "test"), names, strict=True):
        assert keys_of(data)[part] == [f"{folder}/{c}/{n}.jpg" for c in "ab" for n in range(4)]
    assert any(f"'{names[1]}' as val" in note for note in data.notes)


@pytest.mark.parametrize("between", ["top", "top/images", "Train"])
@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Train", "Test"), ("",)])
def test_folders_on_top_are_passed_and_change_no_key_nor_split(tmp_path, between, parts):
    standins.write_folder(tmp_path / "plain" / "mine", ["a", "b"], 10, parts)
    standins.write_folder(tmp_path / "deep" / "mine" / between, ["a", "b"], 10, parts)
    (tmp_path / "deep" / "mine" / "__MACOSX" / "rest").mkdir(parents=True)
    (tmp_path / "deep" / "mine" / "README").write_text("about\n")
    if between == "Train" and parts == ("",):
        line = folder_refusal(tmp_path / "deep" / "mine")
        assert "has only Train" in line and "give that folder itself as folder:PATH" in line
        return
    plain, deep = (load_folder(tmp_path / name / "mine") for name in ("plain", "deep"))
    for part in ("train", "val", "test"):
        assert rows_of(getattr(deep, part)) == rows_of(getattr(plain, part))
    assert {note for note in deep.notes if note not in plain.notes} == {
        f"read from its folder '{name}'" for name in between.split("/")
    } and len(deep.test.read([0, 1])) == 2


def test_folders_between_part_and_class_and_in_classes_are_passed(tmp_path):
    path = tmp_path / "mine"
    standins.write_folder(path / "train" / "images", ["a", "b"], 4)
    for name in ("a", "b"):
        standins.write_folder(path / "test" / name, ["images"], 3)
        (path / "train" / "images" / name / "boxes").mkdir()
    keys = keys_of(load_folder(path))
    assert {key.rpartition("/")[0] for key in keys["train"]} == {"train/images/a", "train/images/b"}
    assert keys["test"] == [f"test/{c}/images/{n}.jpg" for c in "ab" for n in range(3)]


def test_lists_beside_the_folder_on_top_are_read_and_those_among_the_classes_first(tmp_path):
    standins.write_folder(tmp_path / "mine" / "top", ["a", "b"], 5)
    (tmp_path / "mine" / "classes.txt").write_text("b = bee\na\n")
    assert load_folder(tmp_path / "mine").classnames == ("bee", "a")
    (tmp_path / "mine" / "top" / "classes.txt").write_text("a = ape\nb\n")
    assert load_folder(tmp_path / "mine").classnames == ("ape", "b")


@pytest.mark.parametrize(
    "write, says",
    [
        (lambda p: standins.write_folder(p, ["a", "b"], 4, ("train", "val", "valid", "test")), "'val' and 'valid'"),
        (lambda p: standins.write_folder(p, ["a", "b"], 4, ("train", "test", "dev")), "rename it to val"),
        (lambda p: standins.write_folder(p, ["a", "b"], 4, ("train", "val")), "rename it to test"),
        (lambda p: standins.write_folder(p, ["a", "b"], 4, ("Training",)), "give that folder itself as folder:PATH"),
        (lambda p: standins.write_folder(p, ["a/x", "a/y", "b"], 4), "if these are the classes, give folder:"),
        (
            lambda p: standins.write_folder(p, ["train/a", "train/b", "test"], 4),
            "4 pictures, which nothing gives a class",
        ),
        (lambda p: standins.write_folder(p, [""], 4), "4 pictures, which nothing gives a class"),
    ],
)
def test_what_has_two_readings_is_refused_with_a_cure_that_loses_no_picture(tmp_path, write, says):
    write(tmp_path / "mine")
    line = folder_refusal(tmp_path / "mine")
    assert says in line and "move it away" not in line


def test_a_folder_beside_train_and_test_that_holds_no_pictures_is_no_matter(tmp_path):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 4, ("train", "test"))
    (tmp_path / "mine" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "labels" / "train" / "0.txt").write_text("0 0 0 1 1")
    assert len(load_folder(tmp_path / "mine").test) == 8


def test_classes_may_be_called_train_and_test(tmp_path):
    standins.write_folder(tmp_path / "mine", ["train", "test", "exam"], 5)
    assert load_folder(tmp_path / "mine").classnames == ("exam", "test", "train")


def test_one_class_alone_is_no_task(tmp_path):
    standins.write_folder(tmp_path / "mine", ["dog"], 5)
    assert "one class alone ('dog') is no task" in folder_refusal(tmp_path / "mine")
    lists = standins.write_split_file_set("dtd", tmp_path)
    only = {part: [row for row in rows if row[1] == 0] for part, rows in lists.items()}
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(str(only).replace("'", '"'))
    assert "is no task" in standins.refusal("dtd", tmp_path)


# ---- which files are pictures ----------------------------------------------------------------------------------------


def test_files_are_pictures_by_content_and_the_rest_is_counted_by_ending(tmp_path):
    path, heic = tmp_path / "mine", b"\0\0\0\x18ftypheic" + bytes(80)
    for name in ("a", "b"):
        for i in range(4):
            save(path / name / f"j{i}.jfif", "JPEG", i)
            save(path / name / f"p{i}.JPE", "JPEG", i)
            save(path / name / f"bare{i}", "PNG", i)
            save(path / name / f"odd{i}.large", "WEBP", i)
            (path / name / f"label{i}.txt").write_text("P6 1 1 255\n")
        (path / name / "README").write_text("about")
        (path / name / "data.bin").write_bytes(bytes(100))
        (path / name / "phone.hif").write_bytes(heic)
        (path / name / "half.jpg.part").write_bytes((path / name / "j0.jfif").read_bytes())
    data = load_folder(path)
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 2 * 16
    data.train.read(range(len(data.train)))
    (note,) = [note for note in data.notes if note.startswith("passed over")]
    for told in ("8 .txt", "2 .bin", "2 .part", "2 without an ending"):
        assert told in note
    if ".hif" not in formats.endings():
        assert "2 .hif (pillow-heif reads them)" in note


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_class_of_avif_alone_is_a_class(tmp_path):
    standins.write_folder(tmp_path / "mine", ["dog"], 5)
    for i in range(5):
        save(tmp_path / "mine" / "cat" / f"{i}.avif", "AVIF", i)
    assert load_folder(tmp_path / "mine").classnames == ("cat", "dog")


def test_a_class_without_pictures_says_what_lies_there(tmp_path):
    standins.write_folder(tmp_path / "mine", ["dog"], 5)
    (tmp_path / "mine" / "cat").mkdir()
    for i in range(5):
        (tmp_path / "mine" / "cat" / f"{i}.mp4").write_bytes(b"x")
    assert "class 'cat' has 0 images; expected 3 or more, and what is no picture: 5 .mp4" in folder_refusal(
        tmp_path / "mine"
    )


def test_pictures_that_no_part_takes_are_counted(tmp_path):
    standins.write_folder(tmp_path / "mine", ["a", "b", "a/more"], 5)
    standins.write_folder(tmp_path / "mine", [""], 3)
    data = load_folder(tmp_path / "mine")
    assert sum(map(len, (data.train, data.val, data.test))) == 10
    assert {note for note in data.notes if "pictures in" in note} == {
        "passed over: 5 pictures in folders within class folders",
        "passed over: 3 pictures in no class folder",
    }


def test_files_with_a_known_ending_are_not_opened(tmp_path, monkeypatch):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 5)
    for name in ("x.txt", "x.json", "x.XML", "x.npy"):
        (tmp_path / "mine" / "a" / name).write_bytes(b"")
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("opened"))
    load_folder(tmp_path / "mine")


def test_pipes_devices_and_broken_links_among_pictures_are_counted_and_nothing_waits_for_them(tmp_path, monkeypatch):
    path = tmp_path / "mine"
    standins.write_folder(path, ["a", "b"], 5)
    os.mkfifo(path / "a" / "pipe.jpg")
    os.symlink("/dev/zero", path / "a" / "endless.png")
    os.symlink(path / "nowhere", path / "b" / "gone.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(path / "b")  # a socket's path is short
        listening.bind("s.jpg")
    data = load_folder(path)
    assert sum(map(len, (data.train, data.val, data.test))) == 10
    assert any("4 that are no files (pipes, devices, broken links)" in note for note in data.notes)


@pytest.mark.parametrize("file", ["classes.txt", "templates.txt"])
def test_a_list_that_is_a_pipe_is_refused(tmp_path, file):
    standins.write_folder(tmp_path / "mine", ["a", "b"], 5)
    os.mkfifo(tmp_path / "mine" / file)
    line = folder_refusal(tmp_path / "mine")
    assert file in line and "is a pipe and no file" in line


def test_pictures_without_labels_are_found_by_content_too(tmp_path):
    save(tmp_path / "all" / "in" / "bare", "JPEG")
    (tmp_path / "all" / "notes.txt").write_text("x")
    assert pictures.load(tmp_path / "all").keys[0].startswith("in/bare#")


def test_of_many_endings_the_most_frequent_are_named(tmp_path):
    for i in range(9):
        for n in range(i + 1):
            (tmp_path / f"{n}.e{i}").write_bytes(b"x")
    told = Listing(tmp_path).passed_over([""])
    assert told == "9 .e8, 8 .e7, 7 .e6, 6 .e5, 5 .e4, 4 other endings"
