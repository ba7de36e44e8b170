"""LayerNorm tuning and 2SFS against open_clip's own encoders, whose norms torch's AdamW trains in a plain loop."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from references import relative
from tiny_eva import tiny_eva
from tiny_fits import bound, pixels_of, support_for
from tiny_towers import NAMES, TEMPLATES, tiny_model, wrap
from torch import nn

from carryover.bench.errors import Unfit, UserError
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, Shape

CLASSES = Classes("toy", NAMES, TEMPLATES)
LABELS = torch.arange(24) % len(NAMES)
PIXELS = pixels_of(LABELS)
RATE, DECAY, FIRST, SECOND = 0.01, 0.5, 6, 4  # a decay that shows


@pytest.fixture(scope="module", params=["open_clip", "eva"])
def backbone(request):
    model = tiny_model(0, True) if request.param == "open_clip" else tiny_eva(False)
    with torch.no_grad():  # norms like those of trained towers: no two alike
        for number, value in enumerate(norms(model)):
            nn.init.normal_(value, 1.0 - number % 2, 0.1, generator=torch.Generator().manual_seed(number))
    return wrap(model, request.param, "quick_gelu")


def norms(model):
    """Gain and bias of both norms of each block, by their names in open_clip and timm: text, then image."""
    image = getattr(model.visual, "transformer", None)
    blocks = [*model.text.transformer.resblocks, *(image.resblocks if image is not None else model.visual.trunk.blocks)]
    pairs = [(b.ln_1, b.ln_2) if hasattr(b, "ln_1") else (b.norm1, b.norm2) for b in blocks]
    return [value for pair in pairs for norm in pair for value in (norm.weight, norm.bias)]


def logits(model, backbone, classifier=None, x=PIXELS):
    """Scaled cosines of open_clip's own encoders at 77 tokens, or to a classifier."""
    if classifier is None:
        classifier = model.encode_text(backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES]))
    x = F.normalize(model.encode_image(x), dim=-1)
    return model.logit_scale.exp() * x @ F.normalize(classifier, dim=-1).T


def descend(parameters, loss, steps):
    """AdamW with a cosine to 0."""
    solver = torch.optim.AdamW(parameters, RATE, weight_decay=DECAY)
    for step in range(steps):
        solver.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        solver.zero_grad()
        loss().backward()
        solver.step()


def tuned(backbone, steps):
    """A copy of the model after a loop over all images at once."""
    model = copy.deepcopy(backbone.model).requires_grad_(False)
    own = [value.requires_grad_(True) for value in norms(model)]
    descend(own, lambda: F.cross_entropy(logits(model, backbone), LABELS), steps)
    return model.requires_grad_(False)


def fitted(name, backbone, views=PIXELS[None], **changes):
    changes = {"lr": RATE, "weight_decay": DECAY, "epochs": FIRST, "warmup_epochs": 0, "batch": len(LABELS), **changes}
    config = replace(METHODS[name].Config(), **changes)
    method = METHODS[name](config, Shape.of(backbone, NAMES, len(LABELS)))
    method.bind(backbone, CLASSES)
    method.train()
    with method.attach(backbone):
        curve = fit(method, replace(support_for("pixels"), labels=LABELS, views=views), generator("norms"))
    return method, curve


def predicted(method, backbone, x=PIXELS):
    method.bind(backbone, CLASSES)
    with method.attach(backbone):
        return method.predict(x)


def moved(method):
    return method.values.detach() - method.were


def flat(model):
    return torch.cat([value.detach() for value in norms(model)])


def test_the_norms_learn_what_a_plain_loop_over_open_clips_encoders_teaches_them(backbone):
    (method, curve), expected = fitted("layer-norm", backbone), tuned(backbone, FIRST)
    assert torch.equal(method.were, flat(backbone.model))
    assert relative(moved(method), flat(expected) - flat(backbone.model)) < 1e-3
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert relative(predicted(method, backbone), logits(expected, backbone)) < 1e-3
    assert relative(logits(backbone.model, backbone), logits(expected, backbone)) > 0.05, "it must matter"


def test_it_starts_at_zero_shot_bit_for_bit_and_so_does_what_has_learned_nothing(backbone):
    method = METHODS["layer-norm"](METHODS["layer-norm"].Config(), Shape.of(backbone, NAMES, 24))
    method.bind(backbone, CLASSES)
    plain = METHODS["zs-clip"](METHODS["zs-clip"].Config(), method.shape)
    plain.bind(backbone, CLASSES)
    with torch.no_grad():
        zero_shot = plain.predict(backbone.encode_images(PIXELS))
    assert torch.equal(predicted(method, backbone), zero_shot)
    method.start(None)
    assert torch.equal(predicted(method, backbone), zero_shot)


@pytest.mark.parametrize("carry", ["change", "value"])
def test_another_backbones_norms_get_the_difference_or_the_values(backbone, carry):
    method, _ = fitted("layer-norm", backbone, carry=carry)
    target = wrap(tiny_eva(False, seed=7), "target", "gelu")
    model = copy.deepcopy(target.model)
    added = moved(method) if carry == "change" else method.values.detach() - flat(model)
    with torch.no_grad():
        for value, more in zip(norms(model), added.split([len(value) for value in norms(model)]), strict=True):
            value.add_(more)
        assert relative(predicted(method, target), logits(model, target)) < 1e-4
        assert relative(logits(target.model, target), logits(model, target)) > 0.01, "it must matter"


