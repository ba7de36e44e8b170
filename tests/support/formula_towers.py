"""Towers, pictures and updates made by a formula, so that numbers made elsewhere with the authors' code can be
compared: no generator of random numbers, which a library may change, stands between the two."""

from __future__ import annotations

import open_clip
import torch
from tiny_towers import DIM, NAMES, text_config

SPREAD = {"ln_": 0.1, "embedding": 0.1, "bias": 0.1}  # of a parameter by a word in its name; else 0.15


def values(count, number):
    """(count,) in -1 to 1, without pattern; another series for each number."""
    x = torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + 78.233 * (number + 1)) * 43758.5453
    return 2 * (x - x.floor()) - 1


def formula_model(number, width=48, size=32, layers=2, quick_gelu=False, **text):
    """A two-layer ViT of patches of 8 and a three-layer text tower."""
    vision = {"image_size": size, "layers": layers, "width": width, "head_width": 16, "patch_size": 8}
    model = open_clip.CustomTextCLIP(DIM, vision, text_config(**text), quick_gelu=quick_gelu)
    with torch.no_grad():
        for index, (name, value) in enumerate(model.named_parameters()):
            spread = next((spread for word, spread in SPREAD.items() if word in name), 0.15)
            own = spread * values(value.numel(), 1000 * number + index).view(value.shape)
            value.copy_(own + ("ln_" in name and name.endswith("weight")))
        model.logit_scale.fill_(2.5)
    return model.eval()


def formula_pixels(count, size=32):
    """(count, 3, size, size): the same pictures at every size."""
    coarse = 2 * values(count * 3 * 24 * 24, 7).view(count, 3, 24, 24)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False).float()


def formula_factors(layers, width, rank=2):
    """A (L, 3, r, W) and B (L, 3, W, r)."""
    down = values(layers * 3 * rank * width, 11).view(layers, 3, rank, width)
    up = values(layers * 3 * width * rank, 12).view(layers, 3, width, rank)
    return 0.3 * down.float(), 0.3 * up.float()


def formula_labels(count):
    return torch.arange(count) % len(NAMES)
