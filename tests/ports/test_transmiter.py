"""TransMiter against its authors' code and closed forms, and as a port on tiny towers.

The numbers under ``AUTHORS`` were printed by mlvlab/TransMiter at commit f58085c (geotorch 0.4.0) for tensors that
``formula`` makes.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from tiny_fits import make_support, pixels_of, short
from tiny_towers import NAMES

from carryover import datasets
from carryover.bench.backbones import archs, loading
from carryover.bench.errors import UserError
from carryover.bench.ports import words
from carryover.bench.ports.anchors import Anchors
from carryover.bench.ports.files import ported_of
from carryover.bench.ports.transmiter import TransMiter, answers
from carryover.bench.ports.transmiter_parts import (
    Adapter,
    Config,
    distillation,
    disturbed,
    exponential,
    random_rotation,
    rates,
    standardised,
    train,
    transferred,
)
from carryover.bench.training.generators import generator
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS, Classes, Shape, Support

K, N, C = 12, 20, 5
SMALL = Config(words=24, epochs=30, batch=16, prior=2.0)
FRUIT = (
    "apple", "pear", "plum", "grape", "cherry", "lemon", "lime", "peach", "fig", "melon", "quince", "apricot",
    "mango", "papaya", "guava", "lychee", "kiwi", "banana", "orange", "tangerine", "grapefruit", "olive", "date",
    "cats",
)  # fmt: skip

AUTHORS = {
    "forward": [
        [21.9691, 21.2798, 21.86752, 18.52666, 17.40111, 18.72321],
        [27.97192, 26.07381, 28.51137, 22.62922, 17.10748, 17.77328],
    ],
    "losses": [1.57619, 1.33073, 1.02724, 0.89502, 0.75722, 0.64637, 0.58332, 0.55374],
    "basis": [
        [0.12513, 0.15371, -0.00501, -0.32268, -0.24002, 0.28632],
        [0.34463, -0.22076, 0.13677, 0.15584, 0.54447, 0.0593],
    ],
    "trained": [
        [18.12071, 21.94991, 20.53911, 17.88952, 20.00117, 17.91587],
        [21.89392, 25.20195, 23.34181, 25.15831, 18.29567, 17.30593],
    ],
    "carried basis": [
        [0.1398, 0.23708, -0.19736, -0.44498, -0.1769, 0.29586],
        [0.38014, -0.31284, 0.1352, 0.05315, 0.55038, -0.11785],
    ],
    "ported": [
        [13.41483, 13.90804, 14.50971, 14.80767, 13.8716, 15.21041],
        [17.43887, 17.65527, 17.4949, 17.9541, 12.69172, 13.98385],
    ],
    "rates": {0: 0.00025, 1: 0.0005, 3: 0.001, 4: 0.001, 40: 0.0005412896727361663, 79: 4.2712080634949023e-07},
}  # fmt: skip


def formula(shape, number):
    """Numbers in (-1, 1) without any generator: the fraction of a large sine."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(12.9898 * places + 78.233 * number) * 43758.5453).frac().reshape(shape)


def old_logits(count=N):
    return (20 + 4 * formula((count, K), 1)).float()


def new_logits():
    return (15 + 3 * formula((N, K), 1) + 2 * formula((N, K), 2)).float()


def formula_adapter():
    adapter = Adapter(K, 4, generator("test"))
    q, r = torch.linalg.qr(formula((K, K), 3))
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q).sign()
    values = {
        "basis": q,
        "norm_weight": 1 + 0.2 * formula((K,), 4),
        "norm_bias": 0.2 * formula((K,), 5),
        "up_weight": 0.5 * formula((4 * K, K), 6),
        "up_bias": 0.5 * formula((4 * K,), 7),
        "down_weight": 0.3 * formula((K, 4 * K), 8),
        "down_bias": 0.3 * formula((K,), 9),
    }
    adapter.load_state_dict({name: value.float() for name, value in values.items()})
    return adapter


def close(found, printed):
    printed = torch.tensor(printed)  # a corner of the matrix
    torch.testing.assert_close(found.detach()[: len(printed), : len(printed[0])], printed, atol=1e-4, rtol=0)


# -- the authors' code -------------------------------------------------------------------------------------------------


def test_adapter_gives_what_the_authors_head_gives():
    close(formula_adapter()(old_logits()), AUTHORS["forward"])


