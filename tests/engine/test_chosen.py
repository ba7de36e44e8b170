"""Options chosen by few-shot validation (CLIP-Adapter's rate and ratio), against the same values fixed one by one."""

import json
import math
from dataclasses import asdict, replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_fits import make, make_support
from tiny_towers import TEMPLATES
from toys import done, open_toy, toy, toy_run

from carryover.bench.engine.record_draft import NOT_CHOSEN, tell_choice
from carryover.bench.errors import UserError
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plugins import contract
from carryover.bench.training.trainer import FitError, fit
from carryover.methods.base import METHODS

RATES, RATIOS = (2e-3, 2e-2, 2e-1), (0.2, 0.4, 0.6, 0.8)


@pytest.fixture
def opened(monkeypatch, tiny, tmp_path):
    return open_toy(monkeypatch, tiny, tmp_path, toy)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def fitted(tiny, classes, support, seed=3, **changes):
    method = make("clip-adapter", seed=seed, epochs=8, **changes)
    method.bind(tiny.base, classes)
    return method, fit(method, support, torch.Generator().manual_seed(7))


def validation(method, support):
    with torch.no_grad():
        logits = method.logits(support.val_features)
    right = 100 * float((logits.argmax(1) == support.val_labels).float().mean())
    return right, float(F.cross_entropy(logits, support.val_labels))


def noisy(seed=0):
    return make_support(noise=1.2, seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_kept_is_the_best_on_validation_of_twelve_fits_with_fixed_values(tiny, classes, seed):
    support = noisy(seed)
    method, curve = fitted(tiny, classes, support)
    alone = {
        (rate, ratio): fitted(tiny, classes, support, lr=rate, ratio=ratio) for rate, ratio in product(RATES, RATIOS)
    }
    scores = {values: validation(one, support) for values, (one, _) in alone.items()}
    assert len({round(right) for right, _ in scores.values()}) > 1, "there is something to choose"
    for told, values in zip(method.tried, product(RATES, RATIOS), strict=True):
        assert (told["lr"], told["ratio"]) == values
        assert (told["validation"], told["validation_loss"]) == pytest.approx(scores[values], abs=1e-3)
    best = max(scores, key=lambda values: (scores[values][0], -scores[values][1]))
    assert tuple(method.chosen.values()) == best == (method.config.lr, method.config.ratio)
    kept, its_curve = alone[best]
    for name, value in kept.learned().items():
        torch.testing.assert_close(method.learned()[name], value, rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in its_curve], rel=1e-4)
    assert [row["lr"] for row in curve] == [row["lr"] for row in its_curve]


@pytest.mark.parametrize(
    "fixed, tried",
    [
        ({"lr": 0.05}, product((0.05,), RATIOS)),
        ({"ratio": 0.3}, product(RATES, (0.3,))),
        ({"lr": 0.05, "ratio": 0.3}, [(0.05, 0.3)]),
        ({"search": False}, [(2e-3, 0.2)]),
        ({"search": False, "lr": 0.05}, [(0.05, 0.2)]),
        ({"rates": (0.1, 1.0), "ratios": (0.5,)}, [(0.1, 0.5), (1.0, 0.5)]),
    ],
)
def test_only_what_is_not_fixed_is_searched(tiny, classes, support, fixed, tried):
    method, _ = fitted(tiny, classes, support, **fixed)
    assert [(one["lr"], one["ratio"]) for one in method.tried] == list(tried)


def test_one_pass_over_all_candidates_is_each_ones_own_loss(tiny, classes, support):
    methods = [make("clip-adapter", seed=i, lr=0.1, ratio=ratio) for i, ratio in enumerate(RATIOS)]
    for method in methods:
        method.bind(tiny.base, classes)
    xs, ys = [support.features[i : i + 9] for i in range(4)], [support.labels[i : i + 9] for i in range(4)]
    found = METHODS["clip-adapter"].losses(methods, xs, ys)
    for loss, method, x, y in zip(found, methods, xs, ys, strict=True):
        assert loss.item() == pytest.approx(method.loss(x, y).item(), rel=1e-5)


def test_a_candidate_that_diverges_is_left_out_and_fails_the_run_only_where_all_do(tiny, classes, support):
    method, _ = fitted(tiny, classes, support, rates=(1e30, 0.02))
    assert all(("validation" in one) == (one["lr"] == 0.02) for one in method.tried) and method.chosen["lr"] == 0.02
    assert all(torch.isfinite(value).all() for value in method.learned().values())
    with pytest.raises(FitError, match="loss is"):
        fitted(tiny, classes, support, rates=(1e30,))


def test_of_equals_on_validation_the_lower_cross_entropy_is_kept(tiny, classes):
    support = make_support(noise=0.05)
    method, _ = fitted(tiny, classes, support, rates=(0.02, 0.2))
    equals = [one for one in method.tried if one["validation"] == max(each["validation"] for each in method.tried)]
    assert len(equals) > 1, "a support set on which several are right everywhere"
    lowest = min(equals, key=lambda one: one["validation_loss"])
    assert method.chosen == {name: lowest[name] for name in ("lr", "ratio")}


