"""Shared stand-ins: a tiny pair of towers, clustered support sets, a dataset on disk in CoOp's layout."""

from __future__ import annotations

from carryover.bench.host import processor  # noqa: F401  # before torch is loaded: it chooses the mode of MKL

# isort: split
import json
import signal
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import bits
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image

from carryover import datasets
from carryover.bench.backbones import archs, loading
from carryover.bench.backbones.archs import Arch
from carryover.bench.engine.session import Options, Session
from carryover.datasets import coop_format
from carryover.datasets.base import Dataset, Split
from carryover.methods import discover, ordered
from carryover.methods.base import METHODS, Classes, Shape, Support

WIDTH = DIM = 32
IMAGE_SIZE = 32
NAMES = ("cat", "red double decker bus", "aeroplane", "boeing 737-800")
TEMPLATES = ("a photo of a {}.",)

torch.set_num_threads(1)  # tiny tensors: threads only wait for one another, and sums would depend on the machine


def pytest_addoption(parser):
    parser.addoption(
        "--plugin-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="folder with method files of your own; the contract tests then run on them too (repeatable)",
    )
    parser.addoption(
        "--full-size", action="store_true", help="also load the ViT-L/14 pair (about 6 GB of memory, 4 GB of disk)"
    )


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script, and so in its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    bits.forced()
    discover(tuple(config.getoption("--plugin-dir")))


def pytest_generate_tests(metafunc):
    """``method_name`` stands for each registered method, the user's included."""
    if "method_name" in metafunc.fixturenames:
        metafunc.parametrize("method_name", ordered())


def text_config(**more):
    return {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 3, **more}


def tiny_model(seed, quick_gelu, **text):
    """A two-layer ViT and a three-layer text tower with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = {"image_size": IMAGE_SIZE, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
        model = open_clip.CustomTextCLIP(DIM, vision, text_config(**text), quick_gelu=quick_gelu)
        # At open_clip's initial scale a tiny tower gives all names nearly the same feature; spread them.
        for block in model.text.transformer.resblocks:
            for weight in (
                block.attn.in_proj_weight,
                block.attn.out_proj.weight,
                block.mlp.c_fc.weight,
                block.mlp.c_proj.weight,
            ):
                torch.nn.init.normal_(weight, std=0.15)
        torch.nn.init.normal_(model.text.token_embedding.weight, std=0.1)
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=IMAGE_SIZE)))  # create_model does so
    return model


def tiny_pair():
    """Two models like CLIP and its update: QuickGELU to GELU, text weights perturbed, joint space made anew."""
    base, new = tiny_model(0, True), tiny_model(1, False)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for name, value in base.text.named_parameters():
            if name != "text_projection":
                noise = torch.randn_like(value) * 0.05 * (value.std() if value.numel() > 1 else 1)
                new.text.get_parameter(name).copy_(value + noise)
        new.logit_scale.fill_(3.0)
    return base, new


def wrap(model, name, activation):
    tower = archs.Tower(name, "", activation, WIDTH, DIM)
    return loading.Backbone(model, tower, open_clip.get_tokenizer("ViT-B-32"))


@pytest.fixture(scope="session")
def tiny():
    """``tiny.base`` and ``tiny.new``: wrapped tiny towers. Nothing may change them."""
    base, new = tiny_pair()
    return SimpleNamespace(base=wrap(base, "tiny-base", "quick_gelu"), new=wrap(new, "tiny-new", "gelu"))


@pytest.fixture(scope="session")
def classes():
    return Classes("toy", NAMES, TEMPLATES)


def make_support(count=4, dim=DIM, shots=6, views=3, val=4, noise=0.4, seed=0):
    """Features clustered by class; views are the features with a little noise."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, dim, generator=g)

    def sample(per_class):
        labels = torch.arange(count).repeat_interleave(per_class)
        return 3 * (centres[labels] + noise * torch.randn(len(labels), dim, generator=g)), labels

    features, labels = sample(shots)
    jitter = 0.1 * torch.randn(views, *features.shape, generator=g)
    return Support(features, labels, features + jitter, *sample(val))


def pixels_of(labels, seed=0):
    """Preprocessed pictures (N, 3, H, H) tinted by class, for the tiny towers; the seed draws what lies on the tint."""
    g = torch.Generator().manual_seed(0)
    tints = 2 * torch.randn(int(labels.max()) + 1, 3, 1, 1, generator=g)
    g = g if seed == 0 else torch.Generator().manual_seed(seed)
    coarse = torch.randn(len(labels), 3, 4, 4, generator=g)
    return tints[labels] + torch.nn.functional.interpolate(coarse, (IMAGE_SIZE, IMAGE_SIZE))


def support_for(needs):
    """A support set whose views are what a method with these ``needs`` is trained on."""
    made = make_support()
    if needs != "pixels":
        return made
    return replace(made, views=torch.stack([pixels_of(made.labels, seed) for seed in range(3)]))


