"""Padding words: which nouns there are, and that none of them names a class."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.bench.ports import words
from carryover.datasets.micro.captions import captions
from carryover.datasets.micro.world import sample


def backbone(micro):
    return SimpleNamespace(tower=SimpleNamespace(is_micro=micro))


@pytest.mark.parametrize("one, other", [
    ("leaf", "Leaves"), ("Knife", "knives"), ("glove", "gloves"), ("bus", "buses"), ("house", "houses"),
    ("pony", "ponies"), ("pie", "pies"), ("box", "boxes"), ("fireman", "firemen"), ("mouse", "mice"),
    ("golf cart", "golfcarts"), ("a sea", "the seas"), ("fire-hydrant", "fire_hydrant"),
])  # fmt: skip
def test_names_that_differ_in_case_number_article_and_hyphens_are_one(one, other):
    assert words.key(one) == words.key(other)


@pytest.mark.parametrize("one, other", [("cat", "car"), ("glass", "gas"), ("iris", "ire"), ("star", "red star")])
def test_other_names_stay_apart(one, other):
    assert words.key(one) != words.key(other)


@pytest.mark.parametrize("name, gone", [
    ("Bicycles", "bicycle"), ("bike", "bicycle"), ("tv", "television"), ("couch", "sofa"), ("ocean", "sea"),
    ("highway", "road"), ("stripes", "striped"),
])  # fmt: skip
def test_no_other_name_of_a_class_is_left(name, gone):
    assert words.key(gone) in words.names_of([name])
    found = words.others((gone, "zebra", "teapot"), [name], 2, 1)
    assert set(found) == {"zebra", "teapot"}


def test_draw_depends_on_the_seed_and_on_no_order():
    nouns = words.imagenet_nouns()
    first = words.others(nouns, ["cat", "dog"], 50, 1)
    assert first == words.others(nouns[::-1], ["dog", "cat"], 50, 1)
    assert len(set(first) & set(words.others(nouns, ["cat", "dog"], 50, 2))) < 10
    assert len({words.key(word) for word in first}) == 50
    assert words.digest(first) != words.digest(first[::-1])


def test_a_few_classes_more_change_only_their_own_words():
    nouns = words.imagenet_nouns()
    first = words.others(nouns, ["cat"], 50, 1)
    assert set(words.others(nouns, ["cat", first[7]], 50, 1)) >= set(first) - {first[7]}


def test_too_few_nouns_are_told_in_one_line():
    with pytest.raises(UserError, match="3 nouns .* are needed, 2 are known"):
        words.others(("zebra", "teapot", "Cats"), ["cat"], 3, 1)


def test_clip_has_thousands_of_common_nouns_and_none_of_persons():
    nouns = words.nouns(backbone(False))
    assert 5000 < len(nouns) == len(set(nouns))
    assert {"bicycle", "teapot", "zebra", "umbrella"} <= set(nouns)
    assert not {"wife", "workman", "widow", "wrecker", "juvenile"} & set(nouns)


def test_micro_nouns_are_words_of_its_captions():
    nouns = words.nouns(backbone(True))
    assert len(nouns) >= 400
    told = " ".join(captions(sample(np.arange(40_000, dtype=np.uint64)))).lower().replace(".", " ").replace(",", " ")
    assert {word for noun in nouns for word in noun.split()} <= set(told.split())


@pytest.mark.parametrize("id", datasets.default("micro"))
def test_every_micro_dataset_finds_enough_padding(id):
    names = datasets.load(id, "").classnames
    padding = words.others(words.micro_nouns(), names, 128 - len(names), 1)
    assert not {words.key(word) for word in padding} & {words.key(name) for name in names}
