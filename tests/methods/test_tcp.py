"""TCP, and contexts of each class's own at two places of the text tower, against open_clip's blocks at 77 tokens."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from references import encode_prompts, hooked, relative
from tiny_fits import bound, make_support
from tiny_towers import DIM, NAMES, WIDTH, tiny_model, wrap

from carryover.bench.backbones.text_pass import Pass
from carryover.bench.backbones.text_tower import TextTower
from carryover.bench.errors import UserError
from carryover.methods.base import METHODS, Classes

TOLERANCE = 1e-4
MANY = [f"kind {'of thing ' * (i % 4)}{i}" for i in range(9)]


@pytest.fixture(params=["packed", "bins"])
def layout(request, monkeypatch):
    """As a CPU and as a GPU lay texts out."""
    monkeypatch.setattr(Pass, "binned", property(lambda self: request.param == "bins"))


def by_hand(model, tokenizer, names, context, block, rows):
    """open_clip's own ``encode_text`` with ``context`` (n, W) in place of embeddings and ``rows`` (C, n, W) in place of
    the same rows of the block's input."""

    def place(module, args):
        x, n = args[0], rows.shape[1]
        return torch.cat([x[:, :1], rows, x[:, 1 + n :]], dim=1), *args[1:]

    with hooked(model.text.transformer.resblocks[block].register_forward_pre_hook(place)):
        return encode_prompts(model, tokenizer, names, context)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("budget", [4 << 30, 60_000])
@pytest.mark.parametrize("fast", [True, False])
def test_class_rows_at_a_later_block_are_open_clips_own_with_gradients(tiny, layout, block, budget, fast):
    text = TextTower(tiny.base.model.text, tiny.base.text.tokenizer, budget=budget, fast=fast)
    context, rows = drawn(2, WIDTH), drawn(len(MANY), 2, WIDTH, seed=1)
    tokens = text.class_tokens(MANY)
    found = text.encode(context.expand(len(MANY), -1, -1), tokens, per="class", deep={block: rows})
    expected = by_hand(tiny.base.model, text.tokenizer, MANY, context, block, rows)
    assert relative(found, expected) < TOLERANCE
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    pairs = [torch.autograd.grad((one * weights).sum(), [context, rows]) for one in (found, expected)]
    for one, other in zip(*pairs, strict=True):
        assert other.abs().max() > 0 and relative(one, other) < TOLERANCE


@pytest.mark.parametrize("budget", [4 << 30, 60_000])
def test_runs_side_by_side_are_each_alone(tiny, layout, budget):
    text = TextTower(tiny.base.model.text, tiny.base.text.tokenizer, budget=budget)
    context, rows = drawn(3, len(MANY), 2, WIDTH), drawn(3, len(MANY), 2, WIDTH, seed=1)
    tokens = text.class_tokens(MANY)
    together = text.encode(context, tokens, per="class", deep={1: rows})
    for i, found in enumerate(together):
        alone = text.encode(context[i], tokens, per="class", deep={1: rows[i]})
        assert relative(found, alone) < 1e-5


@pytest.mark.parametrize(
    "deep, options",
    [
        ({0: (4, 2, WIDTH)}, {}),
        ({3: (4, 2, WIDTH)}, {}),
        ({1: (2, WIDTH)}, {}),
        ({1: (4, 2, WIDTH)}, {"layer": 1}),
        ({1: (4, 2, WIDTH)}, {"per": "image"}),
    ],
)
def test_rows_that_do_not_fit_are_a_value_error(tiny, deep, options):
    text, deep = tiny.base.text, {block: torch.zeros(shape) for block, shape in deep.items()}
    with pytest.raises(ValueError, match="deep"):
        text.encode(torch.zeros(4, 2, WIDTH), text.class_tokens(NAMES), **{"per": "class", "deep": deep, **options})


# ---- the method ------------------------------------------------------------------------------------------------------


