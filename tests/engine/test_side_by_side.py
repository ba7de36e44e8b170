"""Runs trained side by side against the same runs alone: the same bits on a CPU, and no run harms its neighbours."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import unlike_towers
from bits import assert_same, assert_same_curves
from tiny_fits import make, make_support, short
from tiny_towers import NAMES

from carryover.bench.backbones import probe
from carryover.bench.backbones.packed import grouped
from carryover.bench.engine import one_run
from carryover.bench.engine.one_run import alike
from carryover.bench.engine.options import Options
from carryover.bench.engine.units import units
from carryover.bench.plan.runs import Run
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import FitError, fit, fit_together
from carryover.methods import ordered
from carryover.methods.base import METHODS

PROMPTS = [name for name in ordered() if METHODS[name].alike(METHODS[name].Config()) is not None]


def fitted(name, seeds, together, tiny, classes, **changes):
    methods = [make(name, seed=seed, epochs=3, **changes) for seed in seeds]
    supports = [make_support(seed=seed) for seed in seeds]
    generators = [generator("test", seed) for seed in seeds]
    for method in methods:
        method.bind(tiny.base, classes)
    if together:
        curves = fit_together(methods, supports, generators)
    else:
        curves = [fit(*one) for one in zip(methods, supports, generators, strict=True)]
    return [method.learned() for method in methods], curves


def test_all_prompt_methods_can_go_side_by_side():
    assert set(PROMPTS) >= {"coop", "cocoop", "kgcoop", "contcoop"}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("layer", [0, 2])
def test_seeds_side_by_side_have_the_bits_they_have_alone(name, layer, tiny, classes):
    changes = {"layer": layer} if name == "coop" else {}
    (learned, curves), (alone, curves_alone) = (
        fitted(name, (1, 2, 3), together, tiny, classes, **changes) for together in (True, False)
    )
    assert_same_curves(curves, curves_alone, len(NAMES))
    assert len(curves[0]) == 3
    for one, other in zip(learned, alone, strict=True):
        assert_same(one, other, len(NAMES))
    assert not torch.equal(learned[0]["context"], learned[1]["context"])


@pytest.mark.parametrize("count", [2, 3])
def test_so_few_classes_are_held_to_what_the_probe_says_of_them(count, tiny, classes):
    """Some libraries have kernels of their own for so few rows."""
    methods = [make("coop", NAMES[:count], seed=seed, epochs=3) for seed in (1, 2, 1, 2)]
    supports = [make_support(count, seed=seed) for seed in (1, 2, 1, 2)]
    for method in methods:
        method.bind(tiny.base, replace(classes, names=NAMES[:count]))
    fit_together(methods[:2], supports[:2], [generator("test", seed) for seed in (1, 2)])
    for seed, method, other, support in zip((1, 2), methods[2:], methods[:2], supports[2:], strict=True):
        fit(method, support, generator("test", seed))
        assert_same(other.learned(), method.learned(), count)


def test_rows_of_an_ablation_side_by_side_have_the_bits_they_have_alone(tiny, classes):
    options = [{"lam": 0.0}, {"lam": 1.0}, {"attention": False}, {"heads": 2}, {"condition": "a photo of a {}"}]

    def make_all():
        methods = [make("contcoop", seed=1, config=replace(short("contcoop", epochs=3), **o)) for o in options]
        for method in methods:
            method.bind(tiny.base, classes)
        return methods

    count, together = len(options), make_all()
    fit_together(together, [make_support()] * count, [generator("test")] * 1 + [generator("test") for _ in options[1:]])
    for one, other in zip(together, make_all(), strict=True):
        fit(other, make_support(), generator("test"))
        assert_same(one.learned(), other.learned(), len(NAMES))


def test_a_loss_that_is_nan_ends_its_own_run_alone(tiny, classes):
    alone, _ = fitted("coop", (1, 3), False, tiny, classes)
    methods = [make("coop", seed=seed, epochs=3) for seed in (1, 2, 3)]
    for method in methods:
        method.bind(tiny.base, classes)
    broken = make_support(seed=2)
    broken.views[:, 0] = float("nan")
    outcomes = fit_together(
        methods, [make_support(seed=1), broken, make_support(seed=3)], [generator("test", seed) for seed in (1, 2, 3)]
    )
    assert isinstance(outcomes[1], FitError) and outcomes[1].curve == []
    for place, other in ((0, alone[0]), (2, alone[1])):
        assert len(outcomes[place]) == 3
        assert_same(methods[place].learned(), other, len(NAMES))


# ---- which runs go together ------------------------------------------------------------------------------------------


def run(method="coop", seed=1, test="", **changes):
    return Run("tiny", "toy", method, seed, 4, "published", "fp32", 2, None, short(method, **changes), test)


def keyed(together):
    """As much of a session as ``units`` asks for."""
    return SimpleNamespace(options=Options(None, "cpu", "", "", together=together), keys=SimpleNamespace(of=str))


def planned(together, *runs):
    return [[str(run) for run, _ in unit.runs] for unit in units(keyed(together), [(run, str(run)) for run in runs])]


def test_seeds_and_ablation_rows_join_and_others_do_not():
    assert alike(run(seed=1)) == alike(run(seed=2)) and alike(run("contcoop")) == alike(
        run("contcoop", lam=0.5, heads=2)
    )
    assert alike(run("clip-adapter")) is None and alike(run(test="other")) is None
    for change in ({"layer": 1}, {"context_length": 4}, {"lr": 0.5}, {"batch": 4}, {"epochs": 7}):
        assert alike(run(**change)) != alike(run())
    assert alike(replace(run(), dataset="other")) != alike(run()) and alike(replace(run(), shots=2)) != alike(run())


def test_units_hold_as_many_runs_as_are_asked_for():
    seeds = [run(seed=seed) for seed in (1, 2, 3)]
    assert [len(unit) for unit in planned(1, *seeds)] == [1, 1, 1]
    assert [len(unit) for unit in planned(2, *seeds)] == [2, 1]
    assert [len(unit) for unit in planned(12, *seeds, run("zs-clip"), run(layer=1))] == [3, 1, 1]


def test_a_run_on_a_shifted_set_waits_for_its_training_run_in_the_same_call():
    train, shifted = run(), run(test="other")
    first, second = units(keyed(12), [(train, str(train)), (shifted, str(shifted))])
    assert not first.after and second.after == {str(train)}
    assert not units(keyed(12), [(shifted, str(shifted))])[0].after


def test_runs_that_fail_together_are_tried_alone(monkeypatch, session_on):
    session = session_on("together", together=4)
    together = one_run.fit_together

    def breaks(methods, *rest, **more):
        if len(methods) > 1:
            raise RuntimeError("as one they fail")
        return together(methods, *rest, **more)

    monkeypatch.setattr(one_run, "fit_together", breaks)
    runs = [
        Run("tiny", "toy", "coop", seed, 4, "published", "fp32", 2, None, short("coop", epochs=2)) for seed in (1, 2)
    ]
    records = list(one_run.execute_together(session, [(one, session.keys.of(one)) for one in runs]))
    assert [record["status"] for record in records] == ["done", "done"]
    assert [record["together"] for record in records] == [1, 1]


@pytest.mark.parametrize(
    "fewest, asked, together, marked",
    [
        (1, False, 2, False),
        (len(NAMES), False, 2, False),
        (len(NAMES) + 1, False, 1, False),
        (None, False, 1, False),
        (None, True, 2, True),
    ],
    ids=["same bits", "enough classes", "too few classes", "other bits", "other bits, asked for"],
)
def test_runs_go_alone_where_they_have_other_bits_together_unless_the_user_asks(
    fewest, asked, together, marked, monkeypatch, session_on
):
    monkeypatch.setattr(probe, "answer", lambda: probe.Answer(fewest))
    runs = [
        Run("tiny", "toy", "coop", seed, 4, "published", "fp32", 2, None, short("coop", epochs=2)) for seed in (1, 2)
    ]
    session = session_on("here", together=4, asked=asked)
    records = list(one_run.execute_together(session, [(one, session.keys.of(one)) for one in runs]))
    assert [record["together"] for record in records] == [together] * 2
    assert [one_run.OTHER_BITS in record["marks"] for record in records] == [marked] * 2
    assert {record["processor"]["side_by_side"] for record in records} == {str(probe.Answer(fewest))}


def test_an_image_dataset_of_one_run_that_cannot_be_read_fails_that_run_alone(session_on):
    session = session_on("broken", together=4)
    runs = [
        Run("tiny", "toy", "coop", seed, 4, "published", "fp32", 2, None, short("coop", epochs=2)) for seed in (1, 2)
    ]
    support = session.inputs.support
    session.inputs.support = lambda one: support(one) if one.seed == 1 else (_ for _ in ()).throw(OSError("gone"))
    first, second = one_run.execute_together(session, [(one, session.keys.of(one)) for one in runs])
    assert first["status"] == "done" and second["status"] == "failed" and "gone" in second["error"]


# ---- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lengths, sizes",
    [
        ((3, 3, 3), (3,)),
        ((3, 3, 4), (3,)),  # one token more is not worth a group
        ((3,) * 30 + (12,) * 30, (30, 30)),
        ((3,) * 50 + (12,), (50, 1)),
        ((4,) * len(NAMES), (len(NAMES),)),
    ],
)
def test_classes_are_grouped_where_padding_would_cost(lengths, sizes):
    assert grouped(lengths) == sizes


def test_groups_never_pad_more_than_allowed_unless_there_are_too_many():
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = tuple(
            sorted(torch.randint(2, 20, (int(torch.randint(1, 200, (1,), generator=draw)),), generator=draw).tolist())
        )
        sizes, start, padded = grouped(lengths), 0, 0
        for size in sizes:
            padded += size * lengths[start + size - 1]
            start += size
        assert start == len(lengths) and len(sizes) <= 4
        assert len(sizes) == 4 or padded <= max(1.1 * sum(lengths), sum(lengths) + 8)


@pytest.mark.parametrize("name", PROMPTS)
def test_a_step_on_a_tower_of_whole_rows_counts_all_that_enter_its_first_block(name, tiny, classes):
    batch, siglip = 3, unlike_towers.made("siglip")
    seen = []
    method = make(name, classes.names, width=siglip.width, dim=siglip.dim, context_length=4)
    method.bind(siglip, classes)
    x, y = torch.randn(batch, siglip.dim, generator=torch.Generator().manual_seed(0)), torch.arange(batch)
    with siglip.model.text.transformer.resblocks[0].register_forward_pre_hook(
        lambda _, given: seen.append(given[0].shape[:-1].numel())
    ):
        method.loss(x, y)
    assert one_run.tokens_a_step(method, siglip, batch) == pytest.approx(sum(seen))
    assert sum(seen) > 1.5 * method.tokens_a_step(batch)
    own = make(name)
    own.bind(tiny.base, classes)
    assert one_run.tokens_a_step(own, tiny.base, batch) == own.tokens_a_step(batch)


# ---- a user's method derived from these ------------------------------------------------------------------------------


def test_a_method_with_a_loss_of_its_own_goes_alone():
    class Mine(METHODS["coop"]):
        def loss(self, x, y):
            return super().loss(x, y) + self.context.square().sum()

    class Features(METHODS["coop"]):
        def class_features(self, x):
            return 2 * super().class_features(x)

    config = METHODS["coop"].Config()
    assert Mine.alike(config) is None and Features.alike(config) is None
    assert METHODS["coop"].alike(config) is not None and alike(run("kgcoop"))[0] != alike(run("coop"))[0]


def test_methods_bound_to_other_prompts_are_not_mixed(tiny, classes):
    methods = [make("coop", seed=seed) for seed in (1, 2)]
    methods[0].bind(tiny.base, classes)
    methods[1].bind(tiny.base, replace(classes, names=tuple(f"old {name}" for name in classes.names)))
    support = make_support()
    xs, ys = [support.features] * 2, [support.labels] * 2
    together = type(methods[0]).losses(methods, xs, ys)
    assert [a.item() for a in together] == [m.loss(x, y).item() for m, x, y in zip(methods, xs, ys, strict=True)]


@pytest.mark.parametrize("room", [1.0, 1.5])
def test_a_tight_budget_splits_runs_before_classes(room, tiny, classes):
    """One run alone fits: two must not be cut otherwise than it."""
    text = tiny.base.text
    tokens = text.class_tokens([f"kind {'of thing ' * (i % 4)}{i}" for i in range(13)])
    contexts = torch.randn(3, 4, text.width, generator=torch.Generator().manual_seed(0))
    before, each = text.budget, (tokens.packed(5).tokens + 5) * 36 * text.width * len(text.blocks) * 4
    try:
        text.budget = int(room * each)
        together = text.encode(contexts.requires_grad_(), tokens, per="image")
        alone = [text.encode(context, tokens) for context in contexts]
    finally:
        text.budget = before
    assert_same(dict(enumerate(together)), dict(enumerate(alone)), len(tokens))
