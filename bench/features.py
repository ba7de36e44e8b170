"""Feature store and view bank: each picture, and each augmented view of it, is encoded once for all methods.

A feature file's identity is everything that can change it: weights, architecture and activation (the backbone's
fingerprint), preprocessing, decoder, numeric type, the split's manifest, the view recipe and its seed. It is hashed
into the file's name and repeated in its header.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import PIL
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from bench.backbones import Backbone
from bench.errors import UserError
from bench.seeds import derive
from bench.store import canonical, read_tensors, write_tensors
from datasets.base import Split

FEATURES_VERSION = 1  # raised whenever a change of this module changes features, so that older files are not read
RATIO = (3 / 4, 4 / 3)  # aspect ratios of RandomResizedCrop, torchvision's and CoOp's default
FLIP = 0.5


class FeatureStore:
    """Features of one backbone, on disk under ``cache`` and in memory for the splits in use.

    ``batch`` pictures are encoded at a time; ``precision`` "bf16" runs the image tower under autocast.
    """

    def __init__(
        self,
        cache: str | Path,
        backbone: Backbone,
        precision: str = "fp32",
        batch: int = 128,
        progress: Callable[[str, int, int], None] | None = None,
    ):
        self.cache, self.backbone, self.precision, self.batch = Path(cache), backbone, precision, batch
        self.progress = progress or (lambda what, done, total: None)
        self.memory: dict[str, Tensor] = {}

    def features(self, split: Split, classnames: tuple[str, ...]) -> Tensor:
        """Test-transform features (N, D), fp32, not normalised."""
        return self._get(
            {"recipe": "test"},
            split,
            classnames,
            lambda: self._encode(split, range(len(split)), lambda i, image: self.backbone.preprocess(image)),
        )

    def stored(self, split: Split, classnames: tuple[str, ...]) -> Tensor | None:
        """What ``features`` gives, or None where that would have to encode."""
        name, identity = self._name({"recipe": "test"}, split, classnames)
        path = self.cache / f"{name}.safetensors"
        if name in self.memory or not path.exists():
            return self.memory.get(name)
        features = self._read(path, identity)
        return None if features is None else features.to(self.backbone.device)

    def views(
        self, split: Split, classnames: tuple[str, ...], count: int, crop: tuple[float, float], seed: int
    ) -> Tensor:
        """Augmented views (V, N, D): random resized crop of area ``crop``, horizontal flip. ``crop == (1, 1)`` means no
        augmentation: one view, the test transform. View v of a picture depends on (seed, v, its key) alone."""
        if tuple(crop) == (1.0, 1.0):
            return self.features(split, classnames)[None]
        recipe = {"recipe": "view", "crop": list(crop), "ratio": list(RATIO), "flip": FLIP, "seed": seed}
        return torch.stack(
            [
                self._get(
                    {**recipe, "view": v},
                    split,
                    classnames,
                    lambda v=v: self._encode(
                        split,
                        range(len(split)),
                        lambda i, image: self._augment(
                            image, crop, random.Random(derive("view", seed, v, split.keys[i]))
                        ),
                    ),
                )
                for v in range(count)
            ]
        )

    def identity(self, recipe: dict, split: Split, classnames: tuple[str, ...]) -> dict:
        return {
            "backbone": self.backbone.fingerprint,
            "preprocess": asdict(self.backbone.preprocess_config),
            "decoder": f"pillow {PIL.__version__}",
            "precision": self.precision,
            "device": self.backbone.device.type,
            "version": FEATURES_VERSION,
            "content": split.content_sha256(classnames),
            **recipe,
        }

    def _name(self, recipe: dict, split: Split, classnames: tuple[str, ...]) -> tuple[str, str]:
        """(name of the file, identity in its header)"""
        identity = canonical(self.identity(recipe, split, classnames))
        return hashlib.sha256(identity.encode()).hexdigest()[:24], identity

    def _get(self, recipe: dict, split: Split, classnames: tuple[str, ...], make: Callable[[], Tensor]) -> Tensor:
        name, identity = self._name(recipe, split, classnames)
        if name not in self.memory:
            path = self.cache / f"{name}.safetensors"
            features = self._read(path, identity) if path.exists() else None
            if features is None:
                features = make()
                write_tensors(path, {"features": features}, {"identity": identity})
            self.memory[name] = features.to(self.backbone.device)
        return self.memory[name]

    def _read(self, path: Path, identity: str) -> Tensor | None:
        """The stored features; None, with a warning, where the file is damaged, for it can be made again."""
        try:
            tensors, header = read_tensors(path)
        except UserError as error:
            logging.warning("%s: made again", error)
            return None
        if header.get("identity") != identity:
            raise UserError(
                f"feature file '{path}' is of another identity; delete it. Found {header.get('identity')}, "
                f"expected {identity}"
            )
        return tensors["features"]

    def _encode(self, split: Split, indices: Iterable[int], transform: Callable[[int, Image.Image], Tensor]) -> Tensor:
        """Decode in threads, a few batches ahead of the tower."""
        indices = list(indices)
        batches = [indices[i : i + self.batch] for i in range(0, len(indices), self.batch)]

        def prepare(chosen: list[int]) -> Tensor:
            return torch.stack([transform(i, image) for i, image in zip(chosen, split.read(chosen), strict=True)])

        rows = []
        with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
            for pixels in ahead(pool, prepare, batches, 4):
                rows.append(self._forward(pixels))
                self.progress("encoding", sum(map(len, rows)), len(indices))
        return torch.cat(rows) if rows else torch.zeros(0, self.backbone.dim)

    def _forward(self, pixels: Tensor) -> Tensor:
        device = self.backbone.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.backbone.encode_images(pixels).float().cpu()

    def _augment(self, image: Image.Image, crop: tuple[float, float], rng: random.Random) -> Tensor:
        config = self.backbone.preprocess_config
        size = config.size if isinstance(config.size, (tuple, list)) else (config.size, config.size)
        top, left, height, width = crop_box(*image.size[::-1], crop, rng)
        image = TF.resized_crop(image, top, left, height, width, list(size), TF.InterpolationMode.BICUBIC)
        if rng.random() < FLIP:
            image = TF.hflip(image)
        return TF.normalize(TF.to_tensor(image), config.mean, config.std)


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


def ahead(pool: ThreadPoolExecutor, work: Callable, items: list, depth: int) -> Iterator:
    """``map`` in order that keeps at most ``depth`` results waiting."""
    waiting = [pool.submit(work, item) for item in items[:depth]]
    for item in items[depth:]:
        result = waiting.pop(0).result()
        waiting.append(pool.submit(work, item))
        yield result
    for future in waiting:
        yield future.result()
