"""What every registered port must do, with every method that it carries; tiny towers, clustered features."""

import pytest
import torch
from tiny_fits import make, make_support
from tiny_towers import DIM, NAMES

from carryover.bench.errors import UserError
from carryover.bench.plan.port_specs import KINDS, NEEDS, PORT_SPECS
from carryover.bench.ports import PORTS, Anchors, Port, discover, register
from carryover.bench.ports.files import ported_of
from carryover.bench.training.trainer import fit
from carryover.methods.base import METHODS
from carryover.methods.catalogue import trained_here

discover()
MANY = 3 * DIM  # more anchors than dimensions
CLOSED = [id for id in PORTS if PORTS[id].closed_form and id != "reuse"]
MAPS = [id for id in CLOSED if "images" in PORTS[id].needs]


def carried_by(port):
    trained = [name for name in METHODS if trained_here(name)]
    return [name for name in trained if PORT_SPECS[port].reason(name) is None and METHODS[name].needs == "features"]


PAIRS = [(port, method) for port in CLOSED for method in carried_by(port)]


class Turned:
    """A backbone whose joint space is that of another one: x -> factor * x @ turn + shift for images, t @ turn for
    texts."""

    def __init__(self, backbone, turn, factor=1.0, shift=0.0):
        self.of, self.turn, self.factor, self.shift = backbone, turn, factor, shift
        self.fingerprint, self.label, self.tower = "turned", "turned", backbone.tower
        self.scale, self.device, self.dim, self.width = backbone.scale, backbone.device, turn.shape[1], backbone.width

    def zero_shot(self, classes):
        return self.of.zero_shot(classes) @ self.turn

    def images(self, x):
        return self.factor * x @ self.turn + self.shift


