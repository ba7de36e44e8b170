"""Methods with schedules of seconds, and clustered support sets for them."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from tiny_towers import DIM, IMAGE_SIZE, NAMES, WIDTH
from torch import nn

from carryover.methods.base import METHODS, Shape, Support


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


def bound(name, backbone, classes, spread=0.3, **changes):
    """A method of this backbone's shape with every parameter drawn anew, so that nothing is zero."""
    config = replace(METHODS[name].Config(), **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        method = METHODS[name](config, Shape.of(backbone, classes.names, 24))
        for value in method.parameters():
            nn.init.normal_(value, std=spread)
    method.bind(backbone, classes)
    return method
