"""Theseus against its authors' code, against scipy, and on backbones where the answer is known."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from formula_towers import formula_labels, formula_pixels
from references import relative
from tiny_eva import tiny_eva
from tiny_towers import NAMES, TEMPLATES, tiny_model, wrap
from weight_ports import CLASSES, anchors_of, bits, formula_backbone, formula_plugin, logits_of, plugin_of

from carryover.bench.backbones import archs, attention, loading
from carryover.bench.errors import UserError
from carryover.bench.ports import activations, theseus
from carryover.bench.ports.activations import Products
from carryover.bench.ports.theseus import Theseus, aligned
from carryover.methods.base import METHODS, Classes, Shape

AUTHORS = json.loads(Path(__file__).with_name("authors.json").read_text())
TOLERANCE = 1e-4
WORDS = (
    "apple arch badge barn bear bell bird boat bone book bottle bowl box bridge broom bucket cactus cake camel candle "
    "cannon castle chain chair cheese clock cloud coat comb corn couch crab crown cup desk dog door dragon dress drum "
    "duck eagle egg engine eye fan feather fence fern fire fish flag flute fork fox frog garden gate ghost giraffe"
).split()
MANY = Classes("words", tuple(WORDS), TEMPLATES)


@pytest.fixture(scope="module")
def old():
    return formula_backbone(1)


@pytest.fixture(scope="module")
def wide():
    """Image width 64 instead of 48, 5 x 5 patches instead of 4 x 4."""
    return formula_backbone(2, width=64, size=40)


def dense(plugin, tower):
    """(L, 3, W, W), letter by letter."""
    part = getattr(plugin, tower)
    return plugin.config.alpha / plugin.config.rank**0.5 * part.up.detach() @ part.down.detach()


# ---- against others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width, size", [(48, 32), (64, 40), (32, 24)])
def test_the_image_half_is_what_the_authors_code_makes_of_it(old, width, size):
    """merge-and-rebase@345c570, TheseusRebase().transport on the same towers, pictures and change, whitening off."""
    expected = AUTHORS["theseus"][f"{width},{size},24"]
    new, plugin = formula_backbone(2, width=width, size=size), formula_plugin(old)
    seen = anchors_of(Theseus, formula_pixels(24), formula_pixels(24, size), kind="other")
    ported = Theseus().fit(plugin, old, new, CLASSES, seen)
    found = dense(ported.inner(), "image").flatten(1, 2)
    entries = found.flatten()[(torch.arange(8) * 7919 + 13) % found.numel()]
    assert found.norm().item() == pytest.approx(expected["norm"], rel=TOLERANCE)
    for block, norms in zip(found, expected["blocks"], strict=True):
        assert [part.norm().item() for part in block.chunk(3)] == pytest.approx(norms, rel=TOLERANCE)
    assert relative(entries, torch.tensor(expected["entries"])) < TOLERANCE
    share = expected["norm"] / dense(plugin, "image").norm().item()
    assert ported.about["length"]["image"] == pytest.approx(share, rel=TOLERANCE)


def test_with_rows_enough_a_map_is_scipys():
    rows = np.random.default_rng(0)
    a, b = rows.normal(size=(60, 12)), rows.normal(size=(60, 12))
    found, rank = aligned(Products.of(torch.tensor(a), torch.tensor(b)).inputs())
    assert rank == 12
    np.testing.assert_allclose(found.numpy(), scipy.linalg.orthogonal_procrustes(a, b)[0], atol=1e-6)


@pytest.mark.parametrize("turn", [np.eye(8), scipy.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]])
def test_directions_without_a_row_are_dropped_and_the_others_turned_rightly(turn):
    a = np.random.default_rng(2).normal(size=(4, 8))
    found, rank = aligned(Products.of(torch.tensor(a), torch.tensor(a @ turn)).inputs())
    assert rank == 4
    np.testing.assert_allclose(found.numpy(), np.linalg.pinv(a) @ a @ turn, atol=1e-6)


def test_rounding_on_one_side_is_not_taken_for_a_direction():
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(200, 6, generator=generator) @ torch.randn(6, 10, generator=generator)  # rank 6, in fp32
    full = torch.randn(200, 10, generator=generator)
    assert aligned(Products.of(flat, full).inputs())[1] == aligned(Products.of(full, flat).inputs())[1] == 6


@pytest.mark.parametrize("kind", ["open_clip", "eva", "eva-fused"])
def test_sums_of_queries_keys_and_values_are_those_of_what_the_blocks_compute(kind):
    """The tower's own modules, opened at their matrices: biases of three kinds of attention."""
    model = tiny_model(0, True) if kind == "open_clip" else tiny_eva(kind == "eva-fused")
    with torch.no_grad():
        for name, value in model.visual.named_parameters():
            if "bias" in name:
                value.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    backbone, pixels = wrap(model, "tiny", "quick_gelu"), formula_pixels(3)
    sums = activations.of_pictures(backbone, backbone, pixels, pixels)
    for block, own, read in zip(
        backbone.image_stack.blocks, sums, activations.picture_tokens(backbone, pixels), strict=True
    ):
        rows = computed(block.attn, read.flatten(0, 1))
        for letter, weight, bias in zip(rows, *theseus.letters(block), strict=True):
            expected = (letter.double().T @ letter.double()).detach()
            assert relative(own.through((weight, bias), (weight, bias)).both, expected) < 1e-5


