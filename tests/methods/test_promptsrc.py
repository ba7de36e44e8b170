"""PromptSRC against plain restatements on open_clip's and timm's own towers, and its average against numpy's."""

import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from references import image_by_hand, relative, text_by_hand
from tiny_eva import tiny_eva
from tiny_fits import bound, make, pixels_of, support_for
from tiny_towers import NAMES, tiny_model, wrap

from carryover.bench.errors import UserError
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Shape

LABELS = torch.arange(8) % len(NAMES)
PIXELS = pixels_of(LABELS)
KIND = METHODS["promptsrc"]


@pytest.fixture(scope="module", params=["open_clip", "eva"])
def backbone(request):
    if request.param == "open_clip":
        return wrap(tiny_model(0, True), "tiny-base", "quick_gelu")
    return wrap(tiny_eva(False), "tiny-eva", "gelu")


def spelled_out(method, backbone, classes, sixty):
    """The loss from the method's tensors, term by term, by open_clip's own modules at 77 tokens."""
    model, tokenizer = backbone.model, backbone.text.tokenizer
    with torch.no_grad():
        told = open_clip.OPENAI_IMAGENET_TEMPLATES[:60] if sixty else [lambda name: f"a photo of a {name}."]
        t = sum(model.encode_text(tokenizer([one(name) for name in classes.names])) for one in told)
        t, v = t / t.norm(dim=1, keepdim=True), model.encode_image(PIXELS, normalize=True)
        scale = model.logit_scale.exp()
    w = F.normalize(text_by_hand(model, tokenizer, classes.names, method.context, method.deep), dim=1)
    f = F.normalize(image_by_hand(model.visual, PIXELS, method.image), dim=1)
    p, q = (scale * f @ w.T).softmax(1), (scale * v @ t.T).softmax(1)
    images = torch.arange(len(PIXELS))
    terms = [
        -p[images, LABELS].log().mean(),
        25 * (w - t).abs().mean(),
        10 * (f - v).abs().mean(),
        (q * (q.log() - p.log())).mean(),
    ]
    assert all(term.item() > 1e-3 for term in terms), "every term must matter"
    return sum(terms)


@pytest.mark.parametrize("sixty", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_loss_and_gradients_are_those_of_the_formula(backbone, classes, sixty, depth):
    method = bound("promptsrc", backbone, classes, sixty=sixty, depth=depth)
    asked = [value for value in method.parameters() if value.numel()]
    with method.attach(backbone):
        found = method.loss(PIXELS, LABELS)
    expected = spelled_out(method, backbone, classes, sixty)
    assert relative(found, expected) < 1e-4
    for one, other in zip(*(torch.autograd.grad(value, asked) for value in (found, expected)), strict=True):
        assert other.abs().max() > 0 and relative(one, other) < 1e-3


def test_predictions_are_of_both_towers_with_prompts_and_the_tower_is_as_it_was_behind_them(backbone, classes):
    method = bound("promptsrc", backbone, classes).eval()
    plain = backbone.encode_images(PIXELS)
    with method.attach(backbone), torch.no_grad():
        found, again = method.predict(PIXELS), method.logits(PIXELS)
        assert torch.equal(backbone.encode_images(PIXELS), plain)
    model = backbone.model
    with torch.no_grad():
        images = F.normalize(image_by_hand(model.visual, PIXELS, method.image), dim=1)
        texts = text_by_hand(model, backbone.text.tokenizer, NAMES, method.context, method.deep)
        expected = model.logit_scale.exp() * images @ F.normalize(texts, dim=1).T
    assert relative(found, expected) < 1e-4 and relative(again, expected) < 1e-4


@pytest.mark.parametrize("options", [{"epochs": 5}, {"steps": 16}, {"epochs": 4, "centre": 0.9, "spread": 0.1}])
def test_what_is_kept_is_the_average_of_all_epochs_by_a_gaussian(tiny, classes, monkeypatch, options):
    support, seen = support_for("pixels"), []
    method = make("promptsrc", batch=8, lr=0.02, **options)
    method.bind(tiny.base, classes)
    own = KIND.end_epoch

    def noted(self, given):
        seen.append([value.detach().numpy().copy() for value in self.parameters()])
        own(self, given)

    monkeypatch.setattr(KIND, "end_epoch", noted)
    for _ in range(2):  # another training of the same object has an average of its own
        seen.clear()
        with method.attach(tiny.base):
            curve = fit(method, support, generator("promptsrc"))
        count = math.ceil(16 / 3) if "steps" in options else options["epochs"]
        assert len(seen) == len(curve) == count
        mean, deviation = (options.get(name, 0.6) * count for name in ("centre", "spread"))
        weights = np.exp(-(((np.arange(1, count + 1) - mean) / deviation) ** 2) / 2)
        for i, value in enumerate(method.parameters()):
            each = np.stack([epoch[i] for epoch in seen])
            expected = np.average(each, axis=0, weights=weights)
            assert np.abs(each[-1] - expected).max() > 1e-4, "the last epoch alone must differ"
            np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_where_the_image_tower_is_no_transformer_pictures_are_encoded_once_a_step(tiny, classes, monkeypatch):
    method = KIND(replace(KIND.Config(), depth=3), replace(Shape.of(tiny.base, NAMES, 24), image_layers=0))
    assert [*method.learned()] == ["context", "deep"] and len(method.deep) == 2
    monkeypatch.setattr(type(method), "bind", lambda self, backbone, classes: None)
    method.backbone, method.classes, method.told, method.kept = tiny.base, classes, None, None
    method.tokens, calls = tiny.base.text.class_tokens(NAMES), []
    encode = tiny.base.encode_images
    monkeypatch.setattr(tiny.base, "encode_images", lambda x: calls.append(1) or encode(x))
    assert torch.isfinite(method.loss(PIXELS, LABELS)) and len(calls) == 1


def test_published_settings():
    usual = KIND.Config()
    method = KIND(usual, Shape(512, 512, NAMES, 4, 12, 12, 768))
    assert sum(value.numel() for value in method.parameters()) == 46_080
    assert (usual.epochs, usual.batch, usual.lr, 50 * usual.centre, 50 * usual.spread) == (50, 4, 2.5e-3, 30, 30)
    late = KIND.published("dtd", 16)
    assert (50 * late["centre"], 50 * late["spread"]) == (45, 5) and KIND.published("imagenet", 16) == {}


def test_bad_values_are_refused_in_one_line(tiny, classes):
    with pytest.raises(UserError, match="promptsrc: context_length and depth are 1 or more"):
        replace(KIND.Config(), depth=0)
    with pytest.raises(UserError, match="promptsrc.spread is above 0; found 0"):
        replace(KIND.Config(), spread=0)
    with pytest.raises(UserError, match="'a photo of a' are 4 tokens, context_length is 5"):
        bound("promptsrc", tiny.base, classes, context_length=5).start(None)