def test_training_transfer_and_ported_logits_follow_the_authors_code():
    config = replace(
        Config(), words=K, epochs=8, batch=N, lr=1e-2, weight_decay=1e-1, warmup=0.25, noise_odds=0.0
    )  # one batch an epoch, so that no order of pictures matters
    adapter = formula_adapter()
    losses = train(adapter, old_logits(), (10 * formula((N, C), 10)).float(), config, generator("order"))
    torch.testing.assert_close(losses, AUTHORS["losses"], atol=1e-4, rtol=0)
    close(adapter.basis, AUTHORS["basis"])
    close(adapter(old_logits()), AUTHORS["trained"])
    carried = transferred(adapter.basis, old_logits(), new_logits(), prior=3.0)
    close(carried, AUTHORS["carried basis"])
    adapter.basis.copy_(carried)
    close(adapter(new_logits()), AUTHORS["ported"])


def test_rates_are_the_authors_and_never_above_the_rate_asked_for():
    found = list(rates(Config(), 80))
    assert {step: found[step] for step in AUTHORS["rates"]} == pytest.approx(AUTHORS["rates"], rel=1e-9, abs=1e-12)
    assert max(rates(Config(), 8)) == Config().lr  # the authors' give 2.5 times as much at step 0


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_new_adapter_gives_back_what_it_is_given():
    logits = old_logits()
    torch.testing.assert_close(Adapter(K, 4, generator("new"))(logits), logits, atol=1e-5, rtol=0)


def test_loss_is_the_divergence_of_two_categorical_distributions():
    adapted, teacher = old_logits()[:, :C], 5 * formula((N, C), 10).float()
    of = torch.distributions.Categorical
    expected = 0.5 * torch.distributions.kl_divergence(of(logits=teacher / 0.5), of(logits=adapted)).mean()
    torch.testing.assert_close(distillation(adapted, teacher, 0.5), expected)


def test_onto_itself_the_transfer_leaves_the_adapter_as_trained():
    adapter, logits = formula_adapter(), old_logits()
    for prior in (1e-3, 500.0):
        torch.testing.assert_close(transferred(adapter.basis, logits, logits, prior), adapter.basis, atol=1e-6, rtol=0)


def test_transfer_is_the_map_between_standardised_logits_and_does_not_depend_on_the_basis():
    old, new, basis = old_logits(), new_logits(), formula_adapter().basis
    u_old, u_new = (standardised(logits.double())[0] for logits in (old, new))
    polar, _ = scipy.linalg.polar((u_new.T @ u_old + 3.0 * torch.eye(K)).numpy())
    expected = basis @ torch.from_numpy(polar).float().T
    torch.testing.assert_close(transferred(basis, old, new, 3.0), expected, atol=1e-5, rtol=0)


def test_words_that_the_new_backbone_has_in_another_order_are_found_again():
    adapter, old = formula_adapter(), old_logits(60)
    order = torch.randperm(K, generator=generator("order"))
    expected = adapter(old)[:, order]
    adapter.basis.copy_(transferred(adapter.basis, old, old[:, order], prior=1e-3))
    torch.testing.assert_close(adapter(old[:, order]), expected, atol=1e-3, rtol=0)


def test_unseen_directions_follow_the_prior():
    basis = formula_adapter().basis
    alone = transferred(basis, old_logits()[:1], new_logits()[:1], prior=1e6)
    torch.testing.assert_close(alone, basis, atol=1e-4, rtol=0)


def test_basis_starts_as_a_rotation_and_stays_one_in_training():
    basis = random_rotation(K, generator("rotation"))
    adapter = formula_adapter()
    before = adapter.basis.clone()
    train(adapter, old_logits(), (10 * formula((N, C), 10)).float(), replace(SMALL, lr=1e-2), generator("order"))
    assert (adapter.basis - before).abs().max() > 0.05
    for rotation in (basis, adapter.basis):
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(K), atol=1e-5, rtol=0)
        assert torch.linalg.det(rotation) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [0.0, 0.01, 1.0, 8.0])
def test_exponential_and_its_gradient_are_those_of_the_definition(size):
    skew = (size * (formula((K, K), 1) - formula((K, K), 1).T)).requires_grad_()
    weights = formula((K, K), 2)
    power = exponential(skew)
    torch.testing.assert_close(power.detach(), torch.from_numpy(scipy.linalg.expm(skew.detach().numpy())))
    (found,) = torch.autograd.grad((weights * power).sum(), skew)
    back = scipy.linalg.expm_frechet(skew.detach().numpy().T, weights.numpy(), compute_expm=False)
    torch.testing.assert_close(found, torch.from_numpy(back))


def test_logits_that_are_not_finite_are_told_in_one_line():
    teacher = torch.full((N, C), torch.nan)
    with pytest.raises(UserError, match="loss is nan at step 1: the plug-in's logits"):
        train(formula_adapter(), old_logits(), teacher, SMALL, generator("order"))


