"""Tip-Adapter's caches, imported and asked, against its formula; embedded models tell right keys from wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from imported import answered, facts, foreign, imported
from references import relative
from tiny_towers import NAMES

from carryover import datasets
from carryover.bench.backbones import loading
from carryover.bench.backbones.names import tower_of
from carryover.bench.backbones.weight_sources import Source
from carryover.bench.errors import UserError
from carryover.bench.imports import tip_adapter
from carryover.bench.imports.reading import read
from carryover.methods.base import Classes

LABELS = torch.tensor([2, 0, 3, 1, 1, 2, 0, 3, 3, 0])  # in the order of a loader, not sorted
PROMPTS = ["a photo of a {}.", "the {}."]
DIM = 96
BOTH = {"alpha": 1.7, "beta": 4.5}


@pytest.fixture(scope="module")
def base():
    return loading.load(tower_of("micro-base"))


def cache(labels=LABELS, seed=0, trained=True, keys=None):
    """As its code saves one: keys (D, N) of length 1 and not contiguous, values (N, C) in half precision, best_F (N, D)
    that training has stretched."""
    g = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(len(labels), DIM, generator=g) if keys is None else keys, dim=1)
    tensors = {"keys": rows.half().T, "values": F.one_hot(labels).half()}
    if trained:
        tensors["best_F"] = (1.5 * rows + 0.1 * torch.randn(rows.shape, generator=g)).half()
    return foreign(tensors)


def formula(backbone, x, keys, labels, alpha, beta):
    """gaopengcuhk/Tip-Adapter, main.py: 100 x W + alpha exp(-(beta - beta x K)) V; W of all prompts."""
    with torch.no_grad():
        texts = [
            F.normalize(backbone.model.encode_text(backbone.text.tokenizer([t.format(n) for n in NAMES])), dim=1)
            for t in PROMPTS
        ]
    weights = F.normalize(torch.stack(texts).mean(0), dim=1).T
    x = F.normalize(x, dim=1)
    return 100.0 * x @ weights + (-(beta - beta * (x @ keys))).exp() @ F.one_hot(labels).float() * alpha


@pytest.mark.parametrize("chosen", ["trained", "cached", "left out", "none trained"])
def test_a_cache_answers_by_the_authors_formula(base, tmp_path, chosen):
    file = cache(trained=chosen != "none trained")
    more = {"keys": chosen} if chosen in ("trained", "cached") else {}
    told = facts("micro-base", templates=PROMPTS, unproven="yes", **BOTH, **more)
    plugin = imported("tip-adapter", file, tmp_path / "p.safetensors", told)
    of_trained = chosen in ("trained", "left out")
    keys = file.tensors["best_F"].float().T if of_trained else file.tensors["keys"].float()
    x = torch.randn(6, DIM, generator=torch.Generator().manual_seed(1))
    found = answered(plugin, base, x)
    assert relative(found, formula(base, x, keys, LABELS, 1.7, 4.5)) < 1e-4
    assert plugin.templates == tuple(PROMPTS)
    assert any("best on the test set" in note for note in plugin.header["imported"]["notes"]) == of_trained


def test_underscores_are_spaces_as_its_prompts_have_them(tmp_path):
    names = ["cat", "red_double_decker bus", "aeroplane", "boeing_737-800"]
    told = facts("micro-base", classes=names, unproven="yes", **BOTH)
    plugin = imported("tip-adapter", cache(), tmp_path / "p.safetensors", told)
    assert plugin.shape.classnames == ("cat", "red double decker bus", "aeroplane", "boeing 737-800")


def test_alpha_and_beta_are_asked_for_with_where_they_are_found(tmp_path):
    with pytest.raises(UserError, match="alpha: .*best setting.*init_alpha of its config.*beta: .*--fact beta=…"):
        imported("tip-adapter", cache(), tmp_path / "p.safetensors", facts("micro-base"))
    with pytest.raises(UserError, match="alpha is 'much', expected a number of at least 0, e.g. 1.17"):
        told = facts("micro-base", alpha="much", beta="1", unproven="yes")
        imported("tip-adapter", cache(), tmp_path / "p.safetensors", told)


def test_those_that_a_fork_saves_beside_the_keys_are_taken_and_what_is_said_comes_before_them(tmp_path):
    for name, value in cache().tensors.items():
        torch.save(value, tmp_path / f"{name}_4shots.pt")
    torch.save({"best_beta": 0.338, "best_alpha": 3.775}, tmp_path / "best_F_hp_4shots.pt")
    file = read(tmp_path / "keys_4shots.pt")
    told = facts("micro-base", unproven="yes", beta="2")
    plugin = imported("tip-adapter", file, tmp_path / "p.safetensors", told)
    assert plugin.tensors["alpha"] == pytest.approx(3.775) and plugin.tensors["beta"] == 2
    torch.save({"best_beta": 0.338, "best_alpha": 10**400}, tmp_path / "best_F_hp_4shots.pt")
    with pytest.raises(UserError, match="does not say all that is needed. alpha: "):
        imported("tip-adapter", read(tmp_path / "keys_4shots.pt"), tmp_path / "p.safetensors", told)
    with pytest.raises(UserError, match="the template 'a {x}' is none"):
        imported("tip-adapter", cache(), tmp_path / "p.safetensors", facts("micro-base", templates=["a {x}"], **BOTH))


def changed(**tensors):
    file = cache()
    for name, change in tensors.items():
        file.tensors[name] = change(file.tensors[name].clone())
    return file


def with_row(row, value):
    def change(values):
        values[row] = torch.tensor(value, dtype=values.dtype)
        return values

    return change


@pytest.mark.parametrize(
    "file, more, expected",
    [
        (changed(values=with_row(3, [1, 1, 0, 0])), {}, r"row 3 of values is not one-hot \(sum 2\), nor are 0 others"),
        (changed(values=with_row(4, [0, 0.5, 0.5, 0])), {}, "row 4 of values is not one-hot"),
        (changed(values=lambda v: v * 0), {}, "row 0 of values is not one-hot .sum 0., nor are 9 others"),
        (cache(), {"classes": list(NAMES[:3])}, "has 4 classes .columns of values., 3 names were given"),
        (changed(best_F=lambda v: v[:, :48]), {}, "its keys are 96 wide and its best_F 48: they are of two backbones"),
        (changed(best_F=lambda v: v[:5]), {}, r"best_F has shape \(5, 96\), expected \(images, width\) for 10 images"),
        (changed(keys=lambda v: v.T), {}, r"keys has shape \(10, 96\), expected \(width, images\) for 10 images"),
        (
            changed(keys=lambda v: v[:64], best_F=lambda v: v[:, :64]),
            {},
            "64 wide, the joint width of micro-base is 96",
        ),
        (changed(best_F=lambda v: v.roll(1, 0)), {}, "best_F was not trained from its keys"),
        (changed(best_F=lambda v: v * math.nan), {}, "best_F holds NaN"),
        (cache(trained=False), {"keys": "trained"}, "holds no best_F, and keys=trained asks for them"),
        (cache(), {"keys": "all"}, "keys is 'all', expected trained or cached"),
    ],
)
def test_a_cache_that_contradicts_itself_or_what_is_said_is_refused_by_name(tmp_path, file, more, expected):
    with pytest.raises(UserError, match=expected):
        told = facts("micro-base", unproven="yes", **{**BOTH, **more})
        imported("tip-adapter", file, tmp_path / "p.safetensors", told)
    assert not (tmp_path / "p.safetensors").exists()


# ---- what keys prove -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(base):
    """A dataset of the embedded world, and features of five training pictures a class, class by class."""
    data = datasets.load("micro_shapes", None)
    chosen = [
        i for label in range(len(data.classnames)) for i in (data.train.labels == label).nonzero()[0][:5].tolist()
    ]
    pixels = torch.stack([base.preprocess(image) for image in data.train.read(chosen)])
    with torch.no_grad():
        features = torch.cat([base.encode_images(part) for part in pixels.split(64)])
    return data, features, torch.as_tensor(data.train.labels[chosen])


def told_of(data, backbone, names=None, **more):
    return facts(backbone, classes=list(names or data.classnames), templates=list(data.templates), **BOTH, **more)


def test_keys_prove_their_backbone_and_the_order_of_the_names(shapes, base, tmp_path):
    data, features, labels = shapes
    file = cache(labels, keys=features)
    plugin = imported("tip-adapter", file, tmp_path / "p.safetensors", told_of(data, "micro-base"))
    proven = " ".join(plugin.header["imported"]["proven"])
    with torch.no_grad():
        texts = [
            base.model.encode_text(base.text.tokenizer([t.format(n) for n in data.classnames])) for t in data.templates
        ]
    texts = F.normalize(torch.stack([F.normalize(one, dim=1) for one in texts]).mean(0), dim=1)
    right = int(((features @ texts.T).argmax(1) == labels).sum())
    assert f"backbone and order of the names ({right} of {len(labels)} keys" in proven
    assert plugin.home["fingerprint"] == base.fingerprint


def test_names_in_another_order_and_another_backbone_are_refused(shapes, tmp_path):
    data, features, labels = shapes
    file, to = cache(labels, keys=features), tmp_path / "p.safetensors"
    moved = [*data.classnames[1:], data.classnames[0]]
    with pytest.raises(
        UserError, match=f"names stand in another order .*'{moved[0]}' look like '{data.classnames[0]}'"
    ):
        imported("tip-adapter", file, to, told_of(data, "micro-base", moved))
    with pytest.raises(UserError, match="named right by the texts of micro-unrelated.*another backbone made them"):
        imported("tip-adapter", file, to, told_of(data, "micro-unrelated"))
    plugin = imported("tip-adapter", file, to, told_of(data, "micro-unrelated", unproven="yes"))
    assert "not proven" in plugin.header["imported"]["notes"][-1]


def known_to(base, data, features, labels):
    """The names, features and labels of the classes that the micro model itself tells."""
    texts = base.zero_shot(Classes("x", data.classnames, data.templates))
    counts = torch.zeros(len(data.classnames), len(data.classnames))
    counts.index_put_((labels, (features @ texts.T).argmax(1)), torch.ones(len(labels)), accumulate=True)
    return counts


@pytest.mark.parametrize("size", [2, 5])
def test_a_few_names_in_each_others_places_are_refused_by_name(shapes, base, tmp_path, size):
    data, features, labels = shapes
    counts = known_to(base, data, features, labels)
    some = counts.diag().argsort(descending=True)[:size].tolist()
    assert counts.diag()[some].min() == 5, "the micro model must know these"
    names = list(data.classnames)
    for row, other in zip(some, [*some[1:], some[0]], strict=True):
        names[row] = data.classnames[other]
    file, to = cache(labels, keys=features), tmp_path / "p.safetensors"
    with pytest.raises(UserError, match=f"{size} of its {len(names)} names stand in each other's places") as error:
        imported("tip-adapter", file, to, told_of(data, "micro-base", names))
    assert any(f"of '{names[row]}' look like '{data.classnames[row]}'" in str(error.value) for row in some)
    plugin = imported("tip-adapter", file, to, told_of(data, "micro-base", names, unproven="yes"))
    assert not any("order" in one for one in plugin.header["imported"]["proven"])


def test_the_order_is_proven_class_by_class_alone(shapes, base, tmp_path):
    data, features, labels = shapes
    names = list(data.classnames)
    known = int(known_to(base, data, features, labels).diag().argmax())
    names[known] = "zebra crossing"
    plugin = imported(
        "tip-adapter", cache(labels, keys=features), tmp_path / "p.safetensors", told_of(data, "micro-base", names)
    )
    told = plugin.header["imported"]
    assert any(one.startswith("backbone (") for one in told["proven"])
    assert not any("order" in one for one in told["proven"])
    assert "order of the names is not proven: not the place of" in told["notes"][-1]


def test_weights_that_are_not_here_leave_it_unproven_and_none_is_fetched(shapes, tmp_path, monkeypatch):
    data, features, labels = shapes
    told = told_of(data, "micro-base")
    monkeypatch.setattr(tip_adapter, "find", lambda tower: Source("to be downloaded", 1))
    monkeypatch.setattr(told, "_load", lambda name: pytest.fail("weights were asked for"))
    plugin = imported("tip-adapter", cache(labels, keys=features), tmp_path / "p.safetensors", told)
    assert "was not checked: its weights are not here" in plugin.header["imported"]["notes"][-1]
    assert plugin.home["fingerprint"] is None


@pytest.mark.parametrize("right, count, chance", [(0, 5, 0.2), (5, 5, 0.2), (7, 40, 0.1), (30, 1600, 0.01)])
def test_the_tail_is_scipys(right, count, chance):
    binom = pytest.importorskip("scipy.stats").binom
    assert tip_adapter.tail(right, count, chance) == pytest.approx(binom.sf(right - 1, count, chance), rel=1e-9)
