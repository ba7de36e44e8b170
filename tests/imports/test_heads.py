"""Heads on image features that other programs made: the answers of torch's and scikit-learn's own models."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from torch import nn

from carryover import methods
from carryover.bench import imports
from carryover.bench.backbones.archs import Tower
from carryover.bench.errors import UserError
from carryover.bench.imports import writing
from carryover.bench.imports.base import FORMATS, Facts, Foreign
from carryover.bench.plugins.format import read
from carryover.bench.plugins.porting import classes_of, without_tower
from carryover.bench.plugins.scores import tells_scores

D = 12
NAMES = ["cat", "dog", "red bus"]
UNIT, RAW = {"inputs": "unit"}, {"inputs": "raw"}


@pytest.fixture(autouse=True, scope="module")
def discovered():
    methods.discover()
    imports.discover()


def foreign(tensors, **plain):
    return Foreign(Path("head.pth"), {name: torch.as_tensor(value) for name, value in tensors.items()}, plain)


def state_of(module):
    return dict(module.state_dict())


def imported(file, dim=D, dataset="", **given):
    def tower(name):
        return Tower(name, "test", "gelu", width=16, dim=dim)

    def load(name):
        raise AssertionError("a head needs no weights of a backbone")

    facts = Facts({"backbone": "ViT", **given}, tower, load, dataset)
    return writing.imported(file, writing.format_of(file), facts)


def refused(file, dim=D, **given):
    with pytest.raises(UserError) as error:
        imported(file, dim, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def answers(plugin, x):
    method = without_tower(plugin, classes_of(plugin)[0])
    with torch.no_grad():
        return method.predict(torch.as_tensor(np.asarray(x)).float())


def features(rows=200, seed=0, length=7.0):
    return length * torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


def made(module, seed=3):
    with torch.no_grad():
        for number, value in enumerate(module.parameters()):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(seed + number)) / 3)
    return module.eval()


# ---- one layer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["", "head.", "module.fc."])
def test_a_linear_layer_of_torch_answers_as_torch_does_on_features_of_length_1_or_raw(bias, name):
    net, x = made(nn.Linear(D, 3, bias=bias)), features()
    file = foreign({name + key: value for key, value in state_of(net).items()})
    for inputs, rows in (("unit", F.normalize(x, dim=-1)), ("raw", x)):
        plugin = imported(file, inputs=inputs, classes=NAMES)
        torch.testing.assert_close(answers(plugin, x), net(rows).detach(), rtol=0, atol=1e-5)
        assert plugin.shape.classnames == tuple(NAMES) and plugin.header["imported"]["format"] == "head"


def test_classes_in_another_order_get_their_own_rows():
    net, x = made(nn.Linear(D, 3)), features()
    method = without_tower(
        imported(foreign(state_of(net)), **RAW, classes=NAMES), methods.base.Classes("x", ("dog", "cat"), ())
    )
    torch.testing.assert_close(method.logits(x), net(x)[:, [1, 0]], rtol=0, atol=1e-5)


def test_a_regressor_scores_and_a_sigmoid_is_part_of_it():
    net, x = made(nn.Linear(D, 1)), features()
    file = foreign(state_of(net))
    plugin = imported(file, **UNIT, outputs="scores")
    assert tells_scores(plugin) and plugin.shape.classnames == ("score",)
    own = net(F.normalize(x, dim=-1)).detach()
    torch.testing.assert_close(answers(plugin, x), own, rtol=0, atol=1e-5)
    torch.testing.assert_close(answers(imported(file, **UNIT, outputs="scores", sigmoid="yes"), x), own.sigmoid())
    assert imported(file, **UNIT, outputs="scores", classes=["beauty"]).shape.classnames == ("beauty",)


def test_several_scores_need_no_names():
    net, x = made(nn.Linear(D, 3)), features()
    plugin = imported(foreign(state_of(net)), **RAW, outputs="scores")
    assert plugin.shape.classnames == ("score 1", "score 2", "score 3")
    torch.testing.assert_close(answers(plugin, x), net(x).detach(), rtol=0, atol=1e-4)
    assert "does not say all that is needed. classes: " in refused(foreign(state_of(net)), **RAW)


def test_one_logit_of_two_classes_gives_the_probability_of_the_second():
    net, x = made(nn.Linear(D, 1)), features()
    plugin = imported(foreign(state_of(net)), **RAW, outputs="classes", classes=["safe", "unsafe"])
    shares = answers(plugin, x).softmax(-1)
    torch.testing.assert_close(shares[:, 1], net(x).detach().sigmoid()[:, 0], rtol=0, atol=1e-6)


def test_a_sigmoid_goes_with_no_scale_and_no_classes():
    one, three = (foreign(state_of(made(nn.Linear(D, count)))) for count in (1, 3))
    told = refused(one, **UNIT, outputs="scores", sigmoid="yes", scale="10")
    assert "sigmoid=yes and scale=10 do not go together" in told
    assert "its 3 outputs are classes" in refused(three, **UNIT, classes=NAMES, sigmoid="yes")
    plain, ends = (imported(one, **RAW, outputs="classes", classes=["a", "b"], sigmoid=s) for s in ("no", "yes"))
    assert torch.equal(answers(plain, features()), answers(ends, features())), "a sigmoid is how two classes are told"


def test_a_bare_array_and_one_that_lies_the_other_way_are_read_where_sizes_prove_it():
    weight, x = torch.randn(2, D, generator=torch.Generator().manual_seed(0)), features()
    for array in (weight, weight.T.contiguous()):
        plugin = imported(foreign({"tensor": array}), **RAW, classes=["no", "yes"])
        torch.testing.assert_close(answers(plugin, x), x @ weight.T, rtol=0, atol=1e-4)
    bias = torch.arange(2.0)
    plugin = imported(foreign({"w": weight.T.contiguous(), "b": bias}), **RAW, classes=["no", "yes"])
    torch.testing.assert_close(answers(plugin, x), x @ weight.T + bias, rtol=0, atol=1e-4)


def test_a_square_array_is_asked_about_and_read_as_it_is_said():
    weight, x = torch.randn(D, D, generator=torch.Generator().manual_seed(0)), features()
    names, file = [f"class {i}" for i in range(D)], foreign({"tensor": weight})
    assert "layout=rows or layout=columns" in refused(file, **RAW, classes=names)
    for layout, own in (("rows", weight), ("columns", weight.T)):
        plugin = imported(file, **RAW, classes=names, layout=layout)
        torch.testing.assert_close(answers(plugin, x), x @ own.T, rtol=0, atol=1e-4)


def test_a_scale_multiplies_the_outputs_and_unit_rows_are_noted():
    weight, x = F.normalize(torch.randn(2, D, generator=torch.Generator().manual_seed(0)), dim=-1), features()
    file = foreign({"tensor": weight})
    plain, scaled = (imported(file, **UNIT, classes=["a", "b"], **more) for more in ({}, {"scale": "100"}))
    torch.testing.assert_close(answers(scaled, x), 100 * answers(plain, x), rtol=0, atol=1e-4)
    assert any("scale=100" in note for note in plain.header["imported"]["notes"])
    assert not scaled.header["imported"]["notes"]


@pytest.mark.parametrize("name", ["logit_scale", "log_temperature", "gain", "thresholds", "arr_1", "other.bias"])
def test_what_is_by_name_no_bias_is_refused_by_name(name):
    for value in (torch.zeros(3), torch.ones(3), torch.zeros(()), torch.ones(1)):
        file = foreign({"fc.weight": torch.ones(3, D), name: value})
        with pytest.raises(UserError, match=f"would be a head but for '{name}'"):
            writing.format_of(file)
    assert "is no head" in str(pytest.raises(UserError, FORMATS["head"].facts, file).value)


@pytest.mark.parametrize(
    "weight, bias",
    [
        ("weight", "bias"), ("fc.weight", "fc.bias"), ("fc.weight", "bias"), ("coef_", "intercept_"), ("w", "b"),
        ("coef", "intercept"), ("dense/kernel:0", "dense/bias:0"), ("W1", "b1"), ("fc_w", "fc_b"), ("w", "bias_0"),
    ],
)  # fmt: skip
def test_names_of_a_bias(weight, bias):
    values, x = torch.randn(3, D, generator=torch.Generator().manual_seed(0)), features()
    plugin = imported(foreign({weight: values, bias: torch.arange(3.0)}), **RAW, classes=NAMES)
    torch.testing.assert_close(answers(plugin, x), x @ values.T + torch.arange(3.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weight_norm_is_refused_by_name(outputs, new, bias):
    norm = torch.nn.utils.parametrizations.weight_norm if new else torch.nn.utils.weight_norm
    state = state_of(norm(nn.Linear(D, outputs, bias=bias)))
    with pytest.raises(UserError, match="weight norm|would be a head but for"):
        writing.format_of(foreign(state))


def test_layout_is_honoured_for_square_weights_of_any_name_and_not_against_sizes():
    weight, x = torch.randn(D, D, generator=torch.Generator().manual_seed(0)), features()
    names = [f"class {i}" for i in range(D)]
    for tensors in ({"weight": weight}, {"coef_": weight}, {"weight": weight, "bias": torch.zeros(D)}):
        for layout, own in (("rows", weight), ("columns", weight.T)):
            plugin = imported(foreign(tensors), **RAW, classes=names, layout=layout)
            torch.testing.assert_close(answers(plugin, x), x @ own.T, rtol=0, atol=1e-4)
    file = foreign({"weight": torch.ones(3, D), "bias": torch.zeros(3)})
    assert "sizes say that it holds rows" in refused(file, **RAW, classes=NAMES, layout="columns")
    file = foreign({"weight": torch.ones(D, 3), "bias": torch.zeros(3)})
    assert "sizes say that it holds columns" in refused(file, **RAW, classes=NAMES, layout="rows")


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def labelled(count):
    x = features(300, 1, 1.0).numpy()
    return x, np.digitize(x[:, 0] + 0.2 * x[:, 1], [-0.4, 0.4] if count == 3 else [0.0])


def attributes(model, *more):
    names = ("coef_", "intercept_", "classes_", "n_iter_", "n_features_in_", *more)
    return {name: np.asarray(getattr(model, name)) for name in names if getattr(model, name, None) is not None}


def of_numpy(arrays):
    texts = {name: value.tolist() for name, value in arrays.items() if value.dtype.kind == "U"}
    return foreign({name: value for name, value in arrays.items() if name not in texts}, **texts)


@pytest.mark.parametrize("model", [LogisticRegression(), RidgeClassifier()])
def test_a_classifier_of_several_classes_gives_scikit_learns_decision_function(model):
    x, y = labelled(3)
    model.fit(x, y)
    plugin = imported(of_numpy(attributes(model)), **RAW, classes=NAMES)
    np.testing.assert_allclose(answers(plugin, x).numpy(), model.decision_function(x), rtol=1e-6, atol=1e-6)


def test_a_classifier_of_two_classes_has_one_row_and_gives_scikit_learns_probabilities():
    x, y = labelled(2)
    model = LogisticRegression().fit(x, y)
    plugin = imported(of_numpy(attributes(model)), **RAW, classes=["left", "right"])
    np.testing.assert_allclose(answers(plugin, x).softmax(-1).numpy(), model.predict_proba(x), rtol=0, atol=1e-6)


def test_class_names_that_the_model_holds_are_taken_and_others_are_refused_by_name():
    x, y = labelled(3)
    model = LogisticRegression().fit(x, np.array(NAMES)[y])
    file = of_numpy(attributes(model))
    plugin = imported(file, **RAW)
    assert list(plugin.shape.classnames) == model.classes_.tolist() == sorted(NAMES)
    assert plugin.header["imported"]["proven"] == ["class names"]
    said = [plugin.shape.classnames[row] for row in answers(plugin, x).argmax(-1)]
    assert said == model.predict(x).tolist()
    assert "'dog', where 'red bus' was given" in refused(file, **RAW, classes=["cat", "red bus", "dog"])


def test_labels_of_some_classes_pick_their_names():
    x, y = labelled(3)
    model = LogisticRegression().fit(x, np.array([4, 0, 2])[y])
    plugin = imported(of_numpy(attributes(model)), **RAW, classes=["a", "b", "c", "d", "e"])
    assert plugin.shape.classnames == ("a", "c", "e")
    assert "which 3 of the 5 classes" in plugin.header["imported"]["proven"]


def test_labels_that_may_count_from_1_prove_nothing_and_those_out_of_order_are_refused():
    tensors = {"coef_": torch.ones(3, D), "intercept_": torch.zeros(3)}
    told = imported(foreign(tensors | {"classes_": torch.tensor([1, 2, 4])}), **RAW, classes=list("abcde"))
    assert told.shape.classnames == ("b", "c", "e") and not told.header["imported"]["proven"]
    assert any("taken to count from 0" in note for note in told.header["imported"]["notes"])
    file = foreign(tensors | {"classes_": torch.tensor([2, 0, 1])})
    assert "classes_ is '[2, 0, 1]'" in refused(file, **RAW, classes=NAMES)


@pytest.mark.parametrize(
    "plain",
    [
        {"classes": NAMES},
        {"class_names": NAMES},
        {"class_to_idx": {"red bus": 2, "cat": 0, "dog": 1}},
        {"idx_to_class": {"1": "dog", "0": "cat", "2": "red bus"}},
        {"hparams": {"classes": NAMES}},
        {"metadata": {"classes": '["cat", "dog", "red bus"]'}},
    ],
)
def test_class_names_beside_the_tensors_are_taken_and_others_refused(plain):
    file = foreign({"weight": torch.ones(3, D)}, **plain)
    plugin = imported(file, **RAW)
    assert plugin.shape.classnames == tuple(NAMES) and "classes" not in plugin.header["imported"]["told"]
    assert any("class names in their order" in one for one in plugin.header["imported"]["proven"])
    assert imported(file, **RAW, classes=["Cat", "dog", "red_bus"]).shape.classnames == ("Cat", "dog", "red_bus")
    assert "number 1 is 'cat', --classes says 'dog'" in refused(file, **RAW, classes=["dog", "cat", "red bus"])
    assert "3 of them, and --classes names 2" in refused(file, **RAW, classes=NAMES[:2])


@pytest.mark.parametrize("targets", [1, 2])
def test_ridge_regression_gives_scikit_learns_predictions(targets):
    x, _ = labelled(2)
    y = x @ np.random.default_rng(0).normal(size=(D, targets)) + 3
    model = Ridge().fit(x, y[:, 0] if targets == 1 else y)
    more = {"outputs": "scores"} | ({} if targets == 1 else {"classes": ["size", "beauty"]})
    plugin = imported(of_numpy(attributes(model)), **RAW, **more)
    own = model.predict(x).reshape(len(x), -1)
    np.testing.assert_allclose(answers(plugin, x).numpy(), own, rtol=1e-6, atol=1e-6)
    flat = Ridge(fit_intercept=False).fit(x, y[:, 0])
    again = imported(of_numpy(attributes(flat)), **RAW, outputs="scores")
    np.testing.assert_allclose(answers(again, x).numpy()[:, 0], flat.predict(x), rtol=1e-6, atol=1e-6)


# ---- stacks ----------------------------------------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self, *modules):
        super().__init__()
        self.layers = nn.Sequential(*modules)

    def forward(self, x):
        return self.layers(x)


class Standardised(nn.Module):
    """As LAION's heads begin."""

    def __init__(self, mean, variance):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)

    def forward(self, x):
        return (x - self.mean) / (self.variance.sqrt() + 1e-10)


