"""Plug-ins whose file proves no backbone by fingerprint: known names are compared, others are noted."""

import json

import numpy as np
import pytest
from command_line import call, mistake
from tiny_caltech import picture

import carryover
from carryover.bench.backbones.names import differ
from carryover.bench.errors import UserError

DIM = 96  # of the micro models
ROWS = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An imported head of micro-base in numbers of no meaning, pictures, stored features of both sides, and the head
    ported over these to what is named micro-update."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    (home / "pictures").mkdir()
    for i in range(16):
        picture(rng, i % 4).save(home / "pictures" / f"{i:02}.png")
    np.savez(home / "head.npz", weight=rng.normal(size=(3, DIM)), bias=np.zeros(3))
    facts = {"inputs": "raw", "outputs": "classes"}
    head = carryover.import_plugin(home / "head.npz", "micro-base", classes=["a", "b", "c"], **facts)
    head.save(home / "head.safetensors")
    old = rng.normal(size=(ROWS, DIM)).astype("f4")
    new = (old @ np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] + rng.normal(size=old.shape)).astype("f4")
    for name, rows in (("old", old), ("new", new)):
        np.savez(home / f"{name}.npz", features=rows)
    return home


def common(home):
    return ["--out", home / "out", "--cache", home / "cache", "--device", "cpu"]


def stored(home):
    return ["--old", home / "old.npz", "--new", home / "new.npz"]


@pytest.fixture(scope="module")
def ported(home):
    from carryover.bench.cli import main

    to = home / "ported.safetensors"
    words = ["port", "--plugin", home / "head.safetensors", *stored(home), "--backbone", "micro-update", "--to", to]
    assert main.main([str(word) for word in words]) == 0
    return to


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("micro-base", "micro-update", True),
        ("micro-base", "micro-base", False),
        ("ViT-B-16/openai", "ViT-B-16/laion2b_s34b_b88k", True),
        ("ViT-B-16/laion2b-s34b-b88k", "ViT-B-16/laion2b_s34b_b88k", False),  # as open_clip takes tags
        ("ViT-B-16/local file", "ViT-B-16/openai", None),
        ("local-dir:a", "local-dir:a", None),
        ("hf-hub:laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "ViT-B-16/laion2b_s34b_b88k", None),
        ("not known", "micro-base", None),
    ],
)
def test_names_tell_of_published_and_embedded_models_alone(one, other, expected):
    assert differ(one, other) is differ(other, one) is expected


def test_a_wrong_old_backbone_is_refused_by_its_name(capsys, home, tmp_path):
    plugin = ["--plugin", home / "head.safetensors", "--backbone", "micro-update", "--images", home / "pictures"]
    to = ["--to", tmp_path / "x.safetensors"]
    for words in (["evaluate", *plugin], ["port", *plugin, *to]):
        line = mistake(capsys, *words, "--old", "micro-second", *common(home))
        assert "'micro-base'" in line and "micro-second is another one" in line
        assert call(capsys, *words, "--old", "micro-base", *common(home))[0] == 0
    assert "proves no backbone" not in call(capsys, "evaluate", *plugin, *common(home))[2]


def test_a_map_of_another_pair_is_refused_by_its_name(capsys, home, tmp_path):
    for base, status in (("micro-second", 2), ("micro-base", 0)):
        to = tmp_path / f"{base}.safetensors"
        given = ["--base", base, "--new", "micro-update", "--images", home / "pictures", "--to", to]
        assert call(capsys, "map", *given, *common(home))[0] == 0
        words = ["port", "--plugin", home / "head.safetensors", "--map", to, "--to", tmp_path / "p.safetensors"]
        found, _, err = call(capsys, *words, *common(home))
        assert found == status, err
        assert ("'micro-base' by its file, micro-second is another one" in err) == bool(status)


def test_a_name_that_cannot_tell_is_noted(capsys, home, tmp_path):
    local = tmp_path / "local.safetensors"
    plugin = carryover.load_plugin(home / "head.safetensors")
    plugin.header["trained_on"][-1]["backbone"] = "ViT-B-16/local file"
    plugin.save(local)
    words = ["--plugin", local, "--backbone", "micro-update", "--old", "micro-base", "--images", home / "pictures"]
    note = "names 'ViT-B-16/local file', and whether micro-base is that very one cannot be checked"
    status, out, err = call(capsys, "evaluate", *words, "--json", *common(home))
    assert status == 0 and any(note in line for line in json.loads(out)["warnings"])
    status, _, err = call(capsys, "port", *words, "--to", tmp_path / "x.safetensors", *common(home))
    assert status == 0 and note in " ".join(err.split())


# ---- ported from stored features: no fingerprint of the new backbone -------------------------------------------------


def test_what_was_ported_from_stored_features_answers_on_the_backbone_that_was_named(capsys, home, ported):
    from carryover import datasets

    folder = f"folder:{home / 'sets'}"
    rng = np.random.default_rng(1)
    for label, name in enumerate("abc"):
        (home / "sets" / name).mkdir(parents=True, exist_ok=True)
        for i in range(8):
            picture(rng, label).save(home / "sets" / name / f"{i}.png")
    assert datasets.identify(folder)
    asked = (
        ["classify", "--plugin", ported, home / "pictures", "--device", "cpu"],
        ["evaluate", "--plugin", ported, "--dataset", folder, *common(home)],
        ["evaluate", "--plugin", ported, "--dataset", folder, "--dry-run", *common(home)],
        ["evaluate", "--plugin", ported, "--images", home / "pictures", *common(home)],
        ["evaluate", "--plugin", ported, *stored(home), *common(home)],
    )
    for words in asked:
        line = mistake(capsys, *words, "--backbone", "micro-second")
        assert "micro-update" in line and "micro-second" in line
        status, _, err = call(capsys, *words, "--backbone", "micro-update")
        assert status == 0, err
    assert "cannot be checked" in call(capsys, *asked[0], "--backbone", "micro-update")[2]
    second = carryover.load_backbone("micro-second")
    assert "micro-second is another one" in carryover.load_plugin(ported).fits(second)
    with pytest.raises(UserError, match="micro-second is another one"):
        carryover.ports.load(ported).bind(second)
