"""MaPLe and CLIP-LoRA against plain restatements on open_clip's and timm's own towers, and what these, PromptSRC
and CoPrompt leave behind."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from references import image_by_hand, relative, text_by_hand
from tiny_eva import tiny_eva
from tiny_fits import bound, make, pixels_of, short, support_for
from tiny_towers import DIM, NAMES, TEMPLATES, WIDTH, tiny_model, wrap
from torch import nn
from torch.func import functional_call
from toys import execute, toy_run

from carryover.bench.backbones import archs, attention, loading
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.engine.evaluator import predict
from carryover.bench.engine.options import Options
from carryover.bench.engine.record_draft import describe
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, Shape
from carryover.methods.parts.inside import TEXT_ALONE

TOLERANCE = 1e-4
LABELS = torch.arange(8) % len(NAMES)
PIXELS = pixels_of(LABELS)


@pytest.fixture(scope="module", params=["open_clip", "eva", "eva-fused"])
def backbone(request):
    if request.param == "open_clip":
        return wrap(tiny_model(0, True), "tiny-base", "quick_gelu")
    return wrap(tiny_eva(request.param == "eva-fused"), "tiny-eva", "gelu")


@pytest.fixture(scope="module")
def vit():
    return wrap(tiny_model(0, True), "tiny-base", "quick_gelu")


@pytest.fixture(scope="module")
def resnet():
    """micro's kind: no image tower of the two is a transformer."""
    towers = {}
    for role, name in (("base", "micro-base"), ("new", "micro-update")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = loading.build(name)
        tower = archs.ARCHS["micro"].towers[role]
        towers[role] = loading.Backbone(model, tower, loading.tokenizer(name))
    return SimpleNamespace(**towers)


@pytest.fixture
def classes():
    return Classes("toy", NAMES, TEMPLATES)


def predicted(method, backbone, x=PIXELS):
    method.eval()
    with method.attach(backbone):
        return method.predict(x)


# ---- CLIP-LoRA -------------------------------------------------------------------------------------------------------


def merged(method, model):
    """{name in the model: W + s B A}, letter by letter; differentiable in A and B."""
    scale = method.config.alpha / method.config.rank**0.5
    values = dict(model.named_parameters())
    found = {}

    def update(part, block, letter):
        return scale * part.up[block, letter] @ part.down[block, letter]

    for part, prefix in ((method.text, "text.transformer.resblocks"), (method.image, image_blocks(model))):
        for block in range(len(part.up)):
            updates = [update(part, block, letter) for letter in range(3)]
            for name in ("attn.in_proj_weight", "attn.qkv.weight"):
                if f"{prefix}.{block}.{name}" in values:
                    found[f"{prefix}.{block}.{name}"] = values[f"{prefix}.{block}.{name}"] + torch.cat(updates)
            for letter, more in zip("qkv", updates, strict=True):
                name = f"{prefix}.{block}.attn.{letter}_proj.weight"
                if name in values:
                    found[name] = values[name] + more
    assert len(found) in (len(method.text.up) + len(method.image.up), len(method.text.up) + 3 * len(method.image.up))
    return found


def image_blocks(model):
    return "visual.transformer.resblocks" if hasattr(model.visual, "transformer") else "visual.trunk.blocks"


def reference_logits(model, backbone, x=PIXELS):
    """open_clip's own encoders at 77 tokens."""
    texts = backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    images, texts = model.encode_image(x, normalize=True), model.encode_text(texts, normalize=True)
    return model.logit_scale.exp() * images @ texts.T


def test_lora_attached_is_lora_merged_into_a_copy_by_hand(backbone, classes):
    method = bound("clip-lora", backbone, classes, rank=3, alpha=2.0)
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        plain = reference_logits(model, backbone)
        for name, value in merged(method, model).items():
            model.get_parameter(name).copy_(value)
        expected = reference_logits(model, backbone)
    assert relative(plain, expected) > 0.05, "the update must matter"
    assert relative(predicted(method, backbone), expected) < TOLERANCE


@pytest.mark.parametrize("budget", [4 << 30, 200_000])
def test_loras_gradients_are_those_of_merged_weights_also_in_chunks(backbone, classes, budget):
    method = bound("clip-lora", backbone, classes, dropout=0.0)
    before, backbone.text.budget = backbone.text.budget, budget
    try:
        with method.attach(backbone):
            method.loss(PIXELS, LABELS).backward()
    finally:
        backbone.text.budget = before
    found = [value.grad.clone() for value in method.parameters()]

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = backbone.model

        def forward(self):
            return reference_logits(self.model, backbone)

    weights = {f"model.{name}": value for name, value in merged(method, backbone.model).items()}
    loss = F.cross_entropy(functional_call(Both(), weights, ()), LABELS)
    for one, other in zip(found, torch.autograd.grad(loss, list(method.parameters())), strict=True):
        assert other.abs().max() > 0 and relative(one, other) < 1e-3


def test_lora_starts_at_zero_shot_bit_for_bit(backbone, classes):
    config = METHODS["clip-lora"].Config()
    method = METHODS["clip-lora"](config, Shape.of(backbone, NAMES, 24))
    method.bind(backbone, classes)
    zero_shot = make("zs-clip")
    zero_shot.bind(backbone, classes)
    with torch.no_grad():
        assert torch.equal(predicted(method, backbone), zero_shot.predict(backbone.encode_images(PIXELS)))
    assert all(part.down.abs().max() > 0 for part in (method.text, method.image))


def test_loras_dropout_keeps_the_mean_of_the_update_and_is_drawn_in_training_alone(vit, classes):
    method = bound("clip-lora", vit, classes, dropout=0.25)
    seen = torch.stack([method.seen(method.text) for _ in range(400)])
    assert seen.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (seen == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert seen.mean() == pytest.approx(1, abs=0.01) and not torch.equal(seen[0], seen[1])
    assert seen[0].shape == (3, 3, 1, WIDTH), "each block, matrix and input value by itself"
    method.eval()
    assert method.seen(method.text) is None


def test_lora_has_the_published_number_of_parameters():
    method = METHODS["clip-lora"](METHODS["clip-lora"].Config(), Shape(512, 512, NAMES, 4, 12, 12, 768))
    assert sum(value.numel() for value in method.parameters()) == 2 * 2 * 3 * 12 * (512 + 768)  # r=2; A and B; q, k, v


# ---- MaPLe -----------------------------------------------------------------------------------------------------------


def image_prompts(method):
    prompts = [method.context, *method.deep]
    return torch.stack([p @ w.T + b for p, w, b in zip(prompts, method.coupling, method.coupling_bias, strict=True)])


@pytest.mark.parametrize("depth, n", [(1, 1), (1, 2), (2, 2)])
def test_maples_image_features_are_those_of_a_plain_loop_with_prompts_behind_the_patches(backbone, classes, depth, n):
    method = bound("maple", backbone, classes, depth=depth, context_length=n)
    with method.attach(backbone), torch.no_grad():
        found = backbone.encode_images(PIXELS)
    with torch.no_grad():
        expected = image_by_hand(backbone.model.visual, PIXELS, image_prompts(method))
        assert relative(backbone.encode_images(PIXELS), expected) > 0.01, "the prompts must matter"
    assert relative(found, expected) < TOLERANCE


def test_maple_at_depth_1_without_coupling_is_coop_plus_visual_prompts(backbone, classes):
    method = bound("maple", backbone, classes, depth=1, context_length=1, initial_words="")
    with torch.no_grad():
        method.coupling.zero_()  # what is left is a visual prompt of its own, the bias
    coop = METHODS["coop"](replace(METHODS["coop"].Config(), context_length=1), Shape.of(backbone, NAMES, 24))
    with torch.no_grad():
        coop.context.copy_(method.context)
        coop.bind(backbone, classes)
        expected = coop.predict(image_by_hand(backbone.model.visual, PIXELS, method.coupling_bias[:, None]))
    assert relative(predicted(method, backbone), expected) < TOLERANCE


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("budget", [4 << 30, 60_000])
@pytest.mark.parametrize("fast", [True, False])
def test_deep_context_is_open_clips_own_blocks_at_77_tokens_with_gradients_also_in_chunks(vit, depth, budget, fast):
    text = TextTower(vit.model.text, vit.text.tokenizer, budget=budget, fast=fast)
    names = [f"kind {'of thing ' * (i % 4)}{i}" for i in range(9)]
    draw = torch.Generator().manual_seed(2)
    context, deep = torch.randn(2, WIDTH, generator=draw), torch.randn(depth - 1, 2, WIDTH, generator=draw)
    context, deep = context.requires_grad_(), deep.requires_grad_()
    found = text.encode(context, text.class_tokens(names), deep=deep)
    expected = text_by_hand(vit.model, text.tokenizer, names, context, deep)
    assert relative(found, expected) < TOLERANCE
    weights = torch.randn(found.shape, generator=draw)
    asked = [context, deep] if depth > 1 else [context]
    pairs = [torch.autograd.grad((one * weights).sum(), asked) for one in (found, expected)]
    for one, other in zip(*pairs, strict=True):
        assert other.abs().max() > 0 and relative(one, other) < TOLERANCE
    with torch.no_grad():
        assert relative(text.encode(context, text.class_tokens(names), deep=deep), expected) < TOLERANCE


def test_an_empty_deep_context_has_the_bits_of_none(vit):
    context, tokens = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(2)), vit.text.class_tokens(NAMES)
    assert torch.equal(
        vit.text.encode(context, tokens, deep=torch.zeros(0, 2, WIDTH)), vit.text.encode(context, tokens)
    )


@pytest.mark.parametrize(
    "shape, options",
    [((2, 3, 32), {}), ((2, 2, 31), {}), ((3, 2, 32), {}), ((2, 32), {}), ((1, 2, 32), {"layer": 1})],
)
def test_a_deep_context_that_does_not_fit_is_a_value_error(vit, shape, options):
    with pytest.raises(ValueError, match="deep"):
        vit.text.encode(torch.zeros(2, WIDTH), vit.text.class_tokens(NAMES), deep=torch.zeros(shape), **options)


def test_maple_learns_the_first_words_and_leaves_the_others_in_front_of_the_name(vit, classes):
    method = bound("maple", vit, classes, depth=2)
    method.start(None)
    assert torch.equal(method.context.detach(), vit.text.embed(["a photo"]))
    with torch.no_grad():
        expected = text_by_hand(
            vit.model, vit.text.tokenizer, [f"of a {name}" for name in NAMES], method.context, method.deep
        )
        assert relative(method.class_features(), expected) < TOLERANCE


def test_maples_deeper_coupling_layers_start_as_copies_of_one():
    method = make("maple", config=replace(METHODS["maple"].Config(), depth=9))
    assert len(method.coupling) == 2, "no deeper than the shorter tower"
    shape = Shape(WIDTH, DIM, NAMES, 4, text_layers=12, image_layers=12, image_width=48)
    first, *deeper = METHODS["maple"](METHODS["maple"].Config(), shape).coupling.detach()
    assert len(deeper) == 8 and all(torch.equal(deeper[0], other) for other in deeper)
    assert not torch.equal(first, deeper[0])
    assert first.abs().max() <= 1 / WIDTH**0.5 and first.std() == pytest.approx(1 / (3 * WIDTH) ** 0.5, rel=0.05)


def test_maple_with_fewer_words_than_tokens_is_refused(vit, classes):
    with pytest.raises(UserError, match="fewer than 5 tokens"):
        bound("maple", vit, classes, context_length=5)


# ---- all of them -----------------------------------------------------------------------------------------------------

EACH = pytest.mark.parametrize("name", ["clip-lora", "maple", "promptsrc", "coprompt", "layer-norm", "2sfs"])


def state(model):
    """All that an attached method could have left: parameters and their order, modules, hooks, numbers."""
    return [
        (
            name,
            type(module),
            [(key, id(value), value._version, value.detach().numpy().tobytes()) for key, value in own(module)],
            list(module._forward_hooks.values()),
            list(module._forward_pre_hooks.values()),
            getattr(module, "num_prefix_tokens", None),
        )
        for name, module in model.named_modules()
    ]


def own(module):
    return module._parameters.items() if all(v is not None for v in module._parameters.values()) else []


@EACH
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_attach_is_undone_to_the_last_bit_also_after_an_error(backbone, classes, name, error):
    before, method = state(backbone.model), bound(name, backbone, classes)
    zero_shot = backbone.zero_shot(classes)
    with pytest.raises(error) if error else nullcontext(), method.attach(backbone):
        method.loss(PIXELS, LABELS).backward()
        method.predict(PIXELS)
        if error:
            raise error
    assert state(backbone.model) == before
    with torch.no_grad():
        assert torch.equal(backbone.classifier(classes), zero_shot)


@EACH
def test_a_forward_pass_that_fails_inside_leaves_the_towers_as_they_were(backbone, classes, name):
    before, method = state(backbone.model), bound(name, backbone, classes)
    with pytest.raises((RuntimeError, AssertionError)), method.attach(backbone):
        method.loss(torch.zeros(2, 5, 8, 8), LABELS[:2])
    assert state(backbone.model) == before


@EACH
def test_prediction_follows_the_parameters_also_within_one_attachment(vit, classes, name):
    method = bound(name, vit, classes)
    method.eval()
    with method.attach(vit):
        first = method.predict(PIXELS)
        with torch.no_grad():
            for value in method.parameters():
                value.mul_(1.5)
        second = method.predict(PIXELS)
    assert not torch.equal(first, second) and torch.equal(predicted(method, vit), second)


@EACH
def test_a_plugin_of_clips_tower_plugs_into_evas(vit, classes, name):
    support = support_for("pixels")
    method = make(name, epochs=3, batch=8, lr=0.01)
    method.bind(vit, classes)
    with method.attach(vit):
        fit(method, support, generator("inside"))
    target = wrap(tiny_eva(False), "tiny-eva", "gelu")
    fresh = make(name, seed=9, config=method.config)
    fresh.load_learned(method.learned())
    pictures = SimpleNamespace(split=lambda rows: iter([PIXELS]), pictures=PIXELS)
    outcome, _ = predict(fresh, target, classes, pictures)
    plain = make("zs-clip")
    plain.bind(target, classes)
    with torch.no_grad():
        confidence = plain.predict(target.encode_images(PIXELS)).softmax(-1).max(-1).values
    assert torch.isfinite(outcome["confidence"]).all()
    assert not torch.allclose(outcome["confidence"], confidence, atol=1e-4), "both halves or one must have an effect"


@EACH
def test_towers_of_other_sizes_are_refused_by_name(vit, classes, name):
    method = bound(name, vit, classes)
    deeper = wrap(tiny_eva(False, depth=3), "tiny-deeper", "gelu")
    with pytest.raises(UserError, match="image tower of tiny-deeper has 3 attention blocks of width 48"):
        method.bind(deeper, classes)
    with pytest.raises(UserError, match="text tower of tiny-long has 4 attention blocks"):
        method.bind(wrap(tiny_model(0, True, layers=4), "tiny-long", "quick_gelu"), classes)


@EACH
def test_a_resnet_as_target_of_a_plugin_learned_in_a_transformer_is_refused(resnet, classes, name):
    shape = replace(Shape.of(resnet.base, NAMES, 24), image_layers=2, image_width=48)
    method = METHODS[name](METHODS[name].Config(), shape)
    with pytest.raises(UserError, match="has no attention blocks"):
        method.bind(resnet.new, classes)


@EACH
def test_without_a_transformer_in_the_base_the_image_half_is_left_out_on_all_towers_and_every_table_says_so(
    resnet, vit, classes, name
):
    kind = METHODS[name]
    own = kind.marks(kind.Config(), vit)
    assert kind.marks(kind.Config(), resnet.base) == [f"{kind.name} {TEXT_ALONE}", *own]
    assert TEXT_ALONE not in "".join(own)
    method = bound(name, resnet.base, classes, spread=0.05)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for target in (resnet.base, resnet.new):
        plain, zero_shot = target.encode_images(pixels), target.zero_shot(classes)
        method.bind(target, classes)
        method.eval()
        with method.attach(target), torch.no_grad():
            assert torch.equal(target.encode_images(pixels), plain)
            assert method.predict(pixels).shape == (3, len(NAMES))
            assert relative(F.normalize(method.class_features(), dim=-1), zero_shot) > 0.01


def test_the_mark_is_in_the_record_of_a_run(resnet, tmp_path, monkeypatch):
    roles = {"micro-base": resnet.base, "micro-update": resnet.new}
    monkeypatch.setattr(loading, "load", lambda tower, *_: roles[tower.model])
    session = Session(Options(archs.ARCHS["micro"], "cpu", str(tmp_path), str(tmp_path / "cache")))
    run = replace(toy_run("maple"), arch="micro", dataset="micro_counting", shots=1, limit=1)
    assert f"MaPLe {TEXT_ALONE}" in describe(session, run, "0" * 16)["marks"]
    assert (
        f"MaPLe {TEXT_ALONE}" not in describe(session, replace(run, method="coop", config=short("coop")), "0")["marks"]
    )


@EACH
def test_a_run_leaves_nothing_for_the_next_one(session_on, name):
    """CoOp after it has the bits of CoOp alone, through the session's own backbones and what they keep."""
    found = []
    for folder, before in (("alone", []), ("after", [toy_run(name)])):
        session = session_on(folder)
        for run in [*before, toy_run("coop")]:
            record = execute(session, run, session.keys.of(run))
            assert record["status"] == "done", record["error"]
        tensors = session.store.read_plugin(record["key"])[0]
        predictions = session.store.read_predictions(record["key"])
        found.append(({k: v.numpy().tobytes() for k, v in tensors.items()}, predictions["new"][0].tolist()))
    assert found[0] == found[1]


@EACH
def test_bf16_trains_and_predicts_close_to_fp32(classes, name):
    losses, logits = [], []
    for precision in ("fp32", "bf16"):
        tower = archs.Tower("tiny-base", "", "quick_gelu", WIDTH, DIM)
        half = loading.Backbone(tiny_model(0, True), tower, loading.tokenizer("ViT-B-32"), precision=precision)
        method = make(name, epochs=2, batch=8, lr=1e-3)
        method.bind(half, classes)
        with method.attach(half):
            losses.append(fit(method, support_for("pixels"), generator("inside"))[-1]["loss"])
        assert all(value.dtype == torch.float32 for value in method.learned().values())
        logits.append(predicted(method, half))
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]
    assert relative(logits[1], logits[0]) < 0.2 and not torch.equal(*logits)


def test_towers_without_queries_keys_and_values_of_their_own_width_have_no_blocks(resnet, vit):
    assert attention.image_stack(resnet.base.model.visual) is None
    assert attention.image_stack(resnet.new.model.visual) is None
    assert attention.text_stack(nn.Linear(2, 2)) is None
    block = nn.Module()
    block.attn = nn.Module()
    block.attn.qkv = nn.Linear(48, 96)  # fewer keys and values than queries
    assert attention.stack([block], nn.Identity(), 1) is None
    assert len(vit.image_stack) == 2 and vit.image_stack.width == 48 and len(vit.text_stack) == 3


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "EVA02-B-16"])
def test_the_blocks_of_both_towers_of_the_published_pair_are_found(name):
    model = loading.build(name)
    image, text = attention.image_stack(model.visual), attention.text_stack(model.text)
    assert (len(image), image.width, image.prefix) == (12, 768, 1) and (len(text), text.width) == (12, 512)
