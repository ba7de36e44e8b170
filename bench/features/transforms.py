"""From a decoded picture to the pixels of a tower: the test transform and augmented views.

Each is cut in two where open_clip's transform makes a tensor. The first half (crop, resize, flip) runs on a Pillow
picture wherever it was decoded; what travels are its bytes, a quarter of the tensor's. The second half gives each byte
a value that depends on its channel alone, so a table of open_clip's own values, read on the tower's device, gives the
same bits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, ToTensor

from carryover.bench.seeds import derive

RATIO = (3 / 4, 4 / 3)  # aspect ratios of RandomResizedCrop, torchvision's and CoOp's default
FLIP = 0.5


@dataclass(frozen=True)
class Plain:
    """The test transform; ``steps`` are open_clip's own, up to where they make a tensor."""

    steps: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        return self.steps(image)


@dataclass(frozen=True)
class View:
    """Random resized crop of area ``crop`` and horizontal flip, given by (seed, number, the picture's key) alone."""

    size: tuple[int, int]
    crop: tuple[float, float]
    seed: int
    number: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        rng = random.Random(derive("view", self.seed, self.number, key))
        top, left, height, width = crop_box(*image.size[::-1], self.crop, rng)
        image = TF.resized_crop(image, top, left, height, width, list(self.size), TF.InterpolationMode.BICUBIC)
        return TF.hflip(image) if rng.random() < FLIP else image


Recipe = Plain | View


def halves(transform: Compose) -> tuple[Compose, Compose]:
    """open_clip's transform as (picture to picture, picture to tensor)."""
    steps = transform.transforms
    cut = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor))
    return Compose(steps[:cut]), Compose(steps[cut:])


def value_table(to_tensor: Compose) -> Tensor:
    """(3, 256): the value that each byte of each channel becomes."""
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return to_tensor(Image.fromarray(ramp))[:, 0]


def look_up(pictures: Tensor, table: Tensor) -> Tensor:
    """Bytes (B, H, H, 3) -> normalised pixels (B, 3, H, H), on the device where both are."""
    return torch.stack([table[channel][pictures[..., channel].long()] for channel in range(3)], 1)


def crop_box(height: int, width: int, area: tuple[float, float], rng: random.Random) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop, as torchvision's RandomResizedCrop draws it: ten tries at an
    area and a log-uniform aspect ratio that fit, then the largest centre crop within the ratios."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    if width / height < RATIO[0]:
        w, h = width, round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w, h = round(height * RATIO[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w
