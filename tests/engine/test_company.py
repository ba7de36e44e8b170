"""A method whose answer for an image depends on the other images is found out on the test images, and marked."""

import json

import pytest
import torch
import torch.nn.functional as F
from toys import done, open_toy, toy_run

from carryover.bench.cli import main
from carryover.bench.engine import carried, evaluator, schedule
from carryover.bench.engine.evaluator import DEPENDS, SAMPLE, VARIES, differ, sample_of
from carryover.bench.engine.record_draft import TRANSDUCTIVE
from carryover.bench.plan.settings import Settings
from carryover.bench.records import selection
from carryover.bench.report import outputs, report
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS, Method, TrainConfig, cosine_logits, register


class ZeroShot(Method):
    """Honest: the start of all that follow."""

    name, paper, depth, Config = "Mine", "nobody", "none", TrainConfig

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.seen = torch.zeros(0, shape.dim)

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):
        return cosine_logits(self.scale, x, self.classifier)


class Centred(ZeroShot):
    def logits(self, x):
        return super().logits(x - x.mean(0))


class CentredIfMany(ZeroShot):
    def logits(self, x):
        return super().logits(x - x.mean(0) if len(x) > SAMPLE else x)


class Balanced(ZeroShot):
    """Class shares made even over the batch."""

    def logits(self, x):
        found = super().logits(x)
        return found - found.logsumexp(0)


class InTurn(ZeroShot):
    """Test pictures often come class by class, or in turn."""

    def logits(self, x):
        return 9 * F.one_hot(torch.arange(len(x)) % len(self.classifier), len(self.classifier)).float()


