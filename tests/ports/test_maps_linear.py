"""Ridge maps against scikit-learn: coefficients, and leave-one-out by refits."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from test_maps import drawn, related

from carryover.bench.ports.map_linear import GRID
from carryover.bench.ports.maps import Linear


def unit(new):
    return ((new - new.mean(0)) ** 2).sum() / new.shape[1]


@pytest.mark.parametrize("count", [10, 60])  # fewer and more anchors than dimensions
def test_coefficients_are_scikit_learns(count):
    old, new = related(count, 24, 16)
    fitted = Linear(strength=0.3).fit(old, new)
    expected = Ridge(alpha=0.3 * unit(new)).fit(new, old)
    np.testing.assert_allclose(fitted.matrix, expected.coef_.T, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(new), expected.predict(new), atol=1e-5)
    assert not fitted.about["edge"]


@pytest.mark.parametrize(("count", "strength"), [(10, 1e-4), (10, 1.0), (60, 1e-4), (60, 1.0), (25, 0.01), (2, 0.1)])
def test_held_out_anchors_are_those_of_refits_without_them(count, strength):
    old, new = related(count, 24, 16)
    fitted = Linear(strength=strength).fit(old, new)
    for row in range(count):
        others = [other for other in range(count) if other != row]
        refit = Ridge(alpha=strength * unit(new)).fit(new[others], old[others])
        np.testing.assert_allclose(fitted.held_out_[row], refit.predict(new[row : row + 1])[0], atol=1e-4)


@pytest.mark.parametrize("noise", [0.05, 0.5, 2.0])
def test_the_strength_is_the_best_of_the_grid_by_refits(noise):
    old, new = related(20, 24, 16, noise=noise)

    def loss(c):
        errors = []
        for row in range(20):
            others = [other for other in range(20) if other != row]
            refit = Ridge(alpha=c * unit(new)).fit(new[others], old[others])
            errors.append(((refit.predict(new[row : row + 1]) - old[row]) ** 2).sum())
        return sum(errors)

    fitted = Linear().fit(old, new)
    losses = [loss(c) for c in GRID]
    assert fitted.about["strength"] == GRID[int(np.argmin(losses))]
    total = ((old - old.mean(0)) ** 2).sum()
    assert fitted.score_ == pytest.approx(1 - min(losses) / total, abs=1e-6)


def test_the_grid_is_log_spaced_from_1e_4_to_1e2_and_an_edge_is_told():
    np.testing.assert_allclose(np.diff(np.log10(GRID)), 0.5)
    assert GRID[0] == pytest.approx(1e-4) and GRID[-1] == pytest.approx(1e2)
    old, new = related(100, 24, 16)
    assert not Linear().fit(old, new).about["edge"]
    exact = Linear().fit(new @ drawn(24, 16, seed=9), new)  # nothing to shrink
    assert exact.about["edge"] and exact.about["strength"] == GRID[0]
    nothing = Linear().fit(drawn(100, 16, seed=21), new)
    assert nothing.about["strength"] == GRID[-1] and nothing.about["edge"] and nothing.score_ < 0.01


def test_the_intercept_counts_in_the_leverage():
    """Unrelated sides and fewer anchors than dimensions: without the 1/N each row would seem to be known."""
    assert Linear(strength=1e-4).fit(drawn(10, 16), drawn(10, 24, seed=1)).score_ < 0
