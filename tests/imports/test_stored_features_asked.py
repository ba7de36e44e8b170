"""Stored features: matched by id, counted, refused where they cannot be read; and flags that nothing reads."""

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import call, mistake
from tiny_caltech import picture

import carryover
from carryover.bench.cli import main

DIM = 96  # of the micro models
ROWS = 240


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A head of micro-base and one that was ported from stored features; files of features with ids."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    (home / "pictures").mkdir()
    for i in range(4):
        picture(rng, i % 4).save(home / "pictures" / f"{i:02}.png")
    np.savez(home / "head.npz", weight=rng.normal(size=(3, DIM)), bias=np.zeros(3))
    (home / "names.txt").write_text("a\nb\nc\n")
    facts = {"inputs": "raw", "outputs": "classes"}
    carryover.import_plugin(home / "head.npz", "micro-base", classes=["a", "b", "c"], **facts).save(
        home / "head.safetensors"
    )
    old = rng.normal(size=(ROWS, DIM)).astype("f4")
    new = (old @ np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] + 3 * rng.normal(size=old.shape)).astype("f4")
    ids = np.array([f"picture {i}" for i in range(ROWS)])
    np.savez(home / "old.npz", features=old, ids=ids)
    np.savez(home / "new.npz", features=new, ids=ids)
    np.savez(home / "bare.npz", features=new)
    np.savez(home / "turned.npz", features=new, ids=ids[::-1])
    np.savez(home / "fewer.npz", features=new[:200], ids=np.array([*ids[:190], *(f"other {i}" for i in range(10))]))
    np.savez(home / "twice.npz", features=new, ids=np.array([*ids[:-1], ids[0]]))
    words = ["port", "--plugin", home / "head.safetensors", "--old", home / "old.npz", "--new", home / "new.npz"]
    assert main.main([str(word) for word in [*words, "--to", home / "ported.safetensors"]]) == 0
    return home


def words_of(home, new="new", old="old"):
    plugin = ["--plugin", home / "ported.safetensors"]
    return ["evaluate", *plugin, "--old", home / f"{old}.npz", "--new", home / f"{new}.npz", "--out", home / "out"]


def evaluated(capsys, home, *names):
    status, out, err = call(capsys, *words_of(home, *names), "--json")
    assert status == 0, err
    return json.loads(out)


# ---- ids -------------------------------------------------------------------------------------------------------------


def test_the_key_is_of_the_rows_that_the_ids_choose(capsys, home):
    straight, turned = evaluated(capsys, home), evaluated(capsys, home, "turned")
    assert straight["agreement"]["same"] != turned["agreement"]["same"]
    assert straight["key"] != turned["key"] and straight["key"] == evaluated(capsys, home)["key"]
    assert evaluated(capsys, home, "bare")["key"] != straight["key"]  # other rows by place, or the same: not known


def test_rows_without_a_partner_and_a_lone_side_of_ids_are_noted(capsys, home):
    found = evaluated(capsys, home, "fewer")
    assert found["pictures"]["count"] == 190 and "60 rows have no partner" in " ".join(found["warnings"])
    found = evaluated(capsys, home, "bare")
    assert found["pictures"]["count"] == ROWS and "only one of the files has ids" in " ".join(found["warnings"])
    assert not any("partner" in line or "ids" in line for line in evaluated(capsys, home)["warnings"])


def test_ids_that_stand_twice_are_refused_on_either_side(capsys, home):
    assert "--new" in (line := mistake(capsys, *words_of(home, "twice"))) and "'picture 0' more than once" in line
    assert "--old" in mistake(capsys, *words_of(home, "new", "twice"))


