"""WiSE-FT and task vectors: differences of weights, against towers tuned by hand and put together by hand."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_eva import tiny_eva
from tiny_fits import make, pixels_of, support_for
from tiny_towers import NAMES, TEMPLATES, wrap

from carryover.bench.errors import UserError
from carryover.bench.training.trainer import fit, fit_together
from carryover.methods.base import Classes

CLASSES = Classes("toy", NAMES, TEMPLATES)
OPTIONS = {"epochs": 2, "lr": 1e-3, "warmup_epochs": 0}


def tuned(name, backbone, **options):
    method = make(name, **{**OPTIONS, **options})
    method.bind(backbone, CLASSES)
    with method.attach(backbone):
        fit(method, support_for("pixels"), torch.Generator().manual_seed(0))
    return method


def asked(method, backbone, x):
    method.eval()
    method.bind(backbone, CLASSES)
    with method.attach(backbone):
        return method.predict(x)


def carried(method):
    """A fresh one with what was saved, and nothing else."""
    fresh = make(next(name for name in ("task-vector", "wise-ft") if type(make(name)) is type(method)), seed=7)
    fresh.config = method.config
    fresh.load_learned(method.learned())
    return fresh


def weights(model):
    return {name: value for name, value in model.named_parameters() if name != "logit_scale"}


def moved(backbone, changes, share):
    """A copy of the model with changes added where name and shape agree."""
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        for name, value in weights(model).items():
            if name in changes and changes[name].shape == value.shape:
                value += share * changes[name]
    return model


def zero_shot_of(model, backbone, x):
    with torch.no_grad():
        texts = model.encode_text(
            backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES]), normalize=True
        )
        return model.logit_scale.exp() * model.encode_image(x, normalize=True) @ texts.T


X = pixels_of(torch.arange(4).repeat(3), 5)


def test_a_task_vector_is_fine_tuning_and_on_its_base_answers_as_that_does(tiny):
    plain, method = tuned("fine-tuning", tiny.base), tuned("task-vector", tiny.base)
    (home,), own = plain.home.values(), weights(tiny.base.model)
    changes = {name.removeprefix("differences.").replace("/", "."): v for name, v in method.learned().items()}
    assert int(changes.pop("values")) == sum(value.numel() for value in own.values())
    assert changes.keys() == own.keys()
    for name, value in changes.items():
        assert torch.equal(value, home[name] - own[name]), name
    torch.testing.assert_close(asked(carried(method), tiny.base, X), asked(plain, tiny.base, X), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_another_backbone_gets_the_share_of_each_difference_where_name_and_shape_agree(tiny, share):
    method = carried(tuned("task-vector", tiny.base, share=share))
    (home,), own = tuned("fine-tuning", tiny.base).home.values(), weights(tiny.base.model)
    changes = {name: home[name] - own[name] for name in own}
    for backbone in (tiny.base, tiny.new):
        expected = zero_shot_of(moved(backbone, changes, share), backbone, X)
        torch.testing.assert_close(asked(method, backbone, X), expected, atol=1e-3, rtol=1e-3)
    eva = wrap(tiny_eva(True), "eva", "gelu")  # the same text tower, an image tower of other names
    texts = {name: value for name, value in changes.items() if name.startswith("text.")}
    expected = zero_shot_of(moved(eva, texts, share), eva, X)
    torch.testing.assert_close(asked(method, eva, X), expected, atol=1e-3, rtol=1e-3)
    plain = zero_shot_of(eva.model, eva, X)
    assert torch.allclose(asked(method, eva, X), plain, atol=1e-3) == (share == 0)


def tuned_by_hand(backbone, support, config):
    """Image tower and a linear head of its own, by torch's AdamW; (tower, head, bias, head at the start)."""
    model = copy.deepcopy(backbone.model)
    start = backbone.scale * backbone.zero_shot(CLASSES)
    head = torch.nn.Linear(*reversed(start.shape))
    with torch.no_grad():
        head.weight.copy_(start)
        head.bias.zero_()
    model.visual.requires_grad_(True)
    solver = torch.optim.AdamW([*model.visual.parameters(), *head.parameters()], config.lr, weight_decay=0.0)
    generator, count = torch.Generator().manual_seed(0), len(support.labels)
    steps, done = count // config.batch, 0
    for _ in range(config.epochs):
        order = torch.randperm(count, generator=generator)
        view = torch.randint(len(support.views), (count,), generator=generator)
        for part in order.split(config.batch)[:steps]:
            rate = config.lr * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi / (steps * config.epochs)))))
            solver.param_groups[0]["lr"] = rate
            x = support.views[view[part], part]
            loss = F.cross_entropy(head(F.normalize(model.encode_image(x), dim=-1)), support.labels[part])
            solver.zero_grad()
            loss.backward()
            solver.step()
            done += 1
    return model, head.weight.detach(), head.bias.detach(), start


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_wise_ft_is_the_interpolation_of_tower_and_head(tiny, share):
    support = support_for("pixels")
    method = carried(tuned("wise-ft", tiny.base, share=share, weight_decay=0.0))  # which is of another head there
    model, head, bias, start = tuned_by_hand(tiny.base, support, method.config)
    assert (head - start).abs().max() > 1e-3
    changes = {
        name: value.detach() - weights(tiny.base.model)[name]
        for name, value in weights(model).items()
        if name.startswith("visual.")
    }
    for backbone in (tiny.base, tiny.new):
        own = backbone.scale * backbone.zero_shot(CLASSES)
        with torch.no_grad():
            features = moved(backbone, changes, share).encode_image(X, normalize=True)
        expected = features @ (own + share * (head - start)).T + share * bias
        torch.testing.assert_close(asked(method, backbone, X), expected, atol=2e-4, rtol=2e-4)


