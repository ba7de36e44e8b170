"""Procrustes maps against scipy and closed forms; what follows a prior, the way back, maps one after another."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, polar

from carryover.bench.errors import UserError
from carryover.bench.ports.map_procrustes import STRENGTHS
from carryover.bench.ports.maps import Linear, Map, Procrustes


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def turn(size, seed=0):
    return np.linalg.qr(drawn(size, size, seed=seed))[0]


def related(count, new_width, old_width, seed=0, noise=0.5):
    """(old, new): two noisy views of the same things, neither around zero."""
    things = drawn(count, 12, seed=seed)
    new = things @ drawn(12, new_width, seed=1) + noise * drawn(count, new_width, seed=seed + 2) + 3
    old = things @ drawn(12, old_width, seed=3) + noise * drawn(count, old_width, seed=seed + 4) - 1
    return old, new


def test_rotation_is_scipys_and_the_scale_the_least_squares_one():
    old, new = related(200, 24, 24)
    fitted = Procrustes(scale="fit").fit(old, new)
    a, b = new - new.mean(0), old - old.mean(0)
    expected = orthogonal_procrustes(a, b)[0]
    scale = np.linalg.lstsq((a @ expected).reshape(-1, 1), b.reshape(-1), rcond=None)[0][0]
    np.testing.assert_allclose(fitted.matrix, scale * expected, atol=1e-6)
    assert fitted.about["scale"] == pytest.approx(scale)
    np.testing.assert_allclose(fitted.transform(new).mean(0), old.mean(0), atol=1e-5)


@pytest.mark.parametrize("reflected", [False, True])
def test_more_anchors_than_dimensions_undo_rotation_scale_and_shift(reflected):
    old = drawn(100, 32)
    rotation = turn(32, seed=5)
    if reflected == (np.linalg.det(rotation) > 0):
        rotation[:, 0] *= -1
    fitted = Procrustes().fit(old, 2.5 * old @ rotation + 7)
    unseen = drawn(20, 32, seed=6)
    np.testing.assert_allclose(fitted.transform(2.5 * unseen @ rotation + 7), unseen, atol=1e-5)
    assert np.sign(np.linalg.det(fitted.matrix.numpy())) == (-1 if reflected else 1)
    assert fitted.score_ == pytest.approx(1, abs=1e-9)


def test_a_space_onto_itself_is_the_identity():
    rows = drawn(100, 32) * np.geomspace(1, 0.01, 32) + 4
    fitted = Procrustes().fit(rows, rows)
    np.testing.assert_allclose(fitted.matrix, np.eye(32), atol=1e-5)
    np.testing.assert_allclose(fitted.transform(rows), rows, atol=1e-5)


@pytest.mark.parametrize("count", [6, 20])  # on both sides of where the core is decomposed alone
def test_directions_in_which_no_anchor_varies_land_on_the_old_mean(count):
    rows = drawn(count, 32)
    fitted = Procrustes().fit(rows, rows)
    seen = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][: count - 1]
    np.testing.assert_allclose(fitted.matrix, seen.T @ seen, atol=1e-6)  # the projection, not what an SVD fills in
    assert fitted.about["rank"] == count - 1
    away = drawn(5, 32, seed=8)
    away -= away @ seen.T @ seen
    np.testing.assert_allclose(fitted.transform(rows.mean(0) + away), np.tile(rows.mean(0), (5, 1)), atol=1e-5)
    np.testing.assert_allclose(fitted.transform(rows), rows, atol=1e-5)


def test_few_and_many_anchors_are_decomposed_alike():
    """16 in 32 dimensions go through their own core, 17 through the whole matrix: one more row, seen twice, changes
    nothing but the weights of a mean, so the spans agree."""
    old, new = related(16, 32, 40)
    whole = Procrustes().fit(np.vstack([old, old]), np.vstack([new, new]))
    np.testing.assert_allclose(Procrustes().fit(old, new).matrix, whole.matrix, atol=1e-6)


def test_with_a_prior_of_no_strength_unseen_directions_follow_it_and_the_seen_are_left():
    rows, rotation = drawn(6, 32), turn(32, seed=5)
    fitted = Procrustes(prior=rotation).fit(rows, rows @ rotation.T)
    np.testing.assert_allclose(fitted.matrix, rotation, atol=1e-6)  # what was seen agrees with it
    fitted = Procrustes(prior=np.eye(32)).fit(rows, rows @ rotation.T)
    a, b = rows @ rotation.T, rows
    a, b = a - a.mean(0), b - b.mean(0)
    np.testing.assert_allclose(a @ fitted.matrix.numpy(), b, atol=1e-5)
    rest = [np.eye(32) - np.linalg.pinv(side) @ side for side in (a, b)]
    filled = rest[0] @ fitted.matrix.numpy() @ rest[1]
    core = rest[0] @ rest[1]
    assert np.trace(filled.T @ core) == pytest.approx(np.linalg.norm(core, "nuc"), abs=1e-5)  # the nearest to it
    np.testing.assert_allclose(fitted.matrix.T @ fitted.matrix, np.eye(32), atol=1e-5)


def test_a_strong_prior_is_the_polar_factor_with_it_added():
    old, new = related(10, 16, 16)
    a, b = new - new.mean(0), old - old.mean(0)
    m = a.T @ b
    pull = 2.0 * np.linalg.svd(m, compute_uv=False).sum() / 16
    expected = polar(m + pull * np.eye(16))[0]
    scale = (expected * m).sum() / (a**2).sum()
    fitted = Procrustes(prior=np.eye(16), prior_strength=2.0, scale="fit").fit(old, new)
    np.testing.assert_allclose(fitted.matrix, scale * expected, atol=1e-6)


def test_strength_of_a_prior_is_chosen_by_anchors_left_out():
    """The rotation that the anchors have too is trusted, an unrelated one is left out."""
    rotation = turn(32, seed=5)
    old = drawn(24, 32) * np.geomspace(1, 0.05, 32)
    new = old @ rotation.T + 0.1 * drawn(24, 32, seed=9)
    trusted = Procrustes(prior=rotation, prior_strength=None).fit(old, new)
    wrong = Procrustes(prior=turn(32, seed=77), prior_strength=None).fit(old, new)
    plain = Procrustes().fit(old, new)
    assert trusted.about["strength"] >= 3 and trusted.score_ > plain.score_

    def likeness(strength):
        held_out = Procrustes(prior=rotation, prior_strength=strength).fit(old, new).held_out_
        a, b = held_out - old.mean(0), old - old.mean(0)
        return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()

    assert trusted.about["strength"] == max(STRENGTHS, key=likeness)
    assert wrong.about["strength"] is None and torch.equal(wrong.matrix, plain.matrix)
    fixed = Procrustes(prior=rotation, prior_strength=trusted.about["strength"]).fit(old, new)
    assert fixed.score_ == trusted.score_


def test_a_map_of_other_pictures_as_prior_gives_its_rotation():
    old, new = related(300, 24, 24)
    general = Procrustes().fit(old, new)
    few = Procrustes(prior=general).fit(old[:5], new[:5])
    by_hand = Procrustes(prior=general.matrix / general.about["scale"]).fit(old[:5], new[:5])
    np.testing.assert_allclose(few.matrix, by_hand.matrix, atol=1e-5)


@pytest.mark.parametrize("prior", ["drop", np.eye(16)], ids=["drop", "identity"])
def test_signs_and_order_of_singular_vectors_do_not_matter(prior):
    """Rows in another order, and axes in another order with other signs, give other decompositions and the same map."""
    old, new = related(10, 16, 16)
    fitted = Procrustes(prior=prior).fit(old, new)
    order, axes, signs = drawn(10).argsort(), drawn(16, seed=1).argsort(), np.sign(drawn(16, seed=2))
    moved_prior = prior if isinstance(prior, str) else prior[axes][:, axes] * signs * signs[:, None]
    moved = Procrustes(prior=moved_prior).fit(old[order][:, axes] * signs, new[order][:, axes] * signs)
    expected = fitted.matrix.numpy()[axes][:, axes] * signs * signs[:, None]
    np.testing.assert_allclose(moved.matrix, expected, atol=1e-6)


def test_a_narrow_space_is_found_again_in_a_wider_one():
    new = drawn(100, 20)
    into = np.linalg.qr(drawn(48, 20, seed=4))[0].T  # (20, 48), rows orthonormal
    fitted = Procrustes().fit(3 * new @ into + 2, new)
    unseen = drawn(10, 20, seed=5)
    np.testing.assert_allclose(fitted.transform(unseen), 3 * unseen @ into + 2, atol=1e-5)
    np.testing.assert_allclose(fitted.inverse().transform(fitted.transform(unseen)), unseen, atol=1e-5)


def test_into_a_narrower_space_the_trace_is_the_largest_of_all_rotations():
    old, new = related(200, 30, 12)
    fitted = Procrustes().fit(old, new)
    r = fitted.matrix.numpy() / fitted.about["scale"]
    np.testing.assert_allclose(r.T @ r, np.eye(12), atol=1e-5)
    m = (new - new.mean(0)).T @ (old - old.mean(0))
    found = (r * m).sum()
    assert found == pytest.approx(np.linalg.norm(m, "nuc"), rel=1e-6)  # its bound over all of them
    assert all(found > (np.linalg.qr(drawn(30, 12, seed=s))[0] * m).sum() for s in range(20))


@pytest.mark.parametrize("widths", [(16, 16), (16, 24), (24, 16)])
@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_shuffled_pairs_explain_nothing(kind, widths):
    old, new = related(100, *widths)
    shuffled = kind().fit(old, new[drawn(100, seed=3).argsort()])
    assert kind().fit(old, new).score_ > 0.3 > 0.02 > shuffled.score_


def test_held_out_anchors_are_mapped_by_what_the_other_folds_give():
    old, new = related(40, 12, 16)
    fitted = Procrustes(folds=40).fit(old, new)  # each row alone
    for row in range(0, 40, 7):
        others = [other for other in range(40) if other != row]
        alone = Procrustes().fit(old[others], new[others]).transform(new[row : row + 1])
        np.testing.assert_allclose(fitted.held_out_[row : row + 1], alone, atol=1e-4)
    error = ((old - fitted.held_out_) ** 2).sum() / ((old - old.mean(0)) ** 2).sum()
    assert fitted.score_ == pytest.approx(1 - error, abs=1e-5)


def test_five_folds_are_always_the_same_and_hold_each_row_out_once():
    old, new = related(43, 12, 16)
    first, again = (Procrustes().fit(old, new).held_out_ for _ in range(2))
    np.testing.assert_array_equal(first, again)
    changed = old.copy()
    changed[7] += 1000  # seen by every fold but its own
    moved = np.abs(Procrustes().fit(changed, new).held_out_ - first).max(1) > 1
    assert not moved[7] and 43 * 0.7 < moved.sum() < 43 * 0.9


@pytest.mark.parametrize("count", [2, 3, 5])
def test_two_to_five_anchors_are_enough_to_fit_and_to_score(count):
    fitted = Procrustes().fit(*related(count, 12, 16))
    assert fitted.about["rank"] <= count - 1 and np.isfinite(fitted.score_) and np.isfinite(fitted.held_out_).all()


@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_scales_of_the_features_change_nothing(kind):
    old, new = related(50, 20, 20)
    fitted, scaled = kind().fit(old, new), kind().fit(1e3 * old, 1e-4 * new)
    np.testing.assert_allclose(scaled.transform(1e-4 * new), 1e3 * fitted.transform(new), rtol=1e-3, atol=1e-1)
    assert scaled.score_ == pytest.approx(fitted.score_, abs=1e-6)


def test_scale_by_spread_keeps_the_spread_of_old_features():
    old, new = related(200, 24, 24, noise=2.0)
    by_fit, by_spread = Procrustes(scale="fit").fit(old, new), Procrustes().fit(old, new)
    assert by_spread.transform(new).std(0).max() > by_fit.transform(new).std(0).max()
    spread = np.linalg.norm(by_spread.transform(new) - old.mean(0))
    assert spread == pytest.approx(np.linalg.norm(old - old.mean(0)), rel=1e-6)
    ratio = by_spread.about["scale"] / by_fit.about["scale"]
    np.testing.assert_allclose(by_spread.matrix, ratio * by_fit.matrix, atol=1e-6)
    assert by_fit.score_ > by_spread.score_  # least squares is what the score asks for
    exact = 2.5 * old @ turn(24, seed=5)
    np.testing.assert_allclose(Procrustes(scale="spread").fit(old, exact).transform(exact), old, atol=1e-5)


@pytest.mark.parametrize("count", [8, 100])
def test_there_and_back(count):
    old, new = related(count, 24, 24)
    fitted = Procrustes().fit(old, new)
    back = fitted.inverse()
    np.testing.assert_allclose(back.transform(fitted.transform(new)), new, atol=1e-4)
    np.testing.assert_allclose(back.inverse().matrix, fitted.matrix, atol=1e-5)
    assert back.about["scale"] == pytest.approx(1 / fitted.about["scale"])
    with pytest.raises(UserError, match="not fitted to these spaces"):
        back.score_  # noqa: B018


def test_inverse_of_a_linear_map_is_the_pseudo_inverse():
    old, new = related(100, 12, 20, noise=0.1)
    fitted = Linear().fit(old, new)
    np.testing.assert_allclose(fitted.inverse().matrix, np.linalg.pinv(fitted.matrix.numpy()), atol=1e-4)
    np.testing.assert_allclose(fitted.inverse().transform(fitted.transform(new)), new, atol=1e-3)


def test_one_map_then_another_is_one_map_with_both_means():
    old, new = related(80, 16, 20)
    newest = drawn(80, 24, seed=11) + 5
    first, second = Linear().fit(new, newest), Procrustes().fit(old, new)
    both = first.then(second)
    np.testing.assert_allclose(both.transform(newest), second.transform(first.transform(newest)), atol=1e-4)
    assert (both.about["new_width"], both.about["old_width"]) == (24, 20)
    assert both.about["name"] == "linear, then procrustes"
    with pytest.raises(UserError, match="ends in width 20, the next begins with 24"):
        second.then(first)


def test_arrays_give_arrays_and_tensors_tensors_with_gradients():
    old, new = related(50, 12, 16)
    fitted = Procrustes().fit(old, new)
    assert isinstance(fitted.transform(new), np.ndarray) and fitted.transform(new).dtype == np.float64
    assert fitted.transform(new.astype(np.float16)).dtype == np.float32
    rows = torch.tensor(new, dtype=torch.float32, requires_grad=True)
    mapped = fitted.transform(rows)
    mapped.sum().backward()
    assert mapped.dtype == torch.float32 and torch.allclose(rows.grad[0], fitted.matrix.sum(1), atol=1e-5)
    assert fitted.transform(torch.tensor(new[0])).shape == (16,)
    tensors = Procrustes().fit(torch.tensor(old), torch.tensor(new))
    assert isinstance(tensors.held_out_, torch.Tensor) and isinstance(fitted.held_out_, np.ndarray)
    np.testing.assert_array_equal(tensors.matrix, fitted.matrix)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_features_on_a_gpu_are_fitted_as_on_the_cpu_and_stay_there():
    old, new = (torch.tensor(rows, dtype=torch.float32) for rows in related(50, 12, 16))
    here, there = Procrustes().fit(old, new), Procrustes().fit(old.cuda(), new.cuda())
    assert torch.equal(here.matrix, there.matrix) and there.held_out_.is_cuda
    assert torch.allclose(there.transform(new.cuda()).cpu(), here.transform(new), atol=1e-4)


def test_constructor_parameters_are_stored_as_given_and_a_map_is_refitted_whole():
    prior = np.eye(16)
    fitted = Procrustes(prior=prior, prior_strength=0.5, scale="spread", folds=3)
    assert fitted.prior is prior and (fitted.prior_strength, fitted.scale, fitted.folds) == (0.5, "spread", 3)
    first, second = related(50, 16, 16), related(50, 16, 16, seed=20)
    fitted.fit(*first).score_  # noqa: B018
    again = fitted.fit(*second)
    fresh = Procrustes(prior=prior, prior_strength=0.5, scale="spread", folds=3).fit(*second)
    assert again is fitted and again.score_ == fresh.score_ and torch.equal(again.matrix, fresh.matrix)
    assert isinstance(fitted, Map)
