"""What every method must do on a CUDA device, held on a stand-in: the CPU's results, and no wait within an epoch."""

import pytest
import text_kinds
import torch
from device_lives import BOUNDS, CLASSES, EPOCHS, between, lived, marked, on, sent, syncs, towers
from tiny_fits import make, make_support
from tiny_towers import DIM, NAMES

from carryover.bench.backbones import archs, loading
from carryover.bench.training.trainer import fit
from carryover.methods import linear_probe
from carryover.methods.base import METHODS

# Waits of the host in ``start`` and ``finish`` and for what the first step or batch makes; who has more, and why.
ONCE = 16
KNOWN = {
    "linear-probe": "a fit for each C, counted below",
    **dict.fromkeys(("promptsrc", "coprompt"), "lay out two lists of texts, their prompts and their teachers'"),
}


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_a_life_on_the_device_is_that_on_the_cpu(method_name, precision, tmp_path, monkeypatch):
    with on("cpu", precision):
        expected = lived(method_name, "cpu", precision, tmp_path, monkeypatch)
    with on("cuda") as ledger:
        found = lived(method_name, "cuda", precision, tmp_path, monkeypatch, ledger)
    bound = BOUNDS[precision]
    assert len(found.learned) == len(expected.learned)
    for one, other in zip(found.learned, expected.learned, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)
    for backbone, answers in expected.answers.items():
        torch.testing.assert_close(found.answers[backbone]["confidence"], answers["confidence"], rtol=bound, atol=bound)
        if precision == "fp32":
            assert torch.equal(found.answers[backbone]["predicted"], answers["predicted"])
    told = f"waits of the host: {found.epochs} in epochs, {found.batches} in batches: {ledger.waits()}"
    assert all(waits <= 1 for waits in found.epochs[1:]), told
    assert all(len(waits) == 3 and max(waits[1:]) <= 1 for waits in found.batches.values()), told
    first = [*found.epochs[:1], *(waits[0] for waits in found.batches.values())]
    assert method_name in KNOWN or max(found.others, *first) <= ONCE, told


def test_the_linear_probes_fit_waits_once_in_ten_iterations(monkeypatch):
    support, iterations, own = make_support(shots=12, noise=1.6, seed=3), [], linear_probe.times_inverse
    monkeypatch.setattr(linear_probe, "times_inverse", lambda *given: iterations.append(0) or own(*given))
    with on("cuda") as ledger:
        there = sent(support, "cuda")
        begun = syncs(ledger)
        found = linear_probe.logistic_regression(there.features, there.labels, len(NAMES), 1.0, 1000)
        waits = syncs(ledger) - begun
        found = [value.cpu() for value in found]
    assert 2 * linear_probe.BETWEEN <= len(iterations) < 1000
    assert waits <= len(iterations) / linear_probe.BETWEEN + 2, ledger.waits()
    here = linear_probe.without_waiting(support.features, support.labels, len(NAMES), 1.0, 1000)
    torch.testing.assert_close(found, list(here), rtol=1e-5, atol=1e-5)


IN_PIECES = 1 << 18  # bytes of a text pass: too few for one of tiny names


def text_tower(kind, device):
    """A backbone with a text tower of that kind, or one whose passes go in pieces."""
    if kind == "in pieces":
        backbone = towers(device)[0]
        backbone.text.budget = IN_PIECES
        return backbone, DIM
    model, tokenizer, _ = text_kinds.made(kind)
    tower = archs.Tower(kind, "", "gelu", text_kinds.WIDTH, text_kinds.DIM)
    return loading.Backbone(model.to(device), tower, tokenizer), text_kinds.DIM


@pytest.mark.parametrize("name", ["coop", "fine-tuning"])
@pytest.mark.parametrize("kind", ["in pieces", "MobileCLIP S", "CoCa", "SigLIP"])
def test_a_step_through_any_text_tower_copies_nothing(kind, name, monkeypatch):
    learned = []
    for device in ("cpu", "cuda"):
        with on(device) as ledger:
            backbone, dim = text_tower(kind, device)
            method = make(name, epochs=EPOCHS, dim=dim).to(device)
            method.bind(backbone, CLASSES)
            support = sent(make_support(dim=dim), device)
            if name == "fine-tuning":  # of whose pixels the image tower is made to give the features
                monkeypatch.setattr(backbone.model, "encode_image", lambda pixels, normalize: pixels)
            with method.attach(backbone), marked(METHODS[name], "end_epoch", ledger) as marks:
                begun = syncs(ledger)
                fit(method, support, torch.Generator().manual_seed(0))
            learned.append(
                {**method.learned(), **{k: v.cpu() for home in method.home.values() for k, v in home.items()}}
            )
    torch.testing.assert_close(learned[1], learned[0], rtol=1e-4, atol=1e-4)
    assert all(waits <= 1 for waits in between([begun, *marks], EPOCHS)[1:]), ledger.waits()
