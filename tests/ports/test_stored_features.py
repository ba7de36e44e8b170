"""Heads for people who store embeddings: closed forms, rows by id, and what does not fit in one line."""

import numpy as np
import pytest
from command_line import call, mistake
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

N, DO, DN, C = 90, 12, 17, 5


@pytest.fixture
def world(tmp_path):
    """Old features that are a rotation of the new ones in a wider space, exactly: files, and the arrays in them."""
    rng = np.random.default_rng(0)
    old = rng.normal(size=(N, DO)) + 2
    rows = np.linalg.qr(rng.normal(size=(DN, DO)))[0].T  # (DO, DN), orthonormal
    new = 3 * old @ rows + rng.normal(size=DN)
    head = {"weight": rng.normal(size=(C, DO)), "bias": rng.normal(size=C)}
    ids = np.array([f"picture {i}" for i in range(N)])
    np.savez(tmp_path / "old.npz", features=old)
    np.savez(tmp_path / "new.npz", features=new)
    np.savez(tmp_path / "head.npz", **head)
    return tmp_path, old, new, head, ids


def files(folder, **changes):
    given = {"old": "old.npz", "new": "new.npz", "head": "head.npz", "to": "to.npz", **changes}
    return ["port", *(word for name, file in given.items() for word in (f"--{name}", folder / file))]


def outputs(head, features):
    return features @ head["weight"].T + head["bias"]


@pytest.mark.parametrize("port", ["procrustes", "linear"])
def test_the_head_on_new_features_gives_the_old_outputs_where_one_space_is_the_other_turned(capsys, world, port):
    folder, old, new, head, _ = world
    status, out, err = call(capsys, *files(folder), "--port", port)
    assert status == 0, err
    with np.load(folder / "to.npz", allow_pickle=False) as found:
        assert found["weight"].shape == (C, DN) and found["weight"].dtype == np.float64
        np.testing.assert_allclose(outputs(found, new), outputs(head, old), atol=1e-3 if port == "linear" else 1e-4)
    assert "matched by place" in out and "R² 1.000" in out and "100.0 %" in out


def test_the_head_is_the_old_one_behind_the_map_that_scikit_learn_fits(capsys, world):
    """Noise on the new side: the map is ridge regression, and the head behind it is their composition."""
    from sklearn.linear_model import Ridge

    from carryover.bench.ports.maps import Linear

    folder, old, new, head, _ = world
    noisy = new + np.random.default_rng(1).normal(size=new.shape)
    np.savez(folder / "new.npz", features=noisy)
    assert call(capsys, *files(folder), "--port", "linear")[0] == 0
    size = np.square(noisy - noisy.mean(0)).sum() / DN  # the unit in which a map's strength is given
    theirs = Ridge(alpha=Linear().fit(old, noisy).about["strength"] * size).fit(noisy, old)
    with np.load(folder / "to.npz") as found:
        np.testing.assert_allclose(outputs(found, noisy), outputs(head, theirs.predict(noisy)), atol=1e-3)


def test_rows_in_another_order_are_matched_by_id_and_those_without_a_partner_left_out(capsys, world):
    folder, old, new, head, ids = world
    order = np.random.default_rng(2).permutation(N)[:70]
    np.savez(folder / "old.npz", features=old, ids=ids)
    np.savez(folder / "new.npz", features=new[order], ids=ids[order])
    status, out, _ = call(capsys, *files(folder))
    assert status == 0 and "70 rows matched by id; 20 rows have no partner" in out and "100.0 %" in out
    with np.load(folder / "to.npz") as found:
        np.testing.assert_allclose(outputs(found, new), outputs(head, old), atol=1e-4)


def test_shuffled_rows_without_ids_show_in_the_fit_and_the_agreement(capsys, world):
    folder, _, new, _, ids = world
    order = np.random.default_rng(2).permutation(N)
    np.savez(folder / "new.npz", features=new[order], ids=ids[order])
    status, out, err = call(capsys, *files(folder))
    fit = float(out.split("R² ")[1].split()[0])
    assert status == 0 and fit < 0.1 and "only one of the files has ids" in err


