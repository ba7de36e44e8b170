"""Ported plug-ins as files: what is written answers as before without any tower, and nothing of a file is trusted."""

import json
import pickle
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from plugin_files import plugin_file
from safetensors.torch import load_file
from tiny_fits import make_support
from tiny_towers import tiny_model, wrap
from worlds import header_in, rewritten

from carryover.bench import ports
from carryover.bench.errors import UserError
from carryover.bench.plugins import ported, porting
from carryover.bench.plugins.contract import Incompatible, check_ported
from carryover.bench.plugins.format import read
from carryover.bench.plugins.homes import warnings_of
from carryover.bench.ports.anchors import Anchors
from carryover.methods.base import METHODS, Classes

ports.discover()
CARRIED = ("linear-probe", "clip-adapter", "taskres", "tip-adapter-f", "coop")
MAPS = ("procrustes", "linear", "delta")
TOLD = {"anchors": {"kind": "pictures", "count": 40}}


def anchors_for(port, old=32, new=32, count=40):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(count, new, generator=g)
    turned = x @ torch.randn(new, old, generator=g) / new**0.5 + 0.05 * torch.randn(count, old, generator=g)
    return Anchors("other", frozenset(port.needs), turned + 1, x)


def carried(path, id, old, new, classes):
    plugin = read(path)
    port = porting.port_of(id, plugin)
    outcome = porting.carry(plugin, port, old, new, classes, anchors_for(port, old.dim, new.dim))
    outcome.told.update(TOLD)
    return plugin, outcome


@pytest.fixture(scope="module")
def narrow():
    return wrap(tiny_model(7, False, dim=24), "tiny-narrow", "gelu", dim=24)


@pytest.fixture
def written(tmp_path, tiny, classes):
    """A linear probe behind a Procrustes map, as the command writes it."""
    plugin, outcome = carried(plugin_file(tmp_path, tiny.base, classes), "procrustes", tiny.base, tiny.new, classes)
    ported.write(tmp_path / "ported.safetensors", plugin, outcome.ported, outcome.told)
    return tmp_path / "ported.safetensors"