def test_layers_with_dropout_alone_between_them_become_one_exactly():
    net = made(
        Stack(nn.Linear(D, 9), nn.Dropout(0.2), nn.Linear(9, 5), nn.Dropout(0.1), nn.Linear(5, 4), nn.Linear(4, 1))
    )
    plugin, x = imported(foreign(state_of(net)), **UNIT, outputs="scores", activation="none", sigmoid="no"), features()
    assert plugin.header["config"]["hidden"] == [] and plugin.tensors["weights.0"].shape == (1, D)
    torch.testing.assert_close(answers(plugin, x), net(F.normalize(x, dim=-1)).detach(), rtol=0, atol=1e-6)
    assert any("became 1" in note for note in plugin.header["imported"]["notes"])


@pytest.mark.parametrize(
    "name, act", [("relu", nn.ReLU()), ("gelu", nn.GELU()), ("tanh", nn.Tanh()), ("silu", nn.SiLU())]
)
def test_a_stack_with_an_activation_answers_as_torch_does(name, act):
    net, x = (
        made(Stack(nn.Linear(D, 9), act, nn.Dropout(0.5), nn.Linear(9, 5), act, nn.Dropout(0.5), nn.Linear(5, 3))),
        features(),
    )
    plugin = imported(foreign(state_of(net)), **RAW, activation=name, classes=NAMES)
    torch.testing.assert_close(answers(plugin, x), net(x).detach(), rtol=0, atol=1e-4)


