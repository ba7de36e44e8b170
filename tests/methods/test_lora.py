"""LoRA of any weights, as it comes from files: added exactly, undone to the last bit, refused where it does not fit."""

import copy

import pytest
import torch
from references import relative
from tiny_eva import tiny_eva
from tiny_fits import pixels_of
from tiny_towers import NAMES, TEMPLATES, tiny_model, wrap

from carryover.bench.backbones.places import spot
from carryover.bench.errors import UserError
from carryover.bench.ports.weight_deltas import on_weights
from carryover.methods import ordered
from carryover.methods.base import METHODS, Classes, Shape
from carryover.methods.elsewhere.lora import Config, Lora

PIXELS = pixels_of(torch.arange(8) % len(NAMES))
CLASSES = Classes("toy", NAMES, TEMPLATES)
OPEN_CLIP = (
    "text.0.q.weight:32x32:3",
    "text.0.v.weight:32x32:2",
    "text.2.k.bias:32",
    "text.1.fc1.weight:128x32:5",
    "text.1.ln_2.weight:32",
    "text.ln_post.bias:32",
    "text.projection.weight:32x32:1",
    "image.1.out.weight:48x48:4",
    "image.0.fc2.weight:48x192",
    "image.ln_pre.weight:48",
    "image.projection.weight:32x48:2",
)
EVA = (
    "text.1.out.weight:32x32:2",
    "image.0.k.weight:48x48:3",
    "image.1.q.weight:48x48:2",
    "image.1.out.bias:48",
    "image.0.ln_1.bias:48",
)


