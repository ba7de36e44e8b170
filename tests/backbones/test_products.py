"""Products with frozen matrices: by oneDNN where that is faster, with the bits of torch's own."""

import pytest
import torch
import torch.nn.functional as F
from tiny_towers import tiny_model

from carryover.bench.backbones import products
from carryover.bench.backbones.class_tokens import pad
from carryover.bench.backbones.layout import CLIP
from carryover.bench.backbones.products import FEWEST, Product
from carryover.bench.backbones.text_pass import Pass

SHAPES = ((288, 96), (96, 288), (96, 384), (384, 96), (1536, 512), (512, 2048))
needs_op = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available(), reason="no oneDNN"
)


@needs_op
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_product_and_its_gradient_are_those_of_double_precision(outputs, inputs, monkeypatch):
    monkeypatch.setattr(Product, "quick", lambda self, rows: True)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    x = torch.randn(3, 40, inputs, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    found, expected = Product(weight, bias)(x), F.linear(exact, weight.double(), bias.double())
    pull = torch.randn(3, 40, outputs)
    found.backward(pull)
    expected.backward(pull.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("inputs", [1, 96, 192, 193, 288, 383, 384, 385, 512, 2048])
def test_pieces_cover_a_row(inputs):
    assert sum(products.pieces(inputs)) == inputs and max(products.pieces(inputs)) <= products.PIECE


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_the_bits_are_torchs_own_whoever_multiplies(outputs, inputs):
    """Where oneDNN is not taken this says little; where it is, it says all."""
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    product = Product(weight, bias)
    for shape in ((1,), (3,), (FEWEST,), (77,), (911,), (2500,), (5, 37), (2, 3, 50), (0,)):
        ours = torch.randn(*shape, inputs, requires_grad=True)
        theirs = ours.detach().clone().requires_grad_()
        found, expected = product(ours), F.linear(theirs, weight, bias)
        assert torch.equal(found, expected)
        pull = torch.randn_like(found)
        found.backward(pull)
        expected.backward(pull)
        assert torch.equal(ours.grad, theirs.grad)


def test_a_matrix_that_learns_has_its_gradient(monkeypatch):
    monkeypatch.setattr(products, "offered", lambda: True)
    weight = torch.randn(96, 96, requires_grad=True)
    Product(weight)(torch.ones(40, 96)).sum().backward()
    assert torch.equal(weight.grad, torch.full((96, 96), 40.0))


def test_it_is_taken_for_many_rows_in_fp32_alone_and_never_on_intel(monkeypatch):
    monkeypatch.setattr(products, "same_bits", lambda *shape: True)
    monkeypatch.setattr(products, "offered", lambda: True)
    product = Product(torch.randn(96, 96))
    assert product.quick(FEWEST) and not product.quick(FEWEST - 1)
    assert not Product(torch.randn(96, 96).bfloat16()).quick(FEWEST)
    assert not Product(torch.empty(1, products.LARGEST + 1)).quick(FEWEST)
    monkeypatch.undo()
    for maker in ("GenuineIntel", None):
        monkeypatch.setattr(products.processor, "described", lambda maker=maker: {"vendor_id": maker})
        products.offered.cache_clear()
        assert not products.offered()
    products.offered.cache_clear()


def test_where_bits_differ_torch_multiplies(monkeypatch):
    monkeypatch.setattr(products, "offered", lambda: True)
    monkeypatch.setattr(products, "multiplied", lambda x, parts, bias: x @ torch.zeros(x.shape[1], 40))
    assert not Product(torch.randn(40, 40)).quick(FEWEST)


@pytest.mark.parametrize("per", ["shared", "own"])
def test_a_text_pass_has_the_same_bits_either_way(per, monkeypatch):
    text = tiny_model(3, False).text
    text.requires_grad_(False)
    classes = pad([[*range(1, 1 + length), 49407] for length in (2, 3, 3, 5, 4)])
    width = text.token_embedding.weight.shape[1]
    drawn = torch.randn(6, 4, width) if per == "shared" else torch.randn(6, 5, 4, width)

    def passed():
        context = drawn.clone().requires_grad_()
        features = getattr(Pass(text, CLIP, torch.float32), per)(context, classes, 0)
        features.square().sum().backward()
        return features.detach(), context.grad

    quick = passed()
    monkeypatch.setattr(products, "offered", lambda: False)
    assert all(map(torch.equal, quick, passed()))
