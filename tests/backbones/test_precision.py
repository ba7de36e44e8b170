"""bf16 towers: features and zero-shot close to fp32's, nothing shared with them, training whole on the CPU."""

import json

import pytest
import torch
import torch.nn.functional as F

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import main
from carryover.bench.engine.few_shot import at_most
from carryover.bench.features.store import FeatureStore
from carryover.methods.base import Classes

LEAST_COSINE, MOST_POINTS = 0.999, 2.0  # measured on the whole sets: 0.9996 and 0.29 (PROTOCOL.md, section 1)


@pytest.mark.parametrize("role", ["base", "new"])
def test_bf16_features_and_zero_shot_are_close_to_fp32_and_lie_in_other_files(tmp_path, role):
    data = datasets.load("micro_shapes")
    test, classes = at_most(data.test, 12), Classes(data.id, data.classnames, data.templates)
    images, right, files = {}, {}, {}
    texts = {}
    for precision in ("fp32", "bf16"):
        backbone = loading.load(ARCHS["micro"].towers[role], "cpu", precision=precision)
        store = FeatureStore(tmp_path, backbone, precision)
        before = set(tmp_path.glob("*.safetensors"))
        images[precision] = store.features(test, data.classnames)
        files[precision] = set(tmp_path.glob("*.safetensors")) - before
        texts[precision] = backbone.zero_shot(classes)
        predicted = (F.normalize(images[precision], dim=-1) @ texts[precision].T).argmax(1)
        right[precision] = 100 * (predicted == torch.from_numpy(test.labels)).double().mean().item()
    for found in (images, texts):
        assert found["bf16"].dtype == torch.float32 and not torch.equal(found["fp32"], found["bf16"])
        assert F.cosine_similarity(found["fp32"], found["bf16"], dim=-1).min() > LEAST_COSINE
    assert abs(right["fp32"] - right["bf16"]) < MOST_POINTS
    assert len(files["fp32"]) == len(files["bf16"]) == 1 and not files["fp32"] & files["bf16"]


def test_coop_trains_in_bf16_on_the_cpu_and_its_run_is_another_than_fp32s(tmp_path):
    flags = ["--suite", "main", "--datasets", "micro_counting", "--methods", "coop", "--seeds", "1", "--shots", "1"]
    flags += ["--limit", "2", "--set", "*.steps=4", "--out", str(tmp_path), "--device", "cpu", "--jobs", "1"]
    for precision in ("fp32", "bf16"):
        assert main.main([*flags, "--precision", precision]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "micro" / "runs").glob("*.json")]
    records = [record for record in records if record["run"]["method"] == "coop"]
    assert {record["run"]["precision"] for record in records} == {"fp32", "bf16"}
    assert len({record["key"] for record in records}) == 2
    losses = {r["run"]["precision"]: r["curve"][-1]["loss"] for r in records}
    assert losses["fp32"] == pytest.approx(losses["bf16"], rel=0.05) and losses["fp32"] != losses["bf16"]