# ---- flags that nothing reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        (["evaluate", "ported", "STORED", "--count", "3"], "--count is not read beside features in files"),
        (["evaluate", "ported", "STORED", "--precision", "bf16"], "--precision is not read"),
        (["evaluate", "ported", "STORED", "--data-root", "x"], "--data-root is not read"),
        (["evaluate", "head", "IMAGES", "--data-root", "x"], "--data-root is not read beside --images"),
        (["evaluate", "head", "IMAGES", "--make-split"], "--make-split is not read beside --images"),
        (["port", "head", "STORED", "--count", "3", "TO"], "--count is not read"),
        (["port", "head", "STORED", "--precision", "bf16", "TO"], "--precision is not read"),
        (["port", "head", "IMAGES", "--data-root", "x", "TO"], "--data-root is not read without --dataset"),
        (["classify", "head", "pictures", "--json", "--to", "x.csv"], "--json and --to"),
        (["classify", "head", "pictures", "--template", "a {}."], "head reads no --template here"),
        (["classify", "ported", "pictures", "--backbone", "micro-base", "--template", "a {}."], "reads no --template"),
        (["IMPORT", "--fact", "inputs=raw", "inputs=unit"], "inputs is raw by another --fact"),
        (["IMPORT", "--fact", "inputs=raw", "outputs=classes", "--template", "a {}."], "reads no prompts"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(capsys, home, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(home)
    meant = {
        "head": ["--plugin", "head.safetensors"],
        "ported": ["--plugin", "ported.safetensors"],
        "STORED": ["--old", "old.npz", "--new", "new.npz"],
        "IMAGES": ["--backbone", "micro-update", "--images", "pictures"],
        "TO": ["--to", tmp_path / "x.safetensors"],
        "IMPORT": ["import", "head.npz", "--backbone", "micro-base", "--classes", "names.txt", "--to",
                   tmp_path / "x.safetensors"],
    }  # fmt: skip
    given = [one for word in words for one in meant.get(word, [word])]
    assert expected in mistake(capsys, *given, "--out", tmp_path / "out", "--device", "cpu")
    assert not list(tmp_path.glob("x.*"))


def test_the_same_fact_twice_and_prompts_of_a_plugin_that_reads_them_are_taken(capsys, home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    words = ["import", "head.npz", "--backbone", "micro-base", "--classes", "names.txt"]
    words += ["--fact", "inputs=raw", "inputs=raw", "outputs=classes", "--to", tmp_path / "x.safetensors"]
    assert call(capsys, *words)[0] == 0
    from plugin_files import plugin_file

    from carryover.methods.base import Classes

    backbone = carryover.load_backbone("micro-base")
    names = Classes("toy", ("cat", "dog"), ("a {}.",))
    plugin = plugin_file(tmp_path / "made", backbone, names, "clip-adapter")
    words = ["classify", "--plugin", plugin, "pictures", "--device", "cpu", "--template", "one {} there"]
    status, _, err = call(capsys, *words)
    assert status == 0, err


def test_a_head_is_told_nothing_of_prompts_and_rows_are_no_pictures(capsys, home):
    words = ["--backbone", "micro-update", "--images", home / "pictures", "--out", home / "out", "--device", "cpu"]
    status, _, err = call(capsys, "evaluate", "--plugin", home / "head.safetensors", *words)
    assert status == 0 and "prompts" not in err
    status, out, err = call(capsys, *words_of(home))
    assert status == 0 and f"fitted on {ROWS} rows" in out, out + err


@pytest.mark.parametrize("needs, expected", [("pixels", "needs pixels and"), ("views", "needs many views of each")])
def test_a_method_on_pictures_says_what_it_needs(home, needs, expected):
    from carryover.bench.errors import UserError
    from carryover.bench.plugins.answers import BoundPlugin

    plugin, asked = carryover.load_plugin(home / "head.safetensors"), SimpleNamespace(needs=needs)
    bound = BoundPlugin(plugin, carryover.load_backbone("micro-base"), asked, plugin.classes)
    with pytest.raises(UserError, match=f"head {expected}.*not features: give pictures to classify"):
        bound.logits(np.zeros((2, DIM), "f4"))


# ---- files that cannot be read ---------------------------------------------------------------------------------------


def promising(path, name, shape):
    """An archive whose array has a header of that shape, and few bytes."""
    with zipfile.ZipFile(path, "w") as file, file.open(f"{name}.npy", "w") as part:
        np.lib.format.write_array_header_1_0(part, {"descr": "<f4", "fortran_order": False, "shape": shape})
        part.write(b"\0" * 64)
    return path


def test_a_header_that_promises_more_than_the_file_holds_is_one_line(capsys, home, tmp_path):
    huge = promising(tmp_path / "huge.npz", "features", (10**12, DIM))
    head = promising(tmp_path / "head.npz", "weight", (10**12, DIM))
    evaluate = ["evaluate", "--plugin", home / "ported.safetensors", "--out", tmp_path, "--new", home / "new.npz"]
    assert "more than the file holds" in mistake(capsys, *evaluate, "--old", huge)
    arrays = ["--old", home / "old.npz", "--new", home / "new.npz", "--to", tmp_path / "x.npz"]
    assert "more than the file holds" in mistake(capsys, "port", *arrays, "--head", head)
    for shape in ((-(10**12), -DIM), (-1, DIM)):
        promising(tmp_path / "less.npz", "features", shape)
        assert "less.npz' is damaged" in mistake(capsys, *evaluate, "--old", tmp_path / "less.npz")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_beyond_fp32_are_one_line(capsys, home, tmp_path):
    with np.load(home / "old.npz") as file:
        np.savez(tmp_path / "large.npz", features=file["features"].astype("f8") * 1e60, ids=file["ids"])
    evaluate = ["evaluate", "--plugin", home / "ported.safetensors", "--out", tmp_path, "--new", home / "new.npz"]
    assert "holds features beyond 3.4e+38" in mistake(capsys, *evaluate, "--old", tmp_path / "large.npz")
    words = [
        "port",
        "--plugin",
        home / "head.safetensors",
        "--new",
        home / "new.npz",
        "--to",
        tmp_path / "x.safetensors",
    ]
    assert "holds features beyond" in mistake(capsys, *words, "--old", tmp_path / "large.npz")


def test_arrays_of_every_order_and_packed_ones_are_read_as_numpy_reads_them(tmp_path):
    from carryover.bench.plugins.stored_features import stored

    rows = np.random.default_rng(0).normal(size=(7, 5))
    for save in (np.savez, np.savez_compressed):
        for value in (rows, np.asfortranarray(rows), rows.astype(">f4"), rows.astype("f2"), rows[:0]):
            save(tmp_path / "rows.npz", features=value, ids=np.arange(len(value)))
            found = stored(str(tmp_path / "rows.npz"), "--old")
            np.testing.assert_array_equal(found.features, value)
            np.testing.assert_array_equal(found.ids, np.arange(len(value)))
