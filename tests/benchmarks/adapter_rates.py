"""CLIP-Adapter at CoOp's rate and with rate and ratio chosen, on features of real backbones and pictures.

    python -m tests.benchmarks.adapter_rates --features FOLDER [--seeds 1 2 3]

FOLDER as for `benchmarks.real_features`. The files hold no class texts of these pictures, so class means stand in for
them: on the old backbone (ViT-B/32) of pictures that are neither trained nor validated on, on the new one (ViT-B/16) of
every second test picture, which are then not scored. So Base and New are those of a zero-shot classifier better than
texts give. There are no augmented views. DTD has no training pictures: 16 a class are drawn from its validation split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.real_features import CALTECH, DTD, LENGTH, VALIDATION, class_means, loaded, table, told
from carryover.bench.stats.learning_curves import end_share, still_falling
from carryover.bench.training.trainer import fit
from carryover.methods import discover
from carryover.methods.base import METHODS, Classes, Method, Shape, Support

SHOTS = 16
ROWS: dict[str, dict[str, Any]] = {
    "CoOp's rate, r = 0.2": {"search": False},
    "ten times, r = 0.2": {"lr": 0.02, "ratio": 0.2},
    "chosen": {},
}


def drawn(labels: Tensor, seed: int, *counts: int) -> list[Tensor]:
    """Of each class so many pictures, one index tensor a count, then the rest."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(counts) + 1)]
    for one in labels.unique():
        own = (labels == one).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        for part, found in zip(parts, own.split([*counts, len(own) - sum(counts)]), strict=True):
            part.append(found)
    return [torch.cat(part) for part in parts]


def task(arrays: dict[str, Tensor], seed: int) -> tuple[Support, Tensor]:
    """The few-shot pictures of the old backbone, and its class means of the others."""
    x, y = LENGTH * F.normalize(arrays["old_val"], dim=-1), arrays["val_label"].long()
    if "old_train_16shot" in arrays:
        train, labels = LENGTH * F.normalize(arrays["old_train_16shot"], dim=-1), arrays["train_label"].long()
        val, rest = drawn(y, seed, VALIDATION)
    else:
        few, val, rest = drawn(y, seed, SHOTS, VALIDATION)
        train, labels = x[few], y[few]
    means = class_means(Support(x[rest], y[rest], x[None], x, y))
    return Support(train, labels, train[None], x[val], y[val]), means


def backbone_of(texts: Tensor) -> Any:
    return SimpleNamespace(device=texts.device, scale=torch.tensor(100.0), zero_shot=lambda _: texts)


def accuracy(method: Method, x: Tensor, labels: Tensor) -> float:
    return 100 * float((method.predict(x).argmax(1) == labels).float().mean())


def measured(name: str, arrays: dict[str, Tensor], seeds: list[int]) -> list[list[str]]:
    old, new = LENGTH * F.normalize(arrays["old_test"], dim=-1), arrays["new_test"]
    labels, every = arrays["label"].long(), torch.arange(len(arrays["label"]))
    kept, scored = every[every % 2 == 1], every[every % 2 == 0]
    new_texts = class_means(Support(new[kept], labels[kept], new[None], new, labels))
    kind, width, rows = METHODS["clip-adapter"], old.shape[1], []
    for label, options in ROWS.items():
        found: dict[str, list[float]] = {"zero base": [], "zero new": [], "base": [], "new": [], "share": []}
        chosen, ends, marked = [], [], 0
        for seed in seeds:
            support, texts = task(arrays, seed)
            names = tuple(f"class {c}" for c in range(len(texts)))
            config = kind.Config(**{**kind.published(name, SHOTS), **options})
            torch.manual_seed(seed)
            method = kind(config, Shape(width, width, names, len(support.labels)))
            classes = Classes(name, names, ("{}",))
            method.bind(backbone_of(texts), classes)
            curve = fit(method, support, torch.Generator().manual_seed(seed))
            for side, x, of, own in (("base", old, texts, every), ("new", new, new_texts, scored)):
                method.bind(backbone_of(of), classes)
                found[side].append(accuracy(method, x[own], labels[own]))
                right = (F.normalize(x[own], dim=-1) @ of.T).argmax(1) == labels[own]
                found[f"zero {side}"].append(100 * float(right.float().mean()))
            found["share"].append(end_share(curve)[0])
            ends.append(f"{curve[0]['loss']:.2f} to {curve[-1]['loss']:.2f}")
            chosen.append(f"{method.chosen['lr']:g} / {method.chosen['ratio']:g}")
            marked += still_falling(curve)
        shown = [told(values, 2 if side == "share" else 1) for side, values in found.items()]
        rows.append([name, label, "; ".join(dict.fromkeys(chosen)), ends[0], *shown, f"{marked} of {len(seeds)}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    torch.set_num_threads(1)
    discover()
    head = ["set", "rate and ratio", "taken", "loss, first seed", "zero-shot Base", "zero-shot New", "Base", "New"]
    rows = [row for name in (CALTECH, DTD) for row in measured(name, loaded(args.features, name), args.seeds)]
    print(table([*head, "share of the fall at the end", "marked"], rows))


if __name__ == "__main__":
    main()