def test_layers_that_follow_one_another_have_no_activation_between_them():
    net, x = made(Stack(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, 5), nn.Linear(5, 1))), features()
    file = foreign(state_of(net))
    plugin = imported(file, **RAW, outputs="scores", activation="relu", sigmoid="no")
    torch.testing.assert_close(answers(plugin, x), net(x).detach(), rtol=0, atol=1e-4)
    assert plugin.header["config"]["hidden"] == [9]
    said = imported(file, **RAW, outputs="scores", activation="relu,none", sigmoid="no")
    torch.testing.assert_close(answers(said, x), net(x).detach(), rtol=0, atol=1e-4)
    both = made(nn.ModuleDict({"0": nn.Linear(D, 9), "1": nn.Linear(9, 1)}))  # numbers that are no places
    plugin = imported(foreign(state_of(both)), **RAW, outputs="scores", activation="relu", sigmoid="no")
    torch.testing.assert_close(answers(plugin, x), both["1"](both["0"](x).relu()).detach(), rtol=0, atol=1e-4)


def test_numbers_that_are_no_places_of_a_sequence_tell_nothing_of_what_stands_between():
    net = made(nn.ModuleDict({"fc1": nn.Linear(D, 9), "fc2": nn.Linear(9, 5), "fc4": nn.Linear(5, 1)}))
    plugin, x = imported(foreign(state_of(net)), **RAW, outputs="scores", activation="relu", sigmoid="no"), features()
    own = net["fc4"](net["fc2"](net["fc1"](x).relu()).relu()).detach()
    torch.testing.assert_close(answers(plugin, x), own, rtol=0, atol=1e-4)