def test_wise_ft_leaves_the_text_tower_alone_and_trains_with_all_of_the_change(tiny):
    half, whole = tuned("wise-ft", tiny.base), tuned("wise-ft", tiny.base, share=1.0)
    assert half.config.share == 0.5
    learned = half.learned()
    assert not any("text" in name for name in learned) and {"head", "bias"} < set(learned)
    assert all(torch.equal(value, whole.learned()[name]) for name, value in learned.items())


@pytest.mark.parametrize("name", ["task-vector", "wise-ft"])
def test_a_file_that_lost_a_weight_is_refused(tiny, name):
    learned = tuned(name, tiny.base).learned()
    learned.pop(next(one for one in learned if one.startswith("differences.")))
    with pytest.raises(UserError, match="does not fit .* values"):
        make(name).load_learned(learned)


@pytest.mark.parametrize("name", ["task-vector", "wise-ft"])
def test_an_error_while_it_learns_leaves_towers_and_plug_in_as_they_were(tiny, name):
    before = {key: value.clone() for key, value in tiny.base.model.state_dict().items()}
    method = make(name)
    method.bind(tiny.base, CLASSES)
    with pytest.raises(ZeroDivisionError), method.attach(tiny.base):
        with torch.no_grad():
            for value in method.towers().values():
                value.add_(1)
        raise ZeroDivisionError
    assert all(torch.equal(value, before[key]) for key, value in tiny.base.model.state_dict().items())
    assert not any(one.startswith("differences.") for one in method.learned())


@pytest.mark.parametrize("name", ["task-vector", "wise-ft"])
def test_a_refresh_goes_on_with_all_of_the_differences_whatever_the_share(tiny, name):
    """At a rate of 0 it changes nothing; on another backbone those stay that fit it."""
    method, support = carried(tuned(name, tiny.base, share=0.5)), support_for("pixels")
    before, shapes = method.learned(), {n.replace(".", "/"): v.shape for n, v in weights(tiny.new.model).items()}
    method.config = replace(method.config, lr=0.0)
    method.bind(tiny.new, CLASSES)
    method.train()
    with method.attach(tiny.new):
        fit_together([method], [support], [torch.Generator()], resume=True)
    for one, value in method.learned().items():
        if one != "values" and (key := one.removeprefix("differences.")) in {*shapes, "head", "bias"}:
            given = before.get(one)
            expected = given if given is not None and given.shape == value.shape else torch.zeros_like(value)
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-4, msg=key)
