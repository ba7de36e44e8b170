"""Operations by formula (``tests/benchmarks/operations.py``) against PyTorch's own counter on the real computation."""

import pytest
import torch
from checkout import ROOT
from tiny_fits import make
from tiny_towers import tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import operations, table2, workload
from benchmarks.operations import Sizes
from benchmarks.published import PublishedStep
from carryover.bench.backbones import products
from carryover.methods.base import Classes

EQUAL = Classes("toy", ("cat", "dog", "bird", "house", "tree"), ("a photo of a {}.",))  # one token each: nothing padded
MIXED = Classes("toy", ("cat", "sea lion", "red double decker bus", "house", "tree"), EQUAL.templates)
METHODS = ["coop", "kgcoop", "cocoop", "contcoop"]
IMAGES, CONTEXT = 3, 8


@pytest.fixture(scope="module")
def micro():
    return workload.random_backbone("micro-base")


def operations_of(run):
    """(forward, backward), counted by PyTorch; plain attention, for fused ones are not counted everywhere."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        loss = run()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def method_and_features(id, backbone, classes):
    method = make(id, classes.names, width=backbone.width, dim=backbone.dim, context_length=CONTEXT, initial_words="")
    method.bind(backbone, classes)
    draw = torch.Generator().manual_seed(0)
    return method, torch.randn(IMAGES, backbone.dim, generator=draw), torch.arange(IMAGES)


@pytest.mark.long
def test_published_prompts_are_counted_as_pytorch_does(micro):
    method, features, labels = method_and_features("coop", micro, EQUAL)
    step = PublishedStep("coop", method, micro, EQUAL)
    forward, backward = operations_of(lambda: step.loss(features, labels))
    expected = operations.published_step(Sizes.of(micro), "coop", len(EQUAL), IMAGES)
    logits = 2 * IMAGES * len(EQUAL) * micro.dim
    assert forward == pytest.approx(expected.forward + logits, rel=1e-6)
    assert backward == pytest.approx(expected.backward + logits, rel=1e-6)


@pytest.mark.parametrize("classes", [EQUAL, MIXED], ids=["equal", "mixed"])
@pytest.mark.parametrize("method_id", METHODS)
def test_the_suites_own_step_takes_what_is_needed_and_not_much_more(micro, method_id, classes, monkeypatch):
    monkeypatch.setattr(products, "offered", lambda: False)  # the counter knows torch's own products alone
    method, features, labels = method_and_features(method_id, micro, classes)
    forward, backward = operations_of(lambda: method.loss(features, labels))
    lengths = table2.name_lengths(classes.names)
    least = operations.needed(Sizes.of(micro), method_id, lengths, CONTEXT, IMAGES)
    assert least.forward <= forward and least.backward <= backward
    assert forward + backward < 1.6 * least.total  # padding to the longest name, the first block's known rows


def test_a_picture_is_counted_as_pytorch_does():
    model = tiny_model(0, True).eval()  # 16 patches of 8 x 8, two blocks of width 48
    # With gradients: without them attention is one fused operation that the counter does not know.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == pytest.approx(operations.image_forward(48, 32, 2, 16, 8), rel=1e-6)


def test_needed_operations_grow_in_proportion_to_classes_and_images():
    sizes, lengths = Sizes(), [2] * 100
    one, ten = (operations.needed(sizes, "coop", lengths * k, 16, 32) for k in (1, 10))
    prefix = operations.needed(sizes, "coop", [], 16, 32)
    assert ten.total - prefix.total == pytest.approx(10 * (one.total - prefix.total))
    batch = operations.needed(sizes, "cocoop", lengths, 16, 8)
    assert batch.total == pytest.approx(8 * operations.needed(sizes, "cocoop", lengths, 16, 1).total)


def test_the_document_shows_the_floor_as_the_script_prints_it(capsys):
    assert operations.main([]) == 0
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = text.split("<!-- floor: python -m tests.benchmarks.operations -->\n")[1].split("<!-- end of floor -->")[0]
    assert shown == capsys.readouterr().out