@pytest.mark.parametrize("id", MAPS)
@pytest.mark.parametrize("name", CARRIED)
def test_a_file_that_is_read_gives_the_logits_that_were_there_before_it_and_the_same_bytes_again(
    tmp_path, tiny, narrow, classes, name, id
):
    path = plugin_file(tmp_path, tiny.base, classes, name)
    for new in (tiny.new, narrow):
        plugin, outcome = carried(path, id, tiny.base, new, classes)
        to = tmp_path / "ported.safetensors"
        ported.write(to, plugin, outcome.ported, outcome.told)
        found = read(to)
        x = torch.randn(6, new.dim, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = outcome.ported.predict(x)
        again = ported.restored(found)
        assert torch.equal(again.predict(x), expected)
        assert again.classes == classes and again.home == new.fingerprint
        before = to.read_bytes()
        ported.write(to, plugin, again, outcome.told)
        assert to.read_bytes() == before


def test_the_header_is_the_old_plugins_with_what_the_port_saw_and_both_backbones(written, tmp_path, tiny):
    header, old = header_in(written), header_in(tmp_path / "tiny" / "plugins" / f"{'k' * 16}.safetensors")
    for name in ("method", "config", "shape", "trained_on", "dataset", "shots", "seed", "source"):
        assert header[name] == old[name]
    part = header["ported"]
    assert header["version"] == 2 and (part["port"], part["kind"]) == ("procrustes", "mapped")
    assert part["needs"] == ["images", "old_model"] and part["anchors"] == TOLD["anchors"]
    assert (part["old"]["fingerprint"], part["new"]["fingerprint"]) == (tiny.base.fingerprint, tiny.new.fingerprint)
    assert 0 < part["fit"] < 1 and 0 <= part["agreement"] <= 1


def test_what_a_ported_file_was_ported_to_can_be_ported_again_and_keeps_its_history(written, tmp_path, tiny, narrow):
    first = read(written)
    classes, note = porting.classes_of(first)
    plugin, outcome = carried(written, "linear", tiny.new, narrow, classes)
    ported.write(tmp_path / "twice.safetensors", plugin, outcome.ported, outcome.told)
    twice = read(tmp_path / "twice.safetensors")
    x = torch.randn(5, narrow.dim)
    there = outcome.ported.old(x)
    torch.testing.assert_close(ported.restored(twice).predict(x), ported.restored(first).predict(there))
    assert twice.header["ported"]["before"]["port"] == "procrustes" and "state" not in twice.header["ported"]["before"]
    with pytest.raises(UserError, match="belongs to tiny-new"):
        carried(written, "linear", tiny.base, narrow, classes)
    with pytest.raises(UserError, match="ported before"):
        porting.port_of("distill", first)


def test_a_method_that_was_trained_on_the_new_backbone_is_an_ordinary_plugin_of_version_1(tmp_path, tiny, classes):
    path = plugin_file(tmp_path, tiny.base, classes, "clip-adapter")
    plugin, outcome = carried(path, "distill", tiny.base, tiny.new, classes)
    ported.write(tmp_path / "d.safetensors", plugin, outcome.ported, outcome.told)
    found = read(tmp_path / "d.safetensors")
    assert found.header["version"] == 1 and found.ported is None
    assert [one["fingerprint"] for one in found.header["trained_on"]] == [tiny.base.fingerprint, tiny.new.fingerprint]
    method = METHODS["clip-adapter"](outcome.ported.method.config, found.shape)
    method.load_learned(found.tensors)
    x = make_support().features
    method.eval().bind(tiny.new, classes)
    assert torch.equal(method.predict(x), outcome.ported.predict(x))
    assert any("port distill carried it" in line for line in warnings_of(found, tiny.new))


# ---- where it belongs ------------------------------------------------------------------------------------------------


def test_another_backbone_other_classes_and_another_width_are_named(written, tiny, narrow, classes):
    plugin = read(written)
    again = ported.restored(plugin)
    data = SimpleNamespace(id="toy", classnames=classes.names)
    check_ported(plugin, again, tiny.new.tower, data)
    for tower, names, expected in (
        (narrow.tower, classes.names, "joint width D: it was ported to 32, tiny-narrow has 24"),
        (tiny.new.tower, (*classes.names, "dog"), "1 of toy are none of them: 'dog'"),
        (tiny.new.tower, (*classes.names, classes.names[0]), "names that stand there twice"),
    ):
        with pytest.raises(Incompatible, match=expected):
            check_ported(plugin, again, tower, SimpleNamespace(id="toy", classnames=names))
    with pytest.raises(UserError, match="port it to that one"):
        again.bind(tiny.base, classes)


def test_some_of_its_classes_in_another_order_are_columns_of_its_answers(written, tiny, classes):
    plugin = read(written)
    whole, some = ported.restored(plugin), classes.names[::-1][:2]
    chosen = ported.for_classes(ported.restored(plugin), replace(classes, names=some))
    check_ported(plugin, whole, tiny.new.tower, SimpleNamespace(id="toy", classnames=some))
    chosen.bind(tiny.new, replace(classes, names=some))
    x = make_support().features
    expected = {name: whole.predict(x)[:, column] for column, name in enumerate(classes.names)}
    assert torch.equal(chosen.predict(x), torch.stack([expected[name] for name in some], 1))
    assert ported.for_classes(whole, classes) is whole


def test_a_backbone_that_is_not_the_plugins_own_is_refused(tmp_path, tiny, narrow, classes):
    path = plugin_file(tmp_path, tiny.base, classes)
    for old, expected in ((tiny.new, "name that backbone by --old"), (narrow, "name that backbone by --old")):
        with pytest.raises(UserError, match=expected):
            carried(path, "procrustes", old, tiny.new, classes)


@pytest.mark.parametrize(
    "id, name, expected",
    [
        ("reuse", "coop", "changes nothing"),
        ("procrustes", "cocoop", "depend on each picture"),
        ("procrustes", "clip-lora", "inside the towers"),
        ("procrustes", "zs-clip", "nothing is learned"),
        ("procrustess", "coop", "Did you mean 'procrustes'"),
    ],
)
def test_a_port_that_cannot_carry_a_method_says_why_before_any_weights(tmp_path, tiny, classes, id, name, expected):
    path = plugin_file(tmp_path, tiny.base, classes, name)
    with pytest.raises(UserError, match=expected):
        porting.port_of(id, read(path))


# ---- hostile files ---------------------------------------------------------------------------------------------------


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        ported.restored(read(path))
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 900
    return line


def changed(header, *place, to):
    """The header with the value at that place changed."""
    inner = header
    for word in place[:-1]:
        inner = inner[word]
    inner[place[-1]] = to
    return header


@pytest.mark.parametrize(
    "place, to, expected",
    [
        (("ported",), None, "field 'ported' is missing"),
        (("ported",), [1], "ported is no object"),
        (("ported", "kind"), "Mapped", "kind 'Mapped'"),
        (("ported", "kind"), "plugin", "ordinary plug-in"),
        (("ported", "state"), [], "ported.state is list"),
        (("ported", "state"), {}, "KeyError"),
        (("ported", "new"), {}, "ported.new.fingerprint"),
        (("ported", "state", "home"), "0" * 64, "another backbone than its header says"),
        (("ported", "state", "home"), ["x"], "another backbone than its header says"),
        (("ported", "state", "classes", "names"), [1, 2, 3, 4], "class names"),
        (("ported", "state", "classes", "names"), ["cat"], "logits of shape"),
        (("ported", "state", "head", "head"), "os.system", "os.system"),
        (("ported", "state", "head", "method"), "no-such-method", "no-such-method"),
        (("ported", "state", "head", "method"), "taskres", "unexpected keyword"),
        (("ported", "state", "head", "config", "epochs"), "many", "cannot be read"),
        (("ported", "state", "head", "config", "unheard"), 1, "unheard"),
        (("ported", "state", "head", "shape", "dim"), 10**7, "learned tensors"),
        (("ported", "state", "head", "shape", "dim"), -1, "cannot be read"),
        (("ported", "fit"), "good", "ported.fit is str"),
        (("version",), 1, ""),
    ],
)
def test_a_header_that_makes_no_ported_plugin_is_refused_in_one_line(written, tmp_path, place, to, expected):
    path = rewritten(written, tmp_path / "p.safetensors", lambda header: changed(header, *place, to=to))
    if place == ("version",):  # the part is then passed over, and the tensors are not the method's
        assert read(path).ported is None
        return
    assert expected in refusal(path)


@pytest.mark.parametrize(
    "name",
    [
        "__class__",
        "_parameters",
        "logits",
        "bind",
        "config",
        "shape",
        "training",
        "weight",
        "needs",
        "home",
        "a b",
        "forward",
        "a.b",
    ],
)
def test_a_derived_tensor_may_set_no_attribute_that_is_there_already(written, tmp_path, name):
    tensors = {**load_file(written), f"head.derived.{name}": torch.ones(1)}
    assert "derived tensor" in refusal(rewritten(written, tmp_path / "p.safetensors", tensors=tensors))


def test_tensors_that_are_missing_misshapen_or_not_finite_are_refused(written, tmp_path):
    whole = load_file(written)
    cases = {
        "'matrix'": {name: value for name, value in whole.items() if name != "matrix"},
        "holds NaN or infinity": {**whole, "matrix": torch.full_like(whole["matrix"], float("nan"))},
        "learned tensors": {**whole, "head.learned.weight": torch.ones(2, 2)},
        "cannot be read": {**whole, "matrix": whole["matrix"][:5].contiguous()},
        "expected learned.": {**whole, "head.other.weight": torch.ones(1)},
    }
    for expected, tensors in cases.items():
        assert expected in refusal(rewritten(written, tmp_path / "p.safetensors", tensors=tensors))


def test_a_pickle_is_not_opened(written, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    path = tmp_path / "p.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    assert "pickle" in refusal(path) and not (tmp_path / "opened").exists()
    path.write_bytes(written.read_bytes()[:-10])
    assert "cannot be read as safetensors" in refusal(path)


def test_a_file_that_runs_write_is_still_of_version_1(tmp_path, tiny, classes):
    path = plugin_file(tmp_path, tiny.base, classes)
    header = header_in(path)
    assert header["version"] == 1 and "ported" not in header
    assert read(path).shape.classnames == classes.names


def test_prompts_are_those_of_the_dataset_that_it_was_trained_on_where_they_are_known(tmp_path, tiny, classes):
    path = plugin_file(tmp_path, tiny.base, classes)
    for dataset, template, known in (
        ("oxford_pets", "a photo of a {}, a type of pet.", True),
        ("folder:mine", "a photo of a {}.", False),
    ):
        named = rewritten(path, tmp_path / "p.safetensors", lambda header, id=dataset: {**header, "dataset": id})
        found, note = porting.classes_of(read(named))
        assert found == Classes(dataset, classes.names, (template,)) and bool(note) != known
    assert json.dumps(asdict(found))
