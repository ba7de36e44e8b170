"""Every port with every method between backbones of other widths, depths and tokens: a result, or a reason in one line;
and what a closed form has to undo."""

import functools

import pytest
import torch
import unlike_towers
from tiny_fits import make_support, pixels_of, short
from torch import nn

from carryover.bench.plan.port_specs import PORT_SPECS
from carryover.bench.ports import PORTS, Anchors, discover, words
from carryover.bench.ports.checks import checked
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, Shape
from carryover.methods.catalogue import trained_here

discover()
NAMES = ("circle", "dark forest", "five pink roses", "hexagon")  # words that the SigLIP-like tower knows
CLASSES = Classes("toy", NAMES, ("a photo of a {}.",))
PAIRS = [("clip", "alike"), ("clip", "wider"), ("clip", "deeper"), ("clip", "siglip"), ("siglip", "clip")]
COUNT, TESTS = 60, 6


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
        "_nouns": words.micro_nouns()[::5] if "texts" in PORTS[port].needs else (),
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
            expected = expected_of_reuse(method, old, new)
        if port == "gradfix" and method in ("task-vector", "wise-ft"):  # of whose weights those are taken that fit
            expected = expected_of_reuse(method, old, new)
        assert bool(reason) == bool(expected), (method, reason)
        if reason:
            assert "\n" not in reason and there.label in reason and all(word in reason for word in expected), reason
            continue
        ported = made.fit(given, backbone(old), there, CLASSES, anchors(port, old, new))
        ported.bind(there, CLASSES)
        x = pixels(TESTS, 2) if ported.needs == "pixels" else features(new, TESTS, 2)
        if ported.needs == "views":
            x = x[:, None] + 0.1 * torch.arange(given.test_views(given.config)[0])[:, None]
        with ported.attach(there):
            logits = ported.predict(x)
        assert logits.shape == (TESTS, len(NAMES)) and logits.isfinite().all(), method
        if made.closed_form and port != "reuse" and "images" in kind.needs:
            told = checked(made, ported, given, backbone(old), there, CLASSES, anchors(port, old, new))
            assert 0 <= told["agreement"] <= 1


# What plug-ins ask for where no port carries them: text width, joint width, towers like their own.
ASKS = {
    **dict.fromkeys(("coop", "kgcoop", "contcoop"), "W"), "cocoop": "WD", "tcp": "WD", "task-vector": "W",
    **dict.fromkeys(("clip-adapter", "taskres", "gda", "lp-plus-plus", "clap", "rada", "rada-towers", "rada-tt"), "D"),
    **dict.fromkeys(("prolip", "wise-ft"), "D"),
    **dict.fromkeys(("linear-probe", "tip-adapter-f"), "D"),
    **dict.fromkeys(("clip-lora", "maple", "promptsrc", "layer-norm"), "WT"),
    **dict.fromkeys(("2sfs", "coprompt"), "WDT"),
    **dict.fromkeys(("zs-clip", "descriptions", "tda", "tpt", "fine-tuning"), ""),
}  # fmt: skip


def expected_of_reuse(method, old, new):
    sizes = {}
    for name in (old, new):
        dim, vision, text = unlike_towers.MADE[name]
        towers = text["layers"], vision["layers"] if vision["layers"] != unlike_towers.RESNET["layers"] else 0
        sizes[name] = {"W": text["width"], "D": dim, "T": (*towers, vision["width"] if towers[1] else 0)}
    wrong = [what for what in ASKS[method] if sizes[old][what] != sizes[new][what]]
    return ["it needs", f"{backbone(new).label} has"] if wrong else []


# ---- what a closed form undoes ---------------------------------------------------------------------------------------


class Seen:
    """A backbone whose joint space is another one's behind a matrix (D, more): turned, or turned and padded."""

    def __init__(self, name, matrix):
        self.of, self.matrix, self.dim, self.width = backbone(name), matrix, matrix.shape[1], backbone(name).width
        self.label = self.fingerprint = "seen"
        self.scale, self.device, self.tower = self.of.scale, self.of.device, self.of.tower

    def zero_shot(self, classes):
        return self.of.zero_shot(classes) @ self.matrix


def padded(rows, columns, turn):
    """Zeros behind, then turned by an orthogonal matrix of the wider space where ``turn``."""
    matrix = torch.eye(rows, columns, dtype=torch.float64)
    draw = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(columns, columns, generator=draw, dtype=torch.float64))
    return (matrix @ q if turn else matrix).float()


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("more", [0, 9])
@pytest.mark.parametrize("port", ["procrustes", "linear", "delta", "texts"])
def test_a_copy_that_was_padded_with_zeros_or_turned_is_undone_there_and_back(port, more, turn):
    """Into the wider space and from it: on as many directions as there are the answers are those of the plug-in."""
    own = backbone("wider")  # texts vary in all of its joint space
    matrix = padded(own.dim, own.dim + more, turn)
    wide, given = Seen("wider", matrix), plugin("taskres", "wider")
    x = torch.randn(COUNT, own.dim, generator=torch.Generator().manual_seed(1))
    test = torch.randn(20, own.dim, generator=torch.Generator().manual_seed(2))
    there = {"_old": x, "_new": x @ matrix}
    ported = PORTS[port]().fit(given, own, wide, CLASSES, anchors(port, "wider", "wider", **there))
    near = {"atol": 2e-2 if port == "linear" else 1e-4, "rtol": 0.0}  # ridge shrinks a little
    found, expected = ported.predict(test @ matrix).softmax(-1), given.predict(test).softmax(-1)
    torch.testing.assert_close(found, expected, **near)
    assert (expected.argmax(-1) != expected.argmax(-1)[0]).any()
    back = {"_old": x @ matrix, "_new": x}
    again = PORTS[port]().fit(ported, wide, own, CLASSES, anchors(port, "wider", "wider", **back))
    torch.testing.assert_close(again.predict(test).softmax(-1), expected, **(near | {"atol": 3 * near["atol"]}))