def computed(attn, x):
    """q, k, v of rows (N, W), as the module computes them, caught on their way into attention."""
    caught, true_attention = [], F.scaled_dot_product_attention

    def catch(q, k, v, *args, **kwargs):
        caught.extend(part.transpose(1, 2).reshape(-1, len(x[0])) for part in (q, k, v))
        return true_attention(q, k, v, *args, **kwargs)

    if isinstance(attn, torch.nn.MultiheadAttention):
        return F._in_projection_packed(x, x, x, attn.in_proj_weight, attn.in_proj_bias)
    F.scaled_dot_product_attention = catch
    try:
        with torch.no_grad():
            attn(x[None])
    finally:
        F.scaled_dot_product_attention = true_attention
    return caught


# ---- where the answer is known ---------------------------------------------------------------------------------------


def test_onto_the_same_backbone_the_change_and_the_plugins_own_logits_come_back(old):
    plugin, pixels = plugin_of("clip-lora", old, MANY), formula_pixels(24)
    expected = logits_of(plugin, old, pixels, MANY)
    ported = Theseus().fit(plugin, old, old, MANY, anchors_of(Theseus, pixels))
    for tower, width in (("image", 48), ("text", 32)):
        assert ported.about["seen"][tower]["in"] == ported.about["seen"][tower]["out"] == width
        assert relative(dense(ported.inner(), tower), dense(plugin, tower)) < TOLERANCE
    found = logits_of(ported, old, pixels, MANY)
    zero_shot = old.scale * F.normalize(old.encode_images(pixels), dim=-1) @ old.zero_shot(MANY).T
    assert relative(found, expected) < TOLERANCE < 0.05 < relative(zero_shot, expected)


def test_a_tower_whose_axes_are_turned_inside_each_block_gets_the_change_turned_alike(old):
    """Queries and keys of each head turned together: the same function, other axes."""
    turned, generator = copy.deepcopy(old.model), torch.Generator().manual_seed(4)
    turns = []
    with torch.no_grad():
        for block in turned.visual.transformer.resblocks:
            heads = [torch.linalg.qr(torch.randn(16, 16, generator=generator))[0] for _ in range(3)]
            turns.append(torch.block_diag(*heads))
            for part in (slice(0, 48), slice(48, 96)):
                block.attn.in_proj_weight[part] = turns[-1].T @ block.attn.in_proj_weight[part]
                block.attn.in_proj_bias[part] = turns[-1].T @ block.attn.in_proj_bias[part]
    new, plugin, pixels = wrap(turned, "turned", "gelu"), plugin_of("clip-lora", old, MANY), formula_pixels(24)
    assert relative(new.encode_images(pixels), old.encode_images(pixels)) < 1e-5
    ported = Theseus().fit(plugin, old, new, MANY, anchors_of(Theseus, pixels))
    own, found = dense(plugin, "image"), dense(ported.inner(), "image")
    for block, turn in enumerate(turns):
        assert relative(found[block, 0], turn.T @ own[block, 0]) < TOLERANCE
        assert relative(found[block, 2], own[block, 2]) < TOLERANCE
    assert relative(logits_of(ported, new, pixels, MANY), logits_of(plugin, old, pixels, MANY)) < TOLERANCE


