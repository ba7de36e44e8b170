"""The layers of a head in somebody's file: which tensors are weights and biases, how they lie, and in which order.

Letters: D width of the features, C outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from carryover.bench.errors import UserError, quoted
from carryover.bench.imports.base import Foreign
from carryover.bench.plugins.head_names import is_bias

WEIGHTS = ("weight", "coef_", "kernel", "coefs_", "coefs")
BIASES = {"weight": "bias", "coef_": "intercept_", "kernel": "bias", "coefs_": "intercepts_", "coefs": "intercepts"}
MEANS, VARIANCES, DEVIATIONS = ("mean", "mean_"), ("variance", "var", "var_"), ("std", "scale_")
LABELS = "classes_"
# Attributes of scikit-learn's models that say how they were fitted, and of layers that count batches.
PASSED_OVER = ("n_iter_", "n_features_in_", "n_samples_seen_", "feature_names_in_", "C_", "alpha_", "l1_ratio_")
NAMED = (*MEANS, *VARIANCES, *DEVIATIONS, LABELS, *PASSED_OVER, "num_batches_tracked")
NO_WEIGHTS = ("ctx",)  # a context of prompts
PLACE = re.compile(r"(?:^|\.)(\d+)\.[^.\d]+$")  # 0.weight, layers.0.weight; fc1.weight is none
MOST = 24  # layers of a stack
PARTS = re.compile(r"(?:weight_[gv]|\.original[01])$")  # of a matrix that weight norm keeps as length and direction
NEAR_ONE = 0.02  # how far from 1 the mean square of lengths of 1 may be, by its statistics
LEFT, ODD = 0.5, 0.02  # what must be left of that 1 where entries are odd, and the share of these at most
SMALLEST = 1e-10  # added to deviations, as LAION's heads do


@dataclass(frozen=True)
class Layer:
    """weight (out, in), bias (out,) or None. ``position``: its place in ``nn.Sequential``, as its name has it, or None;
    ``turned``: whether the file holds the weight the other way."""

    name: str
    weight: Tensor
    bias: Tensor | None
    position: int | None = None
    turned: bool = False


@dataclass(frozen=True)
class Stack:
    """What a file holds of a head. ``sure``: whether names or sizes say that weights are (out, in); ``mean`` and
    ``deviation`` (D,) of a standardisation before it; ``labels``: scikit-learn's classes_."""

    layers: list[Layer]
    sure: bool
    mean: Tensor | None = None
    deviation: Tensor | None = None
    labels: list[Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """C; where weights may lie either way 1 stands for one, and any other number for several."""
        weight = self.layers[-1].weight
        return len(weight) if self.sure else min(weight.shape)

    @property
    def names(self) -> list[str] | None:
        """Class names that the file itself holds."""
        return self.labels if self.labels and all(isinstance(one, str) for one in self.labels) else None

    @property
    def unit(self) -> bool:
        """Whether the statistics of its features show that these were of length 1: |mean|² + the sum of variances is
        then 1. Of CLIP's features as they are it is about 100. Numbers that no entry of such a row has are left out
        (LAION's statistics hold a few); what they stood for is then missing of the 1."""
        if self.mean is None or self.deviation is None:
            return False
        variance = self.deviation.square()
        usual = (self.mean.abs() <= 1) & (variance <= 1)
        total = float((self.mean.square() + variance)[usual].sum())
        least = 1 - NEAR_ONE if bool(usual.all()) else LEFT
        return least <= total <= 1 + NEAR_ONE and float((~usual).float().mean()) <= ODD


def known(file: Foreign) -> Stack:
    """Raises UserError where it is none, as --kind may say that it is one."""
    if (stack := stack_of(file)) is None:
        shown = ", ".join(f"{quoted(name, 60)} {tuple(value.shape)}" for name, value in list(file.tensors.items())[:6])
        raise UserError(
            f"import: '{file.path}' is no head: expected weights of linear layers that fit one another, with or "
            f"without their biases, and nothing else; it holds {shown or 'no tensor'}{beside(file)}"
        )
    return stack


def beside(file: Foreign) -> str:
    """Of a file that is a head but for some tensors, which these are, and what to do."""
    weights = [name for name, value in file.tensors.items() if value.dim() == 2 and not PARTS.search(name)]
    odd = [
        name
        for name, value in file.tensors.items()
        if name not in weights and last(name) not in NAMED and not any(is_bias(name, weight) for weight in weights)
    ]
    if not weights or not odd:
        parts = [name for name in file.tensors if PARTS.search(name)]
        if not parts:
            return ""
        return (
            f". {quoted(parts[0], 60)} is part of a weight that weight norm keeps in two: take it away "
            "(torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm) and save the head again"
        )
    if stack_of(replace(file, tensors={name: file.tensors[name] for name in file.tensors if name not in odd})) is None:
        return ""
    return (
        f". It would be a head but for {', '.join(quoted(name, 60) for name in odd[:4])}, by name no bias of a weight "
        "(bias, intercept_, b): save a bias under such a name, and work all else into the layers"
    )


def stack_of(file: Foreign) -> Stack | None:
    """None where there is more or less than the layers of one head."""
    left, notes, labels = {}, [], file.plain.get(LABELS)
    for name, value in file.tensors.items():
        if last(name) == LABELS:
            labels = value.flatten().tolist()
        elif last(name) in PASSED_OVER or last(name) == "num_batches_tracked":
            notes.append(f"passed over: {name}")
        elif not value.is_floating_point() and value.numel() > 1:
            return None
        else:
            left[name] = value
    mean, deviation = (taken(left, names) for names in (MEANS, DEVIATIONS))
    variance = taken(left, VARIANCES)
    if deviation is None and variance is not None:
        deviation = variance.clamp(min=0).sqrt() + SMALLEST
        deviation[variance <= 0] = 1.0
    if (mean is None) != (deviation is None):
        return None
    if labels is not None and not isinstance(labels, list):
        labels = None
    layers = single(left) or several(left)
    if layers is None:
        return None
    found, sure = layers
    if mean is not None and deviation is not None:
        width = {found[0].weight.shape[1]} if sure else set(found[0].weight.shape)
        if mean.shape != deviation.shape or mean.dim() != 1 or len(mean) not in width:
            return None
    return Stack(found, sure, mean, deviation, labels, notes)


def last(name: str) -> str:
    return name.rpartition(".")[2]


def taken(left: dict[str, Tensor], names: Sequence[str]) -> Tensor | None:
    """The tensor of that last name, out of ``left``, in float64."""
    found = [name for name in left if last(name) in names]
    return left.pop(found[0]).double() if len(found) == 1 else None


def single(left: dict[str, Tensor]) -> tuple[list[Layer], bool] | None:
    """One weight, of whatever name, and perhaps the bias of its outputs."""
    wide = {name: value for name, value in left.items() if value.dim() == 2}
    if not wide:  # a regressor of one target: scikit-learn keeps it flat
        wide = {name: value[None] for name, value in left.items() if value.dim() == 1 and last(name) in WEIGHTS}
    if len(wide) != 1:
        return None
    name, weight = next(iter(wide.items()))
    rest = [other for other in left if other != name]
    if len(rest) > 1 or last(name) in NO_WEIGHTS or PARTS.search(name) or "lora" in name.lower():
        return None
    if rest and (left[rest[0]].dim() > 1 or not is_bias(rest[0], name)):
        return None
    weight = weight.double()
    sure = left[name].dim() == 1 or (last(name) in WEIGHTS[:2] and weight.shape[0] == weight.shape[1])
    if not rest:
        return [Layer(name, weight, None)], sure
    bias = left[rest[0]].double().flatten()
    if len(bias) == 1 and float(bias) == 0:  # scikit-learn's, where none was fitted
        return [Layer(name, weight, None)], sure
    if len(bias) == len(weight):
        return [Layer(name, weight, bias)], len(bias) != weight.shape[1] or sure
    return ([Layer(name, weight.T, bias, turned=True)], True) if len(bias) == weight.shape[1] else None


def several(left: dict[str, Tensor]) -> tuple[list[Layer], bool] | None:
    """Numbered layers that fit one another. An adapter, which ends in the width that it begins with, is no head."""
    layers, used = [], set()
    for name in sorted(left, key=natural):
        if left[name].dim() != 2:
            continue
        own = next((part for part in (*WEIGHTS, "") if part and part in name), "")
        if not own or PARTS.search(name) or "lora" in name.lower():
            return None
        bias = BIASES[own].join(name.rsplit(own, 1))
        used |= {name, bias}
        place = PLACE.search(name)
        given = left[bias].double().flatten() if bias in left else None
        layers.append(Layer(name, left[name].double(), given, int(place[1]) if place else None))
    if not 2 <= len(layers) <= MOST or set(left) - used:
        return None
    numbered = len({re.sub(r"\d+", "#", layer.name) for layer in layers}) == 1
    layers = layers if numbered else [replace(layer, position=None) for layer in layers]
    turned = [replace(layer, weight=layer.weight.T, turned=True) for layer in layers]
    for lying in (layers, turned):
        chains = orders(lying) if not numbered else [lying] if fits(lying) else []
        if len(chains) == 1:
            ends = len(chains[0][-1].weight), chains[0][0].weight.shape[1]
            return None if ends[0] == ends[1] else (chains[0], True)
    return None


def orders(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The orders in which layers fit one another, two at most: names that are no numbers tell none, sizes may."""
    found: list[list[Layer]] = []

    def grow(chain: list[Layer], left: list[Layer]) -> None:
        if len(found) > 1:
            return
        if not left:
            found.append(chain)
        for layer in left:
            if fits([*chain[-1:], layer]):
                grow([*chain, layer], [one for one in left if one is not layer])

    grow([], list(layers))
    return found


def fits(layers: Sequence[Layer]) -> bool:
    inner = all(len(one.weight) == other.weight.shape[1] for one, other in zip(layers, layers[1:], strict=False))
    return inner and all(layer.bias is None or len(layer.bias) == len(layer.weight) for layer in layers)


def natural(name: str) -> list[tuple[int, int | str]]:
    """Numbers in a name by their size."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]


def bias_of(layer: Layer) -> Tensor:
    return torch.zeros(len(layer.weight), dtype=layer.weight.dtype) if layer.bias is None else layer.bias
