"""Maps between real CLIP backbones: what plug-ins trained on one are worth on another, through ``bench.ports.maps``.

    python -m tests.benchmarks.real_features --features FOLDER --heads FOLDER [--draws 10] [--threads 1] [--out FILE]

FOLDER of features (``.npz``, none comes with the project): caltech101_new50 (50 classes; old ViT-B/32, unit length,
training, validation and test pictures; new ViT-B/16, test pictures), dtd (both backbones, test pictures) and
coco133_text (class texts of four towers). FOLDER of heads: LAION's aesthetic predictors for both backbones. Anchors are
test pictures whose labels are not read; plug-ins are scored on pictures that are no anchors. Prints Markdown tables:
mean and standard deviation over the draws of the anchors.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.ports.maps import Linear, Map, Procrustes
from carryover.bench.training.trainer import fit
from carryover.methods import discover
from carryover.methods.base import METHODS, Classes, Shape, Support
from carryover.methods.linear_probe import logistic_regression

CALTECH, DTD, TEXTS = "caltech101_new50", "dtd", "coco133_text"
LENGTH = 10.0  # of CLIP's features before they are normalised: what methods are trained on
KINDS = {"Procrustes": Procrustes, "Procrustes, scale by fit": partial(Procrustes, scale="fit"), "Linear": Linear}
PLUGINS = ("linear-probe", "taskres", "clip-adapter")
CALTECH_COUNTS, DTD_COUNTS = (64, 256, 458), (64, 256, 1000, 1692)
FEW = (16, *CALTECH_COUNTS)  # anchors beside a map of the other dataset
VALIDATION = 4  # pictures a class
RETRAINED_C = 0.1  # of the logistic regression on half of the new features
NOTE = """TaskRes and CLIP-Adapter stand on class means of the 16-shot features instead of class texts, which the files
do not hold; on the new backbone there is no such classifier, so "unchanged" keeps the old one. R² is of held-out
anchors, worked out without a label."""


@dataclass(frozen=True)
class Sides:
    """The same pictures on both backbones: old (N, 512) at ``LENGTH``, new (N, 512) as it comes."""

    old: Tensor
    new: Tensor
    labels: Tensor


def loaded(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key].astype(np.float32)) for key in file.files}


def sides(arrays: dict[str, Tensor]) -> Sides:
    return Sides(LENGTH * F.normalize(arrays["old_test"], dim=-1), arrays["new_test"], arrays["label"].long())


def support_of(arrays: dict[str, Tensor]) -> Support:
    features, labels = LENGTH * F.normalize(arrays["old_train_16shot"], dim=-1), arrays["train_label"].long()
    val_labels = arrays["val_label"].long()
    few = torch.cat([(val_labels == c).nonzero().flatten()[:VALIDATION] for c in labels.unique()])
    val = LENGTH * F.normalize(arrays["old_val"], dim=-1)
    return Support(features, labels, features[None], val[few], val_labels[few])


def class_means(support: Support) -> Tensor:
    """(C, D), of unit length."""
    means = [support.features[support.labels == c].mean(0) for c in support.labels.unique()]
    return F.normalize(torch.stack(means), dim=-1)


def trained(id: str, support: Support) -> Any:
    """The suite's method with its published recipe, on a backbone that has class means for texts."""
    means = class_means(support)
    names = tuple(f"class {c}" for c in range(len(means)))
    backbone: Any = SimpleNamespace(device=torch.device("cpu"), scale=torch.tensor(100.0), zero_shot=lambda _: means)
    backbone.text = SimpleNamespace(encode_texts=lambda texts: means[: len(texts)])
    kind, width = METHODS[id], support.features.shape[1]
    config = kind.Config(**kind.published("caltech101", 16))
    torch.manual_seed(0)
    method = kind(config, Shape(width, width, names, len(support.labels)))
    method.bind(backbone, Classes("caltech101", names, ("{}",)))
    fit(method, support, torch.Generator().manual_seed(0))
    return method.eval()


