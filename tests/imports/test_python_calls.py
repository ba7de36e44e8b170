"""The Python interface for what was made elsewhere: scores as they are, threads beside each other, one line a mistake."""

import logging
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import carryover
from carryover.bench.errors import UserError
from carryover.bench.host.untouched import full_precision, untouched

DIM = 96  # of the micro models


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Of micro-base, one that names classes and one that scores, and their weights (2, 96)."""
    home = tmp_path_factory.mktemp("heads")
    weight = np.random.default_rng(0).normal(size=(2, DIM))
    np.savez(home / "head.npz", weight=weight, bias=np.zeros(2))

    def made(outputs):
        facts = {"inputs": "raw", "outputs": outputs}
        return carryover.import_plugin(home / "head.npz", "micro-base", classes=["one", "two"], **facts)

    return made("classes"), made("scores"), weight


@pytest.fixture(scope="module")
def base():
    return carryover.load_backbone("micro-base")


def test_a_ported_head_of_scores_gives_them_as_they_are(heads, base):
    rng = np.random.default_rng(1)
    old = rng.normal(size=(400, DIM)).astype("f4")
    ported = carryover.ports.fit("linear", heads[1], base, base, (old, old))
    rows = rng.normal(size=(7, DIM)).astype("f4")
    names, values = ported.classify(rows)
    expected = rows @ heads[2].T
    np.testing.assert_allclose(values, expected, rtol=0.05, atol=0.05)
    np.testing.assert_array_equal(values, ported.logits(rows))
    assert names == [("one", "two")[i] for i in values.argmax(1)]
    classes = carryover.ports.fit("linear", heads[0], base, base, (old, old)).classify(rows)[1]
    np.testing.assert_allclose(classes.sum(1), 1, rtol=1e-5)
