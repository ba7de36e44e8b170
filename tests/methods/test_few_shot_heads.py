"""GDA, LP++ and CLAP, classifiers of few features in the joint space, against their formulas and other libraries."""

import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tiny_fits import make, make_support
from tiny_towers import DIM, NAMES

from carryover.bench.errors import UserError
from carryover.bench.ports import PORTS, Anchors, discover
from carryover.bench.training.trainer import fit
from carryover.methods import gda
from carryover.methods.base import METHODS

discover()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(
        torch.as_tensor(np.asarray(found)).double(), torch.as_tensor(np.asarray(expected)).double(),
        rtol=tolerance, atol=tolerance,
    )  # fmt: skip


def fitted(name, backbone, classes, support, **changes):
    method = make(name, support=len(support.labels), **changes)
    method.bind(backbone, classes)
    fit(method, support, torch.Generator().manual_seed(0))
    return method


class Turned:
    """The base backbone in other coordinates: x -> x @ turn, for images and texts."""

    def __init__(self, backbone, turn):
        self.of, self.turn, self.fingerprint, self.label = backbone, turn, "turned", "turned"
        self.scale, self.device, self.dim, self.width = backbone.scale, backbone.device, backbone.dim, backbone.width

    def zero_shot(self, classes):
        return self.of.zero_shot(classes) @ self.turn


def turn(seed=0):
    drawn = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(seed)).double()
    return torch.linalg.qr(drawn)[0].float()


# ---- GDA -------------------------------------------------------------------------------------------------------------


def gaussians(x, y):
    """Means (C, D) and inverse covariance (D, D) by numpy, each view a sample of its own."""
    means = np.stack([x[y == c].mean(0) for c in range(len(NAMES))])
    covariance = np.cov((x - means[y]).T)
    inverse = x.shape[1] * np.linalg.inv((len(x) - 1) * covariance + np.trace(covariance) * np.eye(x.shape[1]))
    return means, inverse


def samples(support, views=gda.VIEWS):
    kept = support.views[:views].double().numpy()
    return unit(kept).reshape(-1, DIM), np.tile(support.labels.numpy(), len(kept))


@pytest.mark.parametrize("views", [1, 3, 12])
def test_gda_is_the_gaussians_of_normalised_views_each_a_sample_ten_at_most(tiny, classes, views):
    support = make_support(views=views, noise=1.0)
    method = fitted("gda", tiny.base, classes, support)
    means, inverse = gaussians(*samples(support))
    close(method.weight.detach(), means @ inverse, 1e-4)
    close(method.bias.detach(), -math.log(len(NAMES)) - np.einsum("cd,de,ce->c", means, inverse, means) / 2, 1e-4)
    x = unit(support.val_features.double().numpy())
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        text = backbone.zero_shot(classes).double().numpy()
        gaussian = x @ inverse @ means.T + method.bias.detach().double().numpy()
        close(method.predict(support.val_features), 100 * x @ text.T + method.config.alpha * gaussian, 1e-3)


def test_gda_is_scikit_learns_shrunk_discriminant_but_for_its_scale():
    """Of balanced classes its estimate is the shrunk covariance of weight D / (N - 1 + D)."""
    support = make_support(noise=1.0)
    x, y = samples(support)
    count = len(x)
    shrinkage = DIM / (count - 1 + DIM)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    scale, prior = DIM / count * (1 - shrinkage), -math.log(len(NAMES))
    weight, bias = gda.discriminant(torch.tensor(x), torch.tensor(y), len(NAMES))
    close(weight, scale * reference.coef_, 1e-8)
    close(bias, prior + scale * (reference.intercept_ - prior), 1e-8)


def test_samples_without_spread_leave_gda_at_zero_shot(tiny, classes):
    support = make_support(shots=1, views=1)
    method = fitted("gda", tiny.base, classes, support)
    assert not method.weight.any()
    assert torch.equal(method.predict(support.features).argmax(1), (unit_of(support) @ method.classifier.T).argmax(1))


