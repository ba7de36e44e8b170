"""Where the paper's fifteen datasets lie under a data root (KaiyangZhou/CoOp, DATASETS.md), and their sizes.

Class, training and test counts are the paper's Table 1; validation counts were taken from the published split files
(None where none was at hand).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carryover.datasets.base import Split


@dataclass(frozen=True)
class Layout:
    """One dataset on disk.

    name     display name in tables
    folder   under the data root; ``images``, ``split`` are relative to it
    images   what the paths of a split are relative to
    split    the published split file; empty where folders or official lists are the split
    source   address of that file, or of the pictures where there is none
    classes, train, val, test   expected counts; None where not known, 0 where there is no such split
    """

    name: str
    folder: str
    images: str
    split: str
    source: str
    classes: int
    train: int | None
    val: int | None
    test: int


def drive(id: str) -> str:
    return f"https://drive.google.com/file/d/{id}/view"


HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
LAYOUTS = {
    "imagenet": Layout(
        "ImageNet", "imagenet", "images", "", "https://image-net.org (register)", 1000, 1281167, None, 50000
    ),
    "caltech101": Layout(
        "Caltech101",
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        drive("1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
        100,
        4128,
        1649,
        2465,
    ),
    "oxford_pets": Layout(
        "OxfordPets",
        "oxford_pets",
        "images",
        "split_zhou_OxfordPets.json",
        drive("1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        37,
        2944,
        736,
        3669,
    ),
    "stanford_cars": Layout(
        "StanfordCars",
        "stanford_cars",
        ".",
        "split_zhou_StanfordCars.json",
        drive("1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
        196,
        6509,
        1635,
        8041,
    ),
    "flowers102": Layout(
        "Flowers102",
        "oxford_flowers",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        drive("1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        102,
        4093,
        1633,
        2463,
    ),
    "food101": Layout(
        "Food101",
        "food-101",
        "images",
        "split_zhou_Food101.json",
        drive("1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        101,
        50500,
        None,
        30300,
    ),
    "fgvc_aircraft": Layout(
        "FGVCAircraft",
        "fgvc_aircraft",
        "images",
        "",
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        100,
        3334,
        3333,
        3333,
    ),
    "sun397": Layout(
        "SUN397",
        "sun397",
        "SUN397",
        "split_zhou_SUN397.json",
        drive("1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
        397,
        15880,
        None,
        19850,
    ),
    "dtd": Layout(
        "DTD",
        "dtd",
        "images",
        "split_zhou_DescribableTextures.json",
        drive("1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
        47,
        2820,
        1128,
        1692,
    ),
    "eurosat": Layout(
        "EuroSAT",
        "eurosat",
        "2750",
        "split_zhou_EuroSAT.json",
        drive("1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        10,
        13500,
        5400,
        8100,
    ),
    "ucf101": Layout(
        "UCF101",
        "ucf101",
        "UCF-101-midframes",
        "split_zhou_UCF101.json",
        drive("1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
        101,
        7639,
        1898,
        3783,
    ),
    "imagenet_v2": Layout(
        "ImageNetV2",
        "imagenetv2",
        "imagenetv2-matched-frequency-format-val",
        "",
        "https://huggingface.co/datasets/vaishaal/ImageNetV2",
        1000,
        0,
        0,
        10000,
    ),
    "imagenet_sketch": Layout(
        "ImageNet-Sketch",
        "imagenet-sketch",
        "images",
        "",
        drive("1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA"),
        1000,
        0,
        0,
        50889,
    ),
    "imagenet_a": Layout(
        "ImageNet-A", "imagenet-adversarial", "imagenet-a", "", f"{HENDRYCKS}/imagenet-a.tar", 200, 0, 0, 7500
    ),
    "imagenet_r": Layout(
        "ImageNet-R", "imagenet-rendition", "imagenet-r", "", f"{HENDRYCKS}/imagenet-r.tar", 200, 0, 0, 30000
    ),
}


def count_notes(layout: Layout, classes: int, splits: Mapping[str, Split]) -> list[str]:
    """What differs from the counts that are known: shown beside the dataset's rows, never an error."""
    table = "the paper's Table 1"
    counts = (
        ("classes", classes, layout.classes, table),
        ("training images", len(splits["train"]), layout.train, table),
        ("validation images", len(splits["val"]), layout.val, "the published split"),
        ("test images", len(splits["test"]), layout.test, table),
    )
    return [
        f"{found} {what}, {expected} in {where}"
        for what, found, expected, where in counts
        if expected is not None and found != expected
    ]
