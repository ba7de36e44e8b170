"""The fast text path against open_clip's own ``encode_text`` at 77 tokens, on every kind of tower that is supported."""

import open_clip
import pytest
import torch
from references import encode_prompts, relative
from tiny_towers import tiny_model, tiny_pair

from carryover.bench.backbones import loading
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.errors import UserError

TOLERANCE = 1e-4
NAMES = ["cat", "2012 Ferrari 458 Italia Convertible with a very long trailing name", "sea or lake", "x"]
SMALL, FULL = ["tiny-quickgelu", "tiny-gelu", "micro-base", "micro-update"], ["ViT-B-16-quickgelu", "EVA02-B-16"]


@pytest.fixture(scope="module", params=SMALL + [pytest.param(name, marks=pytest.mark.long) for name in FULL])
def tower(request):
    return build(request.param)


@pytest.fixture(scope="module", params=SMALL)
def small_tower(request):
    return build(request.param)


def build(name):
    """(open_clip model, its tokenizer, TextTower); random weights, full size."""
    if name.startswith("tiny"):
        model, tokenizer = tiny_pair()[name == "tiny-gelu"], open_clip.get_tokenizer("ViT-B-32")
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, tokenizer = loading.build(name), loading.tokenizer(name)
    model.eval().requires_grad_(False)
    return model, tokenizer, TextTower(model.text, tokenizer)


@pytest.fixture(scope="module")
def small():
    model, tokenizer = tiny_pair()[0].eval().requires_grad_(False), open_clip.get_tokenizer("ViT-B-32")
    return model, tokenizer, TextTower(model.text, tokenizer)


def draw(tower, per, n=4, images=2, count=4):
    shape = {"shared": (n,), "class": (count, n), "image": (images, n)}[per]
    g = torch.Generator().manual_seed(7)
    return (torch.randn(*shape, tower.width, generator=g) * 0.1).requires_grad_()


def value_and_gradient(run, context):
    """Features and the gradient of a fixed random functional of them."""
    features = run(context)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    return features.detach(), torch.autograd.grad((features * weights).sum(), context)[0]


def compare(tower, per, layer=0, names=NAMES, n=4):
    model, tokenizer, text = tower
    context = draw(text, per, n, count=len(names))
    tokens = text.class_tokens(names)
    found = value_and_gradient(lambda c: text.encode(c, tokens, per=per, layer=layer), context)
    expected = value_and_gradient(lambda c: encode_prompts(model, tokenizer, names, c, per, layer), context)
    assert found[0].shape == expected[0].shape
    assert relative(found[0], expected[0]) < TOLERANCE
    assert expected[1].abs().max() > 0
    assert relative(found[1], expected[1]) < TOLERANCE


def test_every_supported_tower_takes_the_fast_path(tower):
    assert tower[2].fast


def test_plain_texts_are_encoded_as_open_clip_does(tower):
    model, tokenizer, text = tower
    texts = [f"a photo of a {name}." for name in NAMES] + ["", "dog"]
    with torch.no_grad():
        assert relative(text.encode_texts(texts), model.encode_text(tokenizer(texts))) < TOLERANCE


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_context_gives_open_clips_features_and_gradients(tower, per):
    compare(tower, per, names=NAMES if len(tower[2].blocks) <= 6 else NAMES[:2])


@pytest.mark.parametrize("per", ["shared", "class", "image"])
@pytest.mark.parametrize("layer", [1, 2, -1])
def test_deeper_context_gives_open_clips_features_and_gradients(small_tower, per, layer):
    compare(small_tower, per, layer % len(small_tower[2].blocks))


