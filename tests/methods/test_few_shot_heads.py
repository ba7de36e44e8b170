"""GDA, LP++ and CLAP, classifiers of few features in the joint space, against their formulas and other libraries."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tiny_fits import make, make_support
from tiny_towers import DIM, NAMES

from carryover.bench.ports import PORTS, Anchors, discover
from carryover.bench.training.trainer import fit
from carryover.methods import gda

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
