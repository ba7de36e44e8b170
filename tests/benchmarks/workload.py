"""What the benchmarks share: towers of random weights, class names, methods at their published options, the clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from carryover.bench.backbones import archs, loading
from carryover.bench.host.device import device_name
from carryover.bench.seeds import derive
from carryover.bench.training.generators import generator
from carryover.methods import discover
from carryover.methods.base import METHODS, Classes, Method, Shape

# The class names of Caltech101 as CoOp's split has them: 61 of one token, 31 of two, 8 of three.
CALTECH = tuple(
    """face, leopard, motorbike, accordion, airplane, anchor, ant, barrel, bass, beaver, binocular, bonsai, brain,
    brontosaurus, buddha, butterfly, camera, cannon, car side, ceiling fan, cellphone, chair, chandelier, cougar body,
    cougar face, crab, crayfish, crocodile, crocodile head, cup, dalmatian, dollar bill, dolphin, dragonfly, electric
    guitar, elephant, emu, euphonium, ewer, ferry, flamingo, flamingo head, garfield, gerenuk, gramophone, grand piano,
    hawksbill, headphone, hedgehog, helicopter, ibis, inline skate, joshua tree, kangaroo, ketch, lamp, laptop, llama,
    lobster, lotus, mandolin, mayfly, menorah, metronome, minaret, nautilus, octopus, okapi, pagoda, panda, pigeon,
    pizza, platypus, pyramid, revolver, rhino, rooster, saxophone, schooner, scissors, scorpion, sea horse, snoopy,
    soccer ball, stapler, starfish, stegosaurus, stop sign, strawberry, sunflower, tick, trilobite, umbrella, watch,
    water lilly, wheelchair, wild cat, windsor chair, wrench, yin yang""".replace("\n    ", " ").split(", ")
)
TEMPLATES = ("a photo of a {}.",)
VIT_B16 = "ViT-B-16-quickgelu"


def caltech(count: int = 100) -> Classes:
    return Classes("caltech101", CALTECH[:count], TEMPLATES)


def imagenet(count: int = 1000) -> Classes:
    """The first of ImageNet's names in a fixed random order, so that any count has the same mix of lengths."""
    names = list(IMAGENET_CLASSNAMES)
    random.Random(0).shuffle(names)
    return Classes("imagenet", tuple(names[:count]), TEMPLATES)


def random_backbone(
    model: str = VIT_B16, device: str = "cpu", precision: str = "fp32", budget: int = 4 << 30, seed: int = 0
) -> loading.Backbone:
    """A backbone of that open_clip model with random weights: nothing is downloaded, and work takes as long."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as `backbones.load`
    tower = loading.resolve(archs.Tower(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("benchmark", "weights", seed))
        network = loading.build(model)
    return loading.Backbone(network.to(device), tower, loading.tokenizer(model), budget, precision)


def make(id: str, backbone: loading.Backbone, classes: Classes, seed: int = 0, **changes) -> Method:
    """The method at its default options but ``changes`` (those it knows), bound to the backbone."""
    discover()
    config = METHODS[id].Config()
    if "context_length" in changes and hasattr(config, "initial_words"):
        changes.setdefault("initial_words", "")
    config = replace(config, **{name: value for name, value in changes.items() if hasattr(config, name)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("benchmark", "method", id, seed))
        method = METHODS[id](config, Shape.of(backbone, classes.names, 16 * len(classes)))
    method.to(backbone.device).bind(backbone, classes)
    return method


def pictures(backbone: loading.Backbone, count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels (count, 3, H, H) and labels (count,)."""
    size = backbone.preprocess_config.size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    draw = generator("benchmark", "pixels", count)
    pixels, labels = torch.randn(count, 3, height, width, generator=draw), torch.arange(count) % classes
    return pixels.to(backbone.device), labels.to(backbone.device)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """On the clock, with the device idle before and done after."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def machine(backbone: loading.Backbone) -> str:
    """One line: what the numbers were measured on."""
    device = device_name(backbone.device)
    return f"{device}, torch {torch.__version__}, {backbone.label} with random weights, {backbone.text.precision}"