def test_deeper_context_agrees_with_open_clip_at_full_size(tower):
    compare(tower, "shared", len(tower[2].blocks) // 2, NAMES[:2])


@pytest.mark.parametrize("n", [1, 16])
def test_context_length_does_not_matter_to_agreement(small, n):
    compare(small, "shared", n=n)
    compare(small, "class", n=n)


@pytest.mark.parametrize(
    "names",
    [
        ["a"],
        ["zebra"] * 3,
        [f"thing number {i}" for i in range(40)],
        [" ".join(["word"] * (1 + 50 * (i % 2))) for i in range(4)],
    ],
)
def test_names_of_any_number_and_length_agree(small, names):
    for per in ("shared", "class", "image"):
        compare(small, per, names=names)


def test_a_prompt_that_fills_all_77_positions_agrees(small):
    # SOS, 4 context tokens, 70 words, ".", EOT
    compare(small, "shared", names=["cat", " ".join(["cat"] * 70)])


def passes(text, run):
    """What ``run`` gives, and in how many pieces the tower was gone through for it."""
    seen, before = [], text.passing.weights
    text.passing.weights = lambda: (seen.append(1), before())[1]
    try:
        return run(), len(seen)
    finally:
        del text.passing.weights


@pytest.mark.parametrize("per", ["shared", "class", "image"])
@pytest.mark.parametrize("layer", [0, 1])
def test_chunks_of_a_tiny_budget_change_neither_values_nor_gradients(small, per, layer):
    model, tokenizer, text = small
    tight = TextTower(model.text, tokenizer, budget=200_000)
    names = [f"kind {'of thing ' * (i % 4)}{i}" for i in range(13)]
    tokens, context = text.class_tokens(names), draw(text, per, images=5, count=len(names))
    whole, once = passes(
        text, lambda: value_and_gradient(lambda c: text.encode(c, tokens, per=per, layer=layer), context)
    )
    parts, often = passes(
        tight, lambda: value_and_gradient(lambda c: tight.encode(c, tokens, per=per, layer=layer), context)
    )
    assert often > 2 * once
    assert relative(parts[0], whole[0]) < 1e-5
    assert relative(parts[1], whole[1]) < 1e-5
    with torch.no_grad():
        assert relative(tight.encode(context, tokens, per=per, layer=layer), whole[0]) < 1e-5


def test_budget_of_one_byte_still_gives_every_class_its_own_feature(small):
    model, tokenizer, text = small
    least = TextTower(model.text, tokenizer, budget=1)
    tokens, context = text.class_tokens(NAMES), draw(text, "image")
    assert relative(least.encode(context, tokens, per="image"), text.encode(context, tokens, per="image")) < 1e-5


@pytest.mark.parametrize("per", ["shared", "class", "image"])
def test_permuting_classes_permutes_features(small, per):
    text, order = small[2], [2, 0, 3, 1]
    context = draw(text, per).detach()
    features = text.encode(context, text.class_tokens(NAMES), per=per)
    other = context[order] if per == "class" else context
    permuted = text.encode(other, text.class_tokens([NAMES[i] for i in order]), per=per)
    assert relative(permuted, features[..., order, :]) < 1e-5


def test_images_do_not_see_each_other(small):
    text = small[2]
    tokens, context = text.class_tokens(NAMES), draw(text, "image", images=3).detach()
    together = text.encode(context, tokens, per="image")
    alone = torch.stack([text.encode(one, tokens) for one in context])
    assert relative(together, alone) < 1e-5


@pytest.mark.parametrize("per", ["shared", "class", "image"])
@pytest.mark.parametrize("layer", [0, 2])
def test_non_causal_tower_falls_back_to_full_length_with_the_same_result(per, layer):
    model = tiny_model(5, False, no_causal_mask=True).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    text = TextTower(model.text, tokenizer)
    assert not text.fast
    compare((model, tokenizer, text), per, layer)
    with torch.no_grad():
        assert relative(text.encode_texts(NAMES), model.encode_text(tokenizer(NAMES))) < TOLERANCE


def test_full_length_on_a_causal_tower_agrees_with_open_clip(small):
    model, tokenizer, _ = small
    for per in ("shared", "class", "image"):
        compare((model, tokenizer, TextTower(model.text, tokenizer, fast=False)), per, 1)


def test_name_embeddings_are_rows_of_the_token_table_and_zero_where_padded(small):
    model, tokenizer, text = small
    names, real = text.name_embeddings(["cat", "red double decker bus"])
    for row, mask, name in zip(names, real, ["cat", "red double decker bus"], strict=True):
        ids = [i for i in tokenizer([name])[0].tolist() if 0 < i < 49406]
        assert mask.tolist() == [i < len(ids) for i in range(len(mask))]
        assert torch.equal(row[: len(ids)], model.text.token_embedding.weight[ids])
        assert not row[len(ids) :].any()


def test_embed_gives_the_words_token_embeddings(small):
    model, _, text = small
    assert torch.equal(text.embed(["a photo of a"]), model.text.token_embedding.weight[[320, 1125, 539, 320]])


@pytest.mark.parametrize(
    "shape, per",
    [
        ((4, 31), "shared"),
        ((1, 4, 32), "shared"),
        ((4, 32), "class"),
        ((3, 4, 32), "class"),
        ((4, 32), "image"),
        ((4, 32), "row"),
    ],
)
def test_context_of_a_wrong_shape_is_a_value_error(small, shape, per):
    text = small[2]
    with pytest.raises(ValueError):
        text.encode(torch.zeros(shape), text.class_tokens(NAMES), per=per)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_a_value_error(small, layer):
    text = small[2]
    with pytest.raises(ValueError, match="layer"):
        text.encode(torch.zeros(4, 32), text.class_tokens(NAMES), layer=layer)


def test_too_many_context_tokens_are_refused_with_the_length(small):
    text = small[2]
    with pytest.raises(UserError, match="77"):
        text.encode(torch.zeros(74, 32), text.class_tokens(["cat"]))


def test_a_name_longer_than_the_tower_is_refused_with_the_name(small):
    with pytest.raises(UserError, match="word word"):
        small[2].class_tokens(["cat", " ".join(["word"] * 90)])


def test_a_text_tower_without_token_embeddings_is_refused(small):
    with pytest.raises(UserError, match="token_embedding"):
        TextTower(torch.nn.Linear(2, 2), small[1])
