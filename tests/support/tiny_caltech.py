"""Caltech101 in CoOp's layout with a few small pictures."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from carryover.datasets import coop_format

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