def test_without_validation_pictures_the_first_candidate_is_kept_and_marked(tiny, classes, support):
    empty = replace(support, val_features=support.val_features[:0], val_labels=support.val_labels[:0])
    method, _ = fitted(tiny, classes, empty)
    record = {"marks": []}
    tell_choice(record, method)
    assert record["chosen"] == {"lr": RATES[0], "ratio": RATIOS[0]} and record["marks"] == [NOT_CHOSEN]
    for told in (fitted(tiny, classes, empty, lr=0.02, ratio=0.4), fitted(tiny, classes, support)):
        record = {"marks": []}
        tell_choice(record, told[0])
        assert record["marks"] == []


@pytest.mark.parametrize("wrong", [{"rates": (0.0,)}, {"ratios": (1.2,)}, {"ratios": (0.0,)}, {"ratio": 1.5}])
def test_values_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match="clip-adapter"):
        make("clip-adapter", **wrong)


# ---- what is chosen travels ------------------------------------------------------------------------------------------


def predicted(session, run, tensors, ratio, role):
    """The formula, from the tensors of a plug-in file."""
    x = session.inputs.test_features(run, role).numpy()
    backbone, names = session.backbone(role), session.tested(run).classnames
    first, second = (tensors[f"adapter.{i}.weight"].numpy() for i in (0, 2))
    adapted = np.maximum(np.maximum(x @ first.T, 0) @ second.T, 0)
    texts = torch.stack([backbone.text.encode_texts([t.format(name) for name in names]) for t in TEMPLATES])
    text = unit(F.normalize(texts, dim=-1).mean(0).detach().numpy())
    return (unit(ratio * adapted + (1 - ratio) * x) @ text.T).argmax(1)


def test_record_and_file_say_what_was_chosen_and_both_backbones_are_asked_with_it(opened):
    run = toy_run(
        "clip-adapter", config=replace(METHODS["clip-adapter"].Config(), epochs=4, batch=8, ratios=(0.6, 1.0))
    )
    record = done(opened, run)
    tensors, metadata = read_tensors(opened.store.path("plugins", record["key"]))
    header = json.loads(metadata["plugin"])
    assert record["chosen"] == header["chosen"] and len(record["tried"]) == 6
    assert record["run"]["config"]["ratio"] == 0 and header["config"] == {
        **json.loads(json.dumps(asdict(run.config))), **record["chosen"]
    }  # fmt: skip
    for role in ("base", "new"):
        found = opened.store.read_outcomes(record["key"])[role].predicted
        assert (found == predicted(opened, run, tensors, record["chosen"]["ratio"], role)).all()


def test_a_refresh_keeps_the_ratio_and_chooses_the_rate_anew(opened):
    run = toy_run("clip-adapter", path=("base", "new"), refresh=4)
    record, before = done(opened, run), done(opened, run.source)
    assert {one["ratio"] for one in record["tried"]} == {before["chosen"]["ratio"]}
    assert [one["lr"] for one in record["tried"]] == list(RATES)


def test_a_ported_plug_in_is_refreshed_likewise(opened):
    run = toy_run("clip-adapter", port="procrustes", anchors="support", path=("base", "new"), refresh=4)
    record, before = done(opened, run), done(opened, run.trained)
    assert {one["ratio"] for one in record["tried"]} == {before["chosen"]["ratio"]}
    assert [one["lr"] for one in record["tried"]] == list(RATES) and math.isfinite(record["curve"][-1]["loss"])


def test_a_file_from_before_the_search_answers_with_its_ratio(tiny, classes, support):
    """Its config names neither a grid nor a search."""
    kind, old = METHODS["clip-adapter"], make("clip-adapter", lr=0.002, ratio=0.2)
    stored = {n: v for n, v in asdict(old.config).items() if n not in ("rates", "ratios", "search")}
    config, wrong = contract.config_of(kind, json.loads(json.dumps(stored)))
    assert not wrong and (config.lr, config.ratio) == (0.002, 0.2)
    read = kind(config, old.shape)
    read.load_learned(old.learned())
    for method in (read, old):
        method.bind(tiny.new, classes)
    assert torch.equal(read.predict(support.features), old.predict(support.features))


@pytest.mark.parametrize("given", [{}, {"ratio": 0.0}, {"search": False}], ids=["left out", "0", "without a search"])
def test_a_plugin_file_that_leaves_the_choice_open_is_refused_for_its_default_is_no_value(tiny, classes, given):
    kind, shape = METHODS["clip-adapter"], make("clip-adapter").shape
    plugin = SimpleNamespace(method="clip-adapter", shape=shape)
    config, wrong = contract.config_of(kind, {"lr": 0.002, **given})
    (reason,) = contract.left_open(kind, config, plugin)
    assert not wrong and reason.startswith("config: ratio is 0 or left out"), "it would answer as zero-shot does"
    for fits in ({"ratio": 0.6}, {"ratio": 0.6, "lr": 0.02, "search": False}):  # the rate is of training alone
        assert contract.left_open(kind, contract.config_of(kind, fits)[0], plugin) == []
    assert (
        contract.left_open(METHODS["coop"], METHODS["coop"].Config(), SimpleNamespace(method="coop", shape=shape)) == []
    )
