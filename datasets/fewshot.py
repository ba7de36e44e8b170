"""Few-shot subsets: for a seed, the very images that CoOp's own sampling draws (Dassl's ``generate_fewshot_dataset``).

Classes are visited in the order in which they first appear in the split's list, each drawing ``random.sample`` from one
generator seeded once; the validation subset follows from the same generator with ``min(shots, 4)``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence, Set

from carryover.datasets.base import Split

VAL_SHOTS = 4


def draw(train: Split, val: Split, shots: int, seed: int, given: Sequence[int] | None = None) -> tuple[Split, Split]:
    """(support, few-shot validation). A class with fewer images than asked for gives all it has. Where ``val`` is
    ``train`` itself (ImageNet has no other), validation is drawn from what the support set leaves. ``given`` are
    indices of ``train`` that take the place of the drawn support set; validation is drawn as ever."""
    generator = random.Random(seed)
    drawn = subset(train, shots, generator)
    support = drawn if given is None else list(given)
    validation = subset(val, min(shots, VAL_SHOTS), generator, set(support) if val is train else set())
    return train.take(support), val.take(validation)


def subset(split: Split, shots: int, generator: random.Random, without: Set[int] = frozenset()) -> list[int]:
    """Indices of the pictures drawn."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(split.labels.tolist()):
        if index not in without:
            members.setdefault(label, []).append(index)
    chosen: list[int] = []
    for indices in members.values():
        chosen += generator.sample(indices, shots) if len(indices) >= shots else indices
    return chosen