def test_a_head_in_safetensors_becomes_one_with_its_names_type_and_metadata(capsys, world):
    """One output and no bias, as an aesthetic score; names are those of the file."""
    folder, old, new, _, _ = world
    weight = np.random.default_rng(3).normal(size=(1, DO)).astype(np.float32)
    save_file({"fc.weight": weight}, folder / "head.safetensors", metadata={"by": "someone"})
    status, out, err = call(capsys, *files(folder, head="head.safetensors", to="to.safetensors"))
    assert status == 0 and "correlation 1.000" in out, err
    found = load_file(folder / "to.safetensors")
    assert {name: value.shape for name, value in found.items()} == {"fc.weight": (1, DN), "bias": (1,)}
    assert found["fc.weight"].dtype == np.float32
    with safe_open(folder / "to.safetensors", "np") as file:
        assert file.metadata() == {"by": "someone"}
    np.testing.assert_allclose(new @ found["fc.weight"].T + found["bias"], old @ weight.T, atol=1e-3)


def changed(folder, **arrays):
    for name, given in arrays.items():
        np.savez(folder / f"{name}.npz", **given)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda f, o, n: changed(f, new={"features": n[:-1]}), "old has 90 rows, new 89"),
        (lambda f, o, n: changed(f, new={"features": n[:, 0]}), "expected an array 'features' of numbers in 2 dim"),
        (lambda f, o, n: changed(f, new={"a": n, "b": n}), "'a' float64(90, 17), 'b' float64(90, 17)"),
        (lambda f, o, n: changed(f, new={"features": n * np.nan}), "NaN"),
        (lambda f, o, n: changed(f, old={"features": np.ones_like(o)}), "are the same"),
        (lambda f, o, n: changed(f, old={"features": o, "ids": np.arange(3)}), "one id a row"),
        (
            lambda f, o, n: changed(
                f, old={"features": o, "ids": np.arange(N)}, new={"features": n, "ids": np.arange(N) % 80}
            ),
            "more than once",
        ),
        (
            lambda f, o, n: changed(
                f, old={"features": o, "ids": np.arange(N)}, new={"features": n, "ids": np.arange(N) + N}
            ),
            "none in common",
        ),
        (lambda f, o, n: changed(f, old={"features": o.astype(object)}), "Python objects, which are not opened"),
        (lambda f, o, n: changed(f, head={"weight": np.ones((C, DO + 1))}), "width 13"),
        (lambda f, o, n: changed(f, head={"weight": np.ones((C, DO)), "bias": np.ones(C + 1)}), "bias"),
        (lambda f, o, n: changed(f, head={"weight": np.full((C, DO), np.inf)}), "NaN or infinite"),
        (lambda f, o, n: changed(f, head={"weight": o[:C], "thresholds": np.ones(C)}), "'thresholds' (5,) beside"),
        (lambda f, o, n: changed(f, head={"weight": o[:C], "logit_scale": np.ones(())}), "'logit_scale' () beside"),
        (lambda f, o, n: changed(f, head={"weight": o[:C], "bias": o[:C, 0], "mean": o[0]}), "'mean' (12,) beside"),
        (lambda f, o, n: changed(f, head={"bias": np.ones(3)}), "expected an array 'weight'"),
        (lambda f, o, n: (f / "old.npz").write_bytes(b"PK\x03\x04 not a zip"), "cannot be read"),
        (lambda f, o, n: (f / "old.npz").unlink(), "no file"),
    ],
)
def test_files_that_do_not_fit_end_in_one_line(capsys, world, change, expected):
    folder, old, new, _, _ = world
    change(folder, old, new)
    line = mistake(capsys, *files(folder))
    assert expected in line
    assert not (folder / "to.npz").exists()


def test_flags_that_do_not_go_together_end_in_one_line(capsys, world):
    folder = world[0]
    assert "ends in .npz" in mistake(capsys, *files(folder, to="to.safetensors"))
    assert "--plugin beside features" in mistake(capsys, *files(folder), "--plugin", "x")
    assert "expected procrustes or linear" in mistake(capsys, *files(folder), "--port", "distill")
    assert "--head is missing" in mistake(capsys, *files(folder)[:5], "--to", folder / "to.npz")
