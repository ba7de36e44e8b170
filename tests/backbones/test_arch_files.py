"""An arch of the user's own: read from TOML, refused in one line, run with several updates."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch
from local_towers import MICRO, saved_locally

from carryover.bench.backbones import archs, loading
from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.cli.main import main
from carryover.bench.errors import UserError

CLIP = '[base]\nmodel = "ViT-B-16-quickgelu"\npretrained = "openai"\n'


def write(tmp_path, text, name="my-pair.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_three_lines_a_backbone_make_an_arch(tmp_path):
    arch = find_arch(str(write(tmp_path, CLIP + '[new]\nmodel = "EVA02-B-16"\npretrained = "merged2b_s8b_b131k"\n')))
    assert arch.id == "my-pair" and arch.protocol == "published" and arch.datasets == "paper"
    resolved, published = loading.resolve_arch(arch), archs.ARCHS["vit-b16"]
    for role in ("base", "new"):
        ours, theirs = resolved.towers[role], published.towers[role]
        assert (ours.model, ours.pretrained) == (theirs.model, theirs.pretrained)
        assert (ours.activation, ours.width, ours.dim) == (theirs.activation, theirs.width, theirs.dim)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x = 1\n" + MICRO, "unknown key"),
        ("datasets = 3\n" + MICRO, "datasets = 3"),
        ('datasets = ["nowhere"]\n' + MICRO, "unknown dataset 'nowhere'"),
        ('id = "../out"\n' + MICRO, "names its results folder"),
        ('id = "vit-b16"\n' + MICRO, "names its results folder"),
        ('id = "Micro"\n' + MICRO, "names its results folder"),
        ('id = "CACHE"\n' + MICRO, "names its results folder"),
        ('protocol = "mine"\n' + MICRO, "unknown protocol"),
        (CLIP, "no [new] table"),
        (CLIP + '[new]\npretrained = "openai"\n', "[new] has no model"),
        (CLIP + '[new]\nmodel = "EVA02-B-16"\n', "[new] has no weights"),
        (CLIP + '[new]\nmodel = "EVA02-B-16"\nweights = "gone.pt"\n', "gone.pt"),
        (CLIP + '[new]\nmodel = "EVA02-B-16"\npretrained = "merged"\n', "unknown pretrained tag"),
        (CLIP + '[new]\nmodel = "EVA02-B16"\npretrained = "x"\n', "Did you mean 'EVA02-B-16'"),
        (CLIP + '[new]\nmodel = "ViT-B-16"\npretrained = "openai"\n', "another activation than gelu"),
        (CLIP + '[new]\nmodel = "local-dir:gone"\n', "open_clip_config.json"),
        (CLIP + '[new]\nmodel = "hf-hub:a/b"\npretrained = "x"\n', "brings its own weights"),
        (MICRO + '[more.new]\nmodel = "micro-base"\n', "[more.new]"),
        (MICRO + '[more."a/b"]\nmodel = "micro-base"\n', "a/b"),
        ("[base\n", "not TOML"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, capsys, text, expected):
    assert main(["--arch", str(write(tmp_path, text)), "--dry-run", "--methods", "coop"]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and expected in line


def test_a_long_reason_is_cut_between_words():
    words = "abcdefg " * 40
    line = loading.first_line(ValueError(words + "\nmore"))
    assert line.endswith("abcdefg…") and 190 < len(line) <= 200
    assert loading.first_line(ValueError("x" * 200)) == "x" * 200
    assert loading.first_line(ValueError("x" * 300)) == "x" * 199 + "…"


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--arch", str(tmp_path / "none.toml"), "--dry-run"]) == 2
    assert "none.toml" in capsys.readouterr().err


def test_a_model_directory_is_loaded_with_its_own_transform(tmp_path):
    model = saved_locally(tmp_path / "model", 3, False)
    path = write(tmp_path, '[base]\nmodel = "local-dir:model"\n[new]\nmodel = "local-dir:model"\n')
    loaded = loading.load(loading.resolve_arch(find_arch(str(path))).base)
    assert (loaded.width, loaded.dim, loaded.tower.activation) == (32, 32, "gelu")
    assert tuple(loaded.preprocess_config.mean) == (0.5, 0.5, 0.5)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_images(pixels), model.eval().encode_image(pixels))


def test_an_update_of_other_widths_is_taken_and_weights_are_not_read_for_it(tmp_path):
    saved_locally(tmp_path / "a", 3, False)
    saved_locally(tmp_path / "b", 3, False)
    config = json.loads((tmp_path / "b" / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"], config["model_cfg"]["embed_dim"] = 48, 24
    (tmp_path / "b" / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "b" / "open_clip_model.safetensors").unlink()
    arch = find_arch(str(write(tmp_path, '[base]\nmodel = "local-dir:a"\n[new]\nmodel = "local-dir:b"\n')))
    resolved = loading.resolve_arch(arch)
    assert [(tower.width, tower.dim) for tower in resolved.towers.values()] == [(32, 32), (48, 24)]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run with two updates, the second being the base itself."""
    folder = tmp_path_factory.mktemp("several")
    path = write(
        folder, 'datasets = ["micro_stars"]\nprotocol = "micro"\n' + MICRO + '[more.same]\nmodel = "micro-base"\n'
    )
    flags = ["--arch", str(path), "--seeds", "1", "--limit", "4", "--shots", "2", "--out", str(folder / "out")]
    flags += ["--jobs", "1", "--set", "*.steps=2"]
    assert main([*flags, "--methods", "zs-clip", "coop", "linear-probe"]) == 0
    return folder, path, flags


def test_each_further_update_has_its_own_tables(several):
    folder, _, _ = several
    tables = folder / "out" / "my-pair" / "tables"
    same, new = pd.read_csv(tables / "main-same.csv"), pd.read_csv(tables / "main.csv")
    assert (same["base"] == same["new"]).all()  # carried over to the backbone it was trained on
    assert (same["base"] == new["base"]).all() and not (same["new"] == new["new"]).all()
    report = (folder / "out" / "my-pair" / "report.md").read_text()
    assert "update 'same'" in report and "my-pair.toml" in report


def test_check_recomputes_the_tables_of_every_update(several, tmp_path, capsys):
    folder, path, flags = several
    shutil.copytree(folder / "out", tmp_path / "out")
    flags = [*flags[:-5], str(tmp_path / "out"), *flags[-4:]]
    assert main(["check", *flags]) == 0
    table = tmp_path / "out" / "my-pair" / "tables" / "main-same.csv"
    frame = pd.read_csv(table)
    frame.loc[0, "new"] += 1
    frame.to_csv(table, index=False)
    capsys.readouterr()
    assert main(["check", *flags]) == 1
    assert "main-same.csv" in " ".join(capsys.readouterr().out.split())


def test_a_model_that_brings_its_weights_takes_no_others(tmp_path):
    saved_locally(tmp_path / "model", 3, False)
    path = write(tmp_path, '[base]\nmodel = "local-dir:model"\n[new]\nmodel = "local-dir:model"\n')
    with pytest.raises(UserError, match="brings its own weights"):
        find_arch(str(path), str(tmp_path / "model" / "open_clip_model.safetensors"))


def test_a_torchscript_archive_is_named_as_what_it_is(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "clip.pt"))
    with pytest.raises(UserError, match="TorchScript.*state_dict"):
        loading.check_checkpoint(archs.Tower("ViT-B-16-quickgelu", width=512, weights=str(tmp_path / "clip.pt")))
