"""A method that looks into the frames above its own finds no test label, in none of its hooks, on none of the ways that
lead to a prediction."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reached import callers, reachable
from tiny_fits import short
from toys import done, execute, open_toy, toy, toy_run

from carryover.bench.cli import main
from carryover.bench.engine import schedule
from carryover.bench.ports.base import PORTS
from carryover.datasets import micro
from carryover.datasets.withheld import Withheld, no_labels, withheld
from carryover.methods import discover
from carryover.methods.base import METHODS, TrainConfig

HOOKS = {"__init__", "bind", "start", "attach", "loss", "end_epoch", "finish", "logits", "predict"}


def same(value, labels):
    """Whether it is a row of these whole numbers, of whatever kind."""
    if not isinstance(value, (list, tuple, torch.Tensor, np.ndarray)) or getattr(value, "ndim", 1) != 1:
        return False
    if len(value) != len(labels):
        return False
    return (value.tolist() if isinstance(value, (torch.Tensor, np.ndarray)) else list(value)) == labels


class Spy:
    """Looks around from each hook, once."""

    def __init__(self, labels):
        self.labels, self.found, self.withheld = labels, {}, []

    def look(self, hook):
        if hook in self.found:
            return
        seen = reachable(*callers(4))
        holders = [value for value in seen if isinstance(value, Withheld)]
        self.withheld += holders
        self.found[hook] = [type(value).__name__ for value in seen if same(value, self.labels)]
        self.found[hook] += [f"{hook}: read" for one in holders if read(one)]


def read(labels):
    try:
        return np.array(labels).tolist()
    except PermissionError:
        return []


def spying(kind, spy):
    """The method with every hook watched."""

    def watched(hook):
        def call(self, *given, **more):
            spy.look(hook)
            return getattr(super(made, self), hook)(*given, **more)

        return call

    made = type(kind.__name__, (kind,), {hook: watched(hook) for hook in HOOKS})
    return made


@pytest.fixture
def spy(monkeypatch, clean_registry):
    """``spy(name)``: that method, registered anew with its hooks watched."""
    found = Spy(toy().test.labels.tolist())

    def replaced(name):
        monkeypatch.setitem(METHODS.entries, name, spying(METHODS[name], found))
        return found

    return replaced


def test_the_spy_sees_labels_that_a_frame_holds():
    labels = [0, 2, 1, 1, 0]
    for held in (labels, tuple(labels), np.array(labels), torch.tensor(labels), {"a": [np.array(labels, np.int32)]}):
        assert [value for value in reachable({"held": held}) if same(value, labels)]
    data = toy()
    assert [v for v in reachable(data.test) if same(v, data.test.labels.tolist())], "a split as it is loaded"
    assert not [v for v in reachable(withheld(data)) if same(v, data.test.labels.tolist())]


@pytest.mark.parametrize(
    "name", ["taskres", *(pytest.param(name, marks=pytest.mark.long) for name in ("coop", "clip-lora"))]
)
def test_no_hook_of_a_method_finds_test_labels_in_any_frame(name, spy, monkeypatch, tiny, tmp_path):
    found, session = spy(name), open_toy(monkeypatch, tiny, tmp_path)
    runs = [toy_run(name), toy_run(name, seed=2), toy_run(name, test="shifted")]
    assert schedule.run_all(session, runs, 1, fresh=True).done == 3
    assert set(found.found) == HOOKS and found.withheld, "every hook has looked, and has found what holds none"
    assert all(held == [] for held in found.found.values()), found.found


@pytest.mark.long
@pytest.mark.parametrize("path", [{"anchors": "other"}, {"anchors": "support", "path": ("base", "new"), "refresh": 2}])
def test_no_port_and_no_hook_on_its_way_finds_test_labels(path, spy, monkeypatch, tiny, tmp_path):
    found, session = spy("taskres"), open_toy(monkeypatch, tiny, tmp_path)
    fit = PORTS["procrustes"].fit

    def looking(self, *given):
        found.look("fit")
        return fit(self, *given)

    monkeypatch.setattr(PORTS["procrustes"], "fit", looking)
    record = done(session, toy_run("taskres", port="procrustes", **path))
    assert record["targets"]["new"]["count"] == 16
    assert "fit" in found.found and all(held == [] for held in found.found.values()), found.found


@pytest.mark.long
def test_from_the_command_line_down_no_frame_holds_test_labels(spy, monkeypatch, tmp_path):
    data = micro.load("micro_shapes")
    found = spy("taskres")
    found.labels = [label for label in data.test.labels.tolist()][: 2 * len(data.classnames)]  # classes come in turn
    given = ["--arch", "micro", "--datasets", "micro_shapes", "--methods", "taskres", "--seeds", "1", "--shots", "2"]
    given += ["--limit", "2", "--views", "1", "--set", "*.steps=2", "--jobs", "1", "--suite", "main"]
    given += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main.main(given) == 0
    assert set(found.found) == HOOKS and all(held == [] for held in found.found.values()), found.found
    records = [json.loads(path.read_text()) for path in (tmp_path / "out/micro/runs").glob("*.json")]
    (record,) = (one for one in records if one["run"]["method"] == "taskres")
    assert record["targets"]["new"]["count"] == len(found.labels)

    found.found, plugin = {}, tmp_path / "out/micro/plugins" / f"{record['key']}.safetensors"
    given = ["evaluate", "--plugin", str(plugin), "--backbone", "micro-update", "--dataset", "micro_shapes"]
    given += ["--limit", "2", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main.main(given) == 0
    assert {"predict", "bind"} <= set(found.found) and all(held == [] for held in found.found.values())


CHEAT = """
import sys

