"""The Python interface for what was made elsewhere: scores as they are, threads side by side, one line a mistake."""

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


# ---- threads ---------------------------------------------------------------------------------------------------------


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def with_tf32():
    before = switches()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("within", [full_precision, untouched])
def test_the_last_of_several_threads_puts_back(within, with_tf32):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with within():
            entered.set()
            leave.wait(60)
            found.append(switches())

    found, thread = [], threading.Thread(target=other)
    with within():
        thread.start()
        assert entered.wait(60)
    assert switches() == (False, False)  # the other thread computes still
    leave.set()
    thread.join()
    assert found == [(False, False)] and switches() == (True, True)


def test_no_random_number_is_drawn_twice_while_another_thread_loads_binds_and_classifies(heads):
    from carryover.bench.plugins import contract

    def drawn():
        return [float(torch.rand(())) for _ in range(20)]

    root = logging.getLogger()
    handlers, start = list(root.handlers), torch.get_rng_state()
    expected = drawn() + drawn()
    torch.set_rng_state(start)
    found = drawn()
    thread_errors = []

    def other():
        try:
            backbone = carryover.load_backbone("micro-update")
            contract.architecture(backbone.tower)
            assert heads[0].fits(backbone) is None
            heads[0].bind(backbone).classify(Image.new("RGB", (64, 64)))
        except BaseException as error:
            thread_errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    state = torch.get_rng_state()
    thread.join()
    assert not thread_errors and torch.equal(state, torch.get_rng_state())
    assert found + drawn() == expected and list(root.handlers) == handlers


def test_numbers_drawn_while_a_call_lasts_stay_drawn(heads, monkeypatch):
    """As of another thread: it draws within the call."""
    from carryover.bench.plugins import format

    read = format.read
    found = []

    def drawing(path):
        found.append(float(torch.rand(())))
        return read(path)

    monkeypatch.setattr(format, "read", drawing)
    for _ in range(2):
        with pytest.raises(UserError, match="no file"):
            carryover.load_plugin("nowhere.safetensors")
    assert found[0] != found[1]


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_a_text_alone_is_one_item_but_no_list_of_classes(heads, monkeypatch):
    from carryover.bench.cli import whole_runs

    given = []
    monkeypatch.setattr(whole_runs, "frame_of", lambda words, quiet: given.append(words))
    carryover.run(methods="zs-clip", datasets="micro_stars")
    carryover.run(methods=("zs-clip",), datasets=["micro_stars"])
    assert given[0] == given[1] and given[0]["methods"] == ["zs-clip"] and given[0]["datasets"] == ["micro_stars"]
    with pytest.raises(UserError, match="methods: found .5., expected a text or a list of texts"):
        carryover.run(methods=5)


@pytest.mark.parametrize("classes", ["abcd", [1, 2], ["a", ""], [], 5, [["a"]]])
def test_what_is_no_list_of_names_is_refused(heads, base, classes, tmp_path):
    np.savez(tmp_path / "head.npz", weight=np.zeros((4, DIM)))
    calls = (
        lambda: heads[0].bind(base, classes),
        lambda: heads[0].fits(base, classes),
        lambda: carryover.import_plugin(tmp_path / "head.npz", "micro-base", classes=classes, inputs="raw"),
    )
    for call in calls:
        with pytest.raises(UserError, match="^classes: found .*, expected a list of names$"):
            call()


def test_other_things_than_are_expected_are_refused_in_one_line(heads, base):
    bound = heads[0].bind(base)
    old = np.random.default_rng(0).normal(size=(300, DIM)).astype("f4")
    ported = carryover.ports.fit("procrustes", heads[0], base, base, (old, old))
    calls = {
        "expected load_backbone\\('micro-base'\\)": [
            lambda: heads[0].bind("micro-base"),
            lambda: heads[0].fits("micro-base"),
            lambda: ported.bind("micro-base"),
        ],
        "pictures: found '5', expected paths": [lambda: bound.classify(5), lambda: list(bound.answers(5))],
        "device: 'xyz' cannot be used here": [
            lambda: carryover.load_backbone("micro-base", device="xyz"),
            lambda: carryover.ports.fit("procrustes", heads[0], "micro-base", base, (old, old), device="xyz"),
        ],
        "expected an array of numbers": [
            lambda: bound.logits(np.array([["a", None]], dtype=object)),
            lambda: ported.logits(np.array([["a"] * DIM])),
        ],
        "NaN or infinite": [lambda: bound.logits(old * np.nan), lambda: ported.logits(old * np.nan)],
    }
    if not torch.cuda.is_available():
        calls["device: 'cuda' cannot be used"] = [lambda: carryover.load_backbone("micro-base", device="cuda")]
    for expected, several in calls.items():
        for one in several:
            with pytest.raises(UserError, match=expected) as found:
                one()
            assert "\n" not in str(found.value)