def test_noise_comes_in_half_of_the_batches_with_half_of_each_rows_deviation():
    logits, draw = torch.cat([old_logits(200), 5 * old_logits(200)]), generator("noise")
    changes = [disturbed(logits, Config(), draw) - logits for _ in range(400)]
    noisy = [change for change in changes if change.any()]
    assert 0.4 < len(noisy) / len(changes) < 0.6
    relative = torch.stack([change.pow(2).mean(-1).sqrt() for change in noisy]).mean(0) / logits.std(-1)
    assert (relative - 0.5).abs().max() < 0.05


# -- the port ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plugin(tiny, classes, support):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = METHODS["linear-probe"](short("linear-probe"), Shape.of(tiny.base, classes.names, len(support.labels)))
    method.bind(tiny.base, classes)
    fit(method, support, generator("fit"))
    return method.eval()


def anchors_of(support, needs=TransMiter.needs, labels=None, new=None, nouns=FRUIT, pixels=None):
    new = support.features.flip(1) if new is None else new
    needs = frozenset(needs)
    return Anchors("other", needs, _old=support.features, _new=new, _labels=labels, _nouns=nouns, _pixels=pixels)


def ported(plugin, tiny, classes, anchors, config=SMALL):
    return TransMiter(config).fit(plugin, tiny.base, tiny.new, classes, anchors)


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_ported_to_the_same_backbone_it_answers_as_the_plugin(plugin, tiny, classes, support):
    many = make_support(shots=40)
    anchors = anchors_of(many, new=many.features)
    carried = TransMiter(SMALL).fit(plugin, tiny.base, tiny.base, classes, anchors)
    carried.bind(tiny.base, classes)
    own = F.normalize(support.val_features, dim=-1) @ tiny.base.zero_shot(classes).T
    wanted = plugin.predict(support.val_features).argmax(1)
    assert (carried.predict(support.val_features).argmax(1) == wanted).float().mean() > 0.9
    assert (own.argmax(1) == wanted).float().mean() < 0.6  # the zero-shot answers that the adapter begins with
    assert carried.about["loss"] < 0.1 and carried.about["steps"] == 300 and carried.about["padding"] == 20


def test_bits_do_not_depend_on_labels_on_the_run_or_on_the_state_of_the_generator(plugin, tiny, classes, support):
    first = ported(plugin, tiny, classes, anchors_of(support))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        state = torch.get_rng_state()
        poisoned = anchors_of(support, labels=torch.zeros_like(support.labels))
        second = ported(plugin, tiny, classes, poisoned)
        assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(first.state()[0], second.state()[0])
    with pytest.raises(UserError, match="labels"):
        poisoned.labels  # noqa: B018


def test_what_was_learned_serves_the_next_backbone_and_its_time_counts(plugin, tiny, classes, support):
    port, first, second = TransMiter(SMALL), anchors_of(support), anchors_of(support, new=support.features)
    there = port.fit(plugin, tiny.base, tiny.new, classes, first)
    back = port.fit(plugin, tiny.base, tiny.base, classes, second)
    assert first.clock["saved"] == 0 and second.clock["saved"] > 0
    fresh = TransMiter(SMALL).fit(plugin, tiny.base, tiny.base, classes, second)
    assert same_bits(back.state()[0], fresh.state()[0]) and not torch.equal(back.adapter.basis, there.adapter.basis)
    fewer = first.take(range(12))
    other = port.fit(plugin, tiny.base, tiny.new, classes, fewer)
    assert fewer.clock["saved"] == 0 and other.about["anchors"] == 12
    assert not torch.equal(other.adapter.up_weight, there.adapter.up_weight)


def test_another_order_of_the_classes_permutes_the_logits(plugin, tiny, classes, support):
    order = [2, 0, 3, 1]
    shuffled = Classes(classes.dataset, tuple(NAMES[i] for i in order), classes.templates)

    class Shuffled:
        needs = "features"

        def predict(self, x):
            return plugin.predict(x)[:, order]

    first = ported(plugin, tiny, classes, anchors_of(support)).predict(support.val_features)
    second = ported(Shuffled(), tiny, shuffled, anchors_of(support)).predict(support.val_features)
    torch.testing.assert_close(second, first[:, order], atol=1e-5, rtol=0)


def test_file_is_enough_by_itself(plugin, tiny, classes, support):
    made = ported(plugin, tiny, classes, anchors_of(support))
    tensors, header = made.state()
    again = ported_of(tensors, made.kind, json.loads(json.dumps(header)))
    again.bind(tiny.new, classes)
    assert torch.equal(again.predict(support.val_features), made.predict(support.val_features))
    assert same_bits(again.state()[0], tensors) and again.state()[1] == header
    with pytest.raises(UserError, match="fingerprint"):
        again.bind(tiny.base, classes)