def test_few_words_leave_directions_of_the_text_tower_unseen_and_the_record_says_how_many(old):
    plugin, pixels = plugin_of("clip-lora", old), formula_pixels(24)
    ported = Theseus().fit(plugin, old, old, CLASSES, anchors_of(Theseus, pixels))
    texts = [TEMPLATES[0].format(name) for name in (*NAMES, "thing")]
    seen = ported.about["seen"]["text"]
    assert seen["tokens"] == sum(len(row) + 2 for row in old.text.tokens(texts))
    assert seen["in"] < 32 and ported.about["length"]["text"] < 1
    assert ported.about["seen"]["image"] == {"tokens": 24 * 17, "in": 48, "out": 48}
    more = Theseus().fit(plugin, old, old, CLASSES, anchors_of(Theseus, pixels, nouns=tuple(WORDS)))
    assert (
        more.about["seen"]["text"]["out"] == 32 and relative(dense(more.inner(), "text"), dense(plugin, "text")) < 1e-4
    )


def test_tokens_of_a_causal_tower_are_those_of_its_whole_length(old, monkeypatch):
    texts = [TEMPLATES[0].format(name) for name in NAMES]
    short = activations.of_texts(old, old, texts)
    monkeypatch.setattr(old.text, "causal", False)
    for one, other in zip(short, activations.of_texts(old, old, texts), strict=True):
        assert one.tokens == other.tokens and relative(one.both, other.both) < 1e-5


# ---- what it leaves --------------------------------------------------------------------------------------------------


def test_of_another_width_it_is_an_ordinary_plugin_of_the_new_backbone(old, wide):
    plugin, pixels = plugin_of("clip-lora", old, rank=3), formula_pixels(12, 40)
    before = bits(old), bits(wide)
    ported = Theseus().fit(plugin, old, wide, CLASSES, anchors_of(Theseus, formula_pixels(12), pixels))
    found = logits_of(ported, wide, pixels)
    assert (bits(old), bits(wide)) == before, "both towers are as they were, to the last bit"
    fresh = METHODS["clip-lora"](plugin.config, Shape.of(wide, NAMES, 24))
    fresh.load_learned(ported.state()[0])
    assert torch.equal(logits_of(fresh, wide, pixels), found)
    assert fresh.image.down.shape == (2, 3, 3, 64) and ported.about["marks"] == []


def test_no_label_is_read(old, wide):
    found = []
    for labels in (formula_labels(12), formula_labels(12).flip(0), None):
        seen = anchors_of(Theseus, formula_pixels(12), formula_pixels(12, 40), labels)
        ported = Theseus().fit(plugin_of("clip-lora", old), old, wide, CLASSES, seen)
        found.append({name: value.numpy().tobytes() for name, value in ported.state()[0].items()})
        with pytest.raises(UserError, match="labels"):
            _ = seen.labels
    assert found[0] == found[1] == found[2]


def test_maps_are_made_once_for_all_plugins_over_the_same_anchors(old, wide, monkeypatch):
    seen, calls = anchors_of(Theseus, formula_pixels(12), formula_pixels(12, 40)), []
    true = activations.of_pictures
    monkeypatch.setattr(activations, "of_pictures", lambda *args: calls.append(1) or true(*args))
    for rank in (1, 2):
        Theseus().fit(plugin_of("clip-lora", old, rank=rank), old, wide, CLASSES, seen)
    assert len(calls) == 1


def test_towers_of_another_kind_with_as_many_blocks_take_it(old):
    new, pixels = wrap(tiny_eva(False), "tiny-eva", "gelu"), formula_pixels(12)
    ported = Theseus().fit(plugin_of("clip-lora", old), old, new, CLASSES, anchors_of(Theseus, pixels))
    zero_shot = new.scale * F.normalize(new.encode_images(pixels), dim=-1) @ new.zero_shot(CLASSES).T
    assert ported.about["marks"] == [] and relative(logits_of(ported, new, pixels), zero_shot) > 0.01


