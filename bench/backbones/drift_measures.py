"""The numbers of layer drift: change of parameters, change of features, similarity; all in float64.

Parameters, over all n entries of a group, from ``old`` to ``new``, d = new - old:
    absolute    mean |d|
    relative    mean |d| / mean |old|, never entrywise |d| / |old|, which explodes where a bias is near zero
    norm_ratio  ||d||_2 / ||old||_2, a second reading

Features (N, W), a row for each prompt:
    absolute    mean |d|;  grows with the stream's norm, which grows with depth
    relative    mean over prompts of ||d_i|| / ||old_i||;  norm_ratio is ||d||_F / ||old||_F
    one_minus_cosine    mean over prompts
    cka         debiased linear CKA, blind to rotation and scale: about 0 of unrelated features at any N, so it may be
                below 0; needs 4 prompts
    structure   Pearson correlation of the N (N - 1) / 2 cosines between two prompts, before and after: whether classes
                that were alike still are (representational similarity analysis, Kriegeskorte et al. 2008)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from carryover.bench.backbones.drift_names import MEASURES
from carryover.datasets.base import AVERAGE

KINDS = ("all", "layernorm", "attention", "mlp", "other")  # of a block
LAST = ("ln_final", "projected", "proj")  # registered before the blocks, computed after them

DriftRow = dict[str, Any]


def parameter_rows(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], place: Callable[[str], tuple[str, str]], tower: str
) -> tuple[list[DriftRow], list[str]]:
    """A row for each (layer, kind), and for each block as a whole (kind "all"), whose every tensor has the same name
    and shape on both sides; and notes that count the tensors that have not."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys([*old, *new]):
        layer, kind = place(name)
        groups.setdefault((layer, kind), []).append(name)
        if kind in KINDS[1:] and layer.isdigit():
            groups.setdefault((layer, "all"), []).append(name)
    fit = {name for name in old if name in new and old[name].shape == new[name].shape}
    layers = sorted(dict.fromkeys(layer for layer, _ in groups), key=_turn)
    rank = {kind: number for number, kind in enumerate(KINDS)}
    rows = [
        {"layer": layer, "kind": kind, **parameter_change((old[n], new[n]) for n in groups[layer, kind])}
        for layer, kind in sorted(groups, key=lambda g: (layers.index(g[0]), rank.get(g[1], 0)))
        if fit.issuperset(groups[layer, kind])
    ]
    missing = len(old) - len(fit)
    note = f"{tower} parameters: {missing} of {len(old)} tensors have no counterpart of the same name and shape"
    return rows, [note] if missing else []


def parameter_change(pairs: Iterable[tuple[Tensor, Tensor]]) -> DriftRow:
    """Pooled over all entries of (old, new) pairs of tensors; ``count`` is the number of entries."""
    moved = size = moved_square = size_square = 0.0
    count = 0
    for old, new in pairs:
        old, new = old.detach().cpu().double(), new.detach().cpu().double()
        change = new - old
        moved, size = moved + float(change.abs().sum()), size + float(old.abs().sum())
        moved_square, size_square = moved_square + float(change.square().sum()), size_square + float(old.square().sum())
        count += old.numel()
    norm_ratio = ratio(moved_square**0.5, size_square**0.5)
    return {"absolute": moved / count, "relative": ratio(moved, size), "norm_ratio": norm_ratio, "count": count}


def feature_change(old: Tensor, new: Tensor) -> DriftRow:
    """Of features (N, W) at one layer; ``count`` is N."""
    old, new = old.double(), new.double()
    change = new - old
    # Half the squared chord, not 1 - cosine: exactly 0 for equal features.
    chords = (F.normalize(new, dim=1) - F.normalize(old, dim=1)).square().sum(1) / 2
    return {
        "absolute": float(change.abs().mean()),
        "relative": float((change.norm(dim=1) / old.norm(dim=1)).mean()),
        "norm_ratio": ratio(float(change.norm()), float(old.norm())),
        "one_minus_cosine": float(chords.mean()),
        "cka": debiased_cka(old, new),
        "structure": structure(old, new),
        "count": len(old),
    }


def similarities(old: Tensor, new: Tensor) -> DriftRow:
    """Of features (N, W) and (N, V) of other widths or depths, whose differences say nothing."""
    found = {"cka": debiased_cka(old, new), "structure": structure(old, new), "count": len(old)}
    return {**dict.fromkeys(MEASURES), **found}


def debiased_cka(x: Tensor, y: Tensor) -> float | None:
    """Linear CKA of (N, W) and (N, V) (Kornblith et al. 2019) from the unbiased estimator of HSIC (Song et al. 2012, as
    Nguyen et al. 2021 take it). With the usual, biased one, unrelated features are alike wherever N is not far above W.

    None under 4 rows, and where centring leaves nothing of a side: its rows are the same (layer 0 at EOT where all
    prompts have one length), or all but one, or all at one distance.
    """
    if len(x) < 4:
        return None
    sides = []
    for features in (x.double(), y.double()):
        gram = u_centred(features - features.mean(0))
        if gram.square().sum() <= 1e-12 * features.square().sum().square():  # below the rounding of fp32 features
            return None
        sides.append(F.normalize(gram.flatten(), dim=0))
    return float(sides[0] @ sides[1])


def u_centred(features: Tensor) -> Tensor:
    """(N, N) inner products of the rows without those of a row with itself, so centred that each row sums to 0 (Szekely
    and Rizzo 2014). The mean of the products of two such matrices over N (N - 3) is the unbiased HSIC."""
    gram = (features @ features.T).fill_diagonal_(0)
    count, sums = len(gram), gram.sum(1)
    centred = gram - (sums[:, None] + sums) / (count - 2) + sums.sum() / ((count - 1) * (count - 2))
    return centred.fill_diagonal_(0)


def structure(x: Tensor, y: Tensor) -> float | None:
    """Correlation of the cosines between the rows of (N, W) and those of (N, V), each pair of rows once. None under 3
    rows, or where all cosines of a side are the same but for rounding."""
    if len(x) < 3:
        return None
    first, second = torch.triu_indices(len(x), len(x), 1)
    sides = []
    for features in (x.double(), y.double()):
        unit = F.normalize(features, dim=1)
        cosines = (unit @ unit.T)[first, second]
        centred = cosines - cosines.mean()
        if centred.abs().max() <= 1e-6:  # the rounding of fp32 features
            return None
        sides.append(F.normalize(centred, dim=0))
    return float(sides[0] @ sides[1])


def ratio(part: float, whole: float) -> float | None:
    return 0.0 if part == 0 else part / whole if whole else None


def average(rows: Sequence[DriftRow]) -> DriftRow:
    """Over datasets; a value that one of them lacks has no average, never one over fewer. ``count``: all prompts."""
    values = {name: [row[name] for row in rows] for name in MEASURES}
    means = {name: None if None in found else sum(found) / len(found) for name, found in values.items()}
    return {"dataset": AVERAGE, **means, "count": sum(row["count"] for row in rows)}


def _turn(layer: str) -> int:
    """Layer 0 first, then as registered, then what is computed after the blocks."""
    return -1 if layer == "0" else 1 + LAST.index(layer) if layer in LAST else 0
