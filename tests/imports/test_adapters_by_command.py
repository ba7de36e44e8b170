"""From an adapter's folder to an accuracy by the two commands that a user types."""

import copy
import json

import pytest
import torch
from imported import PROMPT, at_full_length, towers_in
from safetensors.torch import save_file
from tiny_towers import WIDTH
from worlds import pictures_in

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.cli import main
from carryover.bench.engine.run_store import RunStore
from carryover.bench.host.tensor_files import read_tensors

CLASSES = ("ant", "brown bear", "cat", "sea lion")
RANK = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    towers_in(home)
    pictures_in(home / "animals", CLASSES)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(3):
        key = f"base_model.model.text_model.encoder.layers.{layer}.self_attn.q_proj"
        for end in ("A", "B"):
            shape = (RANK, WIDTH) if end == "A" else (WIDTH, RANK)
            tensors[f"{key}.lora_{end}.weight"] = torch.randn(shape, generator=generator) * 0.5
    (home / "adapter").mkdir()
    save_file(tensors, home / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", "task_type": None}
    (home / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return home


def said(capsys, code, *argv):
    capsys.readouterr()
    assert main.main([str(word) for word in argv]) == code
    return capsys.readouterr()


def test_an_adapter_is_imported_and_evaluated_on_another_backbone(home, tmp_path, capsys):
    plugin, data = tmp_path / "lora.safetensors", f"folder:{home / 'animals'}"
    words = ["--backbone", f"local-dir:{home / 'a'}", "--dataset", data, "--template", PROMPT, "--to", plugin]
    told = said(capsys, 0, "import", home / "adapter", *words).out
    assert "peft LoRA (peft) of local-dir:a; 4 classes" in told and "evaluate --plugin" in told
    words = ["--plugin", plugin, "--backbone", f"local-dir:{home / 'b'}", "--dataset", data, "--out", tmp_path]
    assert "compatible" in said(capsys, 0, "evaluate", *words, "--dry-run", "--device", "cpu").out
    found = json.loads(said(capsys, 0, "evaluate", *words, "--json", "--device", "cpu").out)
    backbone = loading.load(tower_of(f"local-dir:{home / 'b'}"))
    model, (tensors, _) = copy.deepcopy(backbone.model), read_tensors(home / "adapter" / "adapter_model.safetensors")
    for layer, block in enumerate(model.text.transformer.resblocks):
        key = f"base_model.model.text_model.encoder.layers.{layer}.self_attn.q_proj"
        down, up = (tensors[f"{key}.lora_{end}.weight"] for end in "AB")
        block.attn.in_proj_weight.data[:WIDTH] += 8 / RANK * up @ down
    split = datasets.load("folder:animals", None, folders=datasets.folder.paths_of([data])).test
    pixels = torch.stack([backbone.preprocess(image) for image in split.read(range(len(split)))])
    expected = at_full_length(model, pixels, CLASSES).argmax(1)
    stored, _ = read_tensors(RunStore(tmp_path, "evaluations").path("predictions", found["key"]))
    assert torch.equal(stored["plugin.predicted"].long(), expected)
    assert found["accuracy"] == pytest.approx(100 * (expected == torch.as_tensor(split.labels)).float().mean().item())
    assert found["plugin"]["imported"]["from"] == "adapter" and found["method"]["name"] == "LoRA"


def test_what_is_missing_is_named_all_at_once_and_nothing_is_written(home, tmp_path, capsys):
    line = said(capsys, 2, "import", home / "adapter", "--to", tmp_path / "p.safetensors").err
    assert line.count("\n") == 1
    for part in ("--backbone NAME", "--classes FILE", "--template"):
        assert part in line
    assert not list(tmp_path.iterdir())


def test_towers_of_another_size_are_refused_by_evaluate_before_any_picture(home, tmp_path, capsys):
    plugin, data = tmp_path / "lora.safetensors", f"folder:{home / 'animals'}"
    words = ["--backbone", f"local-dir:{home / 'a'}", "--dataset", data, "--to", plugin]
    said(capsys, 0, "import", home / "adapter", *words)
    line = said(
        capsys, 2, "evaluate", "--plugin", plugin, "--backbone", "micro-base", "--dataset", data, "--dry-run"
    ).err
    assert "it needs a text width W of 32; micro-base has 96" in line and line.count("\n") == 1
