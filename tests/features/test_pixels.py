"""Methods that look at pixels: what they are given, and that the towers are as they were after them."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from splits_in_memory import split
from tiny_fits import make, pixels_of, short, support_for
from tiny_towers import NAMES, TEMPLATES, tiny_model, wrap
from toys import execute

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.errors import UserError
from carryover.bench.features import pixels
from carryover.bench.features.pixels import Pictures, views_of
from carryover.bench.features.store import FeatureStore
from carryover.bench.host.tensor_files import read_tensors
from carryover.bench.plan import grid, suites
from carryover.bench.plan.grid import default_methods
from carryover.bench.plan.runs import Run
from carryover.bench.plan.settings import Settings
from carryover.bench.training.trainer import fit
from carryover.methods import Registered, ordered
from carryover.methods.base import METHODS, Classes

CLASSES = Classes("toy", NAMES, TEMPLATES)
TOWERS = ("fine-tuning", "rada-towers")
# On frozen features, and yet not in the default plan.
BY_NAME = ("clap", "gda", "lp-plus-plus", "tcp", "descriptions", "tda")


@pytest.fixture
def store(tiny, tmp_path):
    return FeatureStore(tmp_path / "cache", tiny.base, batch=3)


def drawn(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(3, (count,), generator=g), torch.randint(7, (count,), generator=g)


def test_pixels_of_a_view_encode_to_the_stored_features_of_that_view(tiny, store):
    views = store.views(split(), NAMES, 3, (0.5, 1.0), 1)
    pictures = Pictures(store, split(), views_of(store, 3, (0.5, 1.0), 1))
    assert len(pictures) == 3
    view, image = drawn(10)
    torch.testing.assert_close(tiny.base.encode_images(pictures[view, image]), views[view, image])
    plain = Pictures(store, split(), views_of(store, 3, (1.0, 1.0), 1))
    assert len(plain) == 1
    tested = torch.cat([tiny.base.encode_images(part) for part in plain.split(4)])
    torch.testing.assert_close(tested, store.features(split(), NAMES))


@pytest.mark.parametrize("told", ["every batch", "nothing", "other batches"])
def test_pictures_that_are_not_kept_are_the_same_bytes(store, monkeypatch, told):
    recipes = views_of(store, 3, (0.5, 1.0), 1)
    batches = [drawn(5, seed) for seed in range(4)]
    kept = Pictures(store, split(), recipes)
    expected = [kept[batch] for batch in batches]
    whole = list(kept.split(4))
    monkeypatch.setattr(pixels, "KEEP", 0)
    fresh = Pictures(store, split(), recipes)
    fresh.expect({"every batch": batches, "nothing": [], "other batches": batches[::-1]}[told])
    for batch, was in zip(batches, expected, strict=True):
        assert torch.equal(fresh[batch], was)
    assert fresh._kept is None
    assert torch.equal(torch.cat(list(fresh.split(4))), torch.cat(whole))


def test_the_trainer_says_what_will_come_and_decodes_each_drawn_picture_once(tiny, store, monkeypatch):
    monkeypatch.setattr(pixels, "KEEP", 0)
    decoded = []
    pictures = split(24, labels=[i // 6 for i in range(24)])
    counting = replace(pictures, reader=lambda chosen: decoded.extend(chosen) or pictures.reader(chosen))
    support = replace(support_for("features"), views=Pictures(store, counting, views_of(store, 3, (0.5, 1.0), 1)))
    method = make("fine-tuning", epochs=2, batch=8)
    method.bind(tiny.base, CLASSES)
    with method.attach(tiny.base):
        fit(method, support, torch.Generator().manual_seed(0))
    assert sorted(decoded) == sorted([*range(24)] * 2)


# ---- towers that learn -----------------------------------------------------------------------------------------------


def tuned_by_hand(backbone, support, config, generator, loss_of):
    """open_clip's own modules at 77 tokens, torch's AdamW; the cosine of ``schedule = "iteration"``."""
    model = copy.deepcopy(backbone.model)
    parameters = [p.requires_grad_() for name, p in model.named_parameters() if name != "logit_scale"]
    solver = torch.optim.AdamW(parameters, config.lr, eps=config.eps, weight_decay=config.weight_decay)
    tokens = backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    count = len(support.labels)
    steps, done = count // config.batch, 0
    for _ in range(config.epochs):
        order = torch.randperm(count, generator=generator)
        view = torch.randint(len(support.views), (count,), generator=generator)
        for step in range(steps):
            part = order[step * config.batch : (step + 1) * config.batch]
            for group in solver.param_groups:
                cosine = torch.cos(torch.tensor(done * torch.pi / (steps * config.epochs), dtype=torch.double))
                group["lr"] = config.lr * 0.5 * (1 + float(cosine))
            images = model.encode_image(support.views[view[part], part], normalize=True)
            texts = model.encode_text(tokens, normalize=True)
            solver.zero_grad()
            loss_of(model.logit_scale.exp() * images @ texts.T, support.labels[part]).backward()
            solver.step()
            done += 1
    return {name: value.detach() for name, value in model.named_parameters() if name != "logit_scale"}


def tune(name, backbone, support, seed=0, **options):
    method = make(name, warmup_epochs=0, **options)
    method.bind(backbone, CLASSES)
    with method.attach(backbone):
        fit(method, support, torch.Generator().manual_seed(seed))
    return method


def test_fine_tuning_is_adamw_on_open_clips_own_towers(tiny):
    support = support_for("pixels")
    method = tune("fine-tuning", tiny.base, support, epochs=2, lr=1e-3)
    (home,) = method.home.values()
    expected = tuned_by_hand(
        tiny.base,
        support,
        method.config,
        torch.Generator().manual_seed(0),
        lambda logits, y: F.cross_entropy(logits, y),
    )
    assert home.keys() == expected.keys()
    start = dict(tiny.base.model.named_parameters())
    for name, value in expected.items():
        moved, off = (value - start[name]).abs().max(), (home[name] - value).abs()
        if name.endswith("in_proj_bias"):  # a key's bias has no gradient but rounding, which AdamW scales to a step
            off[len(off) // 3 : 2 * len(off) // 3] = 0
        assert off.max() < 0.02 * moved + 1e-6, name
    assert sum(bool((home[name] != start[name]).any()) for name in home) > 0.9 * len(home)


def test_what_the_towers_became_is_met_on_their_own_backbone_alone(tiny):
    support = support_for("pixels")
    method, x = tune("fine-tuning", tiny.base, support, epochs=3, lr=3e-3), pixels_of(support.labels)
    plain = make("zs-clip")

    def predict(one, backbone, given):
        one.eval()
        one.bind(backbone, CLASSES)
        with one.attach(backbone), torch.no_grad():
            return one.predict(given)

    for backbone, same in ((tiny.base, False), (tiny.new, True)):
        zero_shot = predict(plain, backbone, backbone.encode_images(x))
        assert torch.allclose(predict(method, backbone, x), zero_shot, atol=1e-4) == same
    carried = make("fine-tuning", config=method.config)
    carried.load_learned(method.learned())
    assert not carried.learned() and not carried.home
    torch.testing.assert_close(
        predict(carried, tiny.base, x), predict(plain, tiny.base, tiny.base.encode_images(x)), atol=1e-4, rtol=1e-4
    )


def test_rada_with_towers_starts_at_zero_shot_and_only_its_mask_travels(tiny):
    support = support_for("pixels")
    method, x = make("rada-towers"), pixels_of(support.labels)
    method.eval()
    for backbone in (tiny.base, tiny.new):
        plain = make("zs-clip")
        plain.bind(backbone, CLASSES)
        method.bind(backbone, CLASSES)
        with torch.no_grad():
            assert torch.equal(method.predict(x), plain.predict(backbone.encode_images(x)))
    method = tune("rada-towers", tiny.base, support, epochs=3, lr=1e-3, mask_factor=20.0)
    learned = method.learned()
    mask = make("rada")
    mask.load_learned(learned)  # the same six projections, and nothing else
    mask.bind(tiny.new, CLASSES)
    method.bind(tiny.new, CLASSES)
    with method.attach(tiny.new), torch.no_grad():
        torch.testing.assert_close(method.predict(x), mask.predict(tiny.new.encode_images(x)), atol=1e-4, rtol=1e-4)
    assert any(bool((value != 0).any()) for name, value in learned.items() if name.startswith("out"))


@pytest.mark.parametrize("factor", [0.0, 7.0])
def test_the_masks_rate_is_its_factor_times_the_towers(tiny, factor):
    method = tune("rada-towers", tiny.base, support_for("pixels"), epochs=1, lr=1e-4, mask_factor=factor)
    before = make("rada-towers")
    moved = max(float((method.learned()[n] - v).abs().max()) for n, v in before.learned().items() if n == "out.weight")
    steps = 24 // 8
    assert moved == 0 if factor == 0 else 0.3 * factor * 1e-4 < moved < steps * factor * 1e-4


@pytest.mark.parametrize("name", TOWERS)
def test_an_error_while_the_towers_are_open_leaves_them_as_they_were(tiny, name):
    method = make(name)
    method.bind(tiny.base, CLASSES)
    before = {key: value.clone() for key, value in tiny.base.model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), method.attach(tiny.base):
        with torch.no_grad():
            for value in method.towers().values():
                value.add_(1)
        raise ZeroDivisionError
    assert all(torch.equal(value, before[key]) for key, value in tiny.base.model.state_dict().items())
    assert not method.home and not any(p.requires_grad for p in tiny.base.model.parameters())


@pytest.mark.parametrize("name", TOWERS)
def test_a_run_measures_base_with_the_tuned_towers_and_says_so(session_on, name):
    session = session_on("one")
    changes = {"epochs": 4, "lr": 2e-3, "mask_factor": 0.0}
    run = Run("tiny", "toy", name, 1, 4, "published", "fp32", 2, None, short(name, **changes))
    record = execute(session, run, session.keys.of(run))
    assert record["status"] == "done", record["error"]
    assert any("stay with the backbone" in mark for mark in record["marks"])
    zero_shot = replace(run, method="zs-clip", config=short("zs-clip"))
    execute(session, zero_shot, session.keys.of(zero_shot))
    tuned, plain = (
        read_tensors(session.store.path("predictions", key))[0] for key in map(session.keys.of, (run, zero_shot))
    )
    assert not torch.allclose(tuned["base.confidence"], plain["base.confidence"], atol=1e-3)
    torch.testing.assert_close(tuned["new.confidence"], plain["new.confidence"], atol=1e-4, rtol=1e-3)
    other = replace(run, test="other")
    shifted = execute(session, other, session.keys.of(other))
    assert shifted["status"] == "failed" and "not kept" in shifted["error"]


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_default_plan_keeps_to_frozen_features_and_all_takes_every_method():
    settings = Settings(16, "micro", "fp32", 4, None, methods=Registered())
    found = grid.grid(ARCHS["micro"], settings, suites_=["main", "ood"])
    usual = set(default_methods(Registered()))
    assert {run.method for run in found} == usual
    assert all(METHODS[name].needs == "features" for name in default_methods(Registered())) and {
        "rada",
        "taskres",
        "coop",
    } <= set(default_methods(Registered()))
    assert not usual & set(BY_NAME), "the reference tables were made without them"
    every = grid.grid(ARCHS["micro"], settings, suites_=["main", "ood"], methods=["all"])
    assert {run.method for run in every} == set(ordered()) and {*TOWERS, *BY_NAME} < set(ordered())
    assert {run.method for run in every if run.test} == {name for name in ordered() if METHODS[name].whole}
    assert [v.method for v in suites.ood_variants(["coop"])] == ["coop"]
    with pytest.raises(UserError, match="unknown method 'ALL'"):
        grid.grid(ARCHS["micro"], settings, methods=["ALL"])


# ---- the fast text path under towers that change ---------------------------------------------------------------------


def test_folded_weights_follow_a_tensor_that_replaces_another_at_its_address():
    backbone = wrap(tiny_model(0, True), "own", "quick_gelu")
    texts = [TEMPLATES[0].format(name) for name in NAMES]
    block = backbone.model.text.transformer.resblocks[0].mlp.c_fc
    found = []
    for factor in (1.0, 2.0, 3.0, 4.0):  # freed and made again, Python gives addresses a second time
        g = torch.Generator().manual_seed(int(factor))
        made = torch.nn.Parameter(factor * 0.2 * torch.randn(block.weight.shape, generator=g), requires_grad=False)
        block.weight = made
        del made
        found.append(backbone.text.encode_texts(texts))
        with torch.no_grad():
            expected = backbone.model.encode_text(backbone.text.tokenizer(texts))
        torch.testing.assert_close(found[-1], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[0], found[-1], atol=1e-3)


def test_class_weights_have_the_gradients_of_open_clips_own_pass():
    backbone = wrap(tiny_model(0, True), "own", "quick_gelu")
    model = backbone.model.text
    classes = SimpleNamespace(names=NAMES, templates=("a photo of a {}.", "{} texture."))
    target = torch.randn(len(NAMES), backbone.dim, generator=torch.Generator().manual_seed(0))

    def gradients(weights):
        model.zero_grad()
        (weights() * target).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def plainly():
        rows = [
            F.normalize(backbone.model.encode_text(backbone.text.tokenizer([t.format(n) for n in NAMES])), dim=-1)
            for t in classes.templates
        ]
        return F.normalize(torch.stack(rows).mean(0), dim=-1)

    model.requires_grad_(True)
    found, expected = gradients(lambda: backbone.classifier(classes)), gradients(plainly)
    assert found.keys() == expected.keys() and len(found) == len(list(model.named_parameters()))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