def hand(model, place):
    """The weight of a place as a view of the model's own, found by name."""
    tower, *inner, part, kind = place.split(".")
    whole = model.text if tower == "text" else model.visual
    if part == "projection":
        return (whole.text_projection if tower == "text" else whole.proj).data.T
    if not inner:
        norm = {"ln_pre": "ln_pre", "ln_post": "ln_final" if tower == "text" else "ln_post"}[part]
        return getattr(getattr(whole, norm), kind).data
    eva = not hasattr(whole, "transformer")
    block = (whole.trunk.blocks if eva else whole.transformer.resblocks)[int(inner[0])]
    if part in ("q", "k", "v") and (not eva or block.attn.qkv is not None):
        both = getattr(block.attn.qkv, kind) if eva else getattr(block.attn, f"in_proj_{kind}")
        return both.data.chunk(3)["qkv".index(part)]
    names = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "ln_1": "norm1", "out": "attn.proj"}
    usual = {"out": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj", "ln_1": "ln_1", "ln_2": "ln_2"}
    return block.get_submodule((names if eva else usual)[part]).get_parameter(kind).data


def shape_of(backbone):
    return Shape.of(backbone, NAMES, 0)


def made(backbone, changes):
    method = Lora(Config(changes=changes), shape_of(backbone)).eval()
    generator = torch.Generator().manual_seed(0)
    for value in method.parameters():
        value.data = 0.2 * torch.randn(value.shape, generator=generator)
    method.bind(backbone, CLASSES)
    return method


def by_hand(backbone, method):
    model = copy.deepcopy(backbone.model)
    for change in method.config.parsed:
        key = change.place.replace(".", "_")
        low = change.rank > 0
        delta = method.up[key] @ method.down[key] if low else method.full[key]
        hand(model, change.place).add_(delta.detach())
    return model


def expected_of(model, backbone):
    texts = backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    with torch.no_grad():
        images, texts = model.encode_image(PIXELS, normalize=True), model.encode_text(texts, normalize=True)
        return model.logit_scale.exp() * images @ texts.T


@pytest.fixture(scope="module", params=["open_clip", "eva", "eva-fused"])
def case(request):
    if request.param == "open_clip":
        return wrap(tiny_model(0, True), "tiny-base", "quick_gelu"), OPEN_CLIP
    return wrap(tiny_eva(request.param == "eva-fused"), "tiny-eva", "gelu"), EVA


def test_each_change_is_added_to_the_weight_that_its_place_names(case):
    backbone, changes = case
    usual = expected_of(backbone.model, backbone)
    for chosen in (changes, *[(change,) for change in changes]):
        method = made(backbone, chosen)
        expected = expected_of(by_hand(backbone, method), backbone)
        with method.attach(backbone):
            found = method.predict(PIXELS)
        assert relative(found, expected) < 1e-4, chosen
        # alone, the bias of a key changes nothing: each query meets all keys moved alike
        assert relative(usual, expected) > 1e-3 or chosen == ("text.2.k.bias:32",)


def test_it_is_undone_to_the_last_bit_after_an_error_too(case):
    backbone, changes = case
    values = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    own = dict(backbone.model.named_parameters())
    before = backbone.classifier(CLASSES)
    method = made(backbone, changes)
    with pytest.raises(RuntimeError, match="stop"), method.attach(backbone):
        method.predict(PIXELS)
        raise RuntimeError("stop")
    assert all(value is own[name] for name, value in backbone.model.named_parameters())
    assert all(torch.equal(value, values[name]) for name, value in backbone.model.state_dict().items())
    assert torch.equal(backbone.classifier(CLASSES), before)


def test_gradients_reach_every_part_so_that_a_port_can_train_it_on(case):
    backbone, changes = case
    method = made(backbone, changes)
    with method.attach(backbone):
        torch.nn.functional.cross_entropy(method.logits(PIXELS), torch.arange(8) % len(NAMES)).backward()
    for name, value in method.named_parameters():
        assert value.grad is not None and (value.grad.abs().sum() > 0 or "text_2_k_bias" in name), name


def test_what_is_trained_changes_the_next_prediction(case):
    backbone, changes = case
    method = made(backbone, changes)
    with method.attach(backbone), torch.no_grad():
        first = method.predict(PIXELS)
        next(method.parameters()).mul_(-3)
        assert not torch.equal(method.predict(PIXELS), first)


def test_towers_of_other_sizes_are_refused_by_name():
    backbone = wrap(tiny_model(0, True), "tiny-base", "quick_gelu")
    eva = wrap(tiny_eva(True), "tiny-eva", "gelu")
    method = Lora(Config(changes=OPEN_CLIP), shape_of(backbone))
    with pytest.raises(UserError, match=r"tiny-eva has no place for image.0.fc2.weight \(48, 192\), there \(48, 128\)"):
        method.bind(eva, CLASSES)
    deeper = wrap(tiny_eva(True, depth=3), "tiny-deep", "gelu")
    with pytest.raises(UserError, match="the image tower of tiny-deep has 3 attention blocks of width 48"):
        Lora(Config(changes=EVA), shape_of(eva)).bind(deeper, CLASSES)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (("text.0.q:32x32:3",), "holds 'text.0.q:32x32:3', expected PLACE:OUTxIN:RANK"),
        (("text.0.gate.weight:32x32:3",), "expected PLACE"),
        (("text.0.q.weight:32x0:3",), "expected PLACE"),
        (("text.0.q.bias:32:3",), "a rank is of a matrix"),
        (("text.0.q.bias:32", "text.0.q.bias:32"), "text.0.q.bias stands there more than once"),
        ((3,), "holds '3', expected PLACE"),
    ],
)
def test_a_change_of_another_form_is_refused(changes, expected):
    with pytest.raises(UserError, match=expected):
        Config(changes=changes)


def test_no_run_trains_it_and_ports_of_weights_say_why_they_cannot_carry_it():
    assert "lora" in METHODS and "lora" not in ordered()
    assert "CLIP-LoRA's change of every query, key and value" in (on_weights(Lora) or "")


def test_places_that_a_tower_has_not_are_none():
    model = tiny_model(0, True)
    for place in ("text.3.q.weight", "text.ln_pre.weight", "image.projection.bias", "text.0.q.scale", "x", "text.0.q"):
        assert spot(model, place) is None