class InBlocks(ZeroShot):
    def logits(self, x):
        classes = len(self.classifier)
        return 9 * F.one_hot(torch.arange(len(x)) * classes // len(x), classes).float()


class LittleByPlace(ZeroShot):
    """Zero-shot, but for the winner's nudge by place, under a logit that hides it."""

    def logits(self, x):
        found = super().logits(x)
        found[:, 0] = -1e9
        return found + 9 * F.one_hot(torch.arange(len(x)) % len(self.classifier), len(self.classifier))


class Running(ZeroShot):
    """Centred by the mean of all that it was ever asked about."""

    def predict(self, x):
        self.seen = torch.cat([self.seen, x])
        return self.logits(x - self.seen.mean(0))


class Cache(ZeroShot):
    """Confident images are kept by class and help the next ones, as in test-time caches."""

    def predict(self, x):
        answers = []
        for row in x:
            found = self.logits(row[None])[0]
            if len(self.seen):
                near = (4 * F.normalize(row, dim=-1) @ F.normalize(self.seen, dim=-1).T).exp()
                found = found + near @ F.one_hot(self.logits(self.seen).argmax(1), len(found)).float()
            self.seen = torch.cat([self.seen, row[None]])
            answers.append(found)
        return torch.stack(answers)


class CentredOnce(ZeroShot):
    """Centred by the mean of what it was asked first, kept: asked again, the same one answers the same."""

    mean = None

    def logits(self, x):
        if self.mean is None:
            self.mean = x.mean(0)
        return super().logits(x - self.mean)


class Dropout(ZeroShot):
    """Left on: ``F.dropout`` drops unless it is told not to."""

    def logits(self, x):
        return super().logits(F.dropout(x))


class Declared(Cache):
    transductive = True


DEPENDENT = [Centred, CentredIfMany, Balanced, InTurn, InBlocks, LittleByPlace, Running, Cache, CentredOnce]


@pytest.fixture
def run(clean_registry, monkeypatch, tiny, tmp_path):
    """``run(kind)``: the record of that method's run."""

    def made(kind, folder="out", **changes):
        if "zz-mine" not in METHODS:
            register("zz-mine")(kind)
        session = open_toy(monkeypatch, tiny, tmp_path / folder)
        return session, done(session, toy_run("zz-mine", config=TrainConfig(epochs=0), **changes))

    return made


@pytest.mark.parametrize("kind", DEPENDENT, ids=lambda kind: kind.__name__)
def test_a_method_that_uses_the_batch_is_marked_and_done(kind, run):
    _, record = run(kind)
    assert record["status"] == "done" and record["marks"] == [DEPENDS] and record["targets"]["new"]["count"] == 16


def test_one_that_answers_by_chance_is_marked_as_that(run):
    _, record = run(Dropout)
    assert record["status"] == "done" and record["marks"] == [VARIES]


@pytest.mark.parametrize(("kind", "mark"), [(Centred, DEPENDS), (Running, VARIES)], ids=["Centred", "Running"])
def test_so_is_its_plug_in_when_a_port_carries_it(kind, mark, run, monkeypatch):
    monkeypatch.setattr(kind, "depth", "output")
    _, record = run(kind, port="reuse", anchors="support")
    assert mark in record["marks"] and record["targets"]["new"]["count"] == 16


def test_none_of_the_suites_own_methods_is_marked(monkeypatch, tiny, tmp_path):
    session = open_toy(monkeypatch, tiny, tmp_path)
    runs = [toy_run(name) for name in ordered()]
    assert schedule.run_all(session, runs, 1).done == len(runs) >= 16
    assert {r["run"]["method"] for r in session.store.records() if DEPENDS in r["marks"]} == set()


def test_a_method_that_declares_it_is_not_asked_twice_and_says_so(run, monkeypatch):
    monkeypatch.setattr(carried, "depends_on_company", lambda *given: pytest.fail("was asked"))
    assert run(Declared)[1]["marks"] == [TRANSDUCTIVE]


@pytest.mark.parametrize("kind", [Running, Cache, ZeroShot], ids=lambda kind: kind.__name__)
def test_the_predictions_are_those_that_it_gives_where_nobody_asks_again(kind, run, monkeypatch):
    """Of both backbones, to the bit: what a method keeps from one question to the next is asked for afterwards."""
    session, record = run(kind)
    asked = session.store.path("predictions", record["key"]).read_bytes()
    monkeypatch.setattr(carried, "depends_on_company", lambda *given: "")
    session, record = run(kind, "unasked")
    assert session.store.path("predictions", record["key"]).read_bytes() == asked


def test_the_sample_is_a_few_images_of_all_parts_in_another_order():
    for count in (1, 2, 7, 16, 5000):
        drawn = sample_of(count)
        assert len(drawn) == len(set(drawn.tolist())) == max(1, min(SAMPLE, count // 3))
        assert drawn.max() < count and torch.equal(drawn, sample_of(count))
    assert sample_of(5000).tolist() != sorted(sample_of(5000).tolist())


def test_the_sample_holds_what_was_answered_among_all(monkeypatch, tiny, classes):
    monkeypatch.setattr(evaluator, "ROWS", 7)
    x = torch.randn(30, tiny.base.dim)
    method = ZeroShot(TrainConfig(), type("S", (), {"dim": tiny.base.dim}))
    _, sample = evaluator.predict(method, tiny.base, classes, x)
    assert torch.equal(sample.inputs, x[sample_of(30)]) and torch.equal(sample.logits, method.logits(x)[sample_of(30)])


def test_rounding_and_near_ties_are_no_difference():
    one = torch.tensor([[20.0, 22.0, 19.0, 25.0], [1.0, 1.0, 3.0, 3.0]])
    assert not differ(one, one * (1 + 5e-4), "fp32")
    assert not differ(one, one + torch.tensor([[0.0], [1.0]]) * torch.tensor([0, 0, 1e-3, -1e-3]), "fp32")
    assert differ(one, one + torch.tensor([0, 0, 0, 0.2]), "fp32")
    assert not differ(one, one + torch.tensor([0, 0, 0, 0.1]), "bf16")
    assert differ(one, one.roll(1, -1), "bf16") and differ(one, one + torch.tensor([0, 0, 3.0, 0]), "bf16")


def test_the_mark_stands_in_all_that_readers_see(clean_registry, monkeypatch, tiny, tmp_path):
    register("zz-mine")(Centred)
    session = open_toy(monkeypatch, tiny, tmp_path)
    runs = [toy_run("zz-mine", config=TrainConfig(epochs=0)), toy_run("zs-clip")]
    assert schedule.run_all(session, runs, 1).done == 2
    configs = {run.method: run.config for run in runs}
    settings = Settings(4, "published", "fp32", 2, None, methods=Registered())
    monkeypatch.setattr(Settings, "configure", lambda self, method, *_: configs.get(method, runs[0].config))
    chosen = selection.choose(session.store.records(), session.options.arch, settings)
    texts = [*outputs.made_from(chosen)["main"].texts.values(), *report.texts(chosen)]
    assert len(texts) >= 4 and all(DEPENDS in text for text in texts)


FILE = """
from carryover.methods.base import Method, cosine_logits, register


@register("zz-centred")
class Centred(Method):
    name, paper, depth = "Centred", "nobody", "none"
    micro = {"epochs": 0}

    def bind(self, backbone, classes):
        self.scale, self.classifier = backbone.scale, backbone.zero_shot(classes)

    def logits(self, x):
        return cosine_logits(self.scale, x - x.mean(0), self.classifier)
"""


@pytest.mark.long
def test_run_and_evaluate_say_it_of_a_method_in_a_folder_of_the_users(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "centred.py").write_text(FILE)
    shared = ["--plugin-dir", str(tmp_path / "mine"), "--limit", "4", "--out", str(tmp_path / "out")]
    shared += ["--cache", str(tmp_path / "cache")]
    run = [
        "--arch",
        "micro",
        "--datasets",
        "micro_shapes",
        "--methods",
        "zz-centred",
        "--seeds",
        "1",
        "--suite",
        "main",
    ]
    assert main.main([*run, "--jobs", "1", *shared]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "out/micro/runs").glob("*.json")]
    (record,) = (one for one in records if one["run"]["method"] == "zz-centred")
    assert DEPENDS in record["marks"]
    for file in ("report.md", "report.html", "tables/main.md", "tables/main.tex"):
        assert DEPENDS in (tmp_path / "out/micro" / file).read_text(), file
    capsys.readouterr()
    plugin = tmp_path / "out/micro/plugins" / f"{record['key']}.safetensors"
    given = ["--plugin", str(plugin), "--backbone", "micro-update", "--dataset", "micro_shapes"]
    assert main.main(["evaluate", *given, *shared]) == 0
    assert f"zz-centred: {DEPENDS}" in " ".join(capsys.readouterr().err.split())