def spelled_out(method, backbone, classes, x, y):
    """Its loss from its tensors, by open_clip's own modules."""
    model, tokenizer, n = backbone.model, backbone.text.tokenizer, len(method.context)
    with torch.no_grad():
        texts = [classes.templates[0].format(name) for name in classes.names]
        teacher = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    first, _, second = method.meta_net
    hidden = teacher @ first.weight.T + first.bias
    rows = (hidden * torch.sigmoid(1.702 * hidden)) @ second.weight.T + second.bias
    rows = rows.reshape(len(classes.names), n, WIDTH)
    features = F.normalize(by_hand(model, tokenizer, classes.names, method.context, 2, rows), dim=-1)
    logits = model.logit_scale.exp().detach() * F.normalize(x, dim=-1) @ features.T
    return F.cross_entropy(logits, y) + 8 * (1 - F.cosine_similarity(features, teacher).mean())


def test_loss_and_gradients_are_those_of_the_formula_on_either_backbone(tiny, classes, layout):
    support = make_support()
    for backbone in (tiny.base, tiny.new):
        method = bound("tcp", backbone, classes)
        assert method.block == 2  # of three
        values = list(method.parameters())
        found, expected = (
            method.loss(support.features, support.labels),
            spelled_out(method, backbone, classes, support.features, support.labels),
        )
        assert relative(found, expected) < TOLERANCE
        slopes = [torch.autograd.grad(one, values) for one in (found, expected)]
        for one, other in zip(*slopes, strict=True):
            assert other.abs().max() > 0 and relative(one, other) < 10 * TOLERANCE


def test_losses_of_runs_side_by_side_are_each_ones_own(tiny, classes):
    methods = [bound("tcp", tiny.base, classes, spread=spread) for spread in (0.1, 0.3)]
    supports = [make_support(seed=seed) for seed in (0, 1)]
    xs, ys = [s.features for s in supports], [s.labels for s in supports]
    assert METHODS["tcp"].alike(methods[0].config) == METHODS["tcp"].alike(methods[1].config)
    for found, method, x, y in zip(METHODS["tcp"].losses(methods, xs, ys), methods, xs, ys, strict=True):
        torch.testing.assert_close(found, method.loss(x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers, block", [(2, 1), (6, 4), (8, 5), (9, 8), (12, 8)])
def test_the_block_is_the_published_one_or_at_two_thirds_of_the_depth(layers, block, classes):
    backbone = wrap(tiny_model(0, True, layers=layers), "tiny", "quick_gelu", DIM)
    assert bound("tcp", backbone, classes).block == block


def test_a_tower_without_an_inner_block_is_refused_in_one_line(classes):
    backbone = wrap(tiny_model(0, True, layers=1), "tiny", "quick_gelu", DIM)
    with pytest.raises(UserError, match=r"two blocks or more; tiny has 1: choose") as caught:
        bound("tcp", backbone, classes)
    assert "\n" not in str(caught.value)


def test_the_cars_prompt_has_no_full_stop_and_classes_end_with_their_kind(tiny):
    text = tiny.base.text
    cars = bound("tcp", tiny.base, Classes("stanford_cars", ("audi",), ("a photo of a {}.",)))
    assert cars.tokens.rows == ((*text.tokens(["audi, a type of car"])[0], text.layout.end),)
    flowers = bound("tcp", tiny.base, Classes("flowers102", ("rose",), ("a photo of a {}.",)))
    assert flowers.tokens.rows == text.class_tokens(["rose, a type of flower"]).rows


def test_published_epochs_are_25_on_the_large_sets():
    kind, usual = METHODS["tcp"], METHODS["tcp"].Config()
    assert [kind.published(name, 16)["epochs"] for name in ("imagenet", "sun397", "dtd")] == [25, 25, 50]
    assert (usual.optimizer, usual.lr, usual.batch, usual.context_length) == ("adam", 2e-3, 32, 4)
    with pytest.raises(UserError, match="tcp: block and reduction are 1 or more"):
        replace(usual, block=0)