def test_layers_with_names_of_their_own_stand_in_the_order_of_their_sizes():
    net, x = made(nn.ModuleDict({"fc": nn.Linear(D, 9), "fc2": nn.Linear(9, 5), "a_last": nn.Linear(5, 2)})), features()
    state = dict(sorted(state_of(net).items()))
    plugin = imported(foreign(state), **RAW, activation="relu", classes=["a", "b"])
    own = net["a_last"](net["fc2"](net["fc"](x).relu()).relu()).detach()
    torch.testing.assert_close(answers(plugin, x), own, rtol=0, atol=1e-4)
    either = nn.ModuleDict({"enter": nn.Linear(D, 9), "b": nn.Linear(9, 9), "a": nn.Linear(9, 9), "z": nn.Linear(9, 2)})
    assert not FORMATS["head"].recognises(foreign(state_of(either))), "two orders are possible"


def test_ten_layers_stand_in_the_order_of_their_numbers():
    parts = [nn.Linear(D, 8), *(nn.Linear(8, 8) for _ in range(10)), nn.Linear(8, 2)]
    net, x = made(nn.ModuleList(parts)), features(length=1.0)
    state = {f"linear_{name}": value for name, value in state_of(net).items()}
    plugin = imported(foreign(dict(sorted(state.items()))), **RAW, activation="tanh", classes=["a", "b"])
    own = x
    for number, layer in enumerate(net):
        own = layer(own if number == 0 else own.tanh())
    torch.testing.assert_close(answers(plugin, x), own.detach(), rtol=0, atol=1e-5)