def orthogonal(rows, columns, seed=0):
    big = torch.linalg.qr(
        torch.randn(max(rows, columns), max(rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    )
    return big[0][:rows, :columns].float()


@pytest.fixture(scope="module")
def trained(tiny, classes):
    """Each method fitted once on the base, bound to it."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make(name)
            made[name].bind(tiny.base, classes)
            fit(made[name], make_support(), torch.Generator().manual_seed(0))
        made[name].bind(tiny.base, classes)
        return made[name].eval()

    return get


def features(count, seed=5):
    """(N, D) like the support images: spread in every direction, around a mean that is not 0."""
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, DIM, generator=g) + torch.randn(DIM, generator=g)


def anchors(port, old, new, **more):
    nouns = ("dog", "lamp", "river", "stone") if port == "texts" else ()
    return Anchors("other", frozenset(PORTS[port].needs), _old=old, _new=new, _nouns=nouns, **more)


def port_to(port, plugin, tiny, classes, new, count=MANY, **more):
    x = features(count)
    return PORTS[port]().fit(plugin, tiny.base, new, classes, anchors(port, x, new.images(x), **more))


@pytest.mark.parametrize("port", list(PORTS))
def test_says_what_it_is(port):
    kind = PORTS[port]
    assert kind.name and kind.source
    assert set(kind.needs) <= set(NEEDS) and set(kind.anchors) <= set(KINDS)
    for method in METHODS:
        reason = PORT_SPECS[port].reason(method)
        assert reason is None or (reason and len(reason) < 120)


@pytest.mark.parametrize("port, method", [pair for pair in PAIRS if pair[0] in MAPS])
def test_a_backbone_that_was_turned_scaled_and_shifted_is_undone(port, method, trained, tiny, classes):
    plugin, x = trained(method), features(40, seed=9)
    shift = 0.0 if port == "delta" else torch.linspace(-1, 1, DIM)  # which the new zero-shot classifier would feel
    turned = Turned(tiny.base, orthogonal(DIM, DIM), factor=2.5, shift=shift)
    ported = port_to(port, plugin, tiny, classes, turned)
    expected = plugin.predict(x).softmax(-1)
    found = ported.predict(turned.images(x)).softmax(-1)
    # ridge is shrunk a little even at the weakest strength of its grid
    torch.testing.assert_close(found, expected, atol=2e-2 if port == "linear" else 1e-4, rtol=0)
    if port != "linear":
        assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("port, method", [pair for pair in PAIRS if pair[0] in MAPS])
def test_onto_itself_gives_what_reuse_gives(port, method, trained, tiny, classes):
    plugin, x = trained(method), features(40, seed=9)
    itself = Turned(tiny.base, torch.eye(DIM))
    reused = PORTS["reuse"]().fit(plugin, tiny.base, tiny.base, classes, None)
    found = port_to(port, plugin, tiny, classes, itself).predict(x).softmax(-1)
    torch.testing.assert_close(found, reused.predict(x).softmax(-1), atol=2e-2 if port == "linear" else 1e-4, rtol=0)


@pytest.mark.parametrize("method", carried_by("procrustes"))
def test_a_wider_backbone_that_holds_the_old_space_is_undone(method, trained, tiny, classes):
    plugin, x = trained(method), features(40, seed=9)
    wider = Turned(tiny.base, orthogonal(DIM, DIM + 7), factor=0.5)
    found = port_to("procrustes", plugin, tiny, classes, wider).predict(wider.images(x))
    torch.testing.assert_close(found.softmax(-1), plugin.predict(x).softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("port", [*MAPS, "distill"])
def test_poisoned_labels_change_no_bit(port, trained, tiny, classes):
    plugin = trained("taskres")
    turned, labels = Turned(tiny.base, orthogonal(DIM, DIM)), torch.arange(MANY) % len(NAMES)
    given = [labels, labels.flip(0), torch.full_like(labels, -7), None]
    if port == "distill":
        turned = tiny.new
        turned.images = lambda x: x.flip(-1)
    x = features(20, seed=9)
    found = [port_to(port, plugin, tiny, classes, turned, _labels=one).predict(x).numpy().tobytes() for one in given]
    assert len(set(found)) == 1


@pytest.mark.parametrize("port", [id for id in PORTS if "labels" not in PORTS[id].needs])
def test_a_label_cannot_be_asked_for_by_a_port_that_does_not_say_so(port):
    given = anchors(port, features(4), features(4), _labels=torch.zeros(4))
    with pytest.raises(UserError, match="labels"):
        _ = given.labels
    with pytest.raises(UserError, match="labels"):
        _ = given.take([0, 1]).labels


@pytest.mark.parametrize("port", MAPS)
def test_pairs_that_were_shuffled_give_chance(port, trained, tiny, classes):
    plugin, x, turned = trained("linear-probe"), features(2000, seed=9), Turned(tiny.base, orthogonal(DIM, DIM))
    seen = features(MANY)
    order = torch.randperm(MANY, generator=torch.Generator().manual_seed(1))
    ported = PORTS[port]().fit(plugin, tiny.base, turned, classes, anchors(port, seen, turned.images(seen)[order]))
    expected = plugin.predict(x).argmax(-1)
    usual = max(torch.bincount(expected)) / len(x)  # what the most frequent class alone would agree with
    zero = ported.predict(turned.images(x)).argmax(-1) == expected
    assert zero.float().mean() < usual + 0.1 if port != "delta" else zero.float().mean() < 0.9


@pytest.mark.parametrize("port", MAPS)
def test_there_and_back_is_the_plug_in_again(port, trained, tiny, classes):
    plugin, x, turned = trained("clip-adapter"), features(40, seed=9), Turned(tiny.base, orthogonal(DIM, DIM), 3.0)
    there, seen = port_to(port, plugin, tiny, classes, turned), features(MANY)
    back = PORTS[port]().fit(there, turned, tiny.base, classes, anchors(port, turned.images(seen), seen))
    torch.testing.assert_close(back.predict(x).softmax(-1), plugin.predict(x).softmax(-1), atol=3e-2, rtol=0)


@pytest.mark.parametrize("port, method", PAIRS)
def test_what_is_saved_answers_to_the_bit(port, method, trained, tiny, classes):
    plugin, x = trained(method), features(40, seed=9)
    ported = port_to(port, plugin, tiny, classes, Turned(tiny.base, orthogonal(DIM, DIM)))
    tensors, header = ported.state()
    again = ported_of({name: value.clone() for name, value in tensors.items()}, ported.kind, header)
    assert again.predict(x).numpy().tobytes() == ported.predict(x).numpy().tobytes()
    assert again.classes == ported.classes and again.home == "turned"


def test_other_backbones_and_other_classes_are_refused(trained, tiny, classes):
    turned = Turned(tiny.base, orthogonal(DIM, DIM))
    ported = port_to("procrustes", trained("taskres"), tiny, classes, turned)
    ported.bind(turned, classes)
    with pytest.raises(UserError, match="port it to that one"):
        ported.bind(tiny.base, classes)
    with pytest.raises(UserError, match="port it anew"):
        ported.bind(turned, type(classes)(classes.dataset, classes.names[::-1], classes.templates))


def test_a_map_carries_no_prompts_of_each_picture_and_nothing_inside_towers():
    assert "text tower" in PORT_SPECS["procrustes"].reason("cocoop")
    assert "towers" in PORT_SPECS["procrustes"].reason("clip-lora")
    assert PORT_SPECS["procrustes"].reason("coop") is None


def test_a_port_that_needs_labels_or_names_nothing_known_is_refused_when_it_is_registered():
    def made(**said):
        return type("Mine", (Port,), {"name": "Mine", **said})

    for said, expected in (
        ({"needs": ("images", "labels")}, "few-shot pictures alone"),
        ({"needs": ("pictures",)}, "needs names 'pictures'"),
        ({"anchors": ("test",)}, "anchors names 'test'"),
    ):
        with pytest.raises(UserError, match=expected):
            register("zz-mine")(made(**said))
    assert "zz-mine" not in PORTS and "zz-mine" not in PORT_SPECS