def test_plugin_inside_the_towers_is_asked_through_pixels(tiny, classes, support):
    method = METHODS["clip-lora"](short("clip-lora"), Shape.of(tiny.base, classes.names, len(support.labels)))
    for value in method.parameters():
        torch.nn.init.normal_(value, std=0.3, generator=generator("lora"))
    method.eval().bind(tiny.base, classes)
    pixels = pixels_of(support.labels)
    with method.attach(tiny.base), torch.no_grad():
        expected = method.predict(pixels)
    anchors = anchors_of(support, pixels=(lambda: pixels, lambda: pixels))
    torch.testing.assert_close(answers(method, tiny.base, anchors), expected, atol=1e-4, rtol=1e-4)
    zero_shot = tiny.base.scale * F.normalize(tiny.base.encode_images(pixels), dim=-1) @ tiny.base.zero_shot(classes).T
    assert (expected - zero_shot).abs().max() > 0.1
    carried = ported(method, tiny, classes, anchors)
    assert carried.predict(support.val_features).shape == (len(support.val_features), len(classes))


def test_more_classes_than_words_and_too_few_nouns_are_refused_in_one_line(plugin, tiny, classes, support):
    for config, nouns, line in (
        (replace(SMALL, words=3), FRUIT, "holds 3 words, toy has 4 classes: raise its `words`"),
        (SMALL, FRUIT[:9], "20 nouns that name none of the 4 classes are needed, 9 are known"),
    ):
        with pytest.raises(UserError, match=line) as refused:
            ported(plugin, tiny, classes, anchors_of(support, nouns=nouns), config)
        assert "\n" not in str(refused.value)


def test_padding_holds_no_class_name(plugin, tiny, classes, support):
    assert "cats" in FRUIT and "cat" in classes.names
    with pytest.raises(UserError, match="21 nouns .* are needed, 20 are known"):
        ported(plugin, tiny, classes, anchors_of(support, nouns=FRUIT[3:]), replace(SMALL, words=25))


def test_config_refuses_what_has_no_meaning():
    for wrong in ({"prior": 0.0}, {"words": 1}, {"temperature": 0.0}, {"batch": 0}):
        with pytest.raises(UserError, match="found"):
            Config(**wrong)


def test_works_on_whatever_answers_from_its_own_file():
    refused = {id for id in METHODS if TransMiter.works_on(METHODS[id])}
    assert refused >= {"zs-clip", "tpt", "fine-tuning"}
    assert not refused & {"linear-probe", "coop", "cocoop", "clip-lora", "maple"}


def test_published_nouns_are_enough_for_every_dataset_that_the_adapter_holds(classes):
    padding = words.others(words.imagenet_nouns(), classes.names, Config().words - len(classes), 1)
    assert len({*padding, *classes.names}) == 1024


def test_on_the_micro_models_a_probe_gains_on_the_zero_shot_answer():
    """Textures, 160 unlabelled pictures, from the base to its update, with the settings for micro."""
    data = datasets.load("micro_textures")
    old, new = (loading.load(tower) for tower in (archs.ARCHS["micro"].base, archs.ARCHS["micro"].new))
    classes = Classes(data.id, data.classnames, data.templates)
    of_class = np.stack([np.flatnonzero(data.train.labels == c)[:24] for c in range(len(classes))])
    few, unlabelled = of_class[:, :8].ravel(), of_class[:, 8:].ravel()

    def encoded(split, rows, backbone):
        pixels = torch.stack([backbone.preprocess(picture) for picture in split.read(rows.tolist())])
        with torch.no_grad():
            return backbone.encode_images(pixels)

    method = METHODS["linear-probe"](short("linear-probe"), Shape.of(old, classes.names, len(few)))
    method.bind(old, classes)
    x, y = encoded(data.train, few, old), torch.from_numpy(data.train.labels[few])
    fit(method, Support(x, y, x[None], x, y), generator("fit"))
    x_old, x_new = (encoded(data.train, unlabelled, backbone) for backbone in (old, new))
    anchors = Anchors("other", frozenset(TransMiter.needs), _old=x_old, _new=x_new, _nouns=words.nouns(new))
    ported = TransMiter().fit(method.eval(), old, new, classes, anchors)
    assert ported.about["words"] == 128
    tested = np.arange(0, len(data.test), 4)
    seen, label = encoded(data.test, tested, new), torch.from_numpy(data.test.labels[tested])

    def accuracy(logits):
        return 100 * float((logits.argmax(1) == label).float().mean())

    zero_shot = accuracy(F.normalize(seen, dim=-1) @ new.zero_shot(classes).T)
    assert accuracy(ported.predict(seen)) > zero_shot + 5
