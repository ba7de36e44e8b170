"""Nothing of the test set reaches a method: other test pictures and labels, the same plug-in, bit for bit; and no test
tensor, label or name can be reached from what a method and the trainer are handed."""

import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from own_method import MINE
from PIL import Image
from reached import reachable
from tiny_fits import short
from tiny_towers import IMAGE_SIZE
from toys import open_toy, pictures, toy, toy_run

from carryover.bench.engine import one_run, schedule
from carryover.bench.engine.record_draft import SELECTED_ON_TEST
from carryover.bench.plan import suites
from carryover.bench.plan.settings import Settings
from carryover.bench.records import selection
from carryover.bench.report import outputs, report
from carryover.methods import Registered, discover, ordered
from carryover.methods.base import METHODS


@pytest.fixture
def mine(tmp_path, clean_registry):
    """A user's method beside the registered ones."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.py").write_text(MINE)
    discover((str(tmp_path / "mine"),))


def noise(image, index):
    pixels = np.random.default_rng(index).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    return Image.fromarray(pixels)


def noisy(part):
    """The part with every picture and label replaced by noise, under the same names."""
    return pictures(part, noise, lambda labels: np.random.default_rng(7).permutation((labels + 1) % 3), stamp="noise")


def plugins(session, runs):
    """{run: the tensors of its plug-in as bytes}, all trained by the local engine."""
    tally = schedule.run_all(session, runs, 1, fresh=True)
    assert tally.done == len(runs), tally.failures
    read = (session.store.read_plugin(session.keys.of(run.trained))[0] for run in runs)
    return [{name: (value.dtype, value.numpy().tobytes()) for name, value in found.items()} for found in read]


def outcomes(session, runs):
    return [session.store.read_predictions(session.keys.of(run))["base"][1].tolist() for run in runs]


def test_noise_for_every_test_picture_and_label_leaves_every_methods_plugin_bit_identical(
    monkeypatch, tiny, tmp_path, mine
):
    """Through the engine: the test pictures are encoded before anything is trained."""
    runs = [toy_run(name) for name in ordered()]
    runs += [replace(run, test="shifted") for run in runs if METHODS[run.method].whole]
    honest = open_toy(monkeypatch, tiny, tmp_path / "honest")
    found, labels = plugins(honest, runs), outcomes(honest, runs)
    poisoned = open_toy(monkeypatch, tiny, tmp_path / "poisoned", lambda id: toy(id, test=noisy("test")))
    assert "zz-mine" in [run.method for run in runs] and len(runs) > 1.8 * len(ordered())
    assert plugins(poisoned, runs) == found
    assert all(one != two for one, two in zip(labels, outcomes(poisoned, runs), strict=True)), "the noise was read"
    features = honest.inputs.test_features(runs[0], "base"), poisoned.inputs.test_features(runs[0], "base")
    assert not torch.isclose(*features).all(1).any(), "of every picture"


def test_noise_for_every_validation_picture_and_label_moves_only_what_chooses_on_few_shot_validation(
    monkeypatch, tiny, tmp_path, mine
):
    runs = [toy_run(name) for name in ordered()]
    found = plugins(open_toy(monkeypatch, tiny, tmp_path / "honest"), runs)
    poisoned = open_toy(monkeypatch, tiny, tmp_path / "poisoned", lambda id: toy(id, val=noisy("val")))
    moved = {run.method for run, one, two in zip(runs, found, plugins(poisoned, runs), strict=True) if one != two}
    assert moved <= {"linear-probe", "tip-adapter-f", "clip-adapter", "zz-mine"} and "zz-mine" in moved


def test_only_the_published_search_moves_with_test_labels_and_it_is_marked_in_all_that_readers_see(
    monkeypatch, tiny, tmp_path
):
    """Which also shows that the noise above would be seen, were it learned from."""
    config = replace(short("tip-adapter-f"), selection="published", epochs=12, lr=0.1)
    runs = [toy_run("tip-adapter-f", config=config), toy_run("coop")]
    runs += [replace(run, test="shifted") for run in runs]
    found = plugins(session := open_toy(monkeypatch, tiny, tmp_path / "honest"), runs)
    other = open_toy(monkeypatch, tiny, tmp_path / "poisoned", lambda id: toy(id, test=noisy("test")))
    tip, coop, *_ = plugins(other, runs)
    assert tip != found[0] and coop == found[1]

    records = session.store.records()
    assert {r["run"]["method"] for r in records if SELECTED_ON_TEST in r["marks"]} == {"tip-adapter-f"}
    settings = Settings(4, "published", "fp32", 2, None, methods=Registered())
    monkeypatch.setattr(Settings, "configure", lambda self, method, *_: config if "tip" in method else runs[1].config)
    monkeypatch.setattr(suites, "ood_source", lambda arch: "toy")
    monkeypatch.setattr(suites, "ood_targets", lambda arch: ("shifted",))
    chosen = selection.choose(records, session.options.arch, settings)
    made, page = outputs.made_from(chosen), report.texts(chosen)
    texts = [*made["main"].texts.values(), *made["ood"].texts.values(), *page]
    assert len(texts) == 6 and all(SELECTED_ON_TEST in text for text in texts)
    (line,) = [line for line in made["ood"].texts["md"].splitlines() if SELECTED_ON_TEST in line]
    assert "Tip-Adapter-F" in line and "CoOp" not in line, "the rows are named"


# ---- what a method can reach -----------------------------------------------------------------------------------------


def test_the_walk_reaches_what_is_hidden():
    secret, here = torch.rand(3), torch.nn.Linear(2, 2)
    here.helper = lambda found=[{"deep": (secret,)}]: found
    assert any(value is secret for value in reachable(here))

    def closed():
        return secret

    assert any(value is secret for value in reachable(types.SimpleNamespace(run=closed)))


def leaks(session, run, handed):
    """What of the test set can be reached from what was handed over."""
    found = [one.to_dense() if isinstance(one, torch.Tensor) and one.is_mkldnn else one for one in reachable(*handed)]
    tests = [session.inputs.test_features(run, role) for role in ("base", "new")]
    split, wrong = session.test_split(run), []
    tensors = [value for value in found if isinstance(value, torch.Tensor) and value.numel()]
    assert len(tensors) > 5, "it has walked the method, its backbone and the support set"
    rows = {row.numpy().tobytes() for features in tests for row in features}
    stores = {features.untyped_storage().data_ptr() for features in tests}
    for tensor in tensors:
        if tensor.untyped_storage().data_ptr() in stores:
            wrong.append("the test features themselves")
        if tensor.shape[-1:] == tests[0].shape[-1:]:
            flat = tensor.detach().reshape(-1, tensor.shape[-1])
            wrong += ["a test feature"] * bool(rows & {row.numpy().tobytes() for row in flat})
    values = [value.tolist() for value in found if isinstance(value, (torch.Tensor, np.ndarray))]
    wrong += ["test labels"] * (toy().test.labels.tolist() in values)
    wrong += ["a test picture's name"] * bool({v for v in found if isinstance(v, str)} & set(split.keys))
    known = (session, session.data("toy"), split, session.features("base"), session.features("base").memory)
    return wrong + ["what holds them"] * bool({id(value) for value in known} & {id(value) for value in found})


@pytest.mark.long
def test_from_what_a_method_and_the_trainer_are_handed_no_test_picture_label_or_name_can_be_reached(
    monkeypatch, tiny, tmp_path, mine
):
    session = open_toy(monkeypatch, tiny, tmp_path)
    handed, found, fit = [], {}, one_run.fit_together

    def watched(*given, **more):
        outcomes = fit(*given, **more)
        handed[:] = given
        return outcomes

    monkeypatch.setattr(one_run, "fit_together", watched)
    clean = [toy_run(name) for name in ordered()]
    published = toy_run("tip-adapter-f", config=replace(short("tip-adapter-f"), selection="published", epochs=2))
    for run in (*clean, published):
        handed.clear()
        assert schedule.run_all(session, [run], 1).done == 1
        found[run] = leaks(session, run, handed)
    assert {*found.pop(published)} == {"the test features themselves", "a test feature", "test labels"}
    assert found == {run: [] for run in clean}
