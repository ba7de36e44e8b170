"""Text towers of every kind that open_clip has against open_clip's own ``encode_text``, plain texts and contexts."""

import pytest
import torch
from references import relative
from text_kinds import KINDS, Pieces, as_open_clip, hooked_encode, made

from carryover.bench.backbones import loading
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.errors import UserError

TOLERANCE = 2e-5
NAMES = ["cat", "red double decker bus", "sea or lake", "x"]
WORDS = "a photo of a"


def tower_of(name):
    if name == "micro-siglip":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = loading.build(name).eval().requires_grad_(False)
        return model, loading.tokenizer(name), 0
    model, tokenizer, kind = made(name)
    return model, tokenizer, kind.start


@pytest.fixture(scope="module", params=[*KINDS, "micro-siglip"])
def tower(request):
    """(model, tokenizer, tokens in front of a text, TextTower)"""
    model, tokenizer, start = tower_of(request.param)
    return model, tokenizer, start, TextTower(model.text, tokenizer)


def drawn(*shape, seed=7):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1).requires_grad_()


def slopes(features, *inputs):
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((features * weights).sum(), inputs)


@pytest.mark.parametrize("name", KINDS)
def test_causal_towers_read_at_the_end_take_the_fast_path_and_no_others(name):
    model, tokenizer, kind = made(name)
    assert TextTower(model.text, tokenizer).fast == kind.fast


def test_plain_texts_are_encoded_as_open_clip_does(tower):
    model, tokenizer, _, text = tower
    texts = [f"{WORDS} {name}." for name in NAMES] + ["", "dog"]
    with torch.no_grad():
        expected = as_open_clip(model, tokenizer, texts)
    assert relative(text.encode_texts(texts), expected) < TOLERANCE
    assert relative(expected[0], expected[1]) > 0.01  # texts are told apart


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_a_context_of_words_gives_what_open_clip_gives_the_words(tower, per):
    model, tokenizer, _, text = tower
    context = text.embed([WORDS])
    context = {"shared": context, "class": context.expand(len(NAMES), -1, -1), "image": context[None]}[per]
    found = text.encode(context, text.class_tokens(NAMES), per=per)
    with torch.no_grad():
        expected = as_open_clip(model, tokenizer, [f"{WORDS} {name}." for name in NAMES])
    assert relative(found.view(expected.shape), expected) < TOLERANCE


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_contexts_give_open_clips_features_and_gradients(tower, per, layer):
    model, tokenizer, start, text = tower
    shape = {"shared": (4,), "class": (len(NAMES), 4), "image": (3, 4)}[per]
    context = drawn(*shape, text.width)
    found = text.encode(context, text.class_tokens(NAMES), per=per, layer=layer)
    alone = context if per == "image" else context[None]
    expected = torch.stack([hooked_encode(model, tokenizer, start, NAMES, one, layer) for one in alone])
    expected = expected if per == "image" else expected[0]
    assert relative(found, expected) < TOLERANCE
    (slope,), (wanted,) = slopes(found, context), slopes(expected, context)
    assert wanted.abs().max() > 0 and relative(slope, wanted) < TOLERANCE


def test_deep_contexts_give_open_clips_features_and_gradients(tower):
    model, tokenizer, start, text = tower
    context, deep = drawn(3, text.width), drawn(2, 3, text.width, seed=8)
    found = text.encode(context, text.class_tokens(NAMES), deep=deep)
    expected = hooked_encode(model, tokenizer, start, NAMES, context, deep=deep)
    assert relative(found, expected) < TOLERANCE
    for slope, wanted in zip(slopes(found, context, deep), slopes(expected, context, deep), strict=True):
        assert relative(slope, wanted) < TOLERANCE


