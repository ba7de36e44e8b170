"""Every port with every method between backbones of other widths, depths and tokens: a result, or a reason in one line;
and what a closed form has to undo."""

import functools

import pytest
import torch
import unlike_towers
from tiny_fits import make_support, pixels_of, short
from tiny_towers import NAMES
from torch import nn

from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.ports import PORTS, Anchors, discover
from carryover.bench.ports.checks import checked
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, Shape
from carryover.methods.catalogue import trained_here

discover()
CLASSES = Classes("toy", NAMES, ("a photo of a {}.",))
PAIRS = [("clip", "alike"), ("clip", "wider"), ("clip", "deeper"), ("clip", "siglip"), ("siglip", "clip")]
COUNT, TESTS = 60, 6
TOWERS = ("clip-lora",)  # carried by ports of weights


@functools.cache
def backbone(name):
    return unlike_towers.made(name)


def pixels(count, seed):
    return pixels_of(torch.arange(count) % len(NAMES), seed)


@functools.cache
def features(name, count, seed):
    return backbone(name).encode_images(pixels(count, seed)).detach()


@functools.cache
def plugin(method, name):
    """Fitted on features, or, inside the towers, with every parameter drawn; bound to its backbone."""
    own = backbone(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = METHODS[method](short(method), Shape.of(own, NAMES, 24))
        made.bind(own, CLASSES)
        if made.needs == "features":
            fit(made, make_support(dim=own.dim), torch.Generator().manual_seed(0))
        else:
            for value in made.parameters():
                nn.init.normal_(value, std=0.1)
    return made.eval()


def anchors(port, old, new, **more):
    kind = "support" if "labels" in PORTS[port].needs else "texts" if "images" not in PORTS[port].needs else "other"
    read = (lambda: pixels(COUNT, 1)), (lambda: pixels(COUNT, 1))
    given = {
        "_old": features(old, COUNT, 1),
        "_new": features(new, COUNT, 1),
        "_labels": torch.arange(COUNT) % len(NAMES),
        "_nouns": tuple(f"thing {i}" for i in range(200)) if "texts" in PORTS[port].needs else (),
        "_pixels": read,
    }
    return Anchors(kind, frozenset(PORTS[port].needs), **{**given, **more})


def carried(port):
    """Methods that it carries at all."""
    return [name for name in METHODS if trained_here(name) and PORT_SPECS[port].reason(name) is None]


# What no port of these can serve, and why: (port, old, new) -> words of the reason, of every method.
REFUSED = {
    ("gradfix", "clip", "wider"): ["towers of the same shapes", "(3, 3, 2, 32)", "(3, 3, 2, 48)"],
    ("gradfix", "clip", "deeper"): ["towers of the same shapes", "(5, 3, 2, 32)", "no attention blocks"],
    ("gradfix", "clip", "siglip"): ["towers of the same shapes", "(3, 3, 2, 24)"],
    ("gradfix", "siglip", "clip"): ["towers of the same shapes", "(3, 3, 2, 32)"],
    ("theseus", "clip", "deeper"): ["as many blocks", "(5, 3, 2, 32)"],
    ("theseus", "clip", "siglip"): ["as many blocks", "other tokens"],
    ("theseus", "siglip", "clip"): ["other tokens"],
}


@pytest.mark.parametrize("old, new", PAIRS)
@pytest.mark.parametrize("port", list(PORTS))
def test_every_port_gives_a_result_or_a_reason_with_every_method(port, old, new):
    for method in carried(port):
        kind = PORTS[port]
        made = kind(kind.Config(words=16, epochs=1)) if port == "transmiter" else kind()
        given, there = plugin(method, old), backbone(new)
        reason = made.fits(given, backbone(old), there)
        expected = REFUSED.get((port, old, new))
        if port == "reuse":
            expected = expected_of_reuse(given, there)
        assert bool(reason) == bool(expected), (method, reason)
        if reason:
            assert "\n" not in reason and there.label in reason and all(word in reason for word in expected), reason
            continue
        ported = made.fit(given, backbone(old), there, CLASSES, anchors(port, old, new))
        ported.bind(there, CLASSES)
        x = pixels(TESTS, 2) if ported.needs == "pixels" else features(new, TESTS, 2)
        with ported.attach(there):
            logits = ported.predict(x)
        assert logits.shape == (TESTS, len(NAMES)) and logits.isfinite().all(), method
        if made.closed_form and port != "reuse" and "images" in kind.needs:
            told = checked(made, ported, given, backbone(old), there, CLASSES, anchors(port, old, new))
            assert 0 <= told["agreement"] <= 1


def expected_of_reuse(given, there):
    return []