def unit_statistics(x):
    rows = F.normalize(x, dim=-1)
    return rows.mean(0), rows.var(0)


def test_a_standardisation_is_part_of_the_first_layer_and_proves_features_of_length_1():
    x = features()
    norm = Standardised(*unit_statistics(x))
    net = made(nn.ModuleDict({"linear_1": nn.Linear(D, 6), "linear_2": nn.Linear(6, 1)}))
    file = foreign(state_of(net) | {f"norm.{name}": value for name, value in norm.state_dict().items()})
    plugin = imported(file, outputs="scores", activation="relu", sigmoid="yes")
    own = net["linear_2"](net["linear_1"](norm(F.normalize(x, dim=-1))).relu()).sigmoid().detach()
    torch.testing.assert_close(answers(plugin, x), own, rtol=0, atol=1e-5)
    assert plugin.header["imported"]["proven"] == ["features of length 1"]
    told = imported(file, **RAW, outputs="scores", activation="relu", sigmoid="yes")
    own = net["linear_2"](net["linear_1"](norm(x)).relu()).sigmoid().detach()
    torch.testing.assert_close(answers(told, x), own, rtol=0, atol=1e-5)
    assert not told.header["imported"]["proven"]
    assert any("it was told inputs=raw" in note for note in told.header["imported"]["notes"])
    raw = Standardised(x.mean(0), x.var(0))
    other = foreign(state_of(net) | {f"norm.{name}": value for name, value in raw.state_dict().items()})
    assert "inputs: unit, if" in refused(other, outputs="scores", activation="relu", sigmoid="yes")


