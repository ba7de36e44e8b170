"""``carryover.ports``: its own example, arrays and tensors, and that ``import carryover`` stays cheap."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import FROM_HERE
from plugin_files import plugin_file

import carryover
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.errors import UserError
from carryover.bench.plugins.format import read
from carryover.methods.base import Classes


@pytest.fixture(scope="module")
def micro():
    return [loading.load(tower_of(name)) for name in ("micro-base", "micro-update")]


@pytest.fixture
def folder(tmp_path, monkeypatch, micro):
    """What the example finds in its folder: a plug-in and pictures."""
    from carryover import datasets

    data = datasets.load("micro_textures")
    classes = Classes(data.id, data.classnames, data.templates)
    (tmp_path / "PICTURES" / "deep").mkdir(parents=True)
    for i, image in enumerate(data.train.read(range(40))):
        image.save(tmp_path / "PICTURES" / ("deep" if i % 2 else "") / f"{i}.png")
    path = plugin_file(tmp_path / "made", micro[0], classes)
    (tmp_path / "probe.safetensors").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_modules_own_example_runs(folder, micro):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(30, 6)).astype("f"), rng.normal(size=(30, 8)).astype("f")
    names = {"old": old, "new": new, "features": torch.randn(7, micro[1].dim)}
    blocks = re.findall(r"(?:^    .*\n|^\n)+", carryover.ports.__doc__, re.MULTILINE)
    code = [textwrap.dedent(block).strip() for block in blocks if block.strip()]
    assert len(code) == 3
    np.savez("old.npz", features=old)
    np.savez("new.npz", features=new)
    np.savez("head.npz", weight=rng.normal(size=(3, 6)), bias=rng.normal(size=3))
    for part in code:
        exec(part, names)
    assert names["fitted"].transform(new).shape == (30, 6)
    logits = names["ported"].logits(names["features"])
    assert torch.equal(carryover.ports.load("probe-for-update.safetensors").logits(names["features"]), logits)
    with np.load("head-for-new.npz") as head:
        assert head["weight"].shape == (3, 8) and head["bias"].shape == (3,)
    assert logits.shape == (7, 10) and len(names["ported"].classify(names["features"])[0]) == 7


def test_pictures_and_their_features_give_the_same_port_and_arrays_what_tensors_give(folder, micro):
    from carryover.bench.features.store import FeatureStore
    from carryover.datasets import pictures

    split = pictures.load("PICTURES")
    features = tuple(FeatureStore("cache", one).features(split, pictures.NAMES) for one in micro)
    seen = carryover.ports.fit("procrustes", "probe.safetensors", *micro, "PICTURES")
    given = carryover.ports.fit("procrustes", Path("probe.safetensors"), *micro, features)
    arrays = carryover.ports.fit(
        "procrustes", read("probe.safetensors"), *micro, tuple(part.numpy() for part in features)
    )
    x = features[1][:9]
    assert torch.equal(seen.logits(x), given.logits(x))
    answer = arrays.logits(x.numpy())
    assert isinstance(answer, np.ndarray) and np.array_equal(answer, given.logits(x).numpy())
    names, probabilities = seen.classify(x)
    assert [seen.classnames[i] for i in probabilities.argmax(-1)] == names
    assert seen.told["anchors"]["count"] == 40 and seen.told["anchors"]["folder"] == "PICTURES"
    with pytest.raises(UserError, match="expected \\(rows, 96\\)"):
        seen.logits(x[:, :5])
    with pytest.raises(UserError, match="new features have shape \\(30, 96\\)"):
        carryover.ports.fit("procrustes", "probe.safetensors", *micro, (features[0], features[1][:30]))
    with pytest.raises(UserError, match="needs pictures"):
        carryover.ports.fit("procrustes", "probe.safetensors", *micro)
    with pytest.raises(UserError, match="not a ported one"):
        carryover.ports.load("probe.safetensors")


def test_a_port_of_ones_own_is_registered_and_used(folder, micro, monkeypatch):
    from carryover.bench.plan.port_specs import PORT_SPECS
    from carryover.bench.ports.base import PORTS
    from carryover.bench.ports.frozen import kept
    from carryover.bench.ports.mapped import Mapped

    for registry in (PORTS, PORT_SPECS):
        monkeypatch.setattr(registry, "entries", dict(registry.entries))

    @carryover.ports.register("mine")
    class Mine(carryover.ports.Port):
        name, needs, anchors = "Mine", {"images", "old_model"}, ("other",)

        def fit(self, plugin, old, new, classes, anchors):
            eye = torch.eye(new.dim, old.dim)
            shift = anchors.old.mean(0) - anchors.new.mean(0)
            return Mapped(eye, torch.zeros(new.dim), shift, kept(plugin, classes), classes, new.fingerprint)

    old, new = torch.randn(20, 96), torch.randn(20, 96)
    ported = carryover.ports.fit("mine", "probe.safetensors", *micro, (old, new))
    plugin = read("probe.safetensors")
    there = new + old.mean(0) - new.mean(0)
    expected = there @ plugin.tensors["weight"].T + plugin.tensors["bias"]
    torch.testing.assert_close(ported.logits(new), expected)


def test_importing_the_package_loads_no_torch_until_ports_are_asked_for():
    code = "import sys, carryover; a = 'torch' in sys.modules; carryover.ports; print(a, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=FROM_HERE)
    assert done.stdout.strip() == "False True", done.stderr