def test_the_published_numbers():
    config = METHODS["2sfs"].Config()
    assert (config.optimizer, config.lr, config.weight_decay, config.batch) == ("adamw", 2e-4, 0.01, 32)
    assert (config.schedule, config.drop_last, config.crop, config.eps) == ("iteration", False, (0.08, 1.0), 1e-8)
    assert round(2880 * config.second) == 1920 and config.carry == "change"
    assert vars(METHODS["layer-norm"].Config()).items() <= vars(config).items()
    shape, count = Shape(512, 512, NAMES, 4, 12, 12, 768), lambda m: sum(value.numel() for value in m.parameters())
    assert count(METHODS["layer-norm"](METHODS["layer-norm"].Config(), shape)) == 61_440
    assert count(METHODS["2sfs"](METHODS["2sfs"].Config(), shape)) == 61_440 + 512 * len(NAMES)
    assert METHODS["layer-norm"].published("dtd", 16) == {"steps": 4800, "single_template": True}
    assert METHODS["2sfs"].published("dtd", 16) == {"steps": 2880, "single_template": True}
    assert not METHODS["2sfs"].published("folder:x", 1)["single_template"]


def test_the_second_stage_is_a_fresh_descent_of_a_classifier_from_the_tuned_texts(backbone):
    (method, curve), model = fitted("2sfs", backbone), tuned(backbone, FIRST)
    assert len(curve) == FIRST
    assert relative(moved(method), flat(model) - flat(backbone.model)) < 1e-3
    texts = model.encode_text(backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES]))
    classifier = nn.Parameter(F.normalize(texts, dim=-1))
    start = classifier.detach().clone()
    descend([classifier], lambda: F.cross_entropy(logits(model, backbone, classifier), LABELS), SECOND)
    assert relative(method.classifier.detach() - start, classifier.detach() - start) < 1e-2
    assert relative(predicted(method, backbone), logits(model, backbone, classifier)) < 1e-3


def test_the_second_stage_encodes_each_view_once_and_keeps_it_with_its_label(backbone, monkeypatch):
    """Three views of which each image has one that its class is told by; batches that do not divide the images."""
    views, seen = torch.stack([pixels_of(LABELS, seed) for seed in range(3)]), []
    method, _ = fitted("2sfs", backbone, views, epochs=1, lr=0.0)  # whose norms stay
    with torch.no_grad():
        texts = method.classifier.detach().clone()
        encode = backbone.encode_images
        monkeypatch.setattr(backbone, "encode_images", lambda x: seen.append(x) or encode(x))
        method.config = replace(method.config, lr=0.05, batch=7, epochs=30)
        with method.attach(backbone), torch.enable_grad():
            method.finish(replace(support_for("pixels"), labels=LABELS, views=views))
        given = {bytes(one.numpy()) for part in seen for one in part}
        assert sum(map(len, seen)) == len(given) <= views.shape[0] * views.shape[1]
        own = {bytes(one.numpy()) for one in views.flatten(0, 1)}
        assert given <= own and len(given) > 0.9 * len(own)
        wrong = [(logits(backbone.model, backbone, w).argmax(1) != LABELS).sum() for w in (texts, method.classifier)]
        assert wrong[1] == 0 < wrong[0]


def test_a_refresh_goes_on_with_the_classifier_that_it_has(backbone):
    method, _ = fitted("2sfs", backbone)
    fresh = METHODS["2sfs"](replace(method.config, lr=0.0), method.shape)
    fresh.load_learned(method.learned())
    fresh.bind(backbone, CLASSES)
    with fresh.attach(backbone):
        fresh.finish(replace(support_for("pixels"), labels=LABELS, views=PIXELS[None]))
    assert torch.equal(fresh.classifier, method.classifier)


def test_no_second_stage_leaves_the_tuned_texts(backbone):
    method, tuning = fitted("2sfs", backbone, second=0.0)[0], fitted("layer-norm", backbone)[0]
    assert torch.equal(method.values, tuning.values)
    assert relative(predicted(method, backbone), predicted(tuning, backbone)) < 1e-5


def test_blocks_without_a_bias_in_their_norms_are_refused_by_name(backbone):
    model = tiny_model(1, True)
    model.text.transformer.resblocks[1].ln_2 = nn.LayerNorm(32, bias=False)
    with pytest.raises(Unfit, match="LayerNorm: it needs text.1.ln_2.bias, which odd has not") as refused:
        bound("layer-norm", wrap(model, "odd", "quick_gelu"), CLASSES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name, option, value", [("layer-norm", "carry", "all"), ("2sfs", "second", -1.0)])
def test_options_that_have_no_meaning_are_refused(name, option, value):
    with pytest.raises(UserError, match=f"{option} is .*; found '?{value}"):
        METHODS[name].Config(**{option: value})
