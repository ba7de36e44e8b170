"""Where the files of the paper's fifteen datasets come from, what is in them, and what no program can fetch.

Addresses: KaiyangZhou/CoOp, DATASETS.md, and for links that died since, the place that the named project moved to.
Sizes and SHA-256: TensorFlow Datasets' ``url_checksums/*.txt`` and ``datasets/*/checksums.tsv``; MD5: torchvision's
``datasets/eurosat.py``; SHA-256 of four split files: taken from the published files. They are of the very file at the
address (or of what stood there before it died). For FGVCAircraft no checksum is used: the published SHA-256 stands
beside another size than the file at its address has (it may be of the archive without its gzip layer). Where nothing is
published, the size that the server states is checked, and the counts of the paper's Table 1 tell the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from carryover.datasets.layouts import HENDRYCKS, LAYOUTS

DRIVE = "https://drive.google.com/file/d/"
VGG = "https://www.robots.ox.ac.uk/~vgg/data"
HUB = "https://huggingface.co/datasets"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
REPACKED = f"{HUB}/zhengli97/prompt_learning_dataset"  # of the PromptKD authors


@dataclass(frozen=True)
class Source:
    """One file to fetch.

    name     file name in the download folder, on a mirror too; empty for what comes in no one file
    url      its address; a page on Google Drive stands for the file behind it
    gives    pairs (path in the archive, path under the dataset's folder); the first is "" for a file that is no archive
    size     bytes; None where not published
    digest   "sha256:…" or "md5:…"; empty where not published
    inner    the archive inside the archive that holds the paths of ``gives``
    extra    only ``--make-split`` reads it: the dataset is ready without
    by_hand  why no program can fetch it, and where else it is; empty where one can
    """

    name: str
    url: str
    gives: tuple[tuple[str, str], ...]
    size: int | None = None
    digest: str = ""
    inner: str = ""
    extra: bool = False
    by_hand: str = ""

    @property
    def archive(self) -> bool:
        return self.name.endswith(ARCHIVES)

    @property
    def address(self) -> str:
        """What a program opens: Google Drive's download address, which asks no question about large files."""
        if self.url.startswith(DRIVE):
            file = self.url.removeprefix(DRIVE).split("/")[0]
            return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"
        return self.url


def same(*paths: str) -> tuple[tuple[str, str], ...]:
    return tuple((path, path) for path in paths)


def below(folder: str, *paths: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{folder}/{path}", path) for path in paths)


def plain(name: str, url: str, **more) -> Source:
    return Source(name, url, (("", name),), **more)


# SHA-256, taken from the published split files; the other five were not at hand.
SPLITS = {
    "caltech101": "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5",
    "oxford_pets": "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e",
    "dtd": "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38",
    "eurosat": "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2",
}


def split_of(id: str) -> Source:
    return plain(LAYOUTS[id].split, LAYOUTS[id].source, digest=f"sha256:{SPLITS[id]}" if id in SPLITS else "")


DEAD_SUN = "the address is dead (pytorch/vision issue 9348)"
DEAD_CARS = "the address is dead (pytorch/vision issue 7545)"
CARS = "https://ai.stanford.edu/~jkrause"
SUN = "https://vision.princeton.edu/projects/2010/SUN"

SOURCES: dict[str, tuple[Source, ...]] = {
    "imagenet": (
        Source(
            "",
            "https://image-net.org/download-images.php",
            (("", "images/train"), ("", "images/val")),
            by_hand="register there and accept the terms; take ILSVRC2012's training and validation images, one folder "
            "a wnid (n01440764, …) in both",
        ),
    ),
    "caltech101": (
        split_of("caltech101"),
        Source(
            "caltech-101.zip",
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            same("101_ObjectCategories"),
            137414764,
            "sha256:331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
            inner="caltech-101/101_ObjectCategories.tar.gz",
        ),
    ),
    "oxford_pets": (
        split_of("oxford_pets"),
        Source(
            "images.tar.gz",
            f"{VGG}/pets/data/images.tar.gz",
            same("images"),
            791918971,
            "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
        Source(
            "annotations.tar.gz",
            f"{VGG}/pets/data/annotations.tar.gz",
            same("annotations"),
            19173078,
            "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            extra=True,
        ),
    ),
    "stanford_cars": (
        split_of("stanford_cars"),
        Source(
            "cars_train.tgz",
            f"{CARS}/car196/cars_train.tgz",
            same("cars_train"),
            979269282,
            "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            by_hand=f"{DEAD_CARS}; stanford_cars.zip of {REPACKED} holds cars_train and cars_test",
        ),
        Source(
            "cars_test.tgz",
            f"{CARS}/car196/cars_test.tgz",
            same("cars_test"),
            977350468,
            "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            by_hand=f"{DEAD_CARS}; see cars_train.tgz",
        ),
        Source(
            "car_devkit.tgz",
            f"{CARS}/cars/car_devkit.tgz",
            same("devkit"),
            330960,
            "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
            extra=True,
            by_hand=DEAD_CARS,
        ),
        plain(
            "cars_test_annos_withlabels.mat",
            f"{CARS}/car196/cars_test_annos_withlabels.mat",
            size=185758,
            digest="sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
            extra=True,
            by_hand=DEAD_CARS,
        ),
    ),
    "flowers102": (
        split_of("flowers102"),
        Source(
            "102flowers.tgz",
            f"{VGG}/flowers/102/102flowers.tgz",
            same("jpg"),
            344862509,
            "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        ),
        plain(
            "imagelabels.mat",
            f"{VGG}/flowers/102/imagelabels.mat",
            size=502,
            digest="sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            extra=True,
        ),
        plain("cat_to_name.json", f"{DRIVE}1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0/view", extra=True),
    ),
    "food101": (
        split_of("food101"),
        Source(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            below("food-101", "images", "meta"),
            4996278331,
            "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
        ),
    ),
    "fgvc_aircraft": (
        Source(
            "fgvc-aircraft-2013b.tar.gz",
            LAYOUTS["fgvc_aircraft"].source,
            below(
                "fgvc-aircraft-2013b/data",
                "images",
                "variants.txt",
                *(f"images_variant_{part}.txt" for part in ("train", "val", "test")),
            ),
            2753340328,  # as several public download scripts state it
        ),
    ),
    "sun397": (
        split_of("sun397"),
        Source(
            "SUN397.tar.gz",
            f"{SUN}/SUN397.tar.gz",
            same("SUN397"),
            39077296924,
            "sha256:f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
            by_hand=f"{DEAD_SUN}; copies: https://opendatalab.com/OpenDataLab/SUN397, or sun397.zip of {REPACKED}",
        ),
        Source(
            "Partitions.zip",
            f"{SUN}/download/Partitions.zip",
            same("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
            18293705,
            "sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9",
            extra=True,
            by_hand=DEAD_SUN,
        ),
    ),
    "dtd": (
        split_of("dtd"),
        Source(
            "dtd-r1.0.1.tar.gz",
            f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",
            below("dtd", "images", "imdb", "labels"),
            625239812,
            "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        ),
    ),
    "eurosat": (
        split_of("eurosat"),
        Source(
            "EuroSAT.zip",
            f"{HUB}/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            same("2750"),
            digest="md5:c8fa014336c82ac7804f0398fcb19387",
        ),
    ),
    "ucf101": (
        split_of("ucf101"),
        Source("UCF-101-midframes.zip", f"{DRIVE}10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view", same("UCF-101-midframes")),
    ),
    "imagenet_v2": (
        Source(
            "imagenetv2-matched-frequency.tar.gz",
            f"{HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
            same("imagenetv2-matched-frequency-format-val"),
            1264079360,
            "sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
        ),
    ),
    "imagenet_sketch": (
        Source(
            "ImageNet-Sketch.zip",
            LAYOUTS["imagenet_sketch"].source,
            (("sketch", "images"),),
            7593573012,
            "sha256:4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed",
        ),
    ),
    "imagenet_a": (
        Source(
            "imagenet-a.tar",
            f"{HENDRYCKS}/imagenet-a.tar",
            same("imagenet-a"),
            687552512,
            "sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
        ),
    ),
    "imagenet_r": (
        Source(
            "imagenet-r.tar",
            f"{HENDRYCKS}/imagenet-r.tar",
            same("imagenet-r"),
            2191079936,
            "sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
        ),
    ),
}
