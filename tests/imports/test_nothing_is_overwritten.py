"""``--to`` is none of a command's inputs, and no foreign tensor file is written over."""

import os

import numpy as np
import pytest
import torch
from command_line import call, mistake
from safetensors.torch import save_file
from tiny_caltech import picture

import carryover
from carryover.bench.errors import UserError
from carryover.bench.host.identity import sha256_of

DIM = 96  # of the micro models


@pytest.fixture
def home(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("pictures", "elsewhere", "head"):
        (tmp_path / name).mkdir()
    for i in range(8):
        picture(rng, i % 4).save(tmp_path / "pictures" / f"{i:02}.png")
    head = {"weight": torch.randn(3, DIM), "bias": torch.zeros(3)}
    for name in ("head", "foreign"):
        save_file(head, tmp_path / f"{name}.safetensors")
    plugin = carryover.import_plugin(
        tmp_path / "head.safetensors", "micro-base", classes=list("abc"), inputs="raw", outputs="classes"
    )
    plugin.save(tmp_path / "plugin.safetensors")
    for name in ("old", "new"):
        np.savez(tmp_path / f"{name}.npz", features=rng.normal(size=(200, DIM)).astype("f4"))
    save_file({"features": torch.randn(200, DIM)}, tmp_path / "old.safetensors")
    np.savez(tmp_path / "head.npz", weight=rng.normal(size=(3, DIM)))
    (tmp_path / "names.csv").write_text("a\nb\nc\n")
    (tmp_path / "theirs.csv").write_text("dataset,method,base,new\nmicro_stars,x,50,50\n")
    (tmp_path / "made-scores.csv").write_text("dataset,method,base,new\nmicro_stars,x,50,50\n")
    os.symlink(tmp_path / "head.safetensors", tmp_path / "link.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMPORT = ["import", "head.safetensors", "--backbone", "micro-base", "--classes", "names.csv", "--fact", "inputs=raw"]
IMPORT += ["outputs=classes"]
PORT = ["port", "--plugin", "plugin.safetensors"]
ARRAYS = ["--old", "old.npz", "--new", "new.npz"]
PICTURES = ["--backbone", "micro-update", "--images", "pictures"]


@pytest.mark.parametrize(
    "words, to, expected",
    [
        (IMPORT, "head.safetensors", "is an input"),
        (IMPORT, "link.safetensors", "is an input"),
        (IMPORT, "./elsewhere/../head.safetensors", "is an input"),
        (IMPORT, "foreign.safetensors", "not a plug-in that this suite wrote"),
        ([*PORT, *ARRAYS], "plugin.safetensors", "is an input"),
        ([*PORT, *ARRAYS], "foreign.safetensors", "not a plug-in that this suite wrote"),
        ([*PORT, "--old", "old.safetensors:features", "--new", "new.npz"], "old.safetensors", "is an input"),
        ([*PORT, "--map", "head.safetensors"], "head.safetensors", "is an input"),
        (["port", *ARRAYS, "--head", "head.npz"], "head.npz", "is an input"),
        (["port", *ARRAYS, "--head", "head.npz"], "old.npz", "is an input"),
        (["port", "--old", "old.npz:features", "--new", "new.npz", "--head", "head.npz"], "old.npz", "is an input"),
        (["map", "--base", "micro-base", "--new", "micro-update", "--images", "pictures"], "plugin.safetensors",
         "not a map that this suite wrote"),
        (["compare", "theirs.csv"], "theirs.csv", "is an input"),
        (["compare", "made-scores.csv"], "made.csv", "is an input"),
        (["classify", "--plugin", "plugin.safetensors", "pictures", "--classes", "names.csv"], "names.csv",
         "is an input"),
    ],
)  # fmt: skip
def test_inputs_and_foreign_files_are_kept(capsys, home, words, to, expected):
    def state():
        return {path: sha256_of(path) for path in home.rglob("*") if path.is_file()}

    before = state()
    assert expected in mistake(capsys, *words, "--to", to)
    assert state() == before


def test_what_the_suite_wrote_is_written_again(capsys, home):
    for _ in range(2):
        assert call(capsys, *IMPORT, "--to", "made.safetensors")[0] == 0
        assert call(capsys, *PORT, *ARRAYS, "--to", "ported.safetensors")[0] == 0
    for found in (carryover.load_plugin("plugin.safetensors"), carryover.ports.load("ported.safetensors")):
        found.save("saved.safetensors")
        with pytest.raises(UserError, match="save: foreign.safetensors is there already"):
            found.save("foreign.safetensors")
    with pytest.raises(UserError, match="is an input"):
        carryover.ports.port_head("old.npz", "new.npz", "head.npz", to="new.npz")
