"""The doctor: a healthy set-up passes, each broken one is named on one page, all at once, with exit status 1."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from local_towers import saved_locally
from open_clip import OPENAI_DATASET_MEAN
from safetensors.numpy import load_file
from safetensors.torch import save_file
from tiny_caltech import FOLDER, IMAGES, SPLIT, write_split

from carryover import datasets
from carryover.bench.backbones import loading, weight_sources
from carryover.bench.backbones.archs import ARCHS, Tower
from carryover.bench.cli import main
from carryover.bench.preflight import backbones, data

QUICK = ("--methods", "zs-clip", "--seeds", 1, "--device", "cpu")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def page(capsys, caltech, tmp_path):
    """``page(*flags)`` -> (exit status, lines of the page)."""

    def call(*argv):
        capsys.readouterr()
        given = (*QUICK, "--datasets", "caltech101", "--data-root", caltech[0], "--out", tmp_path / "out")
        status = main.main(["doctor", *map(str, (*given, *argv))])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out.splitlines()

    call.root, call.lists, call.out = *caltech, tmp_path / "out"
    return call


def bad(lines):
    return [line for line in lines if line.startswith("bad ")]


def only(lines, *words):
    """The one bad line, which holds each word."""
    (line,) = bad(lines)
    for word in words:
        assert word in line, line
    assert lines[-1].startswith("1 problem")


def test_a_healthy_set_up_passes_and_leaves_nothing_behind(page):
    status, lines = page()
    text = "\n".join(lines)
    assert status == 0 and not bad(lines) and "no problem found" in lines[-1]
    for word in (
        "torch 2",
        "micro-base",
        "quick_gelu",
        "W 96 and D 96",
        "shortest",
        "4 classes, 24 / 20 / 16",
        "1 runs",
    ):
        assert word in text, word
    assert "evaluation, zs-clip" in text and "needed" in text
    assert len(lines) < 50, "one page"
    assert not page.out.exists()


def test_cosine_of_the_projections_is_numpys_own_from_the_two_weight_files(page):
    base, new = (
        load_file(loading.MICRO / f"micro-{role}.safetensors")["text.text_projection"].astype(np.float64)
        for role in ("base", "update")
    )
    whole = (base * new).sum() / np.sqrt((base**2).sum() * (new**2).sum())
    rows = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(base, new, strict=True)])
    line = next(line for line in page()[1] if "text_projection" in line)
    assert f"matrices {whole:.3f}, mean over rows {rows:.3f}" in line
    assert line.startswith("note") and "re-initialised" in line and abs(whole) < 0.1
    kept = backbones.projection_cosines(torch.from_numpy(base), torch.from_numpy(2 * base))
    assert kept == pytest.approx((1, 1)), "the same joint space, whatever its length"


def test_a_checkpoint_of_another_activation_is_named(page, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file({"text.positional_embedding": torch.zeros(77, 96)}, path, {"activation": "gelu"})
    status, lines = page("--base-weights", path)
    assert status == 1
    only(lines, "base backbone", "plain.safetensors", "gelu", "quick_gelu")


def test_a_plain_gelu_model_name_is_named(page, monkeypatch):
    wrong = Tower("micro-update", "", "quick_gelu", 96, 96)
    monkeypatch.setitem(ARCHS, "micro", replace(ARCHS["micro"], base=wrong))
    status, lines = page()
    assert status == 1
    only(lines, "base backbone", "activation is GELU", "quickgelu")


def test_a_missing_checkpoint_and_an_absent_device_are_lines_of_the_page(page, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, lines = page("--new-weights", "nowhere.pt", "--device", "cuda")
    assert status == 1 and len(bad(lines)) == 2
    assert "cuda" in bad(lines)[0] and "nowhere.pt" in bad(lines)[1]
    assert any("base backbone" in line and line.startswith("ok") for line in lines), "the rest is looked at"


def test_a_missing_split_is_named(page):
    (page.root / FOLDER / SPLIT).unlink()
    status, lines = page()
    assert status == 1
    only(lines, "caltech101", SPLIT, "--make-split")


def test_missing_images_are_counted_and_the_first_is_named(page):
    gone = [row[0] for row in page.lists["test"][:3]]
    for name in gone:
        (page.root / FOLDER / IMAGES / name).unlink()
    status, lines = page()
    assert status == 1
    only(lines, "3 of 16 images", "missing", gone[0])


def test_a_picture_that_cannot_be_decoded_is_named(page):
    broken = page.root / FOLDER / IMAGES / page.lists["train"][0][0]
    broken.write_bytes(broken.read_bytes()[:40])
    status, lines = page()
    assert status == 1
    only(lines, "caltech101", broken.name)


def test_wrong_counts_are_noted_and_bad_where_the_papers_numbers_stand_beside_ours(page, monkeypatch):
    status, lines = page()
    (noted,) = [line for line in lines if "caltech101: 4 classes" in line]
    assert status == 0 and noted.startswith("note") and "100 in the paper's Table 1" in noted
    monkeypatch.setitem(data.PAPER_TABLES, "micro", "table2_vit_b16.csv")
    status, lines = page()
    assert status == 1
    only(lines, "4 classes, 100 in", "24 training images, 4128 in", "16 test images, 2465 in")
    assert page("--limit", 3)[0] == 0, "a trial is marked in every table"


def test_a_full_disk_is_named_with_what_is_needed(page, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    status, lines = page()
    assert status == 1
    only(lines, "disk", "needed", "1 KB free", "--cache")


def test_a_results_folder_that_cannot_be_written_is_named(page, tmp_path):
    (tmp_path / "file").write_text("")
    status, lines = page("--out", tmp_path / "file" / "out", "--cache", tmp_path / "cache")
    assert status == 1
    only(lines, "--out", "file/out")


def test_everything_wrong_is_on_the_page_at_once(page, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
    path = tmp_path / "plain.safetensors"
    save_file({"text.positional_embedding": torch.zeros(77, 96)}, path, {"activation": "gelu"})
    write_split(page.root, {**page.lists, "val": [["gone.jpg", 0, page.lists["val"][0][2]]]})
    (tmp_path / "file").write_text("")
    more = ("--base-weights", path, "--datasets", "caltech101", "dtd", "--out", tmp_path / "file" / "out")
    status, lines = page(*more, "--cache", tmp_path / "cache")
    found = "\n".join(bad(lines))
    assert status == 1 and lines[-1].startswith("4 problems")
    for word in ("plain.safetensors", "gone.jpg", "dtd", "file/out"):
        assert word in found, word


def test_a_test_only_set_has_its_data_looked_at_and_no_runs(page):
    id = next(iter(datasets.ood("micro")))
    status, lines = page("--datasets", id)
    assert status == 0 and any(line.startswith("ok") and id in line for line in lines)
    assert any("0 runs" in line for line in lines)


# ---- where weights come from, with no network ------------------------------------------------------------------------

PUBLISHED = ARCHS["vit-b16"].new


def test_weights_in_the_hub_cache_are_found_with_their_size(tmp_path):
    snapshot = tmp_path / "models--timm--eva02_base_patch16_clip_224.merged2b_s8b_b131k"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("abc")
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "snapshots" / "abc" / "open_clip_model.safetensors").write_bytes(b"x" * 1234)
    assert weight_sources.find(PUBLISHED, str(tmp_path)) == weight_sources.Source("hub cache", 1234)


def test_a_hub_that_does_not_answer_is_one_bad_line_a_backbone(page, tmp_path, monkeypatch):
    def refuse(url, **more):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(weight_sources.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weight_sources.huggingface_hub, "get_hf_file_metadata", refuse)
    status, lines = page("--arch", "vit-b16", "--hub-cache", tmp_path / "hub", "--limit", 1)
    assert status == 1 and len(bad(lines)) == 2
    for role, line in zip(("base", "new"), bad(lines), strict=True):
        assert role in line and "no route" in line and f"--{role}-weights" in line


def test_weights_that_the_hub_has_are_announced_with_their_size(tmp_path, monkeypatch):
    answer = namedtuple("Answer", "size")(600 * 10**6)
    monkeypatch.setattr(weight_sources.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weight_sources.huggingface_hub, "get_hf_file_metadata", lambda url, **more: answer)
    assert weight_sources.find(PUBLISHED, str(tmp_path)) == weight_sources.Source("to be downloaded", 600 * 10**6)


def arch_file(folder, text):
    (folder / "pair.toml").write_text(text)
    return folder / "pair.toml"


def test_a_model_directory_is_healthy_and_what_its_file_does_not_say_is_noted(page, tmp_path, capsys):
    for name, seed in (("a", 3), ("b", 4)):
        saved_locally(tmp_path / name, seed, False, mean=OPENAI_DATASET_MEAN)
    path = arch_file(tmp_path, '[base]\nmodel = "local-dir:a"\n[new]\nmodel = "local-dir:b"\n')
    status, lines = page("--arch", path)
    assert status == 0 and not bad(lines), "counts that differ from Table 1 are notes where nothing is compared with it"
    assert sum("local folder" in line for line in lines) == 2


def test_a_checkpoint_that_does_not_say_its_activation_is_noted(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert loading.declared_activation(Tower("ViT-B-16", weights=str(path))) == ""
    save_file({"x": torch.zeros(1)}, path, metadata={"activation": "gelu"})
    assert loading.declared_activation(Tower("ViT-B-16", weights=str(path))) == "gelu"


def test_a_control_that_cannot_be_had_is_noted_and_no_problem(page, tmp_path, monkeypatch):
    monkeypatch.setattr(
        weight_sources, "ask_hub", lambda *_: weight_sources.Source("hub", None, "the hub does not answer")
    )
    text = 'datasets = "micro"\nprotocol = "micro"\n[base]\nmodel = "micro-base"\n[new]\nmodel = "micro-update"\n'
    text += '[controls.z]\nmodel = "ViT-B-16"\npretrained = "laion2b_s34b_b88k"\n'
    status, lines = page("--arch", arch_file(tmp_path, text), "--suite", "main", "drift")
    assert status == 0 and any(line.startswith("note control 'z'") and "leave it out" in line for line in lines)
