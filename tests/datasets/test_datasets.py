"""Readers of CoOp's layout, few-shot draws against Dassl's rule, the micro sets."""

import json
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from tiny_caltech import FOLDER, IMAGES, ON_DISK, SPLIT, write_split

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.datasets import coop_format, micro
from carryover.datasets.base import Split
from carryover.datasets.fewshot import draw


def refusal(root, *expected):
    """The one line that loading (and reading all test pictures) ends in."""
    with pytest.raises(UserError) as caught:
        data = datasets.load("caltech101", str(root))
        data.test.read(range(len(data.test)))
    line = str(caught.value)
    assert "\n" not in line
    for text in expected:
        assert text in line
    return line


# ---- CoOp's layout ---------------------------------------------------------------------------------------------------


def test_names_follow_labels_not_the_alphabet_and_lose_their_underscores(caltech_readonly):
    data = datasets.load("caltech101", str(caltech_readonly[0]))
    assert data.classnames == tuple(name.replace("_", " ") for name in ON_DISK)
    assert data.templates == ("a photo of a {}.",)


def test_splits_hold_the_files_rows_in_their_order(caltech_readonly):
    root, lists = caltech_readonly
    data = datasets.load("caltech101", str(root))
    for part in ("train", "val", "test"):
        split = getattr(data, part)
        assert list(split.keys) == [row[0] for row in lists[part]]
        assert split.labels.tolist() == [row[1] for row in lists[part]]
        pick = [3, 0, 3]
        for image, index in zip(split.read(pick), pick, strict=True):
            expected = Image.open(root / FOLDER / IMAGES / lists[part][index][0]).convert("RGB")
            assert image.mode == "RGB" and image.tobytes() == expected.tobytes()


def test_a_stand_in_of_another_size_is_noted_beside_the_papers_counts(caltech_readonly):
    notes = " ".join(datasets.load("caltech101", str(caltech_readonly[0])).notes)
    assert "4 classes, 100 in the paper" in notes and "16 test images, 2465 in the paper" in notes


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_mode_become_rgb(caltech, mode):
    root, lists = caltech
    path = root / FOLDER / IMAGES / lists["test"][0][0]
    Image.open(path).convert("RGB").convert(mode).save(path, "TIFF")
    (image,) = datasets.load("caltech101", str(root)).test.read([0])
    assert image.mode == "RGB" and image.size == (40, 36)


def test_templates_and_counts_are_the_published_ones():
    counts = {
        "caltech101": (100, 2465),
        "oxford_pets": (37, 3669),
        "stanford_cars": (196, 8041),
        "flowers102": (102, 2463),
        "food101": (101, 30300),
        "sun397": (397, 19850),
        "dtd": (47, 1692),
        "eurosat": (10, 8100),
        "ucf101": (101, 3783),
    }
    for id, expected in counts.items():
        assert (coop_format.LAYOUTS[id].classes, coop_format.LAYOUTS[id].test) == expected
    assert coop_format.TEMPLATES["dtd"] == ("{} texture.",)
    assert coop_format.TEMPLATES["eurosat"] == ("a centered satellite photo of {}.",)
    assert coop_format.TEMPLATES["food101"] == ("a photo of {}, a type of food.",)


def test_no_data_root_names_the_flag_and_the_folder():
    refusal("", "--data-root", "caltech-101")


def test_missing_root_is_named(tmp_path):
    refusal(tmp_path / "nowhere", "nowhere")


def test_missing_split_file_is_named(caltech):
    (caltech[0] / FOLDER / SPLIT).unlink()
    refusal(caltech[0], SPLIT)


@pytest.mark.parametrize("text", ["", "{", "not json", '{"train": [', "\x00\x01"])
def test_broken_json_is_refused(caltech, text):
    (caltech[0] / FOLDER / SPLIT).write_text(text)
    refusal(caltech[0], SPLIT, "JSON")


def test_a_split_file_that_is_not_text_is_refused(caltech):
    (caltech[0] / FOLDER / SPLIT).write_bytes(bytes(range(128, 256)))
    refusal(caltech[0], SPLIT)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"train": []},
        {"train": {}, "val": [], "test": []},
        None,
        3,
        {"train": [["a.jpg", 0, "a"]], "val": [["a.jpg", 0, "a"]], "test": []},
    ],
)
def test_a_split_file_without_its_three_lists_is_refused(caltech, content):
    (caltech[0] / FOLDER / SPLIT).write_text(json.dumps(content))
    refusal(caltech[0], SPLIT, "train")


@pytest.mark.parametrize(
    "row",
    [
        "face/a.jpg",
        ["face/a.jpg", 0],
        ["face/a.jpg", "0", "face"],
        [1, 0, "face"],
        ["face/a.jpg", 0.5, "face"],
        ["face/a.jpg", 0, None],
        None,
    ],
)
def test_a_row_that_is_not_path_label_name_is_shown(caltech, row):
    root, lists = caltech
    write_split(root, {**lists, "val": [*lists["val"], row]})
    refusal(root, "'val'", "path, label, class name")


def test_a_gap_in_the_labels_is_refused(caltech):
    root, lists = caltech
    gap = {part: [[p, y + (y == 3), name] for p, y, name in rows] for part, rows in lists.items()}
    write_split(root, gap)
    refusal(root, "0 to 4 for 4 classes")


def test_a_negative_label_is_refused(caltech):
    root, lists = caltech
    write_split(root, {part: [[p, y - 1, name] for p, y, name in rows] for part, rows in lists.items()})
    refusal(root, "-1")


def test_a_label_with_two_names_is_refused(caltech):
    root, lists = caltech
    lists["test"][0][2] = "impostor"
    write_split(root, lists)
    refusal(root, "two names", "impostor")


