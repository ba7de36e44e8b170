"""CLIP-LoRA carried by the engine: runs of the ports that change weights, one after the other and in a row."""

from dataclasses import replace

import pytest
import torch
from formula_towers import formula_labels, formula_pixels
from references import relative
from tiny_towers import NAMES, TEMPLATES
from toys import done, open_toy, toy_run
from weight_ports import CLASSES, anchors_of, formula_backbone, logits_of, plugin_of

from carryover.bench.ports import PORTS, discover
from carryover.bench.ports.gradfix import GradFix
from carryover.bench.ports.theseus import Theseus
from carryover.bench.records.schema import fault
from carryover.methods.base import METHODS, Classes, Shape

discover()


@pytest.fixture
def session(monkeypatch, tiny, tmp_path):
    return open_toy(monkeypatch, tiny, tmp_path)


@pytest.mark.parametrize("port, anchors", [("theseus", "other"), ("theseus", "support"), ("gradfix", "support")])
def test_a_run_predicts_what_the_port_by_itself_does(session, tiny, port, anchors):
    run = toy_run("clip-lora", port=port, anchors=anchors)
    record = done(session, run)
    told = record["targets"]["new"]["port"]
    assert not fault(record) and told["alpha"] == 1.0 and record["port"]["refused"] == {}
    classes = Classes("toy", NAMES, TEMPLATES)
    plugin = METHODS["clip-lora"](run.config, Shape.of(tiny.base, NAMES, 16))
    plugin.load_learned(session.store.read_plugin(record["trained"])[0])
    plugin.eval().bind(tiny.base, classes)
    alone = PORTS[port]().fit(plugin, tiny.base, tiny.new, classes, session.anchors.of(run, "base", "new"))
    pixels = torch.cat(list(session.inputs.tests(run, "new").split(100)))
    found, _ = session.store.read_predictions(record["key"])["new"]
    assert found.tolist() == logits_of(alone, tiny.new, pixels, classes).argmax(-1).tolist()


@pytest.mark.parametrize("port", [GradFix, Theseus])
def test_a_second_port_starts_from_what_the_first_one_left(port):
    """There and back, or on to a third: what was masked stays masked, what was turned is turned back."""
    old, new, pixels = formula_backbone(1), formula_backbone(2), formula_pixels(24)
    words = tuple(f"{word} {number}" for word in ("bird", "lamp", "stone") for number in range(20))
    seen = anchors_of(port, pixels, labels=formula_labels(24), nouns=words)
    plugin = plugin_of("clip-lora", old)
    there = port().fit(plugin, old, new, CLASSES, seen)
    assert port().fits(there, new, old) is None
    back = port().fit(there, new, old, CLASSES, replace(seen, _kept={}))
    if port is Theseus:
        expected = logits_of(plugin, old, pixels)
        assert relative(logits_of(back, old, pixels), expected) < 1e-4
    else:
        own, first = back.inner().image.keep, there.inner().image.keep
        assert not (own & ~first).any() and own.sum() < first.sum()
        assert "no product" in Theseus().fits(there, new, old)
