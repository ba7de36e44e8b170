"""Ports, drift, refreshed and imported plug-ins on a stand-in CUDA device, against the CPU."""

import functools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from device_lives import on, test_inputs, towers
from imported import facts, foreign, imported
from local_towers import saved_locally
from tiny_towers import DIM, NAMES, WIDTH
from toys import done, open_toy, toy_run

from carryover.bench import ports
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.engine.drift_runs import measure_all
from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.plugins.porting import bound
from carryover.bench.ports import PORTS, transmiter, words
from carryover.methods.base import Classes

ports.discover()
NOUNS = tuple(f"{one}{other}" for one in ("sea", "hill", "oak", "iron", "night") for other in "abcdefghijklmnopqrst")
TOLD = 1e-4  # what a port says of itself
AN_ANCHOR = 1 / 16  # of the probe, whose solver is another there: one of 16 anchors may lie on a border


def session_on_device(monkeypatch, folder, device, **options):
    base, new = towers(device)
    return open_toy(monkeypatch, SimpleNamespace(base=base, new=new), folder, device=device, **options)


def through(method, *chosen):
    """Runs of the method through those ports, on the first kind of anchors that each takes."""
    return [toy_run(method, port=port, anchors=PORTS[port].anchors[0]) for port in chosen]


def carried_by(method):
    """The ports that carry it: closed forms and the one that teaches a student."""
    ids = [port for port in PORTS if port == "distill" or PORTS[port].closed_form and port != "reuse"]
    return [port for port in ids if PORT_SPECS[port].reason(method) is None]


def close(found, expected, near=TOLD):
    """Plain values, numbers within ``near``."""
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=near, abs_tol=near)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[name], expected[name], near) for name in expected)
    return found == expected


def test_closed_forms_and_a_taught_one_carry_a_prompt_as_on_the_cpu(monkeypatch, tmp_path):
    ids = carried_by("coop")
    assert {"procrustes", "linear", "delta", "texts", "distill"} <= set(ids)
    assert_alike(through("coop", *ids), monkeypatch, tmp_path)


def test_a_plug_in_learns_on_behind_a_map_as_on_the_cpu(monkeypatch, tmp_path):
    (run,) = through("clip-adapter", "procrustes")
    assert_alike([run, replace(run, path=("base", "new"), refresh=2)], monkeypatch, tmp_path)


def test_an_adapter_of_logits_is_taught_as_on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(transmiter, "Config", functools.partial(transmiter.Config, words=64, epochs=2))
    assert_alike(through("taskres", "transmiter"), monkeypatch, tmp_path)


def test_changes_of_weights_are_carried_as_on_the_cpu(monkeypatch, tmp_path):
    assert_alike(through("clip-lora", "gradfix", "theseus"), monkeypatch, tmp_path)


@pytest.mark.long
def test_every_method_is_carried_as_on_the_cpu(method_name, monkeypatch, tmp_path):
    assert_alike(through(method_name, *carried_by(method_name)), monkeypatch, tmp_path)


def assert_alike(runs, monkeypatch, tmp_path):
    """Predictions are equal, and what ports tell of themselves is near."""
    monkeypatch.setattr(words, "imagenet_nouns", lambda: NOUNS)
    found = {}
    for device in ("cpu", "cuda"):
        with on(device):
            session = session_on_device(monkeypatch, tmp_path / device, device)
            for run in runs:
                record = done(session, run)
                (target,) = record["targets"].values()
                found[device, run] = session.store.read_predictions(record["key"])["new"], target["port"]
    for run in runs:
        (predicted, told), (expected, was) = found["cuda", run], found["cpu", run]
        assert np.array_equal(predicted[0], expected[0]), run
        near = AN_ANCHOR if run.method == "linear-probe" else TOLD
        assert close({**told, "seconds": 0}, {**was, "seconds": 0}, near), (run, told, was)


def test_drift_is_what_it_is_on_the_cpu(monkeypatch, tmp_path):
    measured = []
    for device in ("cpu", "cuda"):
        with on(device):
            measured.append(measure_all(session_on_device(monkeypatch, tmp_path / device, device), ["toy"]))
    for expected, found in zip(*measured, strict=True):
        assert expected["pair"] == found["pair"] and expected["text"]["features"]
        for part in ("text", "vision"):
            assert json.dumps(found[part]) == json.dumps(expected[part])


# ---- plug-ins of other programs --------------------------------------------------------------------------------------


def drawn(*shape, seed=0):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompts(model):
    """CoOp's file, its context in front of the class name."""
    ids = loading.tokenizer("ViT-B-32")([f"X X X X {name}." for name in NAMES])
    embedding = model.text.token_embedding(ids).detach()
    return {"ctx": drawn(len(NAMES), 4, WIDTH), "token_prefix": embedding[:, :1], "token_suffix": embedding[:, 5:]}


def low_rank(model):
    """CLIP-LoRA's file, on the values of the text tower."""
    sizes = {"A": (2, WIDTH), "B": (WIDTH, 2)}
    return {f"layer_{i}.v_proj.w_lora_{one}": drawn(*sizes[one], seed=i) for i in range(3) for one in "AB"}


FILES = {
    "head": (lambda model: {"weight": drawn(len(NAMES), DIM)}, {}, {"inputs": "raw"}),
    "coop": (prompts, {}, {"position": "front"}),
    "clip-lora": (low_rank, {"r": 2, "alpha": 4, "encoder": "text", "params": ["v"], "position": "all"}, {}),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_an_imported_plug_in_answers_as_on_the_cpu(kind, tmp_path):
    model = saved_locally(tmp_path / "a", 3, True)
    name, (tensors, metadata, more) = f"local-dir:{tmp_path / 'a'}", FILES[kind]
    file = foreign(tensors(model), metadata=metadata)
    plugin = imported(kind, file, tmp_path / "p.safetensors", facts(name, **more))
    logits = []
    for device in ("cpu", "cuda"):
        with on(device):
            backbone = loading.load(tower_of(name), device)
            method = bound(plugin, backbone, Classes("any", NAMES, plugin.templates))
            with torch.no_grad(), method.attach(backbone):
                logits.append(method.predict(test_inputs(method, device)).cpu())
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    assert logits[0].std() > 0.01 and logits[0].shape[1] == len(NAMES)
