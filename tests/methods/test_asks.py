"""What a plug-in asks of a backbone, held to what happens: it is made, bound and asked there."""

from __future__ import annotations

from dataclasses import replace

import open_clip
import pytest
import torch
from tiny_towers import TEMPLATES, tiny_model, wrap

from carryover.bench.backbones import loading
from carryover.bench.backbones.archs import ARCHS, Tower
from carryover.bench.backbones.sizes import Sizes, image_sizes, loaded_sizes, sizes_of
from carryover.bench.engine.possible import Possible
from carryover.bench.errors import UserError
from carryover.bench.plan.runs import Run
from carryover.bench.plan.settings import configure
from carryover.methods import Registered, discover
from carryover.methods.asks import asked, begins, fits
from carryover.methods.base import METHODS, Classes, Shape

discover()
SHORT = ("cat", "dog", "bus", "car")
CLASSES = Classes("tiny", SHORT, TEMPLATES)
OTHERS = {"same": {}, "wider text": {"width": 48}, "deeper text": {"layers": 4}, "short text": {"context_length": 18}}


def config_of(name):
    return configure(Registered(), name, "micro_stars", 4, "micro", {})


def wrapped(name, **text):
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=text.get("context_length", 77))
    tower = Tower(name, "", "gelu", text.get("width", 32), 32)
    return loading.Backbone(tiny_model(3, False, **text), tower, tokenizer)


@pytest.fixture(scope="module")
def towers():
    """The base, and backbones that differ from it in one size each."""
    found = {name: wrapped(name, **text) for name, text in OTHERS.items()}
    found["wider joint space"] = wrap(tiny_model(3, False, 48), "wider joint space", "gelu", 48)
    return wrap(tiny_model(0, False), "base", "gelu"), found


@pytest.mark.parametrize("name", Registered())
@pytest.mark.parametrize("other", [*OTHERS, "wider joint space"])
def test_a_plug_in_fits_where_it_can_be_bound_and_asked(towers, name, other):
    base, there = towers[0], towers[1][other]
    kind, config = METHODS[name], config_of(name)
    shape = Shape.of(base, SHORT, 8)
    learned = kind(config, shape).learned()
    reason = fits(kind, config, shape, loaded_sizes(there))
    try:
        plugin = kind(config, shape).eval()
        plugin.load_learned(learned)
        plugin.bind(there, CLASSES)
        views = kind.test_views(config)[0]
        given = {"pixels": (2, 3, 32, 32), "views": (2, views, there.dim), "features": (2, there.dim)}[kind.needs]
        with torch.no_grad(), plugin.attach(there):
            assert plugin.predict(torch.randn(given)).shape == (2, len(SHORT))
    except (UserError, RuntimeError, ValueError) as error:
        assert reason, f"fits, but: {error}"
    else:
        assert reason is None


def test_needs_are_those_that_the_methods_files_say():
    """Written by hand from each method's ``__init__``."""
    needs = {name: [*asked(METHODS[name], config_of(name))] for name in Registered()}
    text, joint = ["width"], ["dim"]
    assert needs == {
        "zs-clip": [], "descriptions": [], "tda": [], "tpt": [], "fine-tuning": [],
        "coop": text, "kgcoop": text, "contcoop": text, "cocoop": [*text, *joint],
        "tcp": [*text, *joint], "task-vector": text,
        "linear-probe": joint, "clip-adapter": joint, "tip-adapter-f": joint, "taskres": joint,
        "gda": joint, "lp-plus-plus": joint, "clap": joint, "prolip": joint, "wise-ft": joint,
        "rada": joint, "rada-towers": joint, "rada-tt": joint,
        "maple": ["width", "text_layers", "image_layers", "image_width"],
        "promptsrc": ["width", "text_layers", "image_layers", "image_width"],
        "coprompt": ["width", "dim", "text_layers", "image_layers", "image_width"],
        "clip-lora": ["width", "text_layers", "image_layers", "image_width"],
        "layer-norm": ["width", "text_layers", "image_layers", "image_width"],
        "2sfs": ["width", "dim", "text_layers", "image_layers", "image_width"],
    }  # fmt: skip


