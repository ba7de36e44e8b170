"""Map files: what is written comes back, and any other file is refused in one line."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_maps import related

from carryover.bench.errors import UserError
from carryover.bench.ports.maps import Linear, Map, Procrustes

OLD, NEW = related(30, 12, 16)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "map.safetensors"
    Procrustes().fit(OLD, NEW).save(path, old="f" * 64, new="e" * 64, fitted_on="30 made-up rows")
    return path


def header_of(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        return json.loads(opened.metadata()["map"])


@pytest.mark.parametrize("kind", [Procrustes, Linear])
def test_a_map_comes_back_to_the_last_bit_with_its_score(kind, tmp_path):
    fitted = kind().fit(OLD, NEW)
    fitted.save(tmp_path / "m", mine=[1, "two"])
    loaded = Map.load(tmp_path / "m")
    assert type(loaded) is kind and loaded.about == fitted.about and loaded.score_ == fitted.score_
    np.testing.assert_array_equal(loaded.transform(NEW), fitted.transform(NEW))
    np.testing.assert_array_equal(loaded.inverse().matrix, fitted.inverse().matrix)
    assert loaded.header["mine"] == [1, "two"]
    with pytest.raises(UserError, match="needs its anchors, which only fit"):
        loaded.held_out_  # noqa: B018


def test_inverse_and_composition_come_back_without_a_score(tmp_path):
    fitted = Procrustes().fit(OLD, NEW)
    for made in (fitted.inverse(), fitted.then(fitted.inverse()), Linear().fit(OLD, NEW).inverse()):
        made.save(tmp_path / "m")
        loaded = Map.load(tmp_path / "m")
        assert loaded.about == made.about and torch.equal(loaded.matrix, made.matrix)
        with pytest.raises(UserError, match="no score_"):
            loaded.score_  # noqa: B018
    again = tmp_path / "again"
    loaded.save(again)
    assert Map.load(again).about == loaded.about


def test_the_header_says_what_the_map_is(file):
    header = header_of(file)
    assert (header["format"], header["version"], header["means"]) == ("carryover-map", 1, "anchors")
    assert (header["old"], header["new"], header["fitted_on"]) == ("f" * 64, "e" * 64, "30 made-up rows")
    about = header["about"]
    told = (about["name"], about["count"], about["new_width"], about["old_width"], about["rank"])
    assert told == ("procrustes", 30, 12, 16, 12)
    assert header["score"] == Procrustes().fit(OLD, NEW).score_
    assert {name: value.dtype for name, value in load_file(file).items()} == dict.fromkeys(
        ("matrix", "mean_new", "mean_old"), torch.float32
    )


def test_a_kind_reads_only_its_own_files(file):
    with pytest.raises(UserError, match="holds a map 'procrustes', not 'linear'; read it with Map.load"):
        Linear.load(file)
    assert isinstance(Procrustes.load(file), Procrustes)


def test_what_is_no_json_or_a_field_of_the_format_is_not_saved(tmp_path):
    fitted = Procrustes().fit(OLD, NEW)
    for more, line in (
        ({"score": 1}, "score of the header"),
        ({"a": np.ones(2)}, "no JSON"),
        ({"a": np.nan}, "no JSON"),
    ):
        with pytest.raises(UserError, match=line):
            fitted.save(tmp_path / "m", **more)
    with pytest.raises(UserError, match="not fitted yet"):
        Procrustes().save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("format", "carryover-plugin", "has format 'carryover-plugin'"),
        ("format", None, "has format 'None'"),
        ("version", 2, "has version '2' of carryover-map"),
        ("version", True, "has version 'True'"),
        ("about", {"name": "procrustes"}, "does not tell name and count"),
        ("about", {"name": 3, "count": 30}, "does not tell name and count"),
        ("about", {"name": "procrustes", "count": 30, "new_width": 16, "old_width": 12}, "its header says"),
        ("about", {"name": "procrustes", "count": 30}, "its header says"),
        ("score", "good", "score is 'good'"),
    ],
)
def test_other_headers_are_refused(file, field, value, line):
    save_file(load_file(file), file, metadata={"map": json.dumps({**header_of(file), field: value})})
    with pytest.raises(UserError, match=line) as raised:
        Map.load(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop("mean_new"), "its header says"),
        (lambda t: t.update(more=torch.zeros(1)), "its header says"),
        (lambda t: t.update(matrix=t["matrix"].T.contiguous()), "its header says"),
        (lambda t: t.update(matrix=t["matrix"].double()), "matrix is torch.float64, expected fp32"),
        (lambda t: t["mean_old"].fill_(float("nan")), "mean_old holds NaN"),
        (lambda t: t["matrix"][3].fill_(float("inf")), "matrix holds NaN or infinite"),
    ],
)
def test_other_tensors_are_refused(file, change, line):
    header, tensors = header_of(file), load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"map": json.dumps(header)})
    with pytest.raises(UserError, match=line):
        Map.load(file)


def test_files_that_are_no_maps_are_refused_and_pickles_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    path = tmp_path / "m"
    cases = [
        (lambda: None, "no file"),
        (lambda: path.write_bytes(pickle.dumps(Trap())), "is a pickle, which is a program"),
        (lambda: torch.save({"matrix": torch.eye(2)}, path), "is a pickle, which is a program"),
        (lambda: path.write_bytes(b"hello"), "cannot be read as safetensors"),
        (lambda: save_file({"matrix": torch.eye(2)}, path), "no entry 'map'"),
        (lambda: save_file({"matrix": torch.eye(2)}, path, metadata={"map": "{"}), "is no JSON"),
        (lambda: save_file({"matrix": torch.eye(2)}, path, metadata={"map": "[1]"}), "has format"),
    ]
    for make, line in cases:
        make()
        with pytest.raises(UserError, match=line) as raised:
            Map.load(path)
        assert "\n" not in str(raised.value)