def views_of(support, count):
    """(N, V, D): the support images and noisy views of them, as test images."""
    g = torch.Generator().manual_seed(1)
    noise = 0.5 * torch.randn(len(support.labels), count, support.features.shape[-1], generator=g)
    noise[:, 0] = 0
    return support.features[:, None] + noise


@pytest.fixture(scope="session")
def support():
    return make_support()


def short(name, **changes):
    """The method's default config with a schedule of seconds; changes it does not know are left out."""
    config = METHODS[name].Config()
    known = {field.name for field in fields(config)}
    values = {
        "steps": 0,
        "epochs": min(config.epochs, 12),
        "batch": 8,
        "warmup_epochs": 1,
        "search_steps": 2,
        "max_iter": 60,
    }
    return replace(config, **{k: v for k, v in {**values, **changes}.items() if k in known})


def make(name, classnames=NAMES, support=24, seed=0, width=WIDTH, dim=DIM, config=None, **changes):
    """A fresh method whose initial values depend on ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = Shape(width, dim, tuple(classnames), support, text_layers=3, image_layers=2, image_width=48)
        return METHODS[name](config or short(name, **changes), shape)


# ---- a session on the tiny pair --------------------------------------------------------------------------------------


def pictures(part, per_class, poisoned=False):
    labels = np.arange(len(NAMES) * per_class) % len(NAMES)

    def read(indices):
        found = [
            picture(np.random.default_rng([ord(part[0]), i]), int(labels[i]), (IMAGE_SIZE, IMAGE_SIZE)) for i in indices
        ]
        return [image.point(lambda value: 255 - value) for image in found] if poisoned else found

    shown = (labels + 1) % len(NAMES) if poisoned else labels
    return Split(tuple(f"{part}/{i}" for i in range(len(labels))), shown.astype(np.int64), read)


@pytest.fixture
def session_on(monkeypatch, tiny, tmp_path):
    """``session_on(name, poisoned, **options)``: a Session of the tiny pair on a toy dataset, with its own folders."""

    def open_session(name, poisoned=False, **options):
        data = Dataset(
            "toy", "Toy", NAMES, TEMPLATES, pictures("train", 6), pictures("val", 5), pictures("test", 4, poisoned)
        )
        monkeypatch.setattr(datasets, "load", lambda id, root="", **_: data)
        towers = SimpleNamespace(base=tiny.base, new=tiny.new)
        monkeypatch.setattr(loading, "load", lambda tower, *rest: getattr(towers, tower.model.split("-")[1]))
        arch = Arch("tiny", tiny.base.tower, tiny.new.tower)
        return Session(Options(arch, "cpu", str(tmp_path / name), str(tmp_path / name / "cache"), **options))

    return open_session


# ---- a dataset on disk -----------------------------------------------------------------------------------------------

CALTECH = coop_format.LAYOUTS["caltech101"]
FOLDER, IMAGES, SPLIT = "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"
ON_DISK = ("face", "water_lilly", "accordion", "wild_cat")  # neither alphabetical nor free of underscores


def picture(rng, label, size=(40, 36)):
    """Coarse noise tinted by the class."""
    tint = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 60), (60, 180, 180)])[label % 5]
    noise = rng.integers(-50, 50, (6, 6, 3))
    return Image.fromarray((tint + noise).clip(0, 255).astype(np.uint8)).resize(size, Image.BILINEAR)


def write_caltech(root, per_class=(6, 5, 4), names=ON_DISK, seed=0):
    """A stand-in for Caltech101 in CoOp's layout: ``per_class`` train, val and test pictures."""
    rng = np.random.default_rng(seed)
    lists = {}
    for part, count in zip(("train", "val", "test"), per_class, strict=True):
        rows = []
        for label, name in enumerate(names):
            for i in range(count):
                ending = "png" if i % 3 == 2 else "jpg"
                path = f"{name}/{part}_{i:04d}.{ending}"
                file = root / FOLDER / IMAGES / path
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(rng, label).save(file)
                rows.append([path, label, name])
        # Not grouped by class, as in the published files.
        lists[part] = [rows[i] for i in rng.permutation(len(rows))]
    write_split(root, lists)
    return lists


def write_split(root, lists):
    (root / FOLDER / SPLIT).write_text(json.dumps(lists))


@pytest.fixture
def caltech(tmp_path):
    """(data root, split lists) of a small stand-in for Caltech101 that the test may damage."""
    root = tmp_path / "data"
    return root, write_caltech(root)


@pytest.fixture(scope="session")
def caltech_readonly(tmp_path_factory):
    root = tmp_path_factory.mktemp("caltech")
    return root, write_caltech(root)


@pytest.fixture
def clean_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(METHODS, "entries", dict(METHODS.entries))