def unit_of(support):
    return F.normalize(support.features, dim=-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gda_takes_the_alpha_that_is_best_on_few_shot_validation(tiny, classes, seed):
    """Of equals that of the lowest cross-entropy."""
    support = make_support(noise=1.5, shots=2, val=15, seed=seed)
    method = fitted("gda", tiny.base, classes, support)
    means, inverse = gaussians(*samples(support))
    x, y = unit(support.val_features.double().numpy()), support.val_labels.numpy()
    text, bias = 100 * x @ tiny.base.zero_shot(classes).double().numpy().T, method.bias.detach().double().numpy()
    reached = {}
    for alpha in (1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100):
        logits = text + alpha * (x @ inverse @ means.T + bias)
        right, lost = (logits.argmax(1) == y).sum(), F.cross_entropy(torch.tensor(logits), support.val_labels)
        reached[alpha] = right, -float(lost)
    assert len({right for right, _ in reached.values()}) > 1, "the choice must matter"
    assert method.chosen == {"alpha": max(reached, key=reached.get)}
    assert [row["alpha"] for row in method.tried] == list(reached)
    kept = fitted("gda", tiny.base, classes, support, alpha=0.3)
    assert kept.config.alpha == 0.3 and not kept.chosen


def test_gda_through_an_orthogonal_map_is_gda_fitted_there_and_the_carried_gaussians(tiny, classes):
    """mean -> A mean, covariance -> A S A^T: the shrinkage, a multiple of I, turns with them."""
    support, turned = make_support(noise=1.0), Turned(tiny.base, turn())
    there = {name: getattr(support, name) @ turned.turn for name in ("features", "views", "val_features")}
    there = replace(support, **there)
    plugin, anew = fitted("gda", tiny.base, classes, support), fitted("gda", turned, classes, there)
    g = torch.Generator().manual_seed(4)
    anchors = torch.randn(4 * DIM, DIM, generator=g)
    anchors -= anchors.mean(0)  # so that the map has no offset
    given = Anchors("other", PORTS["procrustes"].needs, _old=anchors, _new=anchors @ turned.turn, _nouns=())
    ported = PORTS["procrustes"]().fit(plugin, tiny.base, turned, classes, given)
    found = ported.predict(there.val_features)
    close(found, anew.predict(there.val_features), 2e-3)
    means, inverse = gaussians(*samples(support))
    a = turned.turn.double().numpy()
    means, inverse = means @ a, np.linalg.inv(a.T @ np.linalg.inv(inverse) @ a)
    x = unit(there.val_features.double().numpy())
    log_density = x @ inverse @ means.T - np.einsum("cd,de,ce->c", means, inverse, means) / 2 - math.log(len(NAMES))
    text = 100 * x @ turned.zero_shot(classes).double().numpy().T
    close(found, text + plugin.config.alpha * log_density, 2e-3)


# ---- LP++ ------------------------------------------------------------------------------------------------------------


def lp_by_autograd(support, text, bias, iterations, every):
    """After each step the count right on validation and (weight, bias, alpha): torch's SGD in float64 on the loss as
    the paper states it; alpha's gradients add up."""
    x, y = F.normalize(support.views[0].double(), dim=-1), support.labels
    held, cosines = F.normalize(support.val_features.double(), dim=-1), x @ text.T
    probe = torch.nn.Linear(DIM, len(text)).double()
    with torch.no_grad():
        for c in range(len(text)):
            probe.weight[c] = x[y == c].sum(0)
        probe.bias.copy_(bias)
    own = torch.stack([cosines[y == c, c].mean() for c in range(len(text))])
    alpha = torch.full((len(text),), 250 * float(own.mean()), dtype=torch.double, requires_grad=True)
    top = np.linalg.norm(x.numpy(), 2) ** 2
    solver = torch.optim.SGD(probe.parameters(), 4 * len(x) / top, momentum=0.9)
    for step in range(1, iterations + 1):
        solver.zero_grad()
        F.cross_entropy(probe(x) + alpha * cosines, y).backward()
        solver.step()
        with torch.no_grad():
            if step % every == 0:
                alpha -= len(x) / (4 * (cosines**2).sum(0).max()) * alpha.grad
            right = ((probe(held) + alpha * (held @ text.T)).argmax(1) == support.val_labels).sum()
            yield int(right), [value.detach().clone() for value in (probe.weight, probe.bias, alpha)]


@pytest.mark.parametrize("iterations, every, noise", [(1, 10, 0.4), (37, 10, 1.5), (60, 3, 3.0)])
def test_lp_plus_plus_keeps_the_last_of_the_steps_that_are_best_on_validation(tiny, classes, iterations, every, noise):
    support = make_support(noise=noise, seed=3)
    method = make("lp-plus-plus", iterations=iterations, alpha_every=every)
    method.bind(tiny.base, classes)
    bias = method.bias.detach().double().clone()
    assert bias.abs().min() > 0 and bias.abs().max() <= DIM**-0.5
    fit(method, support, torch.Generator())
    steps = [*lp_by_autograd(support, tiny.base.zero_shot(classes).double(), bias, iterations, every)]
    assert len(steps) == iterations
    expected = max(enumerate(steps), key=lambda one: (one[1][0], one[0]))[1][1]
    for found, one in zip((method.weight, method.bias, method.alpha), expected, strict=True):
        close(found.detach(), one, 1e-4)
    x = F.normalize(support.val_features.double(), dim=-1)
    for backbone in (tiny.base, tiny.new):
        method.bind(backbone, classes)
        text = backbone.zero_shot(classes).double()
        close(method.predict(support.val_features), x @ expected[0].T + expected[1] + expected[2] * (x @ text.T), 1e-3)


def test_of_lp_plus_plus_the_best_step_is_sometimes_not_the_last(tiny, classes):
    """So that the test above tells which is kept."""
    support, bias = make_support(noise=3.0, seed=3), torch.zeros(len(NAMES)).double()
    right = [one for one, _ in lp_by_autograd(support, tiny.base.zero_shot(classes).double(), bias, 60, 3)]
    assert right[-1] < max(right)


@pytest.mark.parametrize("changes", [{"iterations": 0}, {"alpha_every": 0}])
def test_lp_plus_plus_refuses_no_steps(changes):
    with pytest.raises(UserError, match="1 or more"):
        make("lp-plus-plus", **changes)


# ---- CLAP ------------------------------------------------------------------------------------------------------------


def text_of(backbone, classes):
    """(C, D) of open_clip's own encoder, the mean over the templates of features as long as they come."""
    tokens = open_clip.get_tokenizer("ViT-B-32")
    texts = [tokens([template.format(name) for name in classes.names]) for template in classes.templates]
    with torch.no_grad():
        return torch.stack([backbone.model.encode_text(part) for part in texts]).mean(0).double().numpy()


def softmax(logits):
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def clap_loss(x, y, w, t, a, scale, constraint=1.0):
    """The loss, and its gradient in w (C, D), from the formula."""
    x, length, count = unit(x), np.linalg.norm(w, axis=1, keepdims=True), len(w)
    cosines = x @ (w / length).T
    shares, true = softmax(scale * cosines), np.eye(count)[y]
    loss = -np.log(shares[np.arange(len(y)), y]).mean() + constraint * (a * ((w - t) ** 2).sum(1)).mean()
    error = scale * (shares - true) / len(y)
    gradient = (error.T @ x - (error * cosines).sum(0)[:, None] * w / length) / length
    return loss, gradient + constraint * 2 * a[:, None] * (w - t) / count


@pytest.mark.parametrize("views, constraint", [(1, 1.0), (3, 0.0), (23, 4.0)])
def test_clap_starts_at_the_text_features_and_is_pulled_back_as_zero_shot_does_well(tiny, classes, views, constraint):
    support = make_support(views=views, noise=1.0)
    method = make("clap", constraint=constraint)
    method.bind(tiny.base, classes)
    method.start(support)
    text, scale, y = text_of(tiny.base, classes), float(tiny.base.scale), support.labels.numpy()
    close(method.weight.detach(), text, 1e-4)
    shares = [softmax(scale * unit(view.double().numpy()) @ unit(text).T) for view in support.views[:20]]
    a = np.array([np.mean([share[y == c, c] for share in shares]) for c in range(len(NAMES))])
    assert a.max() - a.min() > 0.05
    close(method.pull, a, 1e-4)
    with torch.no_grad():
        method.weight += 0.3 * torch.randn(method.weight.shape, generator=torch.Generator().manual_seed(1))
    w = method.weight.detach().double().numpy()
    expected, gradient = clap_loss(support.features.double().numpy(), y, w, text, a, scale, constraint)
    loss = method.loss(support.features, support.labels)
    loss.backward()
    close(loss.detach(), expected, 1e-4)
    close(method.weight.grad, gradient, 1e-4)


def test_clap_trains_by_momentum_and_a_cosine_after_one_epoch_of_warm_up(tiny, classes):
    support = make_support(views=1, noise=1.0)
    support = replace(support, views=support.features[None])
    method = make("clap", support=24, config=replace(METHODS["clap"].Config(), epochs=4))
    method.bind(tiny.base, classes)
    curve = fit(method, support, torch.Generator().manual_seed(0))  # 24 images: a batch is all of them
    x, y, text, scale = (
        support.features.double().numpy(),
        support.labels.numpy(),
        text_of(tiny.base, classes),
        tiny.base.scale,
    )
    scale, w, speed = float(scale), text.copy(), 0
    a = softmax(scale * unit(x) @ unit(text).T)[np.arange(len(y)), y].reshape(len(NAMES), -1).mean(1)
    for row, rate in zip(curve, [1e-5] + [0.05 * (1 + math.cos(math.pi * k / 4)) for k in range(3)], strict=True):
        loss, gradient = clap_loss(x, y, w, text, a, scale)
        speed = 0.9 * speed + gradient
        w = w - rate * speed
        assert row["loss"] == pytest.approx(loss, rel=1e-3) and row["lr"] == pytest.approx(rate)
    close(method.weight.detach(), w, 1e-3)
    for backbone in (tiny.base, tiny.new):  # the classifier goes along whole
        method.bind(backbone, classes)
        close(
            method.predict(support.val_features),
            float(backbone.scale) * unit(support.val_features.numpy()) @ unit(w).T,
            1e-2,
        )
