"""ProLIP against open_clip's own towers without their last matrix, and torch's Adam and cosine."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import unlike_towers
from tiny_eva import tiny_eva
from tiny_fits import make, pixels_of, support_for
from tiny_towers import DIM, tiny_model, wrap

from carryover.bench.backbones.places import bias_of, spot, unprojected
from carryover.bench.errors import Unfit, UserError
from carryover.bench.training.trainer import fit

OPTIONS = {"lr": 1e-3, "iterations": 7, "strength": 0.3}


def trained(backbone, classes, **options):
    support = support_for("pixels")
    method = make("prolip", **{**OPTIONS, **options})
    method.bind(backbone, classes)
    with method.attach(backbone):
        fit(method, support, torch.Generator().manual_seed(0))
    return method, support


def asked(method, backbone, classes, x):
    method.eval()
    method.bind(backbone, classes)
    with method.attach(backbone):
        return method.predict(x)


def by_hand(backbone, classes, support, options):
    """M (V, D), on features of open_clip's own tower when its projection is None."""
    model = copy.deepcopy(backbone.model)
    start, model.visual.proj = model.visual.proj.detach().clone(), None
    matrix = torch.nn.Parameter(start.clone())
    solver = torch.optim.Adam([matrix], lr=options["lr"], eps=1e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(solver, options["iterations"])
    texts = backbone.zero_shot(classes)
    with torch.no_grad():
        views = [model.visual(view) for view in support.views]
    for step in range(options["iterations"]):
        logits = backbone.scale * F.normalize(views[step % len(views)] @ matrix, dim=-1) @ texts.T
        loss = F.cross_entropy(logits, support.labels) + options["strength"] * ((matrix - start) ** 2).sum()
        solver.zero_grad()
        loss.backward()
        solver.step()
        cosine.step()
    return matrix.detach(), start


def with_projection(backbone, matrix, classes, x):
    """Zero-shot's logits of a copy of the tower that ends in ``matrix`` (V, D)."""
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        model.visual.proj.copy_(matrix)
        features = model.encode_image(x, normalize=True)
    return backbone.scale * features @ backbone.zero_shot(classes).T


@pytest.mark.parametrize("absolute", [False, True])
def test_training_is_adam_on_the_matrix_alone_from_clips_own(tiny, classes, absolute):
    method, support = trained(tiny.base, classes, absolute=absolute)
    matrix, start = by_hand(tiny.base, classes, support, OPTIONS)
    assert (matrix - start).abs().max() > 3e-3
    expected = matrix if absolute else matrix - start
    torch.testing.assert_close(method.learned()["matrix"].T, expected, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("absolute", [False, True])
def test_the_new_tower_gets_the_difference_or_the_matrix_itself(tiny, classes, absolute):
    method, support = trained(tiny.base, classes, absolute=absolute)
    matrix, start = by_hand(tiny.base, classes, support, OPTIONS)
    x, own = pixels_of(support.labels, 5), tiny.new.model.visual.proj.detach()
    there = matrix if absolute else own + matrix - start
    for backbone, projection in ((tiny.base, matrix), (tiny.new, there)):
        expected = with_projection(backbone, projection, classes, x)
        torch.testing.assert_close(asked(method, backbone, classes, x), expected, atol=1e-4, rtol=1e-4)
    plain = with_projection(tiny.new, own, classes, x)
    assert not torch.allclose(asked(method, tiny.new, classes, x), plain, atol=1e-2)


def test_a_tower_of_another_width_gets_what_the_joint_space_sees(classes):
    base = unlike_towers.made("deeper")
    support = support_for("pixels")
    method = make("prolip", dim=24, **OPTIONS)
    method.bind(base, classes)
    with method.attach(base):
        fit(method, support, torch.Generator().manual_seed(0))
    vit = other_width(24)
    own = base.model.visual.attnpool.c_proj.weight.detach().double().numpy().T  # (V, D)
    change = method.learned()["matrix"].double().numpy().T
    assert own.shape != vit.model.visual.proj.shape
    joint, *_ = np.linalg.lstsq(own, change, rcond=None)
    x = pixels_of(support.labels, 5)
    with torch.no_grad():
        features = vit.model.encode_image(x).double()
    moved = F.normalize(features + features @ torch.tensor(joint), dim=-1).float()
    expected = vit.scale * moved @ vit.zero_shot(classes).T
    torch.testing.assert_close(asked(method, vit, classes, x), expected, atol=1e-4, rtol=1e-4)
    plain = vit.scale * F.normalize(features, dim=-1).float() @ vit.zero_shot(classes).T
    assert not torch.allclose(plain, expected, atol=1e-2), "the change must matter"
    whole = make("prolip", dim=24, absolute=True, **OPTIONS)
    whole.load_learned(method.learned())
    with pytest.raises(Unfit, match="absolute=False goes there") as told:
        whole.bind(vit, classes)
    assert "\n" not in str(told.value)


def other_width(dim):
    return wrap(tiny_model(4, False, dim), "other", "gelu", dim)


@pytest.mark.parametrize("kind", ["attention pool", "timm's head"])
def test_a_last_matrix_with_a_bias_is_found_and_the_bias_stays(classes, kind):
    backbone = unlike_towers.made("deeper") if kind == "attention pool" else wrap(tiny_eva(True), "eva", "gelu")
    visual = backbone.model.visual
    last = visual.attnpool.c_proj if kind == "attention pool" else visual.trunk.head
    with torch.no_grad():
        last.bias.normal_(generator=torch.Generator().manual_seed(0))
    x, place = pixels_of(torch.arange(4)), spot(backbone.model, "image.projection.weight")
    with torch.no_grad():
        plain = backbone.encode_images(x)
        with unprojected(place):
            before = backbone.encode_images(x)
        assert torch.equal(plain, backbone.encode_images(x))
    assert place.value is last.weight and torch.equal(bias_of(place), last.bias)
    torch.testing.assert_close(F.linear(before, last.weight, last.bias), plain, atol=1e-5, rtol=1e-5)


def test_a_tower_that_ends_in_no_matrix_is_refused_in_one_line(classes):
    backbone = other_width(DIM)
    backbone.model.visual.proj = None
    with pytest.raises(Unfit, match="image tower's last matrix; other ends in none") as told:
        make("prolip").bind(backbone, classes)
    assert "\n" not in str(told.value)


def test_the_pull_is_one_over_shots_and_zero_leaves_the_plain_loss(tiny, classes):
    kind = type(make("prolip"))
    assert [kind.published("dtd", shots)["strength"] for shots in (1, 4, 16)] == [1, 0.25, 0.0625]
    free, held = (trained(tiny.base, classes, strength=one)[0].learned()["matrix"].norm() for one in (0.0, 1e3))
    assert held < 0.5 * free and math.isfinite(held)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"strength": -1.0}])
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match="prolip: iterations is 1 or more"):
        make("prolip", **wrong)


@pytest.mark.parametrize("iterations, views", [(2, 2), (7, 3)])
def test_views_that_no_step_comes_to_are_not_encoded(tiny, classes, monkeypatch, iterations, views):
    calls, encode = [], tiny.base.encode_images
    monkeypatch.setattr(tiny.base, "encode_images", lambda x: calls.append(len(x)) or encode(x))
    _, support = trained(tiny.base, classes, iterations=iterations)
    assert len(support.views) == 3 and calls == [len(support.labels)] * views


def test_epochs_of_the_trainer_are_refused_in_one_line(tiny, classes):
    with pytest.raises(UserError, match="prolip: iterations tells its steps.*; epochs is 0, found 5"):
        trained(tiny.base, classes, epochs=5)
