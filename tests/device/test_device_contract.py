"""What every method must do on a CUDA device, held on a stand-in: the CPU's results, and no wait within an epoch."""

import pytest
import torch
from device_lives import BOUNDS, lived, on

# Waits of the host in ``start`` and ``finish`` and for what the first step or batch makes; who has more, and why.
ONCE = 16
KNOWN = {"linear-probe": "its solver asks for the loss of every step"}


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
