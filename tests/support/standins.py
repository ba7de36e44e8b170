"""Stand-in data roots: all fifteen datasets of the paper in their published layout, with tiny pictures.

Each ``write_*`` makes one dataset under a data root by its documented rule and returns what a reader must find. The
class names here are written out from the sets' documentation, not taken from the readers. Pictures are hard links to a
few 8 x 8 files, so that a thousand class folders take a moment and no space.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carryover import datasets
from carryover.bench.errors import UserError
from carryover.bench.plan.settings import Settings
from carryover.methods import Registered

# id: (folder, image folder, split file, path of a picture as in that set's split file, class names as in the file)
SPLIT_FILE_SETS = {
    "caltech101": (
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        "{folder}/image_{n:04}.jpg",
        {"Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike", "accordion": "accordion", "ant": "ant"},
    ),
    "oxford_pets": (
        "oxford_pets",
        "images",
        "split_zhou_OxfordPets.json",
        "{folder}_{n}.jpg",
        {"Abyssinian": "abyssinian", "american_bulldog": "american_bulldog", "Birman": "birman"},
    ),
    "stanford_cars": (
        "stanford_cars",
        ".",
        "split_zhou_StanfordCars.json",
        "cars_{part}/{k:05}.jpg",
        {"1": "2000 AM General Hummer SUV", "2": "2012 Tesla Model S Sedan", "3": "2012 Ram C/V Cargo Van Minivan"},
    ),
    "flowers102": (
        "oxford_flowers",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        "image_{k:05}.jpg",
        {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "bird of paradise"},
    ),
    "food101": (
        "food-101",
        "images",
        "split_zhou_Food101.json",
        "{folder}/{n:07}.jpg",
        {"apple_pie": "apple_pie", "baby_back_ribs": "baby_back_ribs", "baklava": "baklava"},
    ),
    "sun397": (
        "sun397",
        "SUN397",
        "split_zhou_SUN397.json",
        "{folder}/sun_{n:08}.jpg",
        {"a/abbey": "abbey", "a/apse/indoor": "indoor apse", "a/athletic_field/outdoor": "outdoor athletic_field"},
    ),
    "dtd": (
        "dtd",
        "images",
        "split_zhou_DescribableTextures.json",
        "{folder}/{folder}_{n:04}.jpg",
        {"banded": "banded", "blotchy": "blotchy", "cobwebbed": "cobwebbed"},
    ),
    "eurosat": (
        "eurosat",
        "2750",
        "split_zhou_EuroSAT.json",
        "{folder}/{folder}_{n}.jpg",
        {"AnnualCrop": "Annual Crop Land", "Forest": "Forest", "SeaLake": "Sea or Lake"},
    ),
    "ucf101": (
        "ucf101",
        "UCF-101-midframes",
        "split_zhou_UCF101.json",
        "{folder}/v_x_g{n:02}.jpg",
        {"Apply_Eye_Makeup": "Apply_Eye_Makeup", "Baby_Crawling": "Baby_Crawling", "Yo_Yo": "Yo_Yo"},
    ),
}
VARIANTS = ("707-320", "F-16A/B", "737-200", "BAE 146-200", "F/A-18")  # in no sorted order; "/" as in the real list
OOD_FOLDERS = {
    "imagenet_v2": ("imagenetv2", "imagenetv2-matched-frequency-format-val"),
    "imagenet_sketch": ("imagenet-sketch", "images"),
    "imagenet_a": ("imagenet-adversarial", "imagenet-a"),
    "imagenet_r": ("imagenet-rendition", "imagenet-r"),
}


class Pictures:
    """Puts a tiny picture at a path: one of three files by ``kind``, linked where the file system can."""

    def __init__(self, folder: Path):
        self.files = []
        for kind, colour in enumerate(((200, 40, 40), (40, 200, 40), (40, 40, 200))):
            self.files.append(folder / f".picture{kind}.jpg")
            self.files[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(self.files[-1])

    def put(self, path: Path, kind: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.files[kind % 3], path)
        except OSError:
            path.write_bytes(self.files[kind % 3].read_bytes())


def write_split_file_set(id: str, root: Path, counts=(6, 5, 4), seed: int = 0) -> dict[str, list]:
    """One of the nine sets that a split file describes, ``counts`` pictures a class in train, val and test, in mixed
    order. Returns the lists of the split file."""
    folder, images, split, pattern, classes = SPLIT_FILE_SETS[id]
    pictures, rng = Pictures(root), np.random.default_rng(seed)
    lists, k = {}, 0
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        rows = []
        for label, (name, classname) in enumerate(classes.items()):
            for n in range(count):
                k += 1
                official = "test" if part == "test" else "train"
                path = pattern.format(folder=name, n=("train", "val", "test").index(part) * 100 + n, part=official, k=k)
                pictures.put(root / folder / images / path, label)
                rows.append([path, label, classname])
        lists[part] = [rows[i] for i in rng.permutation(len(rows))]
    (root / folder / split).write_text(json.dumps(lists))
    return lists


def write_fgvc(root: Path, counts=(5, 4, 3)) -> dict[str, list[tuple[str, str]]]:
    """FGVCAircraft from its official lists. Returns [(picture, variant)] of each part."""
    folder, pictures, number, made = root / "fgvc_aircraft", Pictures(root), 1000000, {}
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        made[part] = []
        for _ in range(count):
            for label, variant in enumerate(reversed(VARIANTS)):
                number += 7
                pictures.put(folder / "images" / f"{number}.jpg", label)
                made[part].append((str(number), variant))
        text = "".join(f"{image} {variant}\n" for image, variant in made[part])
        (folder / f"images_variant_{part}.txt").write_text(text)
    (folder / "variants.txt").write_text("".join(f"{variant}\n" for variant in VARIANTS))
    return made


def write_imagenet(root: Path, wnids, train: int = 3, val: int = 1) -> None:
    """ImageNet: ``train`` and ``val`` pictures in the folder of each wnid, with the loose files that are about."""
    pictures, images = Pictures(root), root / "imagenet" / "images"
    for kind, wnid in enumerate(wnids):
        for n in range(train):
            pictures.put(images / "train" / wnid / f"{wnid}_{n}.JPEG", kind)
        for n in range(val):
            pictures.put(images / "val" / wnid / f"ILSVRC2012_val_{kind * val + n:08}.JPEG", kind)
    (images / "val" / ".DS_Store").write_bytes(b"x")


def write_ood(id: str, root: Path, folders, count: int = 1) -> None:
    """One of the out-of-distribution sets: ``count`` pictures in each class folder, and a README.txt among these."""
    folder, images = OOD_FOLDERS[id]
    pictures = Pictures(root)
    for kind, name in enumerate(folders):
        for n in range(count):
            pictures.put(root / folder / images / name / f"{n}.jpg", kind)
    (root / folder / images / "README.txt").write_text("about")


def write_folder(path: Path, classes, count: int = 10, parts=("",)) -> None:
    """A user's folder: ``count`` pictures in PATH/[part/]class."""
    pictures = Pictures(path.parent)
    for part in parts:
        for kind, name in enumerate(classes):
            for n in range(count):
                pictures.put(path / part / name / f"{n}.jpg", kind)


# ---- what the tests of datasets share --------------------------------------------------------------------------------

SETTINGS = {
    "settings": Settings(shots=1, protocol="micro", precision="fp32", views=1, limit=None, methods=Registered()),
    "suites_": ["main"],
    "methods": ["zs-clip"],
    "seeds": [1],
}


def all_wnids():
    """ImageNet's 1000 wnids, sorted."""
    from timm.data import ImageNetInfo

    return sorted(ImageNetInfo().label_names())


def refusal(id, root="", **more):
    """The one line with which loading is refused."""
    with pytest.raises(UserError) as caught:
        datasets.load(id, str(root), **more)
    line = str(caught.value)
    assert "\n" not in line and id in line, line
    return line


def rows_of(split):
    return list(zip(split.keys, split.labels.tolist(), strict=True))


def per_class(split):
    return sorted(Counter(split.labels.tolist()).items())


def coop_draw(rows, shots, seed=None):
    """CoOp's sampling, written from its description with python's global generator."""
    if seed is not None:
        random.seed(seed)
    classes = {}
    for row in rows:
        classes.setdefault(row[1], []).append(row)
    return [row for members in classes.values() for row in random.sample(members, min(shots, len(members)))]
