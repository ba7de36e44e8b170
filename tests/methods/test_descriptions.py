"""Texts of a file and by rule: the classifier that they make, what travels in the plug-in, and what a file must be."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_fits import make_support
from tiny_towers import NAMES

from carryover.bench.engine.run_store import RunStore
from carryover.bench.errors import UserError
from carryover.methods import descriptions
from carryover.methods.base import METHODS, Classes, Shape

TEXTS = {
    "cat": ["a small animal.", "a cat sits."],
    "Red_double  decker BUS": ["a tall bus."],
    "aeroplane": ["it flies.", "wings and a tail.", "an aeroplane in the sky."],
    "boeing 737-800": ["a long plane {of two engines}.", "a plane."],
}


@pytest.fixture
def file(tmp_path):
    """``file(content)``: the path of a file with it."""

    def written(content=TEXTS, name="texts.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return written


def made(backbone, names=NAMES, **changes):
    kind = METHODS["descriptions"]
    return kind(kind.Config(**changes), Shape.of(backbone, names, 8))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_hand(backbone, told):
    """Each text by itself through open_clip's own ``encode_text``."""
    rows = []
    for texts in told:
        tokens = backbone.text.tokenizer(texts)
        with torch.no_grad():
            rows.append(unit(unit(backbone.model.encode_text(tokens).double().numpy()).mean(0)))
    return np.stack(rows)


def test_a_class_is_the_mean_of_its_normalised_texts_normalised_again(tiny, classes, file):
    method, x = made(tiny.base, file=file()), make_support().features
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        expected = by_hand(backbone, TEXTS.values())
        logits = float(backbone.scale) * unit(x.double().numpy()) @ expected.T
        torch.testing.assert_close(method.predict(x).double(), torch.from_numpy(logits), rtol=1e-4, atol=1e-3)


def test_the_plug_in_holds_the_texts_and_answers_when_the_file_is_gone(tiny, classes, file, tmp_path):
    path, x = file(), make_support().features
    first = made(tiny.base, file=path)
    store = RunStore(tmp_path, "toy")
    store.write_plugin("0123456789abcdef", first.learned(), {})
    for content in (None, {"cat": ["another"]}):
        (tmp_path / "texts.json").unlink() if content is None else file(content)
        second = made(tiny.base, file=first.config.file)
        with pytest.raises(UserError, match="gone or another"):
            second.bind(tiny.base, classes)
        second.load_learned(store.read_plugin("0123456789abcdef")[0])
        assert json.loads(bytes(second.texts.numpy())) == TEXTS
        for method in (first, second):
            method.bind(tiny.new, classes)
        assert torch.equal(first.predict(x), second.predict(x))


def test_the_option_names_the_content_so_that_another_file_is_another_run(file):
    kind = METHODS["descriptions"]
    one = kind.Config(file=file())
    assert replace(one, pairs=3).file == one.file == kind.Config(file=file()).file
    other = kind.Config(file=file({**TEXTS, "cat": ["another animal.", "a cat sits."]}))
    assert other.file != one.file
    assert one.file.partition("#")[0] == other.file.partition("#")[0]


def test_some_of_the_classes_in_another_order_have_their_own_texts(tiny, classes, file):
    method = made(tiny.base, file=file())
    method.bind(tiny.base, replace(classes, names=(NAMES[2], NAMES[0], NAMES[2])))
    told = list(TEXTS.values())
    expected = by_hand(tiny.base, [told[2], told[0], told[2]])
    torch.testing.assert_close(method.classifier.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_a_list_stands_for_every_class(tiny, file):
    method = made(tiny.base, file=file(["a {}.", "the {} {x}."]))
    method.bind(tiny.base, Classes("toy", ("cat", "new thing"), ("{}",)))
    expected = by_hand(tiny.base, [["a cat.", "the cat {x}."], ["a new thing.", "the new thing {x}."]])
    torch.testing.assert_close(method.classifier.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


# ---- by rule ---------------------------------------------------------------------------------------------------------


def test_random_letters_are_those_of_the_names_in_number_and_one_draw_a_seed(tiny, classes):
    texts = {}
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        method = made(tiny.base, pairs=4)
        found = texts.setdefault(seed, method.held())
        assert found == method.held() and len(found) == 8
    assert not set(texts[1]) & set(texts[2]) and len(set(texts[1])) == 8
    words = [name.split() for name in NAMES]
    count = round(sum(map(len, words)) / len(words))
    length = round(sum(len(word) for one in words for word in one) / sum(map(len, words)))
    for number, text in enumerate(texts[1]):
        between = ", " if number % 2 else " "
        group = f"[a-z]{{{length}}}"
        assert re.fullmatch(rf"A photo of a {{}}, which has {group}(?:{between}{group}){{{count - 1}}}\.", text), text
    method.bind(tiny.base, classes)
    expected = by_hand(tiny.base, [[text.replace("{}", name) for text in texts[2]] for name in NAMES])
    torch.testing.assert_close(method.classifier.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, line",
    [
        (b"{", "no JSON in UTF-8"),
        (b"\xff\xfe", "no JSON in UTF-8"),
        (3, "holds no object and no list"),
        ({}, "holds no object and no list"),
        ([], "not of texts"),
        (["no place"], "not of texts"),
        ([{}], "not of texts"),
        ({"cat": "a cat"}, "class 'cat' has no list of texts"),
        ({"cat": ["a cat"], "dog": []}, "class 'dog' has no list of texts"),
        ({"cat": [" "]}, "class 'cat' has no list of texts"),
        ({"a_cat": ["x"], "A cat": ["y"]}, "class 'a cat' stands there twice"),
    ],
)
def test_a_file_that_is_no_such_json_is_refused_in_one_line(content, line, file):
    with pytest.raises(UserError, match=re.escape(line)) as refused:
        METHODS["descriptions"].Config(file=file(content))
    assert "as CuPL publishes it" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read '.*none\.json': No such file"):
        METHODS["descriptions"].Config(file=str(tmp_path / "none.json"))


def test_a_class_without_texts_and_one_too_many_are_named(tiny, classes, file):
    fewer = made(tiny.base, file=file({name: texts for name, texts in TEXTS.items() if name != "aeroplane"}))
    with pytest.raises(UserError, match="no texts for 1 of the 4 classes, e.g. 'aeroplane'"):
        fewer.bind(tiny.base, classes)
    more = made(tiny.base, file=file({**TEXTS, "air plane": ["it flies"]}))
    more.bind(tiny.base, classes)
    with pytest.raises(UserError, match="1 of its 5 classes are none of the 4 to be learned, e.g. 'air plane'"):
        more.start(make_support())
    made(tiny.base, file=file()).start(make_support())


def test_pairs_are_one_or_more():
    with pytest.raises(UserError, match="1 or more"):
        METHODS["descriptions"].Config(pairs=0)


def test_a_stamp_is_told_from_a_name():
    assert descriptions.size_of("a#b.json") is None and descriptions.size_of("") is None
    assert descriptions.size_of("a#b.json" + descriptions.stamp(b"four")) == 4
