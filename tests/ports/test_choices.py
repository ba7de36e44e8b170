"""What sizes alone tell of plug-ins and ports, held to what real towers of these sizes do."""

from __future__ import annotations

import open_clip
import pytest
import torch
from local_towers import saved_locally
from tiny_fits import bound
from tiny_towers import NAMES, TEMPLATES

from carryover import methods
from carryover.bench import ports
from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import Tower
from carryover.bench.backbones.sizes import sizes_of
from carryover.bench.ports.base import PORTS
from carryover.bench.ports.choices import carried, choice, choices, ported_ids
from carryover.methods.base import METHODS, Classes

methods.discover()
ports.discover()
CLASSES = Classes("toy", NAMES, TEMPLATES)
TOWERS = {
    "base": {},
    "alike": {},
    "narrow": {"dim": 24},
    "wide": {"width": 48},
    "shallow": {"layers": 2},
    "short": {"context_length": 18},
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """(backbone, its sizes) by name; the sizes are read from a folder without weights."""
    folder, found = tmp_path_factory.mktemp("towers"), {}
    for seed, (name, changes) in enumerate(TOWERS.items()):
        saved_locally(folder / name, seed, False, **changes)
        tower = loading.resolve(Tower(f"local-dir:{folder / name}", clip_transform=False, layers=0))
        backbone = loading.load(tower)
        (folder / name / "open_clip_model.safetensors").unlink()
        found[name] = backbone, sizes_of(tower)
    return found


@torch.no_grad()
def predicts(plugin, backbone):
    """Whether the plug-in answers there, as it is."""
    pixels = torch.rand(2, 3, 32, 32)
    x = pixels if plugin.needs == "pixels" else backbone.encode_images(pixels)
    try:
        plugin.bind(backbone, CLASSES)
        with plugin.attach(backbone):
            return bool(plugin.predict(x).isfinite().all())
    except (loading.UserError, RuntimeError, ValueError):
        return False


@pytest.mark.parametrize("name", TOWERS)
def test_a_plug_in_goes_in_as_it_is_where_it_answers_there(towers, name):
    (base, base_sizes), (target, sizes) = towers["base"], towers[name]
    found = {one.method: one for one in choices(base_sizes, sizes)}
    assert {"coop", "cocoop", "linear-probe", "clip-lora", "maple"} <= {*found}
    # Whether texts fit is known when a tower's own tokenizer reads them.
    told = {id: not found[id].reason for id in found if (id, name) != ("descriptions", "short")}
    assert told == {id: predicts(bound(id, base, CLASSES, 0.1), target) for id in told}
    assert name not in ("base", "alike") or all(told.values())
    assert all(one.reason.count(";") == 1 and target.label in one.reason for one in found.values() if one.reason)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("start", ["base", "wide"])
def test_a_port_serves_a_pair_where_it_says_so_of_the_towers_themselves(towers, start, name):
    (old, base_sizes), (new, sizes) = towers[start], towers[name]
    for one in choices(base_sizes, sizes):
        plugin, kind = bound(one.method, old, CLASSES, 0.1), METHODS[one.method]
        serves = [id for id in ported_ids() if not PORTS[id].works_on(kind) and not PORTS[id]().fits(plugin, old, new)]
        assert serves == list(one.ports), one.method


def test_what_cannot_be_trained_on_a_base_leaves_no_plug_in_of_it(towers):
    assert {*carried(towers["base"][1])} - {*carried(towers["short"][1])} == {"coop", "contcoop"}


def of(model):
    return sizes_of(Tower(model))


@pytest.mark.parametrize(
    "method, target, short, lost",
    [
        ("coop", "RN50-quickgelu", "", ()),  # W 512, D 1024: a context does not meet the joint space
        ("cocoop", "RN50-quickgelu", "D", ()),  # its meta-net reads image features
        ("clip-adapter", "RN50-quickgelu", "D", ()),
        ("taskres", "MobileCLIP2-S2", "", ()),
        ("coop", "ViT-B-16-SigLIP2", "W", ()),
        ("coop", "ViT-SO400M-14-SigLIP", "W", ("distill",)),  # 16 tokens are a whole text of its
        ("kgcoop", "ViT-SO400M-14-SigLIP", "W", ()),  # 4 are not
        ("clip-lora", "PE-Core-B-16", "W", ()),  # an image tower like the base's
        ("clip-lora", "ViT-L-14", "W", ("gradfix",)),  # 12 blocks of text, wider ones
        ("clip-lora", "ViT-H-14", "W", ("gradfix", "theseus")),
        ("clip-lora", "roberta-ViT-B-32", "W", ("gradfix", "theseus")),
        ("maple", "convnext_base", "image blocks", ()),
    ],
)
def test_known_pairs_of_open_clip(method, target, short, lost):
    found = choice(method, of("ViT-B-16-quickgelu"), of(target))
    assert found.short == short and bool(found.reason) == bool(short)
    carries = [id for id in ported_ids() if not PORTS[id].works_on(METHODS[method])]
    assert [id for id in carries if id not in found.ports] == list(lost)


def test_siglip_goes_over_to_siglip_2_whole():
    found = choices(of("ViT-B-16-SigLIP"), of("ViT-B-16-SigLIP2"))
    assert len(found) > 10 and not [one for one in found if one.reason]
    assert open_clip.get_model_config("ViT-B-16-SigLIP2")["text_cfg"]["vocab_size"] == 256000  # and SigLIP's is 32,000