def accuracy(plugin: Any, x: Tensor, labels: Tensor) -> float:
    return 100 * float((plugin.predict(x).argmax(1) == labels).float().mean())


def drawn(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def told(values: list[float], digits: int = 1) -> str:
    row = torch.tensor(values, dtype=torch.float64)
    spread = f" ± {row.std():.{digits}f}" if len(values) > 1 else ""
    return f"{row.mean():.{digits}f}{spread}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def ported(plugins: dict[str, Any], maps: list[tuple[Map, Tensor]], target: Sides) -> list[str]:
    """R² of the maps; accuracy of each plug-in through each map, on the rows beside it."""
    cells = [told([one.score_ for one, _ in maps], 2)]
    for plugin in plugins.values():
        cells.append(told([accuracy(plugin, one.transform(target.new[on]), target.labels[on]) for one, on in maps]))
    return cells


def plug_ins(folder: Path, draws: int) -> str:
    caltech, dtd = loaded(folder, CALTECH), sides(loaded(folder, DTD))
    target, support = sides(caltech), support_of(caltech)
    plugins = {id: trained(id, support) for id in PLUGINS}
    everything = torch.arange(len(target.labels))
    means = class_means(support)
    plain = SimpleNamespace(predict=lambda x: F.normalize(x, dim=-1) @ means.T)
    rows = [
        ["at home", "", "", *[told([accuracy(p, target.old, target.labels)]) for p in plugins.values()]],
        ["unchanged", "", "", *[told([accuracy(p, target.new, target.labels)]) for p in plugins.values()]],
        ["class means alone, at home", "", "", told([accuracy(plain, target.old, target.labels)]), "", ""],
        ["retrained on half of the new pictures", str(len(everything) // 2), "", retrained(target, draws), "", ""],
    ]

    def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
        order = drawn(len(everything), seed)
        return order[:count], order[count:]

    for name, kind in KINDS.items():
        for count in CALTECH_COUNTS:
            parts = [split(count, seed) for seed in range(draws)]
            maps = [(kind().fit(target.old[some], target.new[some]), rest) for some, rest in parts]
            rows.append([f"{name}, Caltech101", str(count), *ported(plugins, maps, target)])
        for count in DTD_COUNTS:
            few = range(draws if count < len(dtd.labels) else 1)
            some = [drawn(len(dtd.labels), seed)[:count] for seed in few]
            maps = [(kind().fit(dtd.old[one], dtd.new[one]), everything) for one in some]
            rows.append([f"{name}, DTD", str(count), *ported(plugins, maps, target)])
    general = Procrustes().fit(dtd.old, dtd.new)
    for count in FEW:
        parts = [split(count, seed) for seed in range(draws)]
        beside = partial(Procrustes, prior=general, prior_strength=None)
        maps = [(beside().fit(target.old[some], target.new[some]), rest) for some, rest in parts]
        rows.append(["Procrustes, Caltech101; prior: DTD's", str(count), *ported(plugins, maps, target)])
    head = ["on ViT-B/16", "anchors", "R²", *[METHODS[id].name for id in PLUGINS]]
    return table(head, rows) + "\n" + NOTE + "\n"


def retrained(target: Sides, draws: int) -> str:
    """Linear probe on half of the labelled new pictures, scored on the others."""
    found = []
    for seed in range(draws):
        order = drawn(len(target.labels), seed)
        some, rest = order[: len(order) // 2], order[len(order) // 2 :]
        weight, bias = logistic_regression(
            target.new[some], target.labels[some], int(target.labels.max()) + 1, RETRAINED_C, 300
        )
        found.append(
            100 * float((F.linear(target.new[rest], weight, bias).argmax(1) == target.labels[rest]).float().mean())
        )
    return told(found)


def texts(folder: Path, draws: int) -> str:
    """Maps fitted on half of the names: how many of the others find themselves among the others, and their cosine to
    themselves, both sides less the means of the first half."""
    towers, rows = loaded(folder, TEXTS), []
    pairs = [("clip_b16", "eva02_b16"), ("clip_l14_336", "eva02_l14_336"), ("clip_l14_336", "clip_b16")]
    for source, goal in pairs:
        new, old = towers[source], towers[goal]
        for name, kind in (("Procrustes", Procrustes), ("Linear", Linear)):
            found, near, whole, fits = [], [], [], []
            for seed in range(draws):
                order = drawn(len(new), seed)
                some, rest = order[: len(order) // 2], order[len(order) // 2 :]
                one = kind().fit(old[some], new[some])
                mapped = F.normalize(one.transform(new[rest]) - one.mean_old, dim=-1)
                cosines = mapped @ F.normalize(old[rest] - one.mean_old, dim=-1).T
                found.append(100 * float((cosines.argmax(1) == torch.arange(len(rest))).float().mean()))
                near.append(float(cosines.diag().mean()))
                whole.append(float(F.cosine_similarity(one.transform(new[rest]), old[rest]).mean()))
                fits.append(one.score_)
            rows.append([f"{source} → {goal}", name, told(fits, 2), told(found), told(near, 2), told(whole, 2)])
    return table(["texts", "map", "R²", "find themselves, %", "cosine less means", "cosine"], rows)


def aesthetics(folder: Path, heads: Path, draws: int) -> str:
    """Pearson correlation of scores on the new backbone with the old head's own on the old one."""
    old_head, new_head = (
        torch.load(heads / f"sa_0_4_vit_b_{size}_linear.pth", weights_only=True, map_location="cpu")
        for size in (32, 16)
    )
    sets = {name: sides(loaded(folder, name)) for name in (CALTECH, DTD)}

    def score(head: dict[str, Tensor], x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), head["weight"].float(), head["bias"].float())[:, 0]

    def alike(name: str, rows: Tensor, scores: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([score(old_head, sets[name].old[rows]), scores]))[0, 1])

    every = {name: torch.arange(len(one.labels)) for name, one in sets.items()}
    rows = [
        [what, *[told([alike(name, every[name], score(head, sets[name].new))], 2) for name in sets]]
        for what, head in (("old head, unchanged", old_head), ("LAION's own for the new backbone", new_head))
    ]
    for kind_name, kind in (("Procrustes", Procrustes), ("Linear", Linear)):
        for what, size in (("half of the set", None), ("64 pictures of the set", 64)):
            cells = []
            for name, one in sets.items():
                values = []
                for seed in range(draws):
                    order = drawn(len(one.labels), seed)
                    count = size or len(order) // 2
                    some, rest = order[:count], order[count:]
                    fitted = kind().fit(one.old[some], one.new[some])
                    values.append(alike(name, rest, score(old_head, fitted.transform(one.new[rest]))))
                cells.append(told(values, 2))
            rows.append([f"old head, {kind_name}, {what}", *cells])
        cells = []
        for name, other in ((CALTECH, DTD), (DTD, CALTECH)):
            fitted = kind().fit(sets[other].old, sets[other].new)
            cells.append(told([alike(name, every[name], score(old_head, fitted.transform(sets[name].new)))], 2))
        rows.append([f"old head, {kind_name}, all of the other set", *cells])
    return table(["LAION's aesthetic head on ViT-B/16", "Caltech101", "DTD"], rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--heads", type=Path, help="leave out the aesthetic head without it")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a Markdown file beside what is printed")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    discover()
    start, parts = time.perf_counter(), []
    makes = [lambda: plug_ins(given.features, given.draws), lambda: texts(given.features, given.draws)]
    if given.heads:
        makes.append(lambda: aesthetics(given.features, given.heads, given.draws))
    for make in makes:
        parts.append(make())
        print(parts[-1], flush=True)
    print(f"{given.draws} draws, {given.threads} threads, {time.perf_counter() - start:.0f} s")
    if given.out:
        given.out.write_text("\n".join(parts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
