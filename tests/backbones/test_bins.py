"""The layout that a GPU has for class prompts, on a CPU: open_clip's own ``encode_text`` at 77 tokens beside it."""

import pytest
import torch
import torch.nn.functional as F
from test_text_path import NAMES, SMALL, build, compare, draw, passes, relative, value_and_gradient

from carryover.bench.backbones.bins import KEYS, Bins, fitted
from carryover.bench.backbones.class_tokens import pad
from carryover.bench.backbones.text_pass import Pass
from carryover.bench.backbones.text_tower import TextTower

MANY = [f"thing {'of a kind ' * (i % 5)}number {i}" for i in range(60)]


@pytest.fixture(autouse=True)
def binned(monkeypatch):
    """Towers lay texts out as on a GPU."""
    monkeypatch.setattr(Pass, "binned", property(lambda self: True))


@pytest.fixture(params=SMALL)
def tower(request):
    return build(request.param)


@pytest.fixture
def small():
    return build("tiny-quickgelu")


@pytest.mark.parametrize("per", ["shared", "class", "image"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_context_gives_open_clips_features_and_gradients(tower, per, layer):
    compare(tower, per, layer % len(tower[2].blocks))


@pytest.mark.parametrize("names", [["a"], ["zebra"] * 3, MANY, ["cat", " ".join(["cat"] * 70)]])
@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_names_of_any_number_and_length_agree(small, per, names):
    compare(small, per, names=names)


def test_a_context_at_several_blocks_is_that_of_the_cpus_layout(small, monkeypatch):
    text, g = small[2], torch.Generator().manual_seed(5)
    context, deep = (0.1 * torch.randn(*shape, text.width, generator=g) for shape in ((4,), (2, 4)))
    found = text.encode(context, text.class_tokens(NAMES), deep=deep)
    monkeypatch.undo()
    expected = text.encode(context, text.class_tokens(NAMES), deep=deep)
    assert relative(found, expected) < 1e-5


def test_plain_texts_are_encoded_as_open_clip_does(tower):
    model, tokenizer, text = tower
    texts = [f"a photo of a {name}." for name in MANY] + ["", "dog"]
    with torch.no_grad():
        assert relative(text.encode_texts(texts), model.encode_text(tokenizer(texts))) < 1e-4


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_chunks_change_neither_values_nor_gradients(small, per):
    model, tokenizer, text = small
    tight = TextTower(model.text, tokenizer, budget=200_000)
    tokens, context = text.class_tokens(MANY), draw(text, per, images=5, count=len(MANY))
    whole, once = passes(text, lambda: value_and_gradient(lambda c: text.encode(c, tokens, per=per), context))
    parts, often = passes(tight, lambda: value_and_gradient(lambda c: tight.encode(c, tokens, per=per), context))
    assert often > 2 * once
    assert relative(parts[0], whole[0]) < 1e-5 and relative(parts[1], whole[1]) < 1e-5


def test_several_sets_of_class_contexts_side_by_side_are_each_alone(small):
    text = small[2]
    tokens = text.class_tokens(NAMES)
    pair = torch.stack([draw(text, "class").detach(), draw(text, "class").detach().flip(0)])
    for found, context in zip(text.encode(pair, tokens, per="class"), pair, strict=True):
        assert relative(found, text.encode(context, tokens, per="class")) < 1e-5


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_in_bf16_features_and_gradients_stay_close(per):
    model, tokenizer, text = build("micro-base")
    half = TextTower(model.text, tokenizer, precision="bf16")
    tokens, context = text.class_tokens(NAMES), draw(text, per)
    found, expected = (
        value_and_gradient(lambda c, tower=tower: tower.encode(c, tokens, per=per), context) for tower in (half, text)
    )
    assert found[0].dtype == torch.float32 and not torch.equal(found[0], expected[0])
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one.flatten(-2), other.flatten(-2), dim=-1).min() > 0.99


def test_bins_hold_whole_classes_with_little_padding():
    layout, lengths = build("tiny-quickgelu")[2].layout, [3 + i % 9 for i in range(500)]
    bins = Bins(pad([[1] * length for length in lengths]), layout, 16, own=False)
    assert bins.size <= KEYS and bins.size % 8 == 0
    assert sum(lengths) <= bins.tokens - 17 * bins.count < 1.05 * sum(lengths)
    assert bins.tokens <= sum(bins.each) + bins.size < 1.1 * bins.tokens
    assert sorted(i for one in fitted(lengths, KEYS - 17) for i in one) == list(range(500))
    few = Bins(pad([[1] * 5] * 4), layout, 16, own=False)
    assert few.count == 1 and few.tokens < 17 + 20 + 8