import torch
from carryover.methods.base import Method, TrainConfig, register


@register("zz-cheat")
class Cheat(Method):
    name, paper, depth = "Cheat", "nobody", "none"

    def bind(self, backbone, classes):
        self.count = len(classes)

    def logits(self, x):
        frame = sys._getframe()
        while frame:
            for name, held in frame.f_locals.items():
                if name == "labels":
                    return 9 * torch.nn.functional.one_hot(torch.as_tensor(held).long(), self.count).float()
                if name == "session" and hasattr(held, "data"):
                    held = held.data("toy").test.labels
                    return 9 * torch.nn.functional.one_hot(torch.tensor(list(held)), self.count).float()
            frame = frame.f_back
        return torch.zeros(len(x), self.count)
"""


def test_a_method_that_asks_the_session_for_test_labels_fails_by_name(clean_registry, monkeypatch, tiny, tmp_path):
    """It was right on every image, and first in the report."""
    (tmp_path / "cheat.py").write_text(CHEAT)
    discover((str(tmp_path),))
    session, run = open_toy(monkeypatch, tiny, tmp_path / "out"), toy_run("zz-cheat", config=TrainConfig(epochs=0))
    record = execute(session, run, session.keys.of(run))
    assert record["status"] == "failed" and record["targets"] == {}
    assert "test labels are not read while a method is at work" in record["error"]


def test_the_published_search_is_handed_test_labels_and_says_so(spy, monkeypatch, tiny, tmp_path):
    found, session = spy("tip-adapter-f"), open_toy(monkeypatch, tiny, tmp_path)
    config = replace(short("tip-adapter-f"), selection="published", epochs=2)
    run = toy_run("tip-adapter-f", config=config)
    assert execute(session, run, session.keys.of(run))["status"] == "done"
    assert found.found["start"] and found.found["predict"] == []


# ---- labels that are put away ----------------------------------------------------------------------------------------


def test_withheld_labels_are_those_that_were_put_there():
    labels = np.array([3, 0, 2, 2, 1])
    split = withheld(toy()).test
    one = Withheld.put(labels)
    assert np.array(one).tolist() == list(one) == labels.tolist() and len(one) == 5
    assert np.array(one[[4, 0]]).tolist() == [1, 3] and np.array(one[range(1, 5)][[0, 3]]).tolist() == [0, 1]
    assert np.asarray(one).dtype == np.int64
    for given, names in ((toy().test, toy().classnames), (toy().test.take([5, 1, 1]), toy().classnames)):
        hidden = split if len(given) == len(split) else split.take([5, 1, 1])
        assert hidden.sha256(names) == given.sha256(names)
        assert hidden.content_sha256(names) == given.content_sha256(names)
    with no_labels(), no_labels(), pytest.raises(PermissionError):
        list(one)
    with pytest.raises(PermissionError), no_labels():
        np.array(one[[1]])
    assert list(one[[0]]) == [3], "and again when the method is done"


def test_empty_splits_have_no_labels():
    assert list(Withheld.put(np.zeros(0, np.int64))) == []
