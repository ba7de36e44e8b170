"""What a map may be fitted on: ids that match rows, and one clear line for each thing that cannot be fitted."""

import numpy as np
import pytest
import torch
from test_maps import drawn, related

from carryover.bench.errors import UserError
from carryover.bench.ports.maps import Linear, Procrustes

OLD, NEW = related(30, 12, 16)
IDS = [f"picture {row}" for row in range(30)]


@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_rows_in_another_order_are_matched_by_id(kind):
    order = drawn(30, seed=5).argsort()
    matched = kind().fit(OLD, NEW[order], IDS, [IDS[row] for row in order])
    assert torch.equal(matched.matrix, kind().fit(OLD, NEW).matrix)
    assert matched.ids_ == tuple(IDS) and matched.about["without_partner"] == {"old": 0, "new": 0}


def test_of_rows_in_part_only_on_both_sides_the_common_ones_are_taken_and_the_others_counted():
    matched = Procrustes().fit(OLD[:20], NEW[8:][::-1], IDS[:20], IDS[8:][::-1])
    assert torch.equal(matched.matrix, Procrustes().fit(OLD[8:20], NEW[8:20]).matrix)
    assert matched.ids_ == tuple(IDS[8:20]) and matched.about["count"] == 12
    assert matched.about["without_partner"] == {"old": 8, "new": 10}


def test_ids_may_be_arrays_or_tensors_of_numbers():
    numbers = np.arange(30)
    matched = Procrustes().fit(OLD, NEW[::-1], numbers, torch.arange(30).flip(0))
    assert torch.equal(matched.matrix, Procrustes().fit(OLD, NEW).matrix)


def test_a_row_without_partner_may_hold_anything():
    old = OLD.copy()
    old[0] = np.nan
    assert Procrustes().fit(old, NEW[1:], IDS, IDS[1:]).about["count"] == 29


def test_integers_halves_lists_and_booleans_are_numbers_too():
    old, new = (np.round(10 * rows).astype(np.int64) for rows in (OLD, NEW))
    expected = Linear().fit(old.astype(float), new.astype(float)).matrix
    for kind in (np.int16, np.int64, np.float16, np.float32, ">f4"):
        assert torch.equal(Linear().fit(old.astype(kind), new.astype(kind)).matrix, expected)
    assert torch.equal(Linear().fit(old.tolist(), torch.tensor(new)).matrix, expected)
    assert torch.equal(Linear().fit(torch.tensor(old).half(), torch.tensor(new).to(torch.int16)).matrix, expected)
    assert Linear().fit(OLD > 0, torch.tensor(NEW > 3)).about["count"] == 30


def test_what_is_given_may_change_after_the_fit():
    old, new = OLD.copy(), NEW.copy()
    fitted = Procrustes().fit(old, new)
    old /= 7
    new[:] = 0
    assert fitted.score_ == Procrustes().fit(OLD, NEW).score_


def replaced(rows, place, value):
    rows = rows.copy()
    rows[place] = value
    return rows


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((OLD, NEW[:-1]), "old has 30 rows, new 29; .*give old_ids and new_ids"),
        ((OLD, NEW, IDS), "old_ids without new_ids"),
        ((OLD, NEW, IDS, IDS[:-1]), "new_ids has 29 ids, new 30 rows"),
        ((OLD, NEW, IDS, [f"other {i}" for i in IDS]), "none in common .*'picture 0' and 'other picture 0'"),
        ((OLD, NEW, IDS, [*IDS[:-1], IDS[3]]), "new_ids has 1 ids more than once, the first 'picture 3'"),
        ((OLD, NEW, IDS, [[i] for i in IDS]), "new_ids are no texts or numbers"),
        ((OLD[:1], NEW[:1]), "2 pairs of rows or more, found 1"),
        ((OLD, NEW, IDS, [IDS[0], *[f"other {i}" for i in IDS[1:]]]), "2 pairs of rows or more, found 1"),
        ((OLD[:0], NEW[:0]), "2 pairs of rows or more, found 0"),
        ((replaced(OLD, (4, 2), np.nan), NEW), "1 of 30 rows of old hold NaN or infinite numbers, the first is row 4"),
        ((OLD, replaced(NEW, 7, np.inf), IDS, IDS), "of new hold NaN or infinite numbers, the first is id 'picture 7'"),
        ((np.full_like(OLD, 0.1), NEW), "all 30 rows of old are the same"),
        ((OLD, np.tile(NEW[:1].astype(np.float32), (30, 1))), "all 30 rows of new are the same"),
        ((OLD[0], NEW), r"old has shape \(16,\), expected two dimensions"),
        ((OLD, NEW[None]), r"new has shape \(1, 30, 12\), expected two dimensions"),
        ((OLD[:, :0], NEW), r"old has shape \(30, 0\)"),
        ((OLD.astype(str), NEW), "old holds <U32, expected real numbers"),
        ((OLD, NEW.astype(complex)), "new holds complex128"),
        ((OLD, torch.tensor(NEW).to_sparse()), "new is a tensor of .*expected real numbers, dense"),
        (([[1.0], [1.0, 2.0]], NEW), "old is no array of numbers"),
        ((1e200 * OLD, NEW), "too large for fp32"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(given, line):
    for kind in (Procrustes, Linear):
        with pytest.raises(UserError, match=line) as raised:
            kind().fit(*given)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (Procrustes(prior="identity"), "prior is 'identity', expected 'drop'"),
        (Procrustes(prior=np.eye(16)), r"prior has shape \(16, 16\), expected \(12, 16\)"),
        (Procrustes(prior=np.eye(12, 16), prior_strength=-1), "prior_strength is -1"),
        (Procrustes(scale="none"), "scale is 'none', expected 'fit' or 'spread'"),
        (Procrustes(folds=1), "folds is 1"),
        (Linear(strength=0), "strength is 0, expected a number above 0"),
        (Linear(strength=float("nan")), "strength is nan"),
    ],
)
def test_wrong_parameters_are_told_when_the_map_is_fitted(wrong, line):
    with pytest.raises(UserError, match=line):
        wrong.fit(OLD, NEW)


def test_a_map_that_is_not_fitted_says_so_and_one_of_another_width_is_refused():
    for use in (lambda m: m.transform(NEW), lambda m: m.score_, lambda m: m.held_out_, lambda m: m.inverse()):
        with pytest.raises(UserError, match="procrustes map is not fitted yet"):
            use(Procrustes())
    with pytest.raises(UserError, match=r"features of width 12, found shape \(30, 16\)"):
        Procrustes().fit(OLD, NEW).transform(OLD)