@pytest.mark.parametrize("path", ["../secret.jpg", "face/../../secret.jpg", "/etc/hostname"])
def test_a_path_that_leaves_the_image_folder_is_refused(caltech, path):
    root, lists = caltech
    (root / FOLDER / "secret.jpg").write_bytes((root / FOLDER / IMAGES / lists["test"][0][0]).read_bytes())
    lists["test"][0][0] = path
    write_split(root, lists)
    refusal(root, path, "outside")


def test_a_missing_image_is_named_with_the_count(caltech):
    root, lists = caltech
    for row in lists["test"][2:4]:
        (root / FOLDER / IMAGES / row[0]).unlink()
    refusal(root, lists["test"][2][0], "2 of 16")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_truncated_image_is_named(caltech, ending):
    root, lists = caltech
    name = next(row[0] for row in lists["test"] if row[0].endswith(ending))
    path = root / FOLDER / IMAGES / name
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    refusal(root, name, "cannot be read")


def test_a_file_that_is_no_picture_is_named(caltech):
    root, lists = caltech
    (root / FOLDER / IMAGES / lists["test"][1][0]).write_text("hello")
    refusal(root, lists["test"][1][0])


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'caltech101'"):
        datasets.load("caltech", "x")


# ---- few-shot draws --------------------------------------------------------------------------------------------------


def dassl_fewshot(train, val, shots, seed):
    """methods.md 2.0 restated: the global ``random`` seeded once; each class in order of first appearance draws
    ``random.sample`` without replacement, all of it where it is too small; then val with min(shots, 4)."""
    random.seed(seed)
    drawn = []
    for rows, count in ((train, shots), (val, min(shots, 4))):
        by_class = defaultdict(list)
        for row in rows:
            by_class[row[1]].append(row)
        part = []
        for items in by_class.values():
            part.extend(random.sample(items, count) if len(items) >= count else items)
        drawn.append(part)
    return drawn


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 5, 16])
def test_few_shot_draws_are_those_of_dassl(caltech_readonly, shots, seed):
    root, lists = caltech_readonly
    data = datasets.load("caltech101", str(root))
    state = random.getstate()
    try:
        expected = dassl_fewshot(lists["train"], lists["val"], shots, seed)
    finally:
        random.setstate(state)
    for split, rows in zip(draw(data.train, data.val, shots, seed), expected, strict=True):
        assert [[k, y] for k, y in zip(split.keys, split.labels.tolist(), strict=True)] == [row[:2] for row in rows]
    assert random.getstate() == state


def test_a_drawn_split_reads_its_own_pictures(caltech_readonly):
    root, _ = caltech_readonly
    data = datasets.load("caltech101", str(root))
    support, _ = draw(data.train, data.val, 2, 1)
    for image, key in zip(support.read(range(len(support))), support.keys, strict=True):
        assert image.tobytes() == data.train.read([data.train.keys.index(key)])[0].tobytes()


def test_manifest_hash_changes_with_every_row_its_order_and_the_names():
    names = ("a", "b")

    def sha(keys, labels, names=names):
        return Split(tuple(keys), np.array(labels), lambda chosen: []).sha256(names)

    variants = {
        sha("xyz", [0, 1, 0]),
        sha("xyz", [0, 1, 1]),
        sha("xyw", [0, 1, 0]),
        sha("xzy", [0, 0, 1]),
        sha("xy", [0, 1]),
        sha("xyz", [0, 1, 0], ("a", "c")),
        sha("", []),
    }
    assert len(variants) == 7
    assert sha("xyz", [0, 1, 0]) in variants


def test_a_split_needs_a_label_for_each_key():
    with pytest.raises(ValueError):
        Split(("a", "b"), np.array([0]), lambda chosen: [])


# ---- the micro sets --------------------------------------------------------------------------------------------------


def test_there_are_eleven_micro_sets_and_four_shifted_ones():
    assert len(micro.IDS) == 11 and len(micro.OOD_IDS) == 4
    assert set(micro.IDS + micro.OOD_IDS) <= set(datasets.ids())
    assert all(id.startswith("micro_") for id in micro.IDS + micro.OOD_IDS)


@pytest.mark.parametrize("id", micro.IDS + micro.OOD_IDS)
def test_micro_set_is_large_balanced_and_the_same_whatever_is_read_with_it(id):
    data = datasets.load(id)
    count = len(data.classnames)
    assert len(set(data.classnames)) == count >= 6
    assert all("{}" in template for template in data.templates)
    per_class = Counter(data.test.labels.tolist())
    assert len(data.test) >= 1000 and set(per_class) == set(range(count))
    assert max(per_class.values()) - min(per_class.values()) <= 1
    if id in micro.IDS:
        for split, least in ((data.train, 16), (data.val, 4)):  # 16 shots and 4 for validation
            assert min(Counter(split.labels.tolist()).values()) >= least
    keys = [key for split in (data.train, data.val, data.test) for key in split.keys]
    assert len(set(keys)) == len(keys)

    last = len(data.test) - 1
    together = [image.tobytes() for image in data.test.read([0, 1, 2, last])]
    apart = [data.test.read([i])[0].tobytes() for i in (last, 0)]
    assert apart == [together[3], together[0]]
    assert len(set(together)) == 4
    (image,) = data.test.read([5])
    assert image.mode == "RGB" and image.size == (64, 64)
    assert np.asarray(image).std() > 1
    assert data.test.read([]) == []


def test_micro_pictures_of_train_val_and_test_differ():
    data = datasets.load("micro_shapes")
    seen = {image.tobytes() for split in (data.train, data.val, data.test) for image in split.read(range(8))}
    assert len(seen) == 24
