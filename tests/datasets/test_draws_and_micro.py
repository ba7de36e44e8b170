"""Few-shot draws against Dassl's rule, what a split is, the micro sets."""

import hashlib
import json
import pickle
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from carryover import datasets
from carryover.datasets import micro
from carryover.datasets.base import Split
from carryover.datasets.fewshot import draw

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


def stamped(chosen):
    return [f"{STAMP['all']} {i}" for i in chosen]


STAMP = {"all": "size 1"}


def test_a_file_that_changes_is_seen_by_the_same_split_and_by_its_copy(monkeypatch):
    names, split = ("a", "b"), Split(("x", "é"), np.array([1, 0]), stamped, stamped)

    def expected():
        lines = [
            json.dumps({"class": c, "key": k, "label": y}, ensure_ascii=False)
            for k, y, c in (("x", 1, "b"), ("é", 0, "a"))
        ]
        return hashlib.sha256(
            "\n".join(["\n".join(lines) + "\n", f"{STAMP['all']} 0", f"{STAMP['all']} 1"]).encode()
        ).hexdigest()

    before = expected()
    assert split.content_sha256(names) == split.content_sha256(list(names)) == before
    monkeypatch.setitem(STAMP, "all", "size 2")
    assert split.content_sha256(names) == expected() != before
    copy = pickle.loads(pickle.dumps(split))
    assert copy.content_sha256(names) == expected() and copy.sha256(names) == split.sha256(names)


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