@pytest.mark.parametrize("layer", [0, 2])
def test_placeholder_rows_are_those_of_a_text_of_placeholders(tower, layer):
    model, tokenizer, start, text = tower
    seen = {}
    module = text.text.token_embedding if layer == 0 else text.blocks[layer]
    handle = (
        module.register_forward_hook(lambda module, args, output: seen.update(x=output))
        if layer == 0
        else module.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    )
    ids = tokenizer(["X X X X"])
    ids[:, start] = ids[:, start + 1]  # the first "X" of a text may be another piece
    with torch.no_grad():
        model.encode_text(ids)
    handle.remove()
    rows = seen["x"][0, start : start + 4]
    torch.testing.assert_close(text.placeholder_rows(4, layer), rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per", ["shared", "class", "image"])
@pytest.mark.parametrize("name", ["SigLIP", "CoCa"])
def test_chunks_of_a_tiny_budget_change_neither_values_nor_gradients(name, per):
    model, tokenizer, _ = tower_of(name)
    text, tight = TextTower(model.text, tokenizer), TextTower(model.text, tokenizer, budget=1_000_000)
    names = [f"kind {'of thing ' * (i % 4)}{i}" for i in range(13)]
    shape = {"shared": (4,), "class": (len(names), 4), "image": (3, 4)}[per]
    context, tokens = drawn(*shape, text.width), text.class_tokens(names)
    passes, before = [], tight.passing.run
    tight.passing.run = lambda *a: (passes.append(1), before(*a))[1]
    whole, parts = (one.encode(context, tokens, per=per) for one in (text, tight))
    assert relative(parts, whole) < 1e-5
    assert relative(slopes(parts, context)[0], slopes(whole, context)[0]) < 1e-5
    assert len(passes) > 4  # several, each again in the backward pass


def test_full_length_without_short_cuts_agrees(tower):
    model, tokenizer, _, text = tower
    plain, context = TextTower(model.text, tokenizer, fast=False), drawn(4, text.width)
    tokens = text.class_tokens(NAMES)
    assert not plain.fast
    assert relative(plain.encode(context, tokens), text.encode(context, tokens)) < TOLERANCE


def test_bf16_keeps_features_near_and_in_fp32(tower):
    model, tokenizer, _, text = tower
    half, context = TextTower(model.text, tokenizer, precision="bf16"), drawn(4, text.width)
    found, expected = (one.encode(context, one.class_tokens(NAMES)) for one in (half, text))
    assert found.dtype == torch.float32 and 0 < relative(found, expected) < 0.1


def test_a_name_is_cut_into_pieces_as_it_stands_behind_words():
    model, tokenizer, _ = tower_of("SigLIP 2")
    text = TextTower(model.text, tokenizer)
    behind = tokenizer(["photo red bus."])[0].tolist()
    assert text.class_tokens(["red bus"]).rows == (tuple(behind[1:5]),)
    assert text.tokens(["red bus."]) != text.behind(["red bus."])


@pytest.mark.parametrize("name, length", [("SigLIP", 24), ("CLIPA", 32), ("PE", 32), ("CoCa", 76), ("MetaCLIP 2", 77)])
def test_a_context_fills_the_tower_and_one_token_more_is_refused(name, length):
    model, tokenizer, start = tower_of(name)
    text = TextTower(model.text, tokenizer)
    tokens, n = text.class_tokens(["cat"]), length - start - 3  # behind the context: "cat", "." and the end
    found = text.encode(drawn(n, text.width), tokens)
    expected = hooked_encode(model, tokenizer, start, ["cat"], drawn(n, text.width))
    assert relative(found, expected) < TOLERANCE
    with pytest.raises(UserError, match=f"{length} tokens"):
        text.encode(drawn(n + 1, text.width), tokens)


@pytest.mark.parametrize(
    "name, tokenizer, expected",
    [
        ("CLIPA", Pieces((101,), 0, 0, 77), "77 tokens.*reads 32"),
        ("MetaCLIP 2", Pieces((0,), 3, 1, 77), "reads at id 2.*ends a text with 3"),
        ("CLIPA", Pieces((101,), 600, 0, 32), "id 600.*500 embeddings"),
        ("MobileCLIP S", Pieces((101,), 0, 1, 77), "reads at id"),
        ("CLIPA", lambda texts: torch.tensor([[1, 5, 2, 0]] * len(texts)), "lays out 'X'"),
        ("CLIPA", lambda texts: torch.tensor([[1, 5, 2, 0]]), "1 rows"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused_in_one_line(name, tokenizer, expected):
    model, _, _ = tower_of(name)
    with pytest.raises(UserError, match=expected) as caught:
        TextTower(model.text, tokenizer)
    assert "\n" not in str(caught.value)