@pytest.mark.parametrize(
    "length, odd, shown", [(1, 0, True), (0.97, 0, False), (1.03, 0, False), (0.8, 1, True), (0.6, 1, False)]
)
def test_statistics_show_length_1_closely_unless_entries_are_odd(length, odd, shown):
    g = torch.Generator().manual_seed(0)
    x = length * F.normalize(torch.randn(500, 100, generator=g), dim=-1)
    variance = x.var(0)
    variance[:odd] = 50.0
    tensors = {"weight": torch.ones(3, 100), "mean": x.mean(0), "variance": variance}
    fact = next(fact for fact in FORMATS["head"].facts(foreign(tensors)) if fact.name == "inputs")
    assert fact.default == ("unit" if shown else None)


def test_weights_of_scikit_learns_networks_lie_the_other_way():
    from sklearn.neural_network import MLPRegressor

    x, _ = labelled(2)
    model = MLPRegressor(hidden_layer_sizes=(7, 5), max_iter=5, random_state=0).fit(x, x[:, 0])
    arrays = {f"coefs_{i}": value for i, value in enumerate(model.coefs_)}
    arrays |= {f"intercepts_{i}": value for i, value in enumerate(model.intercepts_)}
    plugin = imported(of_numpy(arrays), **RAW, outputs="scores", activation="relu", sigmoid="no")
    np.testing.assert_allclose(answers(plugin, x).numpy()[:, 0], model.predict(x), rtol=0, atol=1e-5)


# ---- what is asked and refused ---------------------------------------------------------------------------------------


def test_all_that_is_missing_stands_in_one_message():
    net = made(Stack(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, 1)))
    file = foreign(state_of(net))
    with pytest.raises(UserError) as error:
        writing.imported(file, writing.format_of(file), Facts({}, None, None))
    for what in ("backbone", "inputs", "outputs", "activation", "sigmoid"):
        assert f"{what}: " in str(error.value)
    with pytest.raises(UserError, match="does not say all that is needed. backbone: .*inputs: .*classes: "):
        writing.imported(foreign({"weight": torch.zeros(3, D)}), FORMATS["head"], Facts({}, None, None))


def test_names_that_stand_twice_or_are_empty_are_refused_for_classes_and_scores():
    file = foreign(state_of(made(nn.Linear(D, 3))))
    for outputs in ("classes", "scores"):
        told = refused(file, **RAW, outputs=outputs, classes=["cat", "dog", "cat"])
        assert "the name 'cat' stands twice, as 1 and as 3" in told
        assert "class name 2 is empty" in refused(file, **RAW, outputs=outputs, classes=["cat", " ", "dog"])
    told = Facts(
        {"backbone": "ViT", **RAW, "classes": ["cat", "dog", "cat"]},
        lambda name: Tower(name, "test", "gelu", width=16, dim=D),
        None,
        "imagenet",
        ["cat", "dog", "cat"],
    )
    assert writing.imported(file, FORMATS["head"], told).shape.classnames == ("cat", "dog", "cat")


def test_a_file_of_names_may_begin_with_the_mark_that_windows_writes(tmp_path):
    from carryover.bench.cli.importing import names_in

    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\nred bus\r\n".encode())
    assert names_in(str(tmp_path / "names.txt")) == ["cat", "red bus"]


