"""The suite's training step gives the loss and every gradient of the published one, which is written out plainly in
``tests/benchmarks/published.py``: 77 tokens by open_clip's ``encode_text``, the image encoder in the loop."""

import pytest
from references import relative
from tiny_fits import make
from tiny_towers import NAMES, TEMPLATES

from benchmarks import workload
from benchmarks.published import PublishedStep
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.backbones.text_tower import TextTower
from carryover.methods.base import Classes

METHODS = ["coop", "cocoop", "kgcoop", "contcoop"]
TOLERANCE = 1e-4  # of the loss, and of each gradient's largest entry
REDUCTION = 4  # of CoCoOp's meta-net: at the published 16, a tiny one has two hidden units, both dead
CLASSES = Classes("toy", (*NAMES, "x"), TEMPLATES)


@pytest.fixture(scope="module", params=["tiny-base", "tiny-new", "micro-base"])
def backbone(request):
    if request.param == "micro-base":
        return loading.load(ARCHS["micro"].base)
    return getattr(request.getfixturevalue("tiny"), request.param.removeprefix("tiny-"))


@pytest.fixture(scope="module")
def full_size():
    return workload.random_backbone()


def compare(method_id, backbone, classes, images, **changes):
    method = make(method_id, classes.names, width=backbone.width, dim=backbone.dim, **changes)
    method.bind(backbone, classes)
    pixels, labels = workload.pictures(backbone, images, len(classes))
    published = PublishedStep(method_id, method, backbone, classes)

    expected = published.backward(pixels, labels)
    gradients = {name: p.grad for name, p in method.named_parameters()}
    method.zero_grad()
    loss = method.loss(backbone.encode_images(pixels), labels)
    loss.backward()

    assert loss.item() == pytest.approx(expected, rel=TOLERANCE)
    assert set(gradients) == {name for name, _ in method.named_parameters()}
    for name, p in method.named_parameters():
        assert gradients[name].abs().max() > 0, name
        assert relative(p.grad, gradients[name]) < TOLERANCE, name


@pytest.mark.parametrize("method_id", METHODS)
def test_loss_and_gradients_are_those_of_the_published_step(backbone, method_id):
    compare(method_id, backbone, CLASSES, images=6, reduction=REDUCTION)


@pytest.mark.parametrize("method_id", METHODS)
def test_sixteen_context_tokens_too(tiny, method_id):
    compare(method_id, tiny.base, CLASSES, images=3, context_length=16, initial_words="", reduction=REDUCTION)


@pytest.mark.long
@pytest.mark.parametrize("method_id", METHODS)
def test_loss_and_gradients_agree_at_full_size(full_size, method_id):
    compare(method_id, full_size, workload.imagenet(4), images=2)


@pytest.mark.parametrize("method_id", METHODS)
def test_the_published_step_needs_none_of_the_fast_text_path(tiny, method_id, monkeypatch):
    """Else both sides could share an error."""
    method = make(method_id, CLASSES.names)
    method.bind(tiny.base, CLASSES)
    for name in ("encode", "encode_texts", "class_tokens", "name_embeddings", "tokens"):
        monkeypatch.setattr(TextTower, name, None)
    for name in ("logits", "loss"):
        monkeypatch.setattr(type(method), name, None)
    pixels, labels = workload.pictures(tiny.base, 2, len(CLASSES))
    assert PublishedStep(method_id, method, tiny.base, CLASSES).backward(pixels, labels) > 0