# ---- what it cannot carry --------------------------------------------------------------------------------------------


def test_a_tower_of_another_depth_is_left_out_and_marked(old):
    deep, plugin, pixels = formula_backbone(2, layers=3), plugin_of("clip-lora", old), formula_pixels(12)
    assert Theseus().fits(plugin, old, deep) is None
    ported = Theseus().fit(plugin, old, deep, CLASSES, anchors_of(Theseus, pixels))
    (mark,) = ported.about["marks"]
    assert "image half is left out" in mark and "(2, 3, 2, 48)" in mark and "(3, 3, 2, 48)" in mark
    assert ported.inner().image is None and list(ported.about["seen"]) == ["text"]
    assert torch.isfinite(logits_of(ported, deep, pixels)).all()
    flat = formula_backbone(3, layers=2)
    flat.text.text.transformer.resblocks = flat.text.text.transformer.resblocks[:2]
    text = Theseus().fit(plugin, old, flat, CLASSES, anchors_of(Theseus, pixels))
    assert "text half is left out" in text.about["marks"][0] and not text.inner().text.up.any()
    assert torch.isfinite(logits_of(text, flat, pixels)).all()


def test_where_no_tower_fits_one_line_names_the_tensors_and_both_shapes(old):
    deep, plugin = formula_backbone(2, layers=3), plugin_of("clip-lora", old)
    deep.text.text.transformer.resblocks = deep.text.text.transformer.resblocks[:2]
    line = Theseus().fits(plugin, old, deep)
    assert "\n" not in line and "text.down is (3, 3, 2, 32), formula-2" in line and "image.down" in line
    with pytest.raises(UserError, match="as many blocks"):
        Theseus().fit(plugin, old, deep, CLASSES, anchors_of(Theseus, formula_pixels(12)))


def test_an_image_tower_without_blocks_on_either_side(old):
    """micro's kind: the text half alone is there, or alone can go."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = loading.build("micro-base")
    micro = loading.Backbone(model, archs.ARCHS["micro"].base, loading.tokenizer("micro-base"))
    plugin, pixels = plugin_of("clip-lora", micro), torch.randn(4, 3, 32, 32)
    assert attention.image_stack(micro.model.visual) is None and plugin.image is None
    ported = Theseus().fit(plugin, micro, micro, CLASSES, anchors_of(Theseus, pixels))
    assert list(ported.about["seen"]) == ["text"] and ported.about["marks"] == []


def test_the_text_half_is_left_out_where_another_tokenizer_cuts_texts_otherwise(old):
    new = formula_backbone(2)
    true = new.text.tokenizer
    new.text.tokenizer = lambda texts: true([f"{text}!" for text in texts])
    ported = Theseus().fit(plugin_of("clip-lora", old), old, new, CLASSES, anchors_of(Theseus, formula_pixels(12)))
    assert list(ported.about["seen"]) == ["image"] and not ported.method.text.up.any()
    (mark,) = ported.about["marks"]
    assert mark == "CLIP-LoRA's text half is left out: formula-1 and formula-2 cut texts into other tokens"


def test_nouns_alone_that_are_cut_otherwise_are_an_error(old):
    new = formula_backbone(2)
    true = new.text.tokenizer
    new.text.tokenizer = lambda texts: true([text.replace("thing", "things") for text in texts])
    with pytest.raises(UserError, match="other tokens"):
        Theseus().fit(plugin_of("clip-lora", old), old, new, CLASSES, anchors_of(Theseus, formula_pixels(12)))


@pytest.mark.parametrize(
    "name, why",
    [
        ("maple", "no weight"),
        ("prolip", "last matrix"),
        ("linear-probe", "no weight"),
        ("fine-tuning", "not kept"),
        ("layer-norm", "changes norms"),
        ("clip-lora", None),
    ],
)
def test_methods_without_a_change_of_weights_get_the_reason(name, why):
    found = Theseus.works_on(METHODS[name])
    assert found is None if why is None else why in found