def test_mistakes_are_named():
    net = made(nn.Linear(D, 3))
    file = foreign(state_of(net))
    assert "has 3 rows, --classes names 2 ('cat' to 'dog')" in refused(file, **RAW, classes=NAMES[:2])
    assert "takes features of width 12, ViT/test gives 16" in refused(file, dim=16, **RAW, classes=NAMES)
    assert "image and text side by side" in refused(file, dim=D // 2, **RAW, classes=NAMES)
    assert "inputs is 'normalised', expected unit or raw" in refused(file, inputs="normalised", classes=NAMES)
    told = refused(file, **RAW, classes=NAMES, temperature="2")
    assert "unknown fact" in told and "Known: backbone, inputs, outputs, classes, sigmoid, scale, layout" in told
    assert "scale is '0', expected a number above 0" in refused(file, **RAW, classes=NAMES, scale="0")
    one = foreign(state_of(made(nn.Linear(D, 1))))
    assert "1 row, which tells 2 classes, no name is given" in refused(one, **RAW, outputs="classes")
    broken = foreign(state_of(net) | {"weight": torch.full((3, D), float("nan"))})
    assert "NaN" in refused(broken, **RAW, classes=NAMES)
    two = foreign(state_of(made(Stack(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)))))
    assert "activation names 3" in refused(two, **RAW, activation="relu,relu,relu", classes=NAMES)
    assert "one kind of activation" in refused(two, **RAW, activation="relu,tanh", classes=NAMES)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"scale": [2]}, "scale is '[2]', expected a text or a number"),
        ({"scale": {"a": 1}}, "scale is '{'a': 1}', expected a text or a number"),
        ({"scale": datetime.date(2020, 1, 1)}, "scale is '2020-01-01', expected a text or a number"),
        ({"scale": 10**400}, "scale is a number of more than 308 digits, expected a number above 0"),
        ({"inputs": ["raw"]}, "expected a text or a number"),
        ({"backbone": 3}, "backbone is '3', expected the name of a model"),
        ({"backbone": ["x"]}, "backbone is '['x']', expected the name of a model"),
        ({"backbone": ""}, "expected the name of a model"),
        ({"classes": "cat"}, "classes are 'cat', expected a list of texts"),
        ({"classes": 3}, "classes are '3', expected a list of texts"),
        ({"classes": [1, 2]}, "expected a list of texts"),
        ({"templates": ["a {x}"]}, "the template 'a {x}' is none"),
        ({"templates": ["a {}", "a {"]}, "the template 'a {' is none"),
        ({"templates": ["a photo"]}, "the template 'a photo' is none"),
    ],
)
def test_facts_of_any_kind_are_one_line(given, expected):
    assert expected in refused(foreign(state_of(made(nn.Linear(D, 3)))), **{**RAW, "classes": NAMES, **given})


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"weight": torch.zeros(3, D), "logit_scale": torch.zeros(()), "bias": torch.zeros(3)},
        {"fc.0.weight": torch.zeros(4, D), "fc.2.weight": torch.zeros(D, 4)},  # an adapter
        {"q.lora_A.weight": torch.zeros(2, D), "q.lora_B.weight": torch.zeros(D, 2)},
        {"layers.0.weight": torch.zeros(4, D), "layers.2.weight": torch.zeros(3, 5)},
        {
            "layers.0.weight": torch.zeros(4, D),
            "layers.1.running_mean": torch.zeros(4),
            "layers.2.weight": torch.zeros(3, 4),
        },
        {"ctx": torch.zeros(4, D), "token_prefix": torch.zeros(3, 1, D)},
        {"weight": torch.zeros(3, D), "bias": torch.zeros(5)},
        {"ctx": torch.zeros(4, D)},
    ],
)
def test_what_is_more_or_less_than_a_head_is_none(tensors):
    assert not FORMATS["head"].recognises(foreign(tensors))
    with pytest.raises(UserError, match="is no head"):
        FORMATS["head"].facts(foreign(tensors))


def test_a_written_head_is_read_again_and_the_same_head_is_the_same_bytes(tmp_path):
    net, x = made(Stack(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, 3))), features()
    plugin = imported(foreign(state_of(net)), **UNIT, activation="relu", classes=NAMES)
    for name in ("a", "b"):
        writing.write(plugin, tmp_path / f"{name}.safetensors")
    again = read(tmp_path / "a.safetensors")
    assert torch.equal(answers(again, x), answers(plugin, x))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
