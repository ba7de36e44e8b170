"""``carryover.import_plugin``: what the file does not say is asked for by argument, and the plug-in is used at once."""

from pathlib import Path

import pytest
import torch

import carryover
from carryover.bench import imports
from carryover.bench.errors import UserError
from carryover.bench.imports import reading
from carryover.bench.imports.base import BACKBONE, CLASSES, FORMATS, TEMPLATES, Fact, Foreign, Format, Imported
from carryover.methods.base import Classes, Shape

ALPHA = Fact("alpha", "a strength", float)


class Stub(Format):
    name = "Stub"

    @classmethod
    def recognises(cls, file):
        return "stub" in file.plain

    @classmethod
    def facts(cls, file):
        return BACKBONE, CLASSES, TEMPLATES, ALPHA

    @classmethod
    def made(cls, file, facts):
        assert facts[ALPHA] == 0.5
        shape = Shape(facts.tower.width, facts.tower.dim, facts.classes, 0)
        fingerprint = facts.backbone.fingerprint
        return Imported("zs-clip", {}, {}, shape, templates=facts.templates, fingerprint=fingerprint)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    imports.discover()
    monkeypatch.setattr(FORMATS, "entries", {**FORMATS.entries, "stub": Stub})
    monkeypatch.setattr(reading, "read", lambda path: Foreign(Path(path), {}, {"stub": 1}, sha256="0" * 64))
    return tmp_path / "made-elsewhere.pt"


def test_facts_are_arguments_and_the_plugin_is_bound_and_saved(stub):
    facts = {"classes": ["a dog", "waves"], "templates": ["a {} here"], "alpha": 0.5}
    plugin = carryover.import_plugin(stub, "micro-base", **facts)
    assert plugin.backbone == "micro-base" and plugin.classes.names == ("a dog", "waves")
    assert plugin.header["imported"]["format"] == "stub" and plugin.header["templates"] == ["a {} here"]
    backbone = carryover.load_backbone("micro-base")
    assert plugin.fits(backbone) is None
    features = torch.randn(4, backbone.dim, generator=torch.Generator().manual_seed(0))
    text = backbone.zero_shot(Classes("", ("a dog", "waves"), ("a {} here",)))
    expected = backbone.scale * torch.nn.functional.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(plugin.bind(backbone).logits(features), expected)
    plugin.save(stub.with_suffix(".safetensors"))
    again = carryover.load_plugin(stub.with_suffix(".safetensors"))
    torch.testing.assert_close(again.bind(backbone).logits(features), expected)


def test_what_is_missing_is_named_in_one_line(stub):
    with pytest.raises(UserError, match="does not say all that is needed. classes: .*templates: .*alpha: "):
        carryover.import_plugin(stub, "micro-base")
    with pytest.raises(UserError, match="unknown fact .* 'alpa'"):
        facts = {"classes": ["a"], "templates": ["{}"], "alpha": 1, "alpa": 2}
        carryover.import_plugin(stub, "micro-base", **facts)