def sizes(**changed):
    usual = {"label": "other", "width": 512, "dim": 512, "text_layers": 12, "positions": 77}
    image = changed.pop("image", (12, 768))
    return Sizes(**{**usual, **changed}, image=lambda: image)


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("coop", {"width": 768}, "it needs a text width W of 512 (its 'context'); other has 768"),
        ("coop", {"dim": 768}, None),
        ("linear-probe", {"dim": 768}, "it needs a joint width D of 512 (its 'weight'); other has 768"),
        ("linear-probe", {"width": 768, "positions": 16, "text_layers": 0}, None),
        ("coop", {"positions": 18}, "it needs room for 16 tokens of context and a name, 19 or more; other has 18"),
        ("coop", {"positions": 19}, None),
        ("kgcoop", {"positions": 18}, None),
        ("tcp", {"text_layers": 24}, None),
        ("tcp", {"text_layers": 0}, "it needs an inner block of a text tower; other has none"),
        (
            "clip-lora",
            {"text_layers": 24},
            "needs a text tower of 12 blocks (its 'text.down' and 1 more); other has 24",
        ),
        ("layer-norm", {"width": 768}, "it needs a text width W of 512 (its 'values' and 1 more); other has 768"),
        ("layer-norm", {"dim": 768}, None),
        ("2sfs", {"dim": 768}, "it needs a joint width D of 512 (its 'classifier'); other has 768"),
        ("maple", {"image": (24, 768)}, "it needs an image tower of 12 blocks; other has 24"),
        ("maple", {"image": (0, 0)}, "it needs an image tower of 12 blocks; other has none"),
        ("zs-clip", {"width": 8, "dim": 9, "positions": 10}, None),
    ],
)
def test_a_reason_names_what_is_needed_and_what_is_there(name, changed, reason):
    found = fits(METHODS[name], METHODS[name].Config(), sizes(), sizes(**changed))
    assert found is None if reason is None else found.endswith(reason)


def test_a_context_inside_the_tower_needs_its_block():
    config = replace(METHODS["coop"].Config(), layer=12)
    assert fits(METHODS["coop"], config, sizes(), sizes()) == "it needs block 12 of a text tower; other has 12"
    assert begins(METHODS["coop"], config, sizes()) and not begins(METHODS["coop"], config, sizes(text_layers=13))


def test_without_an_image_half_that_of_the_target_does_not_matter():
    kind, own = METHODS["clip-lora"], sizes(image=(0, 0))
    assert fits(kind, kind.Config(), own, sizes()) is None


@pytest.mark.parametrize("model", ["micro-base", "micro-update", "ViT-B-16-quickgelu", "EVA02-B-16"])
def test_sizes_without_weights_are_those_of_the_model(model):
    tower = next(t for arch in ARCHS.values() for t in arch.towers.values() if t.model == model)
    built = loading.build(model, device="meta")
    text = built.text
    layers, width = len(text.transformer.resblocks), text.positional_embedding.shape[1]
    found = sizes_of(tower)
    assert (found.width, found.text_layers, found.positions) == (width, layers, text.context_length)
    assert (found.dim, found.text) == (tower.dim, "causal")
    trunk = getattr(built.visual, "trunk", None)
    blocks = getattr(trunk, "blocks", None) if trunk is not None else getattr(
        getattr(built.visual, "transformer", None), "resblocks", None
    )  # fmt: skip
    assert image_sizes(model)[0] == (len(blocks) if blocks is not None else 0)


@pytest.mark.parametrize(
    ("model", "tag", "expected"),
    [
        ("ViT-B-16-SigLIP", "webli", (768, 768, 12, 64, "last", 12)),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", (512, 512, 12, 76, "class token", 12)),
        ("MobileCLIP2-S2", "dfndr2b", (512, 512, 12, 77, "bidirectional", 0)),
        ("ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", (1024, 1024, 24, 77, "eos", 32)),
        ("PE-Core-B-16", "meta", (1024, 1024, 24, 32, "causal", 12)),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", (768, 512, 0, 77, "Hugging Face", 12)),
        ("RN50", "openai", (512, 1024, 12, 77, "causal", 0)),
    ],
)
def test_sizes_of_towers_of_other_kinds(model, tag, expected):
    """By open_clip's config files, and the models' papers for the blocks of the image towers."""
    s = sizes_of(Tower(model, tag))
    assert (s.width, s.dim, s.text_layers, s.positions, s.text, s.image_layers) == expected


def run_of(method, **changed):
    config = METHODS[method].Config()
    return Run("x", "dtd", method, 1, 16, "published", "fp32", 1, None, config, **changed)


def test_runs_that_cannot_be_are_known_before_any_weights(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *args, **more: pytest.fail("weights were asked for"))
    arch = replace(
        ARCHS["vit-b16"],
        new=Tower("ViT-B-16-SigLIP", "webli"),
        more={"short": Tower("ViT-SO400M-14-SigLIP", "webli")},
    )
    possible = Possible(arch)
    retrained, carried = run_of("coop", path=("new",)), run_of("coop", path=("base", "new"))
    assert possible.reason(run_of("coop")) is None  # on the base it can be
    assert possible.reason(retrained) is None
    assert possible.reason(carried).startswith("it needs a text width W of 512")
    assert possible.reason(run_of("coop", path=("short",))).startswith("it needs room for 16 tokens of context")
    assert possible.reason(run_of("linear-probe", path=("short",))) is None
    ported = run_of("coop", path=("base", "new"), port="procrustes", anchors="other")
    assert possible.reason(ported) is None
    runs, lines = possible.parted([retrained, carried, carried])
    assert runs == [retrained] and len(lines) == 1 and lines[0].startswith("2 runs cannot be: coop: it needs")
